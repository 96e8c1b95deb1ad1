"""Names of HiRISE stereo products: a terrain model (DTM) of two observations, and the orthoimages that belong to it.

A DTM is called ``DTEEC_042328_1985_033150_1985_A01.IMG`` and an orthoimage ``ESP_042328_1985_RED_C_01_ORTHO.JP2``
(HiRISE DTM software interface specification, MRO-M-HIRISE-5-DTM-V1.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["GRIDS", "PRODUCERS", "DtmName", "OrthoName", "best_ortho", "read_dtm_name", "read_ortho_name"]

GRIDS = {"A": 0.25, "B": 0.5, "C": 1.0, "D": 2.0}
"""Nominal metres a pixel; the true size stands in the label, such as 1.00966."""

PRODUCERS = {
    "U": "USGS",
    "A": "University of Arizona",
    "C": "Caltech",
    "N": "NASA Ames",
    "J": "JPL",
    "O": "Ohio State University",
    "P": "Planetary Science Institute",
    "Z": "other",
}
"""Who made a DTM, by the letter before its version."""

_DTM = re.compile(
    r"DT(?P<reference>[ER])(?P<projection>[EP])(?P<grid>[A-Z])_(?P<first>\d{6}_\d{4})_(?P<second>\d{6}_\d{4})_"
    r"(?P<producer>[A-Z])(?P<version>\d{2})"
)
_ORTHO = re.compile(
    r"(?P<observation>(?:ESP|PSP)_\d{6}_\d{4})_(?P<filter>RED|IRB|COLOR)_(?P<grid>[A-Z])_(?P<version>\d{2})_ORTHO"
)


@dataclass(frozen=True)
class DtmName:
    """What the name of a DTM says.

    Attributes:
        name: without suffix.
        reference: "areoid" for heights above the Mars 2000 areoid, "radius" for distances from the centre of Mars.
        projection: "equirectangular" or "polar stereographic".
        grid: the letter of its pixel size; see ``GRIDS``.
        sources: orbit and target of the two observations, such as ("042328_1985", "033150_1985").
        producer: letter of the producer; see ``PRODUCERS``.
        version: number of the version.
    """

    name: str
    reference: str
    projection: str
    grid: str
    sources: tuple[str, str]
    producer: str
    version: int

    @property
    def pair(self) -> str:
        """The two observations: "042328_1985_033150_1985"."""
        return "_".join(self.sources)


@dataclass(frozen=True)
class OrthoName:
    """What the name of an orthoimage says.

    Attributes:
        name: without suffix.
        observation: such as "ESP_042328_1985".
        filter: "RED" for one channel, "IRB" or "COLOR" for three.
        grid: the letter of its pixel size.
        version: number of the version.
    """

    name: str
    observation: str
    filter: str
    grid: str
    version: int

    @property
    def source(self) -> str:
        """Orbit and target of the observation: "042328_1985"."""
        return self.observation[4:]


def read_dtm_name(text: str) -> DtmName | None:
    """What a DTM's name or file name says; None where it is no such name."""
    found = _DTM.match(text)
    if found is None:
        return None
    reference = "areoid" if found["reference"] == "E" else "radius"
    projection = "equirectangular" if found["projection"] == "E" else "polar stereographic"
    sources = found["first"], found["second"]
    return DtmName(found[0], reference, projection, found["grid"], sources, found["producer"], int(found["version"]))


def read_ortho_name(text: str) -> OrthoName | None:
    """What an orthoimage's name or file name says; None where it is no such name."""
    found = _ORTHO.match(text)
    if found is None:
        return None
    return OrthoName(found[0], found["observation"], found["filter"], found["grid"], int(found["version"]))


def best_ortho(dtm: DtmName, orthos: Sequence[OrthoName]) -> OrthoName | None:
    """The image that a DTM is best learnt with; None where none is of its observations.

    One channel (RED) comes before three, a grid as fine as the DTM's or finer before a coarser one, the nearest before
    others, the first observation before the second, the newest version before older ones.
    """
    wanted = GRIDS.get(dtm.grid, 1.0)

    def rank(name: OrthoName) -> tuple[bool, bool, float, bool, int, str]:
        metres = GRIDS.get(name.grid, 1.0)
        nearness = max(metres, wanted) / min(metres, wanted)
        is_second = name.source != dtm.sources[0]
        return name.filter != "RED", metres > wanted, nearness, is_second, -name.version, name.name

    return min((name for name in orthos if name.source in dtm.sources), key=rank, default=None)
