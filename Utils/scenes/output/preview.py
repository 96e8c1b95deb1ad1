"""A height raster as a picture: colours by height, lit from the north-west, with its scales."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import rasterio
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from scipy.ndimage import distance_transform_edt

from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.pictures.comparison import hillshade
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance

__all__ = ["write_preview"]

_DPI = 100
# A picture of 900 pixels has text of 9 points; larger pictures have larger text, to be read when shown small.
_USUAL_WIDTH = 900
_NARROWEST = 560
# Scenes smaller than this are drawn with square pixels of several dots.
_FEWEST_DOTS = 480
_TEXT_POINTS = 9.0
_TITLE_POINTS = 12.0
_TITLE_CHARACTER = 9.5  # dots a character of the title takes, at _USUAL_WIDTH

_NO_DATA_COLOUR = 0.85  # a grey that no height has
_PERCENTILES = (1.0, 99.0)
# Slopes are exaggerated or, in cities and at cliffs, flattened until the steepest tenth of them begins between these:
# below them no relief is visible, above them everything is black or white.
_STEEP_PERCENTILE = 90.0
_STEEP_SLOPES = (0.6, 1.4)
_MOST_EXAGGERATION = 25.0  # otherwise noise on a plain would become mountains
_FLAT_LIGHT = math.sqrt(0.5)  # what hillshade gives on flat ground
_SHADOW = 0.25  # share of its colour that a slope without any light keeps


@dataclass(frozen=True)
class _Relief:
    """The map that is drawn.

    Attributes:
        heights: (h, w) float64, NaN where there is no data; pixels are square on the ground, where that is known.
        unit: the unit in the file.
        metres_a_pixel: metres along a pixel of the picture; None when unknown.
        has_scale: whether a length in the picture is the same length on the ground everywhere: projected CRS only.
    """

    heights: NDArray[np.float64]
    unit: str
    metres_a_pixel: float | None
    has_scale: bool


def write_preview(path: Path, source: Path, title: str = "", longest_side: int = 1600) -> None:
    """Draw a height raster as a PNG, whole or absent.

    Heights are coloured between their 1st and 99th percentile and lit from the north-west (the top left); slopes are
    exaggerated where the terrain is flat or the heights have no unit. No data is grey. Only as many pixels as are
    drawn are read.

    Args:
        path: name ending in .png, in an existing folder.
        source: a raster whose first band holds heights.
        title: the line above the picture; may be empty.
        longest_side: most pixels of the map's longer side, the frame excluded; at least 16.

    Raises:
        UserError: another suffix, or the picture cannot be written.
        RasterError: the raster cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"preview '{path}': is drawn as PNG; give a name ending in .png")
    picture = _draw(_read(Path(source), max(16, longest_side)), title)
    try:
        atomic_write_bytes(path, picture)
    except OSError as error:
        raise write_error(path, error, "the picture is missing, the heights are not touched") from error


def _read(path: Path, longest_side: int) -> _Relief:
    with raster_errors(path), georeference_optional(), rasterio.open(path) as dataset:
        ground = ground_sample_distance(dataset.crs, dataset.transform, dataset.height, dataset.width)
        down, across = ground or (1.0, 1.0)
        # Extents in pixels of the coarser direction: pixels doubled to make them square would be steps in the relief.
        coarsest = max(down, across)
        rows, columns = dataset.height * down / coarsest, dataset.width * across / coarsest
        shrink = max(1.0, max(rows, columns) / longest_side)
        shape = (max(2, round(rows / shrink)), max(2, round(columns / shrink)))  # a gradient needs two pixels
        band = dataset.read(1, out_shape=shape, resampling=Resampling.average, masked=True)
        unit = dataset.units[0] or ""
        projected = ground is not None and bool(dataset.crs.is_projected)
    heights = band.astype(np.float64).filled(np.nan)
    heights[~np.isfinite(heights)] = np.nan
    return _Relief(heights, unit, coarsest * shrink if ground else None, projected)


