"""The content of a dataset's folders: pairs of image and map, and files without a partner.

``published_layout.list_tiles`` stops at the first file that it cannot pair; this listing continues and names all of
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.data.audit.findings import ERROR, WARNING, Finding
from Utils.data.dataset_table import read_table
from Utils.data.published_layout import (
    HEIGHT_FOLDER,
    HEIGHT_SUFFIXES,
    IMAGE_FOLDER,
    IMAGE_SUFFIXES,
    TEST_PART,
    TRAINING_PART,
    TileFiles,
    match_tiles,
    natural,
)
from Utils.data.tile_sources import check_root, is_table, prior_of, table_files

PARTS = (TRAINING_PART, TEST_PART)
_RASTERS = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jp2", ".npy"})


@dataclass(frozen=True)
class Listing:
    """The files of one part.

    Attributes:
        pairs: tiles with image and map, in natural order.
        findings: what is wrong with the other files.
    """

    pairs: Mapping[str, TileFiles]
    findings: list[Finding]


def list_part(
    dataset: Path, part: str, needed: bool, full_scale: float | None = None, root: Path | None = None
) -> Listing:
    """List one part of a dataset.

    Args:
        dataset: folder in the published layout, or a table.
        part: ``TRAINING_PART`` or ``TEST_PART``.
        needed: whether training reads this part; then whatever training refuses is an error.
        full_scale: the value that counts as 1 in its 16-bit images; None for what the files say.
        root: where a table's paths start; None for its own folder.

    Raises:
        UserError: a table that cannot be used, or a root without a table.
    """
    level = ERROR if needed else WARNING
    if is_table(dataset):
        return _list_table(dataset, part, level, full_scale, root)
    check_root(dataset, root)
    sides: list[dict[str, Path]] = []
    findings, strays, absent = [], [], []
    for folder, suffixes in ((IMAGE_FOLDER, IMAGE_SUFFIXES), (HEIGHT_FOLDER, HEIGHT_SUFFIXES)):
        place = dataset / part / folder
        try:
            names = sorted(os.listdir(place))
        except OSError as error:
            names = []
            absent.append(f"{place}: {error.strerror}")
        matched = match_tiles(names, suffixes)
        taken = frozenset(matched.values())
        rasters = (name for name in names if Path(name).suffix.lower() in _RASTERS)
        strays += [str(place / name) for name in rasters if name not in taken]
        sides.append({tile: place / name for tile, name in matched.items()})
    images, heights = sides
    alone = [str(images[tile]) for tile in sorted(set(images) - set(heights), key=natural)]
    bare = [str(heights[tile]) for tile in sorted(set(heights) - set(images), key=natural)]
    both = sorted(set(images) & set(heights), key=natural)
    pairs = {tile: TileFiles(images[tile], heights[tile], full_scale) for tile in both}
    for code, what, items in (
        ("missing_folder", "folders that cannot be read (layout: Dataset/README.md)", absent),
        ("image_without_map", "images without a height map; add it or remove the image", alone),
        ("map_without_image", "height maps without an image; add it or remove the map", bare),
    ):
        if items:
            findings.append(Finding(level, code, what, items))
    if not pairs and not absent:
        what = "folders without a single pair of image and map"
        findings.append(Finding(level, "no_tiles", what, [str(dataset / part)]))
    if strays:
        what = (
            "rasters that are not named tile_<id>.png (images) or tile_<id>.tif (maps), or whose id has another file; "
            "they are ignored"
        )
        findings.append(Finding(WARNING, "ignored_file", what, strays))
    return Listing(pairs, findings)


def _list_table(dataset: Path, part: str, level: str, full_scale: float | None, root: Path | None) -> Listing:
    """List one part of a table. Without a column for the part, all its tiles are training tiles here."""
    if part == TEST_PART and not read_table(dataset).has_parts:
        return Listing({}, [])
    listed = table_files(dataset, part, full_scale, root)
    findings = []
    if listed.missing:
        what = "files of the table that do not exist; correct its paths, or set root to the folder that they start from"
        items = [f"{text} (line {line})" for line, text in listed.missing]
        findings.append(Finding(level, "missing_file", what, items))
    elif not listed.found:
        findings.append(Finding(level, "no_tiles", "parts without a tile", [f"{dataset}: {part}"]))
    return Listing(listed.found, findings)


def list_priors(
    folder: Path, part: str, files: Mapping[str, TileFiles], ids: Sequence[str], level: str
) -> tuple[dict[str, Path], list[Finding]]:
    """The priors of some tiles that exist, and a finding that names those that do not."""
    wanted = {tile: prior_of(folder, part, tile, files[tile]) for tile in ids}
    there = {tile: path for tile, path in wanted.items() if path is not None and os.path.isfile(path)}
    missing = [str(path or f"tile {tile}") for tile, path in wanted.items() if tile not in there]
    make = "trainViT.py with k_folds" if part == TRAINING_PART else "evaluateViT.py"
    what = f"coarse priors that do not exist; {make} makes them: set prior_path to the folder that it names"
    return there, [Finding(level, "missing_prior", what, missing)] if missing else []
