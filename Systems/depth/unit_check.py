"""Whether a config's unit and largest depth suit its tiles: a wrong unit would leave nothing to learn, silently."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from Systems.depth.config import DepthTrainingConfig
from Utils.core.errors import UserError
from Utils.data.published_layout import TileFiles

logger = logging.getLogger(__name__)

# Tiles that are looked at, evenly spaced; the audit of tiles has read all of them, but knows nothing of units.
_TILES = 50


def check_units(config: DepthTrainingConfig, files: Mapping[str, TileFiles], ids: Sequence[str]) -> None:
    """Look at some tiles, and say how many of their known pixels lie beyond what the network can draw.

    Args:
        config: the config, with a target in metres; relative depth has no unit, and passes.
        files: the files of the training tiles.
        ids: the tiles to learn from.

    Raises:
        UserError: no pixel can be learnt from.
    """
    if config.target == "relative":
        return
    from Systems.depth.targets import depth_target
    from Utils.data.tile_dataset import read_truth

    step = max(1, len(ids) // _TILES)
    whole = depth_target(config.target, None, config.metres_per_unit, config.hole)
    known = beyond = 0
    farthest = 0.0
    for tile in ids[::step]:
        found = whole.add(read_truth(files[tile].height, files[tile].coding))
        depth = found["depth"][found["valid"]]
        known += depth.numel()
        beyond += int((depth > config.max_depth).sum())
        farthest = max(farthest, float(depth.max()) if depth.numel() else 0.0)
    looked = f"{len(ids[::step])} of {len(ids)} training tiles"
    remedy = "set max_depth, metres_per_unit and hole to what the files hold"
    if known == beyond:
        what = f"all lie beyond max_depth {config.max_depth:g} m, up to {farthest:g} m" if known else "none is known"
        raise UserError(f"nothing can be learnt: of the pixels of {looked} {what}; {remedy}")
    if beyond:
        logger.warning(
            "%d of %d known pixels of %s lie beyond max_depth %g m, up to %g m, and are left out; %s if that is wrong",
            beyond,
            known,
            looked,
            config.max_depth,
            farthest,
            remedy,
        )
