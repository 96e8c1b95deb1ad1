"""The configs of trainStereo.py and evaluateStereo.py."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from Modules.stereo.names import STEREO_LOSSES, Counting, Fusion, NetworkName, Norm
from Utils.config.evaluation_keys import ScoringConfig
from Utils.config.sections import (
    MAY_CHANGE,
    Fraction,
    NotNegativeNumber,
    Paths,
    Positive,
    PositiveNumber,
    Section,
)
from Utils.config.stereo_keys import Jitter, WithViews
from Utils.config.training_keys import TrainingConfig

Baseline = Literal["constant", "sweep"]
_STAGES = 3


class StereoNetworkSection(Section):
    """``model``: the network."""

    network: NetworkName = "CasMVSNet"
    """CasMVSNet, UCSNet or CasRED."""
    relative_depth: Fusion = "none"
    """none; concatenated: features of relative depth beside those of every image, as published; guided: the reference's
    map, fitted to the estimate of the stage before, centres and guides the next."""
    pretrained: bool = True
    """concatenated: whether the encoder of relative depth starts from timm's pretrained ResNet-18."""
    hypotheses: Annotated[list[Positive], Field(min_length=_STAGES, max_length=_STAGES)] = [64, 32, 8]
    """Depths or heights that each stage tries; multiples of 8, but for CasRED."""
    ratios: Annotated[list[PositiveNumber], Field(min_length=_STAGES, max_length=_STAGES)] = [4.0, 2.0, 1.0]
    """Intervals from one to the next, by stage; the first stage always spans the whole range."""
    base: Positive = 8
    """Channels of the encoder and of the regularisers at the full size."""
    counting: Counting = "all"
    """Which views the variance counts: all, zeros where a source does not see a point, as published; or visible, only
    those that see it."""
    norm: Norm = "batch"
    """batch, as published, or group, which suits batches of one."""
    spread_factor: PositiveNumber = 1.5
    """UCSNet: standard deviations that a stage looks at on each side."""
    least_intervals: NotNegativeNumber = 1.0
    """UCSNet: intervals that it looks at on each side at least; 0 as published, where a range may collapse."""


class StereoTrainingConfig(TrainingConfig, WithViews):
    """``trainStereo.py``."""

    known_losses: ClassVar[tuple[str, ...]] = STEREO_LOSSES

    description: Annotated[str, MAY_CHANGE] = ""
    """A line that says what the config is for; the log begins with it."""
    batch_size: Positive = 1
    """Samples that are computed at once, in all processes together."""
    epochs: Annotated[Positive, MAY_CHANGE] = 30
    """Passes over the training samples."""
    lr: PositiveNumber = 1e-3
    """Learning rate."""
    weight_decay: NotNegativeNumber = 0.0
    """Weight decay: decoupled in AdamW, an L2 penalty in the other optimisers."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["SmoothL1Loss"]
    """SmoothL1Loss (published: squares below 1 m) or L1Loss of each stage's map, CrossEntropyLoss of the scores of its
    hypotheses, or a list to average."""
    stage_weights: Annotated[list[NotNegativeNumber], Field(min_length=_STAGES, max_length=_STAGES)] = [0.5, 1.0, 2.0]
    """Weights of the stages' losses."""
    model: StereoNetworkSection = StereoNetworkSection()
    """The network."""
    recompute: Annotated[bool, MAY_CHANGE] = False
    """Whether the volumes and regularisers are computed again in the backward pass instead of being kept: the same
    gradients in less memory and more time (docs/stereo-networks.md has the numbers)."""
    jitter: Jitter = "none"
    """How colours of each view change at random: none, mild, or published, which is strong."""
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training scenes that is held out for validation."""

    @model_validator(mode="after")
    def _cameras_are_not_mirrored(self) -> StereoTrainingConfig:
        if self.flips:
            raise ValueError("a camera cannot be mirrored: remove flips")
        return self

    @model_validator(mode="after")
    def _weighs_the_last_stage(self) -> StereoTrainingConfig:
        if self.stage_weights[-1] == 0:
            raise ValueError("stage_weights leaves out the last stage, whose map is the result; give it a weight")
        return self

    @model_validator(mode="after")
    def _maps_for_the_fusion(self) -> StereoTrainingConfig:
        wanted, given = self.model.relative_depth != "none", self.relative_depth_folder is not None
        if wanted != given:
            missing = "relative_depth_folder" if wanted else "model.relative_depth"
            there = f"model.relative_depth {self.model.relative_depth}" if wanted else "relative_depth_folder"
            raise ValueError(f"{there} is given without {missing}; give both or neither")
        return self


class StereoEvaluationConfig(ScoringConfig, WithViews):
    """``evaluateStereo.py``. What the network is and needs is known from its folder."""

    description: Annotated[str, MAY_CHANGE] = ""
    """A line that says what the config is for; the log begins with it."""
    batch_size: Positive = 1
    """Samples that are computed at once, in all processes together."""
    checkpoint_path: str | None = None
    """What is scored: a run, a model folder or a checkpoint file. Without it the baselines are scored alone."""
    test_split_text: Paths | None = None
    """Split file, or several, of the samples to score; by default all test samples."""
    baselines: list[Baseline] = ["constant", "sweep"]
    """Methods without weights that are scored beside the network: constant, the median of each image's truth; sweep,
    the best normalised cross-correlation of windows."""
    sweep_window: Annotated[int, Field(ge=3)] = 9
    """sweep: pixels along a side of a window, odd."""
    sweep_planes: Annotated[int, Field(ge=3)] = 128
    """sweep: most depths or heights that are tried; fewer where the range has fewer intervals."""
    least_confidence: Fraction = 0.3
    """From which confidence on an estimate counts as given, in completeness."""
    kinds_of_pixels: bool = True
    """Whether textureless and occluded pixels are scored apart too."""

    @model_validator(mode="after")
    def _something_to_score(self) -> StereoEvaluationConfig:
        if self.checkpoint_path is None and "sweep" not in self.baselines:
            raise ValueError("there is nothing to score: give checkpoint_path, or add sweep to baselines")
        if self.sweep_window % 2 == 0:
            raise ValueError(f"sweep_window {self.sweep_window}: give an odd number of pixels")
        return self
