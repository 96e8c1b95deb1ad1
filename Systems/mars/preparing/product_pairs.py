"""Which image belongs to which DTM: by the names of HiRISE products in folders, or as they are named one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError
from Utils.rasters.planetary.hirise_names import (
    DtmName,
    OrthoName,
    best_ortho,
    read_dtm_name,
    read_ortho_name,
)

__all__ = ["PairFiles", "find_pairs"]

logger = logging.getLogger(__name__)

# What holds data comes before a label, which GDAL opens as well where the georeference stands in it alone.
_DATA_SUFFIXES = (".img", ".jp2", ".tif", ".tiff", ".cub", ".lbl", ".xml")
_LISTED = 5


@dataclass(frozen=True)
class PairFiles:
    """The files of a pair, not yet looked into.

    Attributes:
        name: of the pair: the DTM's, with nothing but letters, digits, '-' and '_'.
        dtm: file of the DTM.
        ortho: file of the image.
        named: whether the user named the two files.
    """

    name: str
    dtm: Path
    ortho: Path
    named: bool


def find_pairs(folders: Sequence[Path], dtms: Sequence[Path], orthos: Sequence[Path]) -> list[PairFiles]:
    """The pairs of folders and of single files, sorted by name.

    In folders, the newest version of a DTM is taken, and of the images that belong to it one channel (RED) of the grid
    that is nearest to the DTM's, rather finer than coarser, of the first observation where both are there.

    Raises:
        UserError: a folder that does not exist, two pairs of one name, or no pair at all.
    """
    found = [PairFiles(_plain(dtm.stem), dtm, ortho, True) for dtm, ortho in zip(dtms, orthos, strict=True)]
    if folders:
        found += _in_folders(folders)
    names = [pair.name for pair in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{len(twice)} pairs have one name, such as '{twice[0]}'; rename one of the files")
    if not found:
        where = ", ".join(f"'{folder}'" for folder in folders)
        raise UserError(
            f"no pair of products in {where}: a DTM is called like DTEEC_042328_1985_033150_1985_A01.IMG, and its "
            "image ESP_042328_1985_RED_C_01_ORTHO.JP2; other names are given by --dtm and --ortho"
        )
    return sorted(found, key=lambda pair: pair.name)


def _plain(text: str) -> str:
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in text)
    return kept[:100].strip("_") or "pair"


def _in_folders(folders: Sequence[Path]) -> list[PairFiles]:
    dtms: dict[str, tuple[DtmName, Path]] = {}
    orthos: dict[str, list[tuple[OrthoName, Path]]] = {}
    older = []
    for path in _files(folders):
        dtm, ortho = read_dtm_name(path.name), read_ortho_name(path.name)
        if dtm is not None:
            # One pair of observations may have DTMs by several producers, which all are kept.
            key = f"{dtm.name[:5]}_{dtm.pair}_{dtm.producer}"
            known = dtms.get(key)
            if known is not None and known[0].version != dtm.version:
                older.append(min(known[0], dtm, key=lambda one: one.version).name)
            if known is None or dtm.version > known[0].version:
                dtms[key] = dtm, path
        elif ortho is not None:
            orthos.setdefault(ortho.source, []).append((ortho, path))
    if older:
        logger.warning("%d older versions of DTMs are left out, such as %s; --dtm takes one", len(older), older[0])
    found, alone = [], []
    for dtm, path in dtms.values():
        image = _choose(dtm, [one for source in dtm.sources for one in orthos.get(source, [])])
        if image is None:
            alone.append(dtm.name)
        else:
            found.append(PairFiles(dtm.name, path, image, False))
    if alone:
        logger.warning(
            "%d of %d DTMs have no orthoimage of their observations and are left out (%s%s); download it, or name it "
            "by --ortho",
            len(alone),
            len(dtms),
            ", ".join(sorted(alone)[:_LISTED]),
            ", ..." if len(alone) > _LISTED else "",
        )
    return found


def _files(folders: Iterable[Path]) -> list[Path]:
    """All files that may be products, those with data before labels, in a fixed order."""
    found: dict[tuple[str, str], Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--products '{folder}': no such folder; give the folder that holds the products")
        files = [path for path in folder.rglob("*") if path.suffix.lower() in _DATA_SUFFIXES and path.is_file()]
        for path in sorted(files, key=lambda path: (_DATA_SUFFIXES.index(path.suffix.lower()), str(path))):
            found.setdefault((path.parent.as_posix(), path.stem), path)
    return list(found.values())


def _choose(dtm: DtmName, images: Sequence[tuple[OrthoName, Path]]) -> Path | None:
    best = best_ortho(dtm, [name for name, _ in images])
    return next((path for name, path in images if name == best), None)
