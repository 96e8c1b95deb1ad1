"""The keys that every training config has, whatever is trained."""

from __future__ import annotations

import difflib
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from Modules.common.precision import Precision
from Utils.config.sections import (
    MAY_CHANGE,
    OWN_OF_LAUNCH,
    NotNegative,
    NotNegativeNumber,
    Paths,
    Positive,
    PositiveNumber,
    Section,
    Share,
    ShareBelowOne,
)

OptimiserName = Literal["AdamW", "Adam", "RMSprop", "SGD"]
ScheduleName = Literal["plateau", "cosine", "linear", "linear_by_epoch", "polynomial", "multistep", "multistep_by_step"]
# Their rate depends on how long the whole run is.
_SPAN_THE_RUN = ("cosine", "linear", "linear_by_epoch", "polynomial")
# The options of torch.optim's classes that can be set here.
_OPTIMISER_OPTIONS: dict[OptimiserName, tuple[str, ...]] = {
    "AdamW": ("betas", "eps", "amsgrad"),
    "Adam": ("betas", "eps", "amsgrad"),
    "RMSprop": ("alpha", "eps", "momentum", "centered"),
    "SGD": ("momentum", "dampening", "nesterov"),
}


class DataConfig(Section):
    """The keys that every config has."""

    dataset_path: str
    """The dataset: a folder (Dataset/README.md describes its layout), or a table, a CSV (docs/own-data.md)."""
    root: str | None = None
    """Where the paths in a table start; by default its own folder. It replaces the first folders of absolute paths that
    are not there."""
    seed: NotNegative = 42
    """One number from which all random draws follow: splits, order, augmentation, timesteps, first weights."""
    num_workers: Annotated[NotNegative, OWN_OF_LAUNCH] = 0
    """Processes that read tiles beside the main one; 0 reads in the main process."""
    image_full_scale: PositiveNumber | None = None
    """Value of 16-bit images that counts as 1, such as 4095 for 12 bits; by default what files say (NBITS) or 65535."""
    batch_size: Positive = 8
    """Tiles that are computed at once, in all processes together."""


