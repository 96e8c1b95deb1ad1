"""The keys that every evaluation config has, whatever is scored, and those of evaluations of single images."""

from __future__ import annotations

from typing import Literal

from Modules.common.precision import Precision
from Utils.config.sections import NotNegative, Paths, Positive, PositiveNumber
from Utils.config.training_keys import DataConfig

Control = Literal["mean", "mean_map", "plane", "low_pass", "zero", "shading"]


class ScoringConfig(DataConfig):
    """The keys that every evaluation config has."""

    output_dir: str
    """Folder that tables, maps, pictures and the report go to."""
    checkpoint_path: str | None = None
    """What is scored: a run, a model folder or a checkpoint file."""
    test_split_text: Paths | None = None
    """Split file, or several, of the tiles to score; by default all test tiles."""
    map_format: Literal["tif", "npy"] = "tif"
    """Format of the float maps that are written."""
    pictures: NotNegative = 8
    """How many tiles, drawn by the seed, get a picture."""
    precision: Precision = "fp32"
    """Number format: fp32, bf16 or fp16."""


class EvaluationConfig(ScoringConfig):
    """The keys of evaluations of single images."""

    checkpoint_path: str
    """What is scored: a run, a model folder or a checkpoint file."""
    lpips_weights: str | None = None
    """File of torchvision's AlexNet weights; by default the one in torch.hub's cache, and no LPIPS without it."""
    ground_sample_distance: PositiveNumber | None = None
    """Metres a pixel; needed for the slope error."""
    metres_per_unit: PositiveNumber = 1.0
    """Metres that one unit of the height files stands for, for the slope error."""
    controls: list[Control] = []
    """Maps without the image that are scored beside the model's: mean, one value everywhere (that of the training
    tiles, for depth in metres); mean_map, the training tiles' mean by pixel; plane, the one that fits the truth;
    low_pass, the truth's means over cells; zero, everything as high as the summit; shading, brightness along the sun,
    integrated. The last two are for scores of relief, shading for tiles whose tags tell the sun."""
    control_cell: Positive = 16
    """low_pass: pixels along a side of a cell."""
    channels_last: bool = True
    """Whether convolutions keep a pixel's channels together in memory."""
    compile: bool = False
    """Whether torch.compile is used, where it works."""