def _draw(relief: _Relief, title: str) -> bytes:
    """The picture as PNG: title, map, scales."""
    colours = _colours()
    scale, clipped = _colour_range(relief.heights)
    dots = max(1, _FEWEST_DOTS // max(relief.heights.shape))
    map_picture = np.kron(_shaded(relief, scale, colours), np.ones((dots, dots, 1), np.uint8))
    height, width, _ = map_picture.shape
    canvas_width = max(width, _NARROWEST)
    size = max(1.0, canvas_width / _USUAL_WIDTH)
    lines = textwrap.wrap(title, max(20, int(canvas_width / (_TITLE_CHARACTER * size))))
    margin, line, footer = round(12 * size), round(20 * size), round(64 * size)
    top = margin + len(lines) * line + (round(4 * size) if lines else 0)
    frame = _Frame(canvas_width + 2 * margin, top + height + footer, size)
    for number, text in enumerate(lines):
        frame.text(frame.width / 2, margin + number * line, text, _TITLE_POINTS)
    frame.picture(map_picture, (frame.width - width) // 2, top)
    inset = round(14 * size)  # half of a number at the end of the bar
    where = (margin + inset, top + height + margin, round(0.55 * canvas_width) - inset)
    frame.colour_bar(*where, scale, colours, clipped, _label(relief.unit))
    if relief.has_scale and relief.metres_a_pixel is not None:
        room = min(0.3 * canvas_width, width)
        frame.scale_bar(frame.width - margin, top + height + margin, room, relief.metres_a_pixel / dots)
    return frame.encoded()


def _label(unit: str) -> str:
    if unit.lower() in ("metre", "meter", "metres", "meters", "m"):
        return "height (m)"
    return f"height ({unit})" if unit else "relative height"


def _colours() -> Colormap:
    """Viridis without its darkest fifth: even in brightness, for the colour-blind too, and light enough for shadows."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.2, 1.0, 256))
    return LinearSegmentedColormap.from_list("heights", list(shades))


def _colour_range(heights: NDArray[np.float64]) -> tuple[Normalize, Literal["neither", "both", "min", "max"]]:
    """The colour scale, between percentiles so that one spike does not stretch it, and where values lie beyond."""
    known = heights[np.isfinite(heights)]
    if not known.size:
        return Normalize(0.0, 1.0), "neither"
    low, high = (float(end) for end in np.percentile(known, _PERCENTILES))
    if low == high:
        low, high = float(known.min()), float(known.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    below, above = known.min() < low, known.max() > high
    return Normalize(low, high), "both" if below and above else "min" if below else "max" if above else "neither"


def _shaded(relief: _Relief, scale: Normalize, colours: Colormap) -> NDArray[np.uint8]:
    """The map (h, w, 3): the colours of the heights, times the light that falls on them."""
    known = np.isfinite(relief.heights)
    if not known.any():
        return np.full((*relief.heights.shape, 3), round(255 * _NO_DATA_COLOUR), np.uint8)
    filled = relief.heights
    if not known.all():
        # Beyond the edge of the data the nearest height is repeated, so that the edge is not lit as a cliff.
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        filled = relief.heights[tuple(nearest)]
    light = hillshade(filled, _z_factor(filled, known, relief)) / _FLAT_LIGHT  # 1 on flat ground
    light = (_SHADOW + (1.0 - _SHADOW) * light)[..., None]
    flat = colours(scale(filled))[..., :3]
    # Flat ground has the colour of the scale; slopes towards the light are whiter.
    lit = np.where(light <= 1.0, flat * light, 1.0 - (1.0 - flat) * (2.0 - light))
    lit[~known] = _NO_DATA_COLOUR
    return np.rint(255.0 * np.clip(lit, 0.0, 1.0)).astype(np.uint8)


def _z_factor(filled: NDArray[np.float64], known: NDArray[np.bool_], relief: _Relief) -> float:
    """Pixels for a unit of height: true to scale, or chosen so that the steeper slopes show."""
    south, east = np.gradient(filled)
    steep = float(np.percentile(np.hypot(south, east)[known], _STEEP_PERCENTILE))
    gentlest, steepest = (slope / steep if steep > 0.0 else 1.0 for slope in _STEEP_SLOPES)
    if relief.metres_a_pixel is None or not relief.unit:
        return gentlest
    metres = 1.0 if _label(relief.unit) == "height (m)" else 0.3048  # what is not metres is feet
    real = metres / relief.metres_a_pixel
    return min(max(gentlest, min(real, steepest)), _MOST_EXAGGERATION * real)


class _Frame:
    """A white figure measured in dots from its top left corner; ``size`` multiplies text and lines."""

    def __init__(self, width: int, height: int, size: float) -> None:
        self.width, self.height, self._size = width, height, size
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self._figure.set_layout_engine("none")
        self._canvas: Any = FigureCanvasAgg(self._figure)  # Any: matplotlib leaves its drawing calls untyped
        self._pictures: list[tuple[NDArray[np.uint8], int, int]] = []

    def picture(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        """Put pixels (h, w, 3) with their top left corner at (x, y), dot by dot."""
        self._pictures.append((pixels, x, y))

    def text(
        self, x: float, y: float, text: str, points: float, horizontal: Literal["left", "center", "right"] = "center"
    ) -> None:
        """Write text below (x, y); a dollar sign is a dollar sign, not mathematics."""
        self._figure.text(
            x / self.width, 1 - y / self.height, text, fontsize=points * self._size, ha=horizontal, va="top",
            color="black", parse_math=False,
        )  # fmt: skip

    def colour_bar(
        self,
        x: float,
        y: float,
        width: float,
        scale: Normalize,
        colours: Colormap,
        clipped: Literal["neither", "both", "min", "max"],
        label: str,
    ) -> None:
        """Set a bar of the flat ground's colours with its top left corner at (x, y), arrows where values lie beyond."""
        height = 10 * self._size
        bounds = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        bar = self._figure.colorbar(
            ScalarMappable(scale, colours),
            cax=self._figure.add_axes(bounds),
            orientation="horizontal",
            extend=clipped,
            extendfrac=0.03,
            format=ScalarFormatter(useOffset=False),
        )
        bar.locator = MaxNLocator(nbins=5, min_n_ticks=3)
        bar.ax.tick_params(labelsize=(_TEXT_POINTS - 1) * self._size, length=3 * self._size, pad=2 * self._size)
        bar.set_label(label, fontsize=_TEXT_POINTS * self._size, labelpad=2 * self._size)

    def scale_bar(self, right: float, y: float, room: float, metres_a_dot: float) -> None:
        """Set a bar of a round length on the ground with its top right corner at (right, y)."""
        metres = _round_down(room * metres_a_dot)
        length, thickness = metres / metres_a_dot, 5 * self._size
        corner = ((right - length) / self.width, 1 - (y + thickness) / self.height)
        self._figure.add_artist(Rectangle(corner, length / self.width, thickness / self.height, color="black", lw=0))
        text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        self.text(right, y + 9 * self._size, text, _TEXT_POINTS, "right")

    def encoded(self) -> bytes:
        """Render as PNG without an alpha channel."""
        self._canvas.draw()
        dots = np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
        for pixels, x, y in self._pictures:
            dots[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        buffer = io.BytesIO()
        Image.fromarray(dots).save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()


def _round_down(length: float) -> float:
    """Round down to 1, 2 or 5 times a power of ten, the usual lengths of scale bars."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= length * (1.0 + 1e-9))
