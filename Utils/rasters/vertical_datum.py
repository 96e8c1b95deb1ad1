"""What heights refer to: read from a raster or an option, compared, and never guessed."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Utils.core.errors import UserError
from Utils.rasters.coordinates import vertical_system

if TYPE_CHECKING:
    import pyproj

__all__ = ["TAG", "UNKNOWN", "VerticalDatum", "datum_of", "datum_of_system", "parse_datum", "suggested_datum"]

logger = logging.getLogger(__name__)

TAG = "VERTICAL_DATUM"
"""The tag of a raster that names the datum of its heights."""

_TAGS = (TAG, "VERT_DATUM", "VERTICAL_CS", "VERTICAL_CRS", "VERTDATUM")
_ELLIPSOID = "EPSG:4979"
# Names in words of which EPSG has exactly one system in metres.
_WORDS = {
    "egm96": "EPSG:5773",
    "egm2008": "EPSG:3855",
    "egm08": "EPSG:3855",
    "egm84": "EPSG:5798",
    "navd88": "EPSG:5703",
    "ln02": "EPSG:5728",
    "evrf2007": "EPSG:5621",
    "dhhn2016": "EPSG:7837",
    "wgs84 ellipsoid": _ELLIPSOID,
    "wgs 84 ellipsoid": _ELLIPSOID,
    "ellipsoid": _ELLIPSOID,
}
# Products, by a part of the names of their files: they are suggested, because files are renamed and converted.
_PRODUCTS = (
    (r"srtm|nasadem|astgtm|aster.?gdem", "SRTM, NASADEM or ASTER GDEM", "EPSG:5773"),
    (r"aw3d|alpsmlc30|alos", "ALOS World 3D", "EPSG:5773"),
    (r"copernicus.?dsm|glo.?30|glo.?90|fabdem", "Copernicus GLO-30 or FABDEM", "EPSG:3855"),
    (r"tdm1|tandem", "TanDEM-X", _ELLIPSOID),
    (r"3dep|usgs_(1|13|1m|s1m)_|(^|[^a-z])ned([^a-z]|$)", "USGS 3DEP or NED", "EPSG:5703"),
    (r"swissalti", "swissALTI3D", "EPSG:5728"),
    (r"atl0[368]|gedi", "ICESat-2 or GEDI", _ELLIPSOID),
)


@dataclass(frozen=True)
class VerticalDatum:
    """What heights refer to.

    Attributes:
        code: ``EPSG:5773``; for a system without a code its WKT; empty where it is unknown.
        name: its name in words.
        origin: what told it: ``CRS``, a tag, an option.
    """

    code: str = ""
    name: str = "unknown"
    origin: str = ""

    @property
    def known(self) -> bool:
        """Whether anything told it."""
        return bool(self.code)

    @property
    def label(self) -> str:
        """The code where there is a short one, else the name."""
        return self.code if len(self.code) <= 20 else self.name

    def __str__(self) -> str:
        """One phrase for messages and tables."""
        return f"{self.label} ({self.name}, from {self.origin})" if self.known else "unknown"

    def system(self) -> pyproj.CRS:
        """The vertical, or three-dimensional geographic, system of a known datum."""
        import pyproj  # a quarter of a second

        return pyproj.CRS.from_user_input(self.code)

    def same_as(self, other: VerticalDatum) -> bool:
        """Whether two known datums are one, whatever the unit of their heights is."""
        if self.code == other.code:
            return True
        one, two = self.system(), other.system()
        return one.is_vertical == two.is_vertical and _datum_name(one) == _datum_name(two)

    def describe(self) -> dict[str, str]:
        """As JSON."""
        return {"code": self.code or "unknown", "name": self.name, "from": self.origin}


UNKNOWN = VerticalDatum()


def parse_datum(text: str, option: str = "--vertical-datum") -> VerticalDatum:
    """The datum that an option names.

    Args:
        text: a code such as ``EPSG:3855`` or ``EPSG:4979``; of a compound code, its vertical part; empty for unknown.
        option: its name, for messages.

    Raises:
        UserError: words, a code that does not exist, a system without heights, or one of depths.
    """
    if not text.strip():
        return UNKNOWN
    if not re.fullmatch(r"[A-Za-z]+:\d+(\+\d+)?", text.strip()):
        meant = _of_words(text)
        hint = f"EPSG:{meant.code.partition(':')[2]} is {meant.name}" if meant.known else "EPSG:5773 is EGM96 height"
        raise UserError(f"{option} '{text}': give a code, not a name; {hint}")
    found = _of_text(text.strip(), option)
    if found is None:
        raise UserError(
            f"{option} '{text}': names no vertical datum; give one such as EPSG:5773 (EGM96), EPSG:3855 (EGM2008), "
            "EPSG:5703 (NAVD88) or EPSG:4979 (WGS 84 ellipsoid)"
        )
    if found.system().axis_info[-1].direction == "down":
        raise UserError(f"{option} '{text}': {found.name} counts depths, not heights; give a datum of heights")
    return found


def datum_of(
    path: object, source: Any, given: VerticalDatum = UNKNOWN, option: str = "--vertical-datum"
) -> VerticalDatum:
    """The datum of a raster's heights: of its system, else of its tags, else what the user says, else unknown.

    A known product is only suggested, in one line of the log.

    Args:
        path: the raster's name.
        source: the open raster.
        given: what the user says about this raster.
        option: the option that says it.

    Raises:
        UserError: the user says another datum than the file.
    """
    found = datum_of_system(source.crs) or _of_tags(path, source.tags(), option) or UNKNOWN
    if found.known and given.known and not found.same_as(given):
        raise UserError(
            f"'{path}' says that its heights refer to {found}, and {option} says {given.label} ({given.name}); leave "
            f"the option out, or correct the file (gdal_edit.py -a_srs, -mo {TAG}=)"
        )
    if found.known or given.known:
        return found if found.known else given
    suggestion = suggested_datum(Path(str(path)).name)
    if suggestion:
        logger.info("'%s' does not say what its heights refer to; %s", path, suggestion.format(option=option))
    return UNKNOWN


def suggested_datum(name: str) -> str:
    """A phrase on the product that the name of a file suggests, with ``{option}`` in it; empty for other names."""
    for pattern, product, code in _PRODUCTS:
        if re.search(pattern, name, re.IGNORECASE):
            return f"if it is {product} as published, say {{option}} {code}"
    return ""


def datum_of_system(crs: Any) -> VerticalDatum | None:
    """The datum of the height axis of a system of rasterio's; None where it has none."""
    wkt = vertical_system(crs)
    return None if wkt is None else _of_text(wkt, "CRS")


