"""A config's refiner of DEMs, and a user's path to one."""

from __future__ import annotations

from pathlib import Path

from Modules.d3rsmde.dem_refiner import DemRefiner
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.d3rsmde.dem_prior.task import DEM_TASK
from Utils.core.errors import UserError, as_user_error
from Utils.training.checkpoint import load_weights
from Utils.training.checkpointed_network import holds_network, load_network


def holds_dem_refiner(path: Path) -> bool:
    """Whether a path is a run, a model folder or a checkpoint of a refiner of DEMs."""
    return holds_network(path, DemRefiner, DEM_TASK)


def build_dem_refiner(config: DemTrainingConfig) -> DemRefiner:
    """A refiner of DEMs with its first weights: random ones, or ``pretrained_model_path``'s.

    Raises:
        UserError: sizes or weights that do not fit.
    """
    try:
        network = DemRefiner(**config.model.model_dump())
    except ValueError as error:
        raise as_user_error(error) from error
    if config.pretrained_model_path is not None:
        path = Path(config.pretrained_model_path)
        if not path.exists():
            raise UserError(f"pretrained_model_path '{path}' does not exist")
        load_weights(network, load_dem_refiner(path).state_dict(), str(path))
    return network


def load_dem_refiner(path: Path) -> DemRefiner:
    """A refiner of DEMs, ready to predict, from a run folder, a model folder or a checkpoint file.

    Raises:
        UserError: there is none.
    """
    return load_network(path, DemRefiner, DEM_TASK)
