"""The keys of trainings whose network draws coarse priors, and of whatever reads or writes priors."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from Utils.config.sections import NotNegative, Section
from Utils.config.training_keys import TrainingConfig


class WithPriors(Section):
    """The key of configs that write or read coarse priors."""

    prior_path: str | None = None
    """Folder of the coarse priors; by default, stage 1 writes them into its own folder, and stage 2 reads them beside
    the tiles or where the dataset's table names them."""


class CrossFittingConfig(TrainingConfig, WithPriors):
    """A training that can be cross-fitted: each fold's network draws the tiles that it never saw."""

    k_folds: NotNegative | list[str] | Literal["table"] = 0
    """Folds for out-of-fold priors: a number, a list of split files, one a fold, or `table`, the column `fold` of the
    dataset's table; 0 = none."""

    @field_validator("k_folds")
    @classmethod
    def _two_folds_at_least(cls, value: int | list[str] | Literal["table"]) -> int | list[str] | Literal["table"]:
        if value == 1 or (isinstance(value, list) and len(value) < 2):
            raise ValueError("cross-fitting needs 2 folds or more (0 for none)")
        return value
