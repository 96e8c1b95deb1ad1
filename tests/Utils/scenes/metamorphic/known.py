"""What fails today, by role and name: each line goes as soon as the product does right."""

from __future__ import annotations

VOIDS, BANDS, PATHS = (f"issue 13 item {number}" for number in (3, 6, 8))
FEET = "issue 13, units in feet: evaluateScene refuses what predict.py converts"

_ARCHIVES = ("/vsizip/", "/vsitar/", "/vsitar/ of .tar.gz", "VRT in an archive", "/vsigzip/")
_FEET = ("feet by a compound CRS", "feet", "Foot in capitals", "US survey feet", "us-ft", "centimetres")
_FAILING = {
    ("dem", PATHS): _ARCHIVES,
    ("image", BANDS): (
        *("bands tagged blue green red", "bands tagged green red blue", "infrared first"),
        *("infrared as alpha makes holes", "band asked for is alpha"),
    ),
    ("image", VOIDS): (
        *("frame of 0 in uint8", "frame of 255 in uint8", "frame of -9999 in float32"),
        *("frame of -32768 in int16", "frame of 0 in uint16", "frame of 65535 in uint16"),
    ),
    ("image", PATHS): (*_ARCHIVES, "/vsizip/{}", "zip://", "/vsisubfile/"),
    ("truth", PATHS): (*_ARCHIVES, "/vsizip/{}", "/vsisubfile/"),
    ("truth", FEET): _FEET,
    ("baseline", FEET): _FEET,
    ("prediction", FEET): _FEET,
}
_ITEMS = {(role, name): item for (role, item), names in _FAILING.items() for name in names}


def failing(role: str, name: str) -> str:
    """The open item of a disguise in a role, empty for none."""
    return _ITEMS.get((role, name), "")
