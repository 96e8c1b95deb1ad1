"""Which bands of a raster are red, green and blue, as far as the file says so: for scenes and for tiles."""

from __future__ import annotations

from typing import Any

from rasterio.enums import ColorInterp

__all__ = ["named_colours", "opaque_bands"]

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def named_colours(dataset: Any) -> tuple[int, int, int] | None:
    """Give the numbers (1-based) of the bands that an open raster calls red, green and blue; None if it does not.

    The colour interpretation decides, of which each colour's first band is taken. Where that names no colour, the
    descriptions of the bands do if they are these three words, each once.
    """
    kinds = list(dataset.colorinterp)
    if all(colour in kinds for colour in _COLOURS):
        red, green, blue = (kinds.index(colour) + 1 for colour in _COLOURS)
        return red, green, blue
    names = [(name or "").strip().lower() for name in dataset.descriptions]
    words = [colour.name for colour in _COLOURS]
    if not any(colour in kinds for colour in _COLOURS) and all(names.count(word) == 1 for word in words):
        red, green, blue = (names.index(word) + 1 for word in words)
        return red, green, blue
    return None


def opaque_bands(dataset: Any) -> list[int]:
    """The numbers (1-based) of all bands of an open raster that are not tagged as opacity (alpha)."""
    return [number for number, kind in enumerate(dataset.colorinterp, start=1) if kind != ColorInterp.alpha]
