"""What the archive has, pair by pair, and which files of a pair are wanted."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from Systems.mars.products.listing import Entry, parse_listing
from Systems.mars.products.web import NotThere, Web
from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes
from Utils.rasters.planetary.hirise_names import DtmName, OrthoName, best_ortho, read_dtm_name, read_ortho_name

__all__ = ["ARCHIVE", "Archive", "ProductFile", "Wanted", "WantedPair"]

logger = logging.getLogger(__name__)

ARCHIVE = "https://www.uahirise.org/PDS/DTM/"
"""The public archive of HiRISE stereo products."""

_ORBITS = re.compile(r"ORB_\d{6}_\d{6}")
_PAIR = re.compile(r"(?:ESP|PSP)_\d{6}_\d{4}_(?:ESP|PSP)_\d{6}_\d{4}")
_LISTINGS = "listings"


@dataclass(frozen=True)
class Wanted:
    """Which products are wanted.

    Attributes:
        missions: "ESP", "PSP" or both.
        producers: letters of producers; empty for all.
        grids: letters of the DTM's grid; empty for all.
        references: "areoid", "radius" or both.
        all_versions: whether older versions of a DTM are wanted too.
        image_grid: letter of the orthoimage's grid; None for the one that fits the DTM's.
        both_images: whether the second observation's orthoimage is wanted too.
        names: parts of names, one of which a pair's folder or DTM must have; empty for all.
    """

    missions: Sequence[str] = ("ESP", "PSP")
    producers: Sequence[str] = ()
    grids: Sequence[str] = ()
    references: Sequence[str] = ("areoid", "radius")
    all_versions: bool = False
    image_grid: str | None = None
    both_images: bool = False
    names: Sequence[str] = ()

    def takes(self, dtm: DtmName, folder: str) -> bool:
        """Whether a DTM in a pair's folder is wanted."""
        return (
            (not self.producers or dtm.producer in self.producers)
            and (not self.grids or dtm.grid in self.grids)
            and dtm.reference in self.references
            and (not self.names or any(name in dtm.name or name in folder for name in self.names))
        )


@dataclass(frozen=True)
class ProductFile:
    """A file of the archive.

    Attributes:
        place: where it lies below the archive's address, and is to lie here.
        size: bytes as its listing shows them, rounded; None where it does not.
    """

    place: Path
    size: int | None


@dataclass(frozen=True)
class WantedPair:
    """The files of one DTM that are wanted.

    Attributes:
        dtm: what its name says.
        files: the DTM, its orthoimages and their labels.
    """

    dtm: DtmName
    files: list[ProductFile]

    @property
    def size(self) -> int:
        """Bytes as the listing shows them, rounded; files without a size count nothing."""
        return sum(file.size or 0 for file in self.files)


@dataclass(frozen=True)
class Archive:
    """The archive's listings, which are kept in a folder and not asked for twice.

    Attributes:
        url: its address, ending in a slash.
        web: what asks.
        folder: where listings are kept, in ``listings/``; None to keep none.
        refresh: whether kept listings are asked for again.
    """

    url: str
    web: Web
    folder: Path | None = None
    refresh: bool = False

    def pairs(self, wanted: Wanted) -> Iterator[WantedPair]:
        """The pairs that are wanted, in the order of the archive; each folder is asked for when its turn comes.

        Raises:
            UserError: a listing that cannot be had, or an archive without folders of orbits.
        """
        for mission in wanted.missions:
            orbits = [entry.name for entry in self._list(mission) if _ORBITS.fullmatch(entry.name)]
            if not orbits:
                raise UserError(
                    f"'{self.url}{mission}/' lists no folder such as ORB_042300_042399; is --archive the address of "
                    "the folder that holds ESP and PSP?"
                )
            for orbit in orbits:
                for entry in self._list(f"{mission}/{orbit}"):
                    if entry.is_folder and _PAIR.fullmatch(entry.name):
                        yield from self._wanted_of(f"{mission}/{orbit}/{entry.name}", wanted)

    def _wanted_of(self, place: str, wanted: Wanted) -> Iterator[WantedPair]:
        folder = place.rpartition("/")[2]
        entries = {entry.name: entry for entry in self._list(place) if not entry.is_folder}
        dtms = {name: dtm for name in entries if name.upper().endswith(".IMG") and (dtm := read_dtm_name(name))}
        chosen = {name: dtm for name, dtm in dtms.items() if wanted.takes(dtm, folder)}
        if not wanted.all_versions:
            newest: dict[str, tuple[int, str]] = {}
            for name, dtm in chosen.items():
                key = f"{dtm.name[:5]}_{dtm.pair}_{dtm.producer}"
                newest[key] = max(newest.get(key, (0, "")), (dtm.version, name))
            chosen = {name: chosen[name] for _, name in newest.values()}
        for name, dtm in sorted(chosen.items()):
            images = _images(dtm, entries, wanted)
            if not images:
                grid = f" of grid {wanted.image_grid}" if wanted.image_grid else ""
                logger.warning("%s: no orthoimage%s in its folder; it is left out", dtm.name, grid)
                continue
            labels = [f"{Path(image).stem}.LBL" for image in images]
            files = [name, *images, *(label for label in labels if label in entries)]
            yield WantedPair(dtm, [ProductFile(Path(place, file), entries[file].size) for file in files])

    def _list(self, place: str) -> list[Entry]:
        """The entries of a folder; none where the archive has no such folder."""
        url = f"{self.url}{place}/"
        kept = None if self.folder is None else self.folder / _LISTINGS / f"{place.replace('/', '__')}.html"
        if kept is not None and kept.is_file() and not self.refresh:
            return parse_listing(kept.read_text(encoding="utf-8"), url)
        try:
            page = self.web.page(url)
        except NotThere as error:
            logger.warning("%s: %s; nothing is taken from it", url, error)
            return []
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(kept, page.encode())
        return parse_listing(page, url)


def _images(dtm: DtmName, entries: dict[str, Entry], wanted: Wanted) -> list[str]:
    """The orthoimages of a DTM that are wanted: the best of the first observation, or of each."""
    named: dict[OrthoName, str] = {
        name: file for file in entries if file.upper().endswith(".JP2") and (name := read_ortho_name(file))
    }
    if wanted.image_grid is not None:
        named = {name: file for name, file in named.items() if name.grid == wanted.image_grid}
    if not wanted.both_images:
        best = best_ortho(dtm, list(named))
        return [] if best is None else [named[best]]
    bests = [best_ortho(dtm, [name for name in named if name.source == source]) for source in dtm.sources]
    return [named[best] for best in bests if best is not None]
