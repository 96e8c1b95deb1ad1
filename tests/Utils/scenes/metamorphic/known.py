"""What fails today, by role and name: each line goes as soon as the product does right."""

from __future__ import annotations

FEET = "issue 13, units in feet: evaluateScene refuses what predict.py converts"

_FEET = ("feet by a compound CRS", "feet", "Foot in capitals", "US survey feet", "us-ft", "centimetres")
_FAILING = {
    ("truth", FEET): _FEET,
    ("baseline", FEET): _FEET,
    ("prediction", FEET): _FEET,
}
_ITEMS = {(role, name): item for (role, item), names in _FAILING.items() for name in names}


def failing(role: str, name: str) -> str:
    """The open item of a disguise in a role, empty for none."""
    return _ITEMS.get((role, name), "")
