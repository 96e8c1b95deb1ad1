"""Which scene a tile shows: frames of one scene resemble each other, so a split keeps them on one side."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from Utils.data.published_layout import TileFiles

logger = logging.getLogger(__name__)

# KITTI's raw drives, such as 2011_09_26_drive_0001_sync: in a folder's name, or in the file's.
_KITTI_DRIVE = re.compile(r"\d{4}_\d{2}_\d{2}_drive_\d{4}")
# Cityscapes' files begin with the city: aachen_000000_000019_leftImg8bit.png.
_CITYSCAPES_FILE = re.compile(r"(?P<scene>[a-z][a-z-]*)_\d{6}_\d{6}(?:_\w+)?")
# NYU's rooms were filmed in parts, basement_0001a and basement_0001b: a folder of frames, or the start of a file.
_NYU_FOLDER = re.compile(r"(?P<scene>[a-z][a-z_]*_\d{4})[a-z]?(?:_out)?")
_NYU_FILE = re.compile(r"(?P<scene>[a-z][a-z_]*_\d{4})[a-z]?_\d{5}(?:_[a-z]+)?")


def scene_of(tile: str, files: TileFiles) -> str | None:
    """The scene of a tile: what a table says, or what NYU, KITTI and Cityscapes write into folders and file names.

    Args:
        tile: its id.
        files: its files.

    Returns:
        NYU's room (without the letter of its part), KITTI's drive, Cityscapes' city; None where nothing tells.
    """
    if files.scene:
        return files.scene
    for part in (*reversed(files.image.parts), tile):
        if drive := _KITTI_DRIVE.search(part):
            return drive[0]
    for name in (files.image.stem.removeprefix("tile_"), tile):
        for pattern in (_CITYSCAPES_FILE, _NYU_FILE):
            if found := pattern.fullmatch(name):
                return found["scene"]
    found = _NYU_FOLDER.fullmatch(files.image.parent.name)
    return found["scene"] if found else None


def group_by_scene(tiles: Mapping[str, TileFiles], ids: Sequence[str], remedy: str) -> dict[str, str] | None:
    """The scene of each id, for a split that keeps scenes whole; a tile that names none is a scene of its own.

    None where there is nothing to keep whole: no tile names a scene, or all name the same.

    Args:
        tiles: the files of the tiles.
        ids: the tiles to divide.
        remedy: what to do about scenes that cannot be kept whole, for the line that says so.
    """
    known = {tile: scene for tile in ids if (scene := scene_of(tile, tiles[tile])) is not None}
    if len(known) < len(ids):
        logger.warning(
            "%d of %d tiles name no scene and are split one by one; if they are frames of few scenes, validation "
            "looks better than it is: %s",
            len(ids) - len(known),
            len(ids),
            remedy,
        )
    scenes = {tile: f"scene {known[tile]}" if tile in known else f"tile {tile}" for tile in ids}
    if len(set(scenes.values())) == 1 < len(ids):
        logger.warning(
            "all %d tiles are of one scene, %s, and are split one by one: validation looks better than it is; %s",
            len(ids),
            next(iter(known.values())),
            remedy,
        )
        return None
    return scenes if known else None


def shared_scenes(tiles: Mapping[str, TileFiles], one: Sequence[str], other: Sequence[str]) -> list[str]:
    """The scenes that have tiles in both of two lists, sorted; tiles that name no scene have none."""
    first, second = ({scene_of(tile, tiles[tile]) for tile in ids} - {None} for ids in (one, other))
    return sorted(scene for scene in first & second if scene is not None)
