"""A depth network as a predictor for whole scenes and whole images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from Modules.common.precision import Precision
from Utils.core.errors import UserError
from Utils.core.predictor import DIRECTIONS, Direction, Predictor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from Modules.depth.enc_dec import EncDec

logger = logging.getLogger(__name__)

_USUAL_TILE = 512


def depth_predictor(
    network: EncDec,
    facts: dict[str, Any],
    device: torch.device,
    precision: Precision,
    compile: bool,
    polarity: Direction | None,
) -> Predictor:
    """The network, made fast, on its device.

    Args:
        network: the network.
        facts: what identifies it.
        device: device on which it runs.
        precision: number format of the weights.
        compile: whether to use torch.compile.
        polarity: what rises in its maps, where its own config does not tell.

    Returns:
        A predictor of relative heights: what it says of metres holds for images like those that it learnt from.

    Raises:
        UserError: nobody says what rises in its maps, or the config says otherwise.
    """
    from torch import nn

    target = network.config["target"]
    # Metres below the summit fall with the ground; what the other targets learnt from may be depth or height.
    known: Direction | None = "depth" if target == "summit" else network.config.get("direction")
    name = facts["name"]
    if known is None and polarity is None:
        raise UserError(
            f"--model '{name}' (depth network, target {target}): what rises in its maps, "
            f"{', '.join(DIRECTIONS[:-1])} or {DIRECTIONS[-1]}? It learnt from depth or from heights, and does not say "
            "from which; say it with --polarity"
        )
    if None not in (known, polarity) and known != polarity:
        raise UserError(f"--polarity {polarity}: '{name}' gives {known} (target {target}); leave it out")
    direction = known or polarity
    assert direction is not None
    logger.info("%s (depth network, target %s) gives %s", name, target, direction)
    nn.Module.to(network, device)
    network.optimise(precision, compile=compile)

    def draw(images: Tensor) -> Tensor:
        return network(images)[:, 0]

    tile = network.config.get("tile_size") or _USUAL_TILE
    return Predictor(draw, "relative height", direction, 1, tile, facts | {"target": target, "precision": precision})