def _of_tags(path: object, tags: Mapping[str, str], option: str) -> VerticalDatum | None:
    named = {key.upper(): value.strip() for key, value in tags.items()}
    for key in _TAGS:
        text = named.get(key, "")
        if not text:
            continue
        found = _of_text(text, f"tag {key}") if re.fullmatch(r"[A-Za-z]+:\d+(\+\d+)?", text) else None
        words = _of_words(text)
        if found is None and words.known:
            found = VerticalDatum(words.code, words.name, f"tag {key}")
        if found is not None:
            return found
        logger.warning("'%s': its tag %s='%s' names no datum that is known; %s EPSG:N says it", path, key, text, option)
    return None


def _of_words(text: str) -> VerticalDatum:
    plain = " ".join(re.sub(r"\b(height|heights|geoid)\b", " ", text.casefold().replace("_", " ")).split())
    code = _WORDS.get(plain) or _WORDS.get(plain.replace(" ", ""))
    found = _of_text(code, "words") if code else None
    return found or UNKNOWN


def _of_text(text: str, origin: str) -> VerticalDatum | None:
    """The vertical part of a code or WKT; None where there is no such system, or it has no heights."""
    import pyproj

    try:
        system = pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        return None
    if system.is_compound:
        system = system.sub_crs_list[-1]
    heights = system.is_vertical or (len(system.axis_info) == 3 and not system.is_geocentric)
    if not heights:
        return None
    if not system.is_vertical and system.is_projected:
        geodetic = system.geodetic_crs
        system = system if geodetic is None else geodetic.to_3d()
    authority = system.to_authority(min_confidence=90)
    code = ":".join(authority) if authority else system.to_wkt()
    name = system.name if system.is_vertical else f"ellipsoid of {system.name}"
    return VerticalDatum(code, name, origin)


def _datum_name(system: pyproj.CRS) -> str:
    datum = system.datum
    return system.name if datum is None else str(datum.name).removesuffix(" ensemble")
