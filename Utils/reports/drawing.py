"""Panels as picture files for a page: single maps without frames or letters, which the page adds around them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LightSource, to_hex
from numpy.typing import NDArray
from PIL import Image

from Utils.pictures.comparison import Panel, hillshade, round_up

__all__ = ["colours_of", "draw_panel", "draw_relief", "drawn_range", "encode", "error_limit"]

MAP_COLOURS, ERROR_COLOURS = "viridis", "RdBu_r"

# Pictures, and so the page, stay small as JPEG; small pictures are PNG, because blocks of JPEG would be visible.
_JPEG_QUALITY = 82
_LARGEST_PNG = 160
# As in Utils.pictures.comparison: the whole range of heights is lit as a hill a sixth as high as the tile is wide.
_RELIEF_SHARE = 1.0 / 6.0
_FULL_HEIGHT = 255.0
_INVALID = 0x8C
_COLOURS_OF_A_SCALE = 12

Pixels = NDArray[np.uint8]


def error_limit(panels: Sequence[Panel], whole: bool = True) -> float:
    """The end of the error scale: the 99th percentile of all panels' errors, rounded up.

    Args:
        panels: panels of any kind.
        whole: whether errors are in grey levels, and the end is a multiple of five.
    """
    errors = [np.abs(panel.values[np.isfinite(panel.values)]) for panel in panels if panel.kind == "error"]
    joined = np.concatenate([np.zeros(0), *errors])
    largest = float(np.percentile(joined, 99.0)) if joined.size else 0.0
    return max(5.0, 5.0 * math.ceil(largest / 5.0)) if whole else round_up(largest)


def drawn_range(panels: Sequence[Panel], valid: NDArray[np.bool_]) -> tuple[float, float]:
    """The lowest and the highest valid value of some maps, at least apart."""
    values = np.concatenate([panel.values[valid & np.isfinite(panel.values)] for panel in panels])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def draw_panel(
    panel: Panel, valid: NDArray[np.bool_], limit: float, span: tuple[float, float] = (0.0, _FULL_HEIGHT)
) -> Pixels:
    """Draw one panel.

    Args:
        panel: a map, errors in the same unit, or an image; relief needs heights in 0..255.
        valid: (H, W); other pixels are grey in all but images.
        limit: size of the error at both ends of the colour scale.
        span: the values at the ends of a map's colour scale.

    Returns:
        (H, W, 3).
    """
    values = panel.values.astype(np.float64)
    if panel.kind == "image":
        image = np.moveaxis(values, 0, -1) if values.shape[0] == 3 else values
        return _as_bytes(image)
    values = np.where(valid, values, np.nan)
    if panel.kind == "relief":
        return _coloured(_shade(values, _FULL_HEIGHT), "gray")
    if panel.kind == "error":
        return _coloured(values / (2.0 * limit) + 0.5, ERROR_COLOURS)
    low, high = span
    return _coloured((values - low) / (high - low), MAP_COLOURS)


def draw_relief(height: NDArray[Any], valid: NDArray[np.bool_]) -> Pixels:
    """Draw a map in colours, lit from the north-west, as (H, W, 3).

    Args:
        height: (H, W) in any unit. It is stretched to its range but not rounded as in the paper protocol: in the light,
            whole numbers would show as terraces.
        valid: (H, W); other pixels are grey.
    """
    shares = np.where(valid, height.astype(np.float64), np.nan)
    if valid.any():
        shares = (shares - np.nanmin(shares)) / (np.ptp(shares[valid]) or 1.0)
    lit = LightSource().blend_soft_light(_coloured(shares, MAP_COLOURS) / 255.0, _shade(shares, 1.0)[..., None])
    return np.where(np.isnan(lit), np.uint8(_INVALID), _as_bytes(lit))


def encode(pixels: Pixels, longest: int) -> bytes:
    """Encode a picture (H, W, 3) as JPEG, or as PNG if it is small; shrunk to ``longest`` pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(picture.size) <= _LARGEST_PNG:
        picture.save(buffer, format="PNG", optimize=True)
    else:
        # Colours at full resolution: they carry the values. Not optimised: Pillow would give it a byte a pixel and fail
        # where a picture needs more, as a map of scattered classes does.
        picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def colours_of(name: str) -> list[str]:
    """Hex colours, evenly spaced along a colour map."""
    return [to_hex(colour) for colour in matplotlib.colormaps[name](np.linspace(0.0, 1.0, _COLOURS_OF_A_SCALE))]


def _shade(values: NDArray[np.float64], full: float) -> NDArray[np.float64]:
    """The light that a surface with heights from 0 to ``full`` reflects."""
    return hillshade(values, _RELIEF_SHARE * max(values.shape) / full)


def _coloured(shares: NDArray[np.float64], name: str) -> Pixels:
    """Colours (H, W, 3) of values in [0, 1]; values beyond get the colour of the nearer end, NaN is grey."""
    colours = matplotlib.colormaps[name].with_extremes(bad=(_INVALID / 255.0,) * 3)
    pixels: Pixels = np.asarray(colours(shares, bytes=True))
    return pixels[..., :3]


def _as_bytes(colours: NDArray[np.float64]) -> Pixels:
    return np.rint(np.clip(np.nan_to_num(colours), 0.0, 1.0) * 255.0).astype(np.uint8)
