"""The one place that maps a config's names to stereo networks, and a user's path to one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Modules.stereo.names import STEREO_TASK
from Modules.stereo.networks import StereoNetwork
from Systems.stereo.config import StereoTrainingConfig
from Utils.core.errors import UserError, as_user_error
from Utils.data.stereo.view_files import CameraKind
from Utils.training.checkpointed_network import give_first_weights, is_checkpoint, load_network

logger = logging.getLogger(__name__)


def build_stereo(
    config: StereoTrainingConfig, cameras: CameraKind, interval_parallax: float | None = None
) -> StereoNetwork:
    """The network with its first weights: random ones, or ``pretrained_model_path``'s.

    It remembers the kind of its cameras, and pixels of parallax of an interval, for those who use it elsewhere.

    That path is a run, a model folder or a checkpoint of this project (the whole network) or, with the published fusion
    of relative depth, a file of ResNet-18's weights in timm's layout.

    Raises:
        UserError: a name, option or file that does not fit, or pretrained weights that are not available.
    """
    section = config.model
    fused = section.relative_depth == "concatenated"
    try:
        network = StereoNetwork(
            section.network,
            section.relative_depth,
            hypotheses=section.hypotheses,
            ratios=section.ratios,
            base=section.base,
            counting=section.counting,
            norm=section.norm,
            spread_factor=section.spread_factor,
            least_intervals=section.least_intervals,
            geometry=cameras,
            interval_parallax=interval_parallax,
        )
        given = config.pretrained_model_path
        if given is not None and not fused and Path(given).is_file() and not is_checkpoint(Path(given)):
            raise UserError(f"pretrained_model_path '{given}' is no checkpoint, and this network has no ResNet-18")
        give_first_weights(network, section.pretrained and fused, given, load_stereo)
    except (ValueError, OSError) as error:
        raise as_user_error(error) from error
    return network


def load_stereo(path: Path) -> StereoNetwork:
    """A stereo network, ready to predict, from a run folder, a model folder or a checkpoint file.

    Raises:
        UserError: there is nothing, or no stereo network in it.
    """
    if not path.exists():
        raise UserError(f"no model at '{path}': the path does not exist; train first, or correct the path")
    return load_network(path, StereoNetwork, STEREO_TASK)


def load_fitting(path: Path, cameras: CameraKind, relative: bool, remedy: str) -> StereoNetwork:
    """A stereo network for samples with such cameras, and with relative depth maps or without.

    Args:
        path: as for ``load_stereo``.
        cameras: of the samples.
        relative: whether they have relative depth maps.
        remedy: how the user names such maps.

    Raises:
        UserError: no network, one that learnt from other cameras, or one that needs maps.
    """
    network = load_stereo(path)
    learnt = network.config["geometry"]
    if learnt is not None and learnt != cameras:
        values = {"pinhole": "depth", "rpc": "height"}
        raise UserError(
            f"the network '{path}' learnt {values[learnt]} with {learnt} cameras, and the samples have {cameras} "
            f"cameras and {values[cameras]}; give one that was trained with such cameras"
        )
    if network.uses_relative_depth and not relative:
        raise UserError(
            f"the network '{path}' uses relative depth maps; {remedy} (python -m Systems.relative_depth makes them)"
        )
    if relative and not network.uses_relative_depth:
        logger.info("relative depth maps are named, and this network uses none: they are not used")
    return network


def identity(network: StereoNetwork) -> Mapping[str, Any]:
    """What tells a network from others: its config, and a digest of its weights."""
    total = sum(float(value.double().abs().sum()) for value in network.state_dict().values())
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return {"network": config, "weights": f"{total:.9g}"}
