"""The tiles of a depth dataset, with what the numbers in their files mean: depth, or disparities of a stereo camera."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from Modules.common.plain_json import parse_json, read_text
from Systems.depth.config import DepthTrainingConfig, DisparitySection, WithDepthFiles
from Utils.core.errors import UserError
from Utils.data.published_layout import TileFiles
from Utils.data.stage_plan import Tiles, find_tiles
from Utils.rasters.height_coding import HeightCoding

logger = logging.getLogger(__name__)

_CAMERAS, _DISPARITIES = "camera", "disparity"
# Cityscapes' pictures of classes; the published files name them as depth.
_CLASS_PICTURES = ("_gtFine_", "_gtCoarse_")


def find_depth_tiles(config: DepthTrainingConfig) -> Tiles:
    """``find_tiles``, with disparities as the config describes them.

    Raises:
        UserError: as ``find_tiles`` and ``read_as_depth``.
    """
    tiles = find_tiles(config)
    return Tiles(read_as_depth(config, tiles.training), read_as_depth(config, tiles.test))


def read_as_depth(config: WithDepthFiles, tiles: Mapping[str, TileFiles]) -> dict[str, TileFiles]:
    """Tiles whose maps are read as depth in metres where the config says that they are disparities.

    Raises:
        UserError: pictures of classes in place of depth; a camera file that is missing or cannot be used.
    """
    pictures = [files.height for files in tiles.values() if any(word in files.height.name for word in _CLASS_PICTURES)]
    if pictures:
        raise UserError(
            f"'{pictures[0]}' is one of Cityscapes' pictures of classes (segmentation), and no depth ({len(pictures)} "
            f"of {len(tiles)} files are); name the disparity files, disparity/.../<frame>_disparity.png"
        )
    if config.disparity is None:
        disparities = [files for files in tiles.values() if files.height.stem.endswith("_disparity")]
        if disparities:
            logger.warning(
                "%d of %d files are named disparity, such as '%s', and are read as depth: near and far are swapped; "
                "set disparity, if only to {}",
                len(disparities),
                len(tiles),
                disparities[0].height,
            )
        return dict(tiles)
    return _with_cameras(config.disparity, tiles)


def _with_cameras(section: DisparitySection, tiles: Mapping[str, TileFiles]) -> dict[str, TileFiles]:
    cameras = {tile: camera_file(files.height) for tile, files in tiles.items()}
    without = [tile for tile, camera in cameras.items() if camera is None]
    if without and section.baseline is None:
        raise UserError(
            f"'{tiles[without[0]].height}' has no camera file beside it ({len(without)} of {len(tiles)} have none); "
            "unpack camera_trainvaltest.zip beside 'disparity', or set disparity.baseline and disparity.focal"
        )
    if without:
        logger.warning(
            "%d of %d frames have no camera file and take baseline %g m and focal length %g pixels from the config",
            len(without),
            len(tiles),
            section.baseline,
            section.focal,
        )
    own = (section.baseline or 0.0) * (section.focal or 0.0)
    return {
        tile: replace(
            files, coding=HeightCoding(section.scale, section.offset, 0.0, own if camera is None else _product(camera))
        )
        for (tile, files), camera in zip(tiles.items(), cameras.values(), strict=True)
    }


def camera_file(disparity: Path) -> Path | None:
    """The camera file of a disparity map in the layout of Cityscapes; None where there is none."""
    name = disparity.stem.removesuffix(f"_{_DISPARITIES}") + f"_{_CAMERAS}.json"
    parts = disparity.parent.parts
    for place in reversed(range(len(parts))):
        if parts[place] == _DISPARITIES:
            found = Path(*parts[:place], _CAMERAS, *parts[place + 1 :], name)
            return found if found.is_file() else None
    beside = disparity.with_name(name)
    return beside if beside.is_file() else None


def _product(camera: Path) -> float:
    """Baseline in metres times focal length in pixels, from a camera file of Cityscapes."""
    try:
        document = parse_json(read_text(camera))
        baseline, focal = float(document["extrinsic"]["baseline"]), float(document["intrinsic"]["fx"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"camera file '{camera}' names no extrinsic.baseline and intrinsic.fx; restore it, or remove it and set "
            "disparity.baseline and disparity.focal"
        ) from error
    if not (0.0 < baseline < 100.0 and 1.0 < focal < 1e6):
        raise UserError(
            f"camera file '{camera}': baseline {baseline:g} m and focal length {focal:g} pixels; restore it"
        )
    return baseline * focal
