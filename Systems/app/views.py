"""What the app shows of a scene: surface, slope, uncertainty, and heights along a line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling

from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.source.scene_source import open_scene
from Utils.reports.drawing import draw_relief
from Utils.scenes.options import SceneOptions
from Utils.scenes.relief.glb_file import write_glb
from Utils.scenes.relief.relief_grid import read_relief_grid

__all__ = ["Drawn", "draw_line", "profile_plot", "read_drawn", "scene_glb", "scene_image"]

_TEXTURE = 2048
_PICTURE = 900
_GREY = 0.85
_LINE = (255, 60, 60)


@dataclass(frozen=True)
class Drawn:
    """A result, coarse enough to be shown.

    Attributes:
        heights: (h, w) NaN where there are none.
        spread: (h, w) one standard deviation; None without it.
        unit: of both; empty for relative heights.
        step: metres from row to row and from column to column; None without a georeference.
    """

    heights: NDArray[np.float64]
    spread: NDArray[np.float64] | None
    unit: str
    step: tuple[float, float] | None

    def slope(self) -> NDArray[np.float64] | None:
        """(h, w) degrees against the horizontal; None where heights or ground are not in metres."""
        if self.step is None or not self.unit or min(self.heights.shape) < 2:
            return None
        down, right = np.gradient(self.heights, *self.step)
        return np.asarray(np.degrees(np.arctan(np.hypot(down, right))))

    def relief(self) -> NDArray[np.uint8]:
        """(h, w, 3) shaded hills without a frame."""
        valid = np.isfinite(self.heights)
        low, high = np.percentile(self.heights[valid], (0.5, 99.5)) if valid.any() else (0.0, 1.0)
        levels = np.clip((np.where(valid, self.heights, low) - low) / max(high - low, 1e-9), 0.0, 1.0) * 255.0
        return draw_relief(levels, valid)


def read_drawn(output: Path) -> Drawn:
    """Read a height raster for pictures."""
    with raster_errors(output), georeference_optional(), rasterio.open(output) as dataset:
        shrink = max(1.0, max(dataset.shape) / _PICTURE)
        shape = (max(1, round(dataset.height / shrink)), max(1, round(dataset.width / shrink)))
        names = {name: number for number, name in enumerate(dataset.descriptions, start=1)}

        def read(number: int) -> NDArray[np.float64]:
            band = dataset.read(number, out_shape=shape, resampling=Resampling.average, masked=True)
            return np.asarray(band.astype(np.float64).filled(np.nan))

        ground = ground_sample_distance(dataset.crs, dataset.transform, dataset.height, dataset.width)
        unit = dataset.units[0] or ""
        heights = read(1)
        spread = read(names["uncertainty"]) if "uncertainty" in names else None
        step = None
        if ground is not None:
            step = (ground[0] * dataset.height / shape[0], ground[1] * dataset.width / shape[1])
    return Drawn(heights, spread, "m" if unit == "metre" else unit, step)


def scene_image(image: Path, options: SceneOptions, longest: int = _TEXTURE) -> NDArray[np.float32]:
    """The scene's image (3, h, w) in [0, 1], as the model saw it, small enough to be draped."""
    with open_scene(image, options.bands, options.nodata, options.stretch, options.suspect_voids, tell=False) as source:
        return source.thumbnail(longest)


def scene_glb(texture: NDArray[np.float32], output: Path, most_triangles: int, exaggeration: float = 1.0) -> bytes:
    """The surface with its image, as ``scene_image`` gives it, as a GLB file."""
    return write_glb(read_relief_grid(output, most_triangles), texture, exaggeration)


def map_picture(values: NDArray[np.float64], label: str, colours: str, low: float | None = None) -> Image.Image:
    """A map in colours, with its scale, from ``low`` or the 1st percentile to the 99th."""
    known = values[np.isfinite(values)]
    first, last = (float(end) for end in np.percentile(known, (1, 99))) if known.size else (0.0, 1.0)
    height, width = values.shape
    figure = Figure(figsize=(9, min(max(9 * height / width, 3), 14) + 0.9), dpi=100, layout="constrained")
    axes: Any = figure.subplots()
    axes.set_facecolor(str(_GREY))
    shown = axes.imshow(values, cmap=colours, vmin=first if low is None else low, vmax=max(last, first + 1e-9))
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(shown, ax=axes, orientation="horizontal", label=label, aspect=40, pad=0.02)
    return _picture(figure)


def draw_line(picture: NDArray[np.uint8], places: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """A picture (h, w, 3) with a line through places (column, row), and its corners as dots."""
    from PIL import ImageDraw

    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    if len(places) > 1:
        pen.line([tuple(place) for place in places], fill=_LINE, width=3)
    for column, row in places:
        pen.ellipse((column - 5, row - 5, column + 5, row + 5), outline=(255, 255, 255), fill=_LINE)
    return np.asarray(drawn)


def profile_plot(drawn: Drawn, places: Sequence[tuple[int, int]]) -> Image.Image:
    """Heights along a line through places (column, row) of the picture, with the uncertainty where there is one."""
    columns, rows, distance = _along(drawn, places)
    heights = _sampled(drawn.heights, rows, columns)
    figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
    axes: Any = figure.subplots()
    if drawn.spread is not None:
        spread = _sampled(drawn.spread, rows, columns)
        axes.fill_between(distance, heights - spread, heights + spread, alpha=0.25, label="± one standard deviation")
        axes.legend(loc="upper left")
    axes.plot(distance, heights, color="#0a6792")
    axes.set_xlabel("distance along the line (m)" if drawn.step else "distance along the line (pixels of the picture)")
    axes.set_ylabel(f"height ({drawn.unit})" if drawn.unit else "relative height")
    axes.grid(alpha=0.3)
    axes.margins(x=0)
    return _picture(figure)


def _along(
    drawn: Drawn, places: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Columns, rows and distances of points a pixel apart on a line."""
    corners = np.asarray(places, np.float64)
    parts = np.hypot(*np.diff(corners, axis=0).T)
    ends = np.concatenate([[0.0], np.cumsum(parts)])
    steps = np.linspace(0.0, ends[-1], max(2, round(ends[-1]) + 1))
    columns, rows = (np.interp(steps, ends, corners[:, axis]) for axis in (0, 1))
    down, right = drawn.step or (1.0, 1.0)
    moved = np.hypot(np.diff(columns) * right, np.diff(rows) * down)
    return columns, rows, np.concatenate([[0.0], np.cumsum(moved)])


def _sampled(
    values: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    from scipy.ndimage import map_coordinates

    return np.asarray(map_coordinates(values, [rows, columns], order=1, mode="nearest", cval=np.nan))


def _picture(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    file = io.BytesIO()
    canvas.print_png(file)
    return Image.open(file).convert("RGB")
