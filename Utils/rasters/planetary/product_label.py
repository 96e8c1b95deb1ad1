"""Labels of planetary products as far as tiles need them: PDS3 (attached or detached), ISIS3 and PDS4.

GDAL reads the georeference; who made a product, of which observations, and where the sun stood, it leaves in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from Utils.core.errors import RasterError
from Utils.rasters.planetary.hirise_names import read_dtm_name

__all__ = ["Measured", "ProductLabel", "Sun", "label_beside", "parse_label", "product_reference", "read_label"]

# An attached label is padded to whole records; the largest seen has 64 KiB.
_LABEL_BYTES = 262_144
_SUFFIXES = (".LBL", ".lbl", ".xml", ".XML")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_END = re.compile(r"^\s*END\s*$", re.MULTILINE | re.IGNORECASE)
_STATEMENT = re.compile(
    r'(?P<key>\^?[\w:]+)[ \t]*=\s*(?P<value>"[^"]*"|\([^)]*\)|\{[^}]*\}|[^\s<]+)[ \t]*(?:<(?P<unit>[^>]*)>)?'
)
_BLOCKS = ("OBJECT", "GROUP", "END_OBJECT", "END_GROUP")
_OBSERVATION = re.compile(r"(?:ESP|PSP)_\d{6}_\d{4}")


@dataclass(frozen=True)
class Measured:
    """A value with its unit in capitals; the unit is empty where the label names none."""

    value: str
    unit: str = ""

    @property
    def number(self) -> float | None:
        """The value as a number; None where it is none."""
        try:
            return float(self.value)
        except ValueError:
            return None


@dataclass(frozen=True)
class Sun:
    """Where the sun stood.

    Attributes:
        azimuth: direction to the sun in degrees, clockwise from the upward direction of the image.
        elevation: degrees above the horizon.
    """

    azimuth: float
    elevation: float


@dataclass(frozen=True)
class ProductLabel:
    """A label's values by key in capitals; of a key that occurs several times, all in order.

    Attributes:
        path: the file that holds the label.
        values: as described.
        attached: whether the file holds the data as well.
    """

    path: Path
    values: Mapping[str, list[Measured]]
    attached: bool

    def get(self, key: str) -> Measured | None:
        """The first value of a key; None where there is none."""
        found = self.values.get(key.upper())
        return found[0] if found else None

    def text(self, key: str) -> str:
        """The first value of a key as text in one line; empty where there is none."""
        found = self.get(key)
        return "" if found is None else " ".join(found.value.split())

    def number(self, key: str) -> float | None:
        """The first value of a key as a number; None where there is none."""
        found = self.get(key)
        return None if found is None else found.number

    @property
    def product_id(self) -> str:
        """The product's name; empty where the label does not say."""
        return self.text("PRODUCT_ID") or self.text("LOGICAL_IDENTIFIER").rpartition(":")[2].upper()

    @property
    def observations(self) -> list[str]:
        """The source observations that the label names, such as ["ESP_042328_1985", "ESP_033150_1985"]."""
        named = " ".join(item.value for key in ("SOURCE_PRODUCT_ID", "LID_REFERENCE") for item in self._all(key))
        return list(dict.fromkeys(_OBSERVATION.findall(named.upper())))

    @property
    def height_reference(self) -> str | None:
        """What heights are, by the note on the values: "areoid" (above it) or "radius"; None if it does not say."""
        note = " ".join(item.value for key in ("NOTE", "DESCRIPTION") for item in self._all(key)).lower()
        if "equipotential" in note or "areoid" in note or "elevation" in note:
            return "areoid"
        return "radius" if "radius" in note or "radii" in note else None

    @property
    def sun(self) -> Sun | None:
        """Where the sun stood, from INCIDENCE_ANGLE and SUB_SOLAR_AZIMUTH; None where the label names not both.

        PDS3 counts azimuths clockwise from three o'clock; NORTH_AZIMUTH 270 is up.
        """
        incidence, azimuth = self.number("INCIDENCE_ANGLE"), self.number("SUB_SOLAR_AZIMUTH")
        if incidence is None or azimuth is None or not 0.0 <= incidence < 90.0:
            return None
        return Sun((azimuth - 270.0) % 360.0, 90.0 - incidence)

    def _all(self, key: str) -> list[Measured]:
        return self.values.get(key, [])


def read_label(path: Path) -> ProductLabel | None:
    """The label of a product: in the file itself, or else in a .LBL or .xml beside it; None where there is none.

    Raises:
        RasterError: the file does not exist or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(_LABEL_BYTES)
    except OSError as error:
        raise RasterError(path, f"cannot be read ({error.strerror})", "check the path") from error
    if _is_label(start):
        detached = path.suffix in _SUFFIXES
        return ProductLabel(path, parse_label(start), not detached)
    beside = label_beside(path)
    return None if beside is None else read_label(beside)


def product_reference(path: Path) -> tuple[str, str] | None:
    """What the heights of a product are counted from, and what says it.

    Returns:
        "areoid" or "radius", and "its name" or "its label"; None where neither says it or there is no plain file.

    Raises:
        RasterError: the file cannot be read.
    """
    name = read_dtm_name(path.name)
    if name is not None:
        return name.reference, "its name"
    label = read_label(path) if path.is_file() else None
    stated = None if label is None else label.height_reference
    return None if stated is None else (stated, "its label")


def label_beside(path: Path) -> Path | None:
    """The detached label of a file: the same name with .LBL or .xml; None where there is none."""
    if path.suffix in _SUFFIXES:
        return None
    return next((found for suffix in _SUFFIXES if (found := path.with_suffix(suffix)).is_file()), None)


def parse_label(data: bytes) -> dict[str, list[Measured]]:
    """The values of a label by key in capitals, whatever block they stand in; see :class:`ProductLabel`."""
    values: dict[str, list[Measured]] = {}
    for key, value in _xml_values(data) if data.lstrip()[:1] == b"<" else _pvl_values(data):
        values.setdefault(key.upper(), []).append(value)
    return values


def _is_label(start: bytes) -> bool:
    head = start[:4096]
    is_xml = head.lstrip().startswith(b"<") and b"Product_Observational" in start
    return is_xml or b"PDS_VERSION_ID" in head or b"Object = IsisCube" in head


def _pvl_values(data: bytes) -> Iterator[tuple[str, Measured]]:
    """Keys and values of Parameter Value Language, as PDS3 and ISIS3 write it; lists are given as their text."""
    text = data.decode("latin-1")
    end = _END.search(text)
    for match in _STATEMENT.finditer(_COMMENT.sub("", text if end is None else text[: end.start()])):
        if match["key"].upper() not in _BLOCKS:
            yield match["key"], Measured(match["value"].strip('"').strip(), (match["unit"] or "").strip().upper())


def _xml_values(data: bytes) -> Iterator[tuple[str, Measured]]:
    try:
        # Labels have no entities of their own; expat neither loads what is external nor expands without bound.
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return
    for element in root.iter():
        text = (element.text or "").strip()
        if text:
            yield element.tag.rpartition("}")[2], Measured(text, element.get("unit", "").upper())
