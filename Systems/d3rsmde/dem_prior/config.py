"""The config of ``trainDiffusion.py`` where the prior is a coarse DEM."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from Systems.d3rsmde.config import Widths
from Utils.config.sections import Fraction, NotNegative, Positive, PositiveNumber, Section
from Utils.config.training_keys import TrainingConfig

Factor = Annotated[int, Field(ge=4, le=512, multiple_of=4)]


class GroundSection(Section):
    """One of ``scenes``: true heights, with an image of them or without."""

    height: str
    """A DEM of any kind."""
    image: str | None = None
    """An image of the same ground; it is averaged onto the DEM's grid. Without it only the DEM alone is learnt."""
    bands: list[Positive] | None = None
    """Three bands of the image, or one; by default those that are read everywhere else."""


class DrawsSection(Section):
    """``dem``: how coarse DEMs are made of true heights."""

    factors: Annotated[list[Factor], Field(min_length=1)] = [4, 8, 16]
    """Pixels along a cell, drawn for each tile from those that leave it large enough for a crop."""
    draws: Positive = 4
    """Coarse DEMs of each tile; each is a sample."""
    least_noise: PositiveNumber = 0.003
    """Standard deviation of the DEM's noise in parts of that of the heights, at least: the draw is even in its
    logarithm."""
    most_noise: PositiveNumber = 0.1
    """The same, at most."""
    correlated: Fraction = 0.3
    """Share of the draws whose noise is correlated over a cell."""
    voids: Fraction = 0.3
    """Share of the draws with voids."""
    displaced: Fraction = 0.2
    """Share of the draws whose DEM is shifted by up to a quarter of a cell, and likewise of those that are blurred."""

    @model_validator(mode="after")
    def _least_is_not_more(self) -> DrawsSection:
        if self.least_noise > self.most_noise:
            raise ValueError(f"least_noise {self.least_noise} is more than most_noise {self.most_noise}")
        return self


class RefinerSection(Section):
    """``model``: sizes of the U-Net."""

    block_out_channels: Widths = [48, 64, 96]
    """Channels at each resolution, finest first."""
    layers_per_block: Positive = 1
    """Residual blocks at each resolution."""
    norm_num_groups: Positive = 8
    """Groups of the group norms."""


class DemTrainingConfig(TrainingConfig):
    """``trainDiffusion.py`` with ``"prior": "dem"``: what a coarse DEM leaves open is learnt."""

    known_losses: ClassVar[tuple[str, ...]] = ("DetailLoss",)

    prior: Literal["dem"]
    """`dem`: a coarse DEM is the prior, and predict.py --reference takes the model. Without this key priors are maps of
    stage 1."""
    lr: PositiveNumber = 1e-3
    """Learning rate."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["DetailLoss"]
    """DetailLoss: squared errors of heights and slopes, in standard errors of the DEM alone."""
    crop_size: Annotated[int, Field(ge=32, le=1024, multiple_of=8)] = 96
    """Side of the training crops, in samples of a quarter of a cell."""
    without_image: Fraction = 0.25
    """Share of the training draws that do not see the image."""
    scenes: list[GroundSection] = []
    """Further ground to learn from, beside the tiles of `dataset_path`."""
    synthetic: NotNegative = 0
    """Further scenes of synthetic terrain, so many."""
    dem: DrawsSection = DrawsSection()
    """How coarse DEMs are made of true heights."""
    model: RefinerSection = RefinerSection()
    """Sizes of the U-Net."""
