"""Whether there is any depth in the files: a wrong hole, or maps of zeros, would leave nothing to learn or to score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from Systems.depth.config import WithDepthFiles
from Utils.core.errors import RasterError, UserError
from Utils.data.published_layout import TileFiles
from Utils.data.tile_check import TileCheck
from Utils.rasters.tile_files import read_height

logger = logging.getLogger(__name__)


def tiles_without_depth(
    config: WithDepthFiles, files: Mapping[str, TileFiles], check: TileCheck, above_zero: bool
) -> list[str]:
    """The tiles that know no depth: no valid pixel, all of them holes, or, for depth, none above 0.

    Args:
        config: the unit and the hole.
        files: the files of the tiles.
        check: what was found when the tiles were read. Only flat ones are read again.
        above_zero: whether only values above 0 are known, as in metres from a camera.
    """
    found = list(check.empty)
    for tile in check.flat:
        try:
            raster = read_height(files[tile].height, files[tile].coding)
        except (RasterError, OSError) as error:
            raise UserError(str(error)) from error
        value = float(raster.values[raster.valid][0])
        if value == config.hole or (above_zero and value <= 0):
            found.append(tile)
    return found


def refuse_unknown(
    config: WithDepthFiles, files: Mapping[str, TileFiles], ids: Sequence[str], unknown: Sequence[str], use: str
) -> None:
    """Stop where no tile of a list knows a depth, and say how many do not.

    Args:
        config: the unit and the hole.
        files: the files of the tiles.
        ids: the tiles that are to be used.
        unknown: tiles that know no depth.
        use: what the tiles are for, such as ``training``.

    Raises:
        UserError: none knows a depth.
    """
    lost = [tile for tile in ids if tile in set(unknown)]
    if not lost:
        return
    hole = "" if config.hole is None else f", where hole is {config.hole:g}"
    what = f"{len(lost)} of {len(ids)} {use} tiles know no depth at all, such as '{files[lost[0]].height}'{hole}"
    if len(lost) == len(ids):
        others = "others in val_split_text" if use == "validation" else "other files"
        raise UserError(f"{what}; name {others}, or set hole and metres_per_unit to what they hold")
    logger.warning("%s; they are left out", what)