class TrainingConfig(DataConfig):
    """The keys that every training config has.

    Attributes:
        known_losses: the names that ``loss_types`` may hold; each system names its own.
    """

    known_losses: ClassVar[tuple[str, ...]] = ()

    output_dir: Annotated[str | None, MAY_CHANGE] = None
    """Folder of the run; by default output/<kind>/<name of the config file>."""
    epochs: Annotated[Positive, MAY_CHANGE] = 50
    """Passes over the training tiles."""
    max_steps: Annotated[Positive | None, MAY_CHANGE] = None
    """Optimiser steps after which training ends; where it is given, `epochs` does not count."""
    epoch_share: Share = 1.0
    """Share of the training tiles that an epoch uses; each epoch draws its own, from the seed."""
    whole_batches: bool = False
    """Whether an epoch leaves out its last tiles where they make no whole batch; each epoch leaves out others."""
    optimiser: OptimiserName = "AdamW"
    """Which optimiser of torch.optim: AdamW, Adam, RMSprop or SGD."""
    optimiser_options: dict[str, bool | float | list[float]] = {}
    """Further arguments of that optimiser, such as {"amsgrad": true} for Adam or {"momentum": 0.9} for SGD."""
    lr: PositiveNumber
    """Learning rate."""
    weight_decay: NotNegativeNumber = 1e-4
    """Weight decay: decoupled in AdamW, an L2 penalty in the other optimisers."""
    lr_schedule: ScheduleName = "plateau"
    """How `lr` falls: plateau (see `threshold_epoch`), cosine, linear, polynomial, multistep (`lr_milestones`),
    multistep_by_step (the same in optimiser steps), or linear_by_epoch: in a straight line, one level an epoch."""
    threshold_epoch: NotNegative = 5
    """plateau: epochs without a better validation score before `lr` is multiplied by the ratio below; 0 = never."""
    downgrade_lr_ratio: Share = 0.6
    """plateau and multistep: the factor by which `lr` is multiplied."""
    lr_power: PositiveNumber = 0.9
    """polynomial: the exponent of (1 - steps done / all steps)."""
    lr_milestones: list[Positive] = []
    """multistep: epochs after which `lr` is multiplied; multistep_by_step: optimiser steps."""
    warmup_steps: NotNegative = 0
    """Optimiser steps in which the rate rises in a straight line to what the schedule says."""
    loss_types: str | Annotated[list[str], Field(min_length=1)]
    """One loss or a list of losses, which are averaged."""
    accumulate: Positive = 1
    """Batches an optimiser step: the gradient of one large batch in less memory."""
    gradient_clip: PositiveNumber | None = None
    """Largest norm of a step's gradients; longer ones are shortened to it."""
    ema_decay: ShareBelowOne = 0.0
    """Decay of a moving average of the weights, 0 for none; the average is validated, kept as `best` and saved."""
    precision: Precision = "fp32"
    """Number format of activations: fp32, bf16 or fp16. Weights and optimiser stay in fp32; fp16 scales its loss."""
    save_n_epoch: Annotated[NotNegative, MAY_CHANGE] = 0
    """Keep a checkpoint every so many epochs; 0 = none but `last` and `best`."""
    save_i_epoch: Annotated[list[Positive], MAY_CHANGE] = []
    """Keep a checkpoint after each of these epochs."""
    save_minutes: Annotated[NotNegativeNumber, OWN_OF_LAUNCH] = 10.0
    """Minutes after which `last` is saved within an epoch too; 0 = never."""
    validate_every: Annotated[Positive, MAY_CHANGE] = 1
    """Epochs between validations; the last epoch is always validated."""
    cache_gigabytes: Annotated[NotNegativeNumber, OWN_OF_LAUNCH] = 1.0
    """Memory for decoded tiles, in units of 2^30 bytes; workers share it."""
    flips: list[Literal["horizontal", "vertical"]] = []
    """Axes along which tiles are mirrored at random; mirroring moves the sun as well."""
    split_text: Paths | None = None
    """Split file, or several, of the training tiles; by default all tiles of the training part."""
    val_split_text: Paths | None = None
    """Split file, or several, of the validation tiles; by default a seeded tenth of the training tiles."""
    not_split: bool = False
    """Train on all tiles, validate on none; plateau then follows the training loss, and `best` is the last epoch."""
    validate_on: Literal["training", "test"] = "training"
    """`test` validates on the test tiles and so selects by them: only to repeat published numbers."""
    pretrained_model_path: str | None = None
    """First weights: a run, a model folder or a checkpoint."""

    @property
    def losses(self) -> list[str]:
        """``loss_types`` as a list."""
        return [self.loss_types] if isinstance(self.loss_types, str) else self.loss_types

    @property
    def changeable_keys(self) -> frozenset[str]:
        """The keys that may differ from the run's own when it is resumed."""
        length = {"epochs", "max_steps"} if self.lr_schedule in _SPAN_THE_RUN else set()
        return self.keys_that_may_change() - length

    @field_validator("loss_types")
    @classmethod
    def _known_losses(cls, value: str | list[str]) -> str | list[str]:
        for name in [value] if isinstance(value, str) else value:
            if name not in cls.known_losses:
                nearest = difflib.get_close_matches(name, cls.known_losses, n=1, cutoff=0.0)
                meant = f"did you mean '{nearest[0]}'? " if nearest else ""
                raise ValueError(f"unknown loss '{name}'; {meant}(known: {', '.join(cls.known_losses)})")
        return value

    @model_validator(mode="after")
    def _options_of_the_optimiser(self) -> TrainingConfig:
        known = _OPTIMISER_OPTIONS[self.optimiser]
        for name in self.optimiser_options:
            if name not in known:
                raise ValueError(f"optimiser {self.optimiser} has no option '{name}' here; it has {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _milestones_of_multistep(self) -> TrainingConfig:
        if self.lr_schedule.startswith("multistep") != bool(self.lr_milestones):
            raise ValueError("lr_schedule multistep and lr_milestones go together; give both or neither")
        return self
