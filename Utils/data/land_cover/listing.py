"""The files of land-cover tiles: LoveDA's folders, folders of the same form with names of one's own, or a table.

<dataset>/<part>/<domain>/images_png/<name>.png
<dataset>/<part>/<domain>/masks_png/<name>.png     the same names; the part Test has none
<dataset>/<part>/<domain>/depth_png/<name>.png     relative depth, where it is used
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError
from Utils.data.land_cover.land_cover_table import LandCoverRow, LandCoverTable, read_land_cover_table
from Utils.data.published_layout import IMAGE_SUFFIXES, natural

__all__ = ["LandCoverFiles", "domains_of", "has_masks", "list_land_cover", "with_shuffled_depth"]

IMAGES, MASKS = "images_png", "masks_png"
_HINT = "the layout is <part>/<domain>/images_png and masks_png (Dataset/README.md)"


@dataclass(frozen=True)
class LandCoverFiles:
    """One tile.

    Attributes:
        domain: its domain, such as ``Urban``.
        image: file of the image.
        mask: file of the classes; None where there is none.
        depth: file of the relative depth map; None where none is used.
    """

    domain: str
    image: Path
    mask: Path | None
    depth: Path | None = None


def domains_of(dataset: Path, part: str) -> list[str]:
    """The domains of a part that have images, in folders or in a table; none where the part is not there.

    Raises:
        UserError: a table that cannot be read.
    """
    if dataset.is_file():
        return read_land_cover_table(dataset).domains(part)
    place = dataset / part
    if not place.is_dir():
        return []
    return sorted(name for name in os.listdir(place) if (place / name / IMAGES).is_dir())


def has_masks(dataset: Path, part: str, domains: Sequence[str]) -> bool:
    """Whether any of the domains has masks in a part.

    Raises:
        UserError: a table that cannot be read.
    """
    if dataset.is_file():
        table = read_land_cover_table(dataset)
        return any(row.mask for domain in domains for row in table.of(part, domain))
    return any((dataset / part / domain / MASKS).is_dir() for domain in domains)


def list_land_cover(
    dataset: Path,
    part: str,
    domains: Sequence[str],
    depth_folder: str | None = None,
    masks: bool = True,
    root: Path | None = None,
) -> dict[str, LandCoverFiles]:
    """The tiles of some domains of a part, by id ``<domain>-<name>``, in natural order; as many as there are.

    Args:
        dataset: folder of the dataset, or a table.
        part: such as ``Train``.
        domains: such as ``Urban``; the part has others, perhaps.
        depth_folder: name of the folder of relative depth maps beside that of the images; None where none are used.
            A table has a column of them.
        masks: whether every image needs its mask.
        root: where relative paths of a table start; None for its own folder.

    Raises:
        UserError: a missing folder or domain; an image without mask, a mask without image, an image without depth map.
    """
    if dataset.is_file():
        return _from_table(read_land_cover_table(dataset), part, domains, depth_folder is not None, masks, root)
    if not dataset.is_dir():
        raise UserError(f"dataset_path '{dataset}' is no folder and no table; {_HINT}")
    known = domains_of(dataset, part)
    tiles: dict[str, LandCoverFiles] = {}
    for domain in domains:
        if domain not in known:
            there = f"it has {', '.join(known)}" if known else f"there are no images in '{dataset / part}'"
            raise UserError(f"'{dataset}' has no domain '{domain}' in its part {part}: {there}; {_HINT}")
        tiles |= _domain(dataset / part / domain, domain, depth_folder, masks)
    return tiles


def with_shuffled_depth(tiles: dict[str, LandCoverFiles], order: Iterable[int]) -> dict[str, LandCoverFiles]:
    """The tiles with each other's depth maps: the control that sees real maps of other places.

    Args:
        tiles: two or more.
        order: a permutation of their places; a map that would stay with its tile moves on to the next.
    """
    ids = list(tiles)
    turned = list(order)
    # A cycle through all of them leaves none where it was.
    follower = {ids[turned[place]]: ids[turned[(place + 1) % len(turned)]] for place in range(len(turned))}
    return {
        name: LandCoverFiles(files.domain, files.image, files.mask, tiles[follower[name]].depth)
        for name, files in tiles.items()
    }


def _from_table(
    table: LandCoverTable, part: str, domains: Sequence[str], depth: bool, masks: bool, root: Path | None
) -> dict[str, LandCoverFiles]:
    """The same, of a table."""
    paths = table.paths(root)
    tiles: dict[str, LandCoverFiles] = {}

    def there(row: LandCoverRow, what: str, text: str) -> Path:
        path = paths.find(text)
        if not path.is_file():
            raise UserError(
                f"table '{table.path}', line {row.line}: {what} '{path}' does not exist; {paths.remedy(text)}"
            )
        return path

    for domain in domains:
        rows = table.of(part, domain)
        if not rows:
            known = ", ".join(table.domains(part)) or "no tile"
            raise UserError(f"table '{table.path}' has no domain '{domain}' in its part {part}: it has {known}")
        for row in rows:
            if depth and not row.relative_depth:
                raise UserError(
                    f"table '{table.path}', line {row.line}: no relative_depth; make the maps: python -m "
                    "Systems.relative_depth --model depth-anything/Depth-Anything-V2-Small-hf --input IMAGES --output "
                    "FOLDER, and name them in the column relative_depth"
                )
            if masks and not row.mask:
                raise UserError(f"table '{table.path}', line {row.line}: no mask; fill the cell, or remove the line")
            tiles[f"{domain}-{row.id}"] = LandCoverFiles(
                domain,
                there(row, "image", row.image),
                there(row, "mask", row.mask) if masks else None,
                there(row, "relative_depth", row.relative_depth) if depth else None,
            )
    return tiles


def _domain(place: Path, domain: str, depth_folder: str | None, masks: bool) -> dict[str, LandCoverFiles]:
    images = _files(place / IMAGES)
    if not images:
        raise UserError(f"'{place / IMAGES}' holds no image; {_HINT}")
    labels = _files(place / MASKS)
    if masks:
        for has, lacks, what, lacking in ((images, labels, "image", "mask"), (labels, images, "mask", "image")):
            alone = sorted(set(has) - set(lacks), key=natural)
            if alone:
                raise UserError(
                    f"{what} '{has[alone[0]]}' has no {lacking} ({len(alone)} of {len(has)} have none); add it, or "
                    f"remove the {what}"
                )
    depths = {} if depth_folder is None else _depths(place, images, depth_folder)
    return {
        f"{domain}-{name}": LandCoverFiles(domain, images[name], labels.get(name) if masks else None, depths.get(name))
        for name in sorted(images, key=natural)
    }


def _depths(place: Path, images: dict[str, Path], folder: str) -> dict[str, Path]:
    depths = _files(place / folder)
    missing = sorted(set(images) - set(depths), key=natural)
    if missing:
        raise UserError(
            f"image '{images[missing[0]]}' has no relative depth map in '{place / folder}' ({len(missing)} of "
            f"{len(images)} have none); make them: python -m Systems.relative_depth --model "
            f"depth-anything/Depth-Anything-V2-Small-hf --input '{place / IMAGES}' --output '{place / folder}'"
        )
    return depths


def _files(folder: Path) -> dict[str, Path]:
    """The rasters of a folder by name without suffix; none where there is no folder.

    Raises:
        UserError: two files of one name.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in found:
            raise UserError(f"'{found[path.stem]}' and '{path}' have one name; remove one")
        found[path.stem] = path
    return found
