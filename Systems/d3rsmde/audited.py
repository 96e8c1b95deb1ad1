"""The trainings of D³-RSMDE, as an audit of their dataset sees them."""

from __future__ import annotations

from pathlib import Path

from Systems.d3rsmde.config import DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.d3rsmde.dem_prior.run import DemRun, plan_dem
from Systems.d3rsmde.refiner_run import RefinerRun, plan_refiner
from Utils.data.audit.audited_training import AuditedTraining
from Utils.data.fold_plan import plan_folds
from Utils.data.stage_plan import find_tiles


def audited_coarse(config: ViTTrainingConfig) -> AuditedTraining:
    """Stage 1. Its check does not read the tiles again, since the audit has read them."""
    folds = config.k_folds if isinstance(config.k_folds, list) else []
    return AuditedTraining(
        config, lambda tiles: plan_folds(config, tiles), lambda: plan_folds(config, find_tiles(config)), folds
    )


def audited_refiner(config: DiffusionTrainingConfig) -> AuditedTraining:
    """Stage 2, whose check reads every tile a second time."""
    priors = Path(config.prior_path or config.dataset_path)
    return AuditedTraining(
        config, lambda tiles: plan_refiner(config, tiles), RefinerRun(config).check, prior_path=priors
    )


def audited_dem_refiner(config: DemTrainingConfig) -> AuditedTraining:
    """A refiner of DEMs, whose check reads every tile a second time."""
    return AuditedTraining(config, lambda tiles: [plan_dem(config, tiles)], DemRun(config).check)
