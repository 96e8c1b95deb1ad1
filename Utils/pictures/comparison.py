"""Pictures of results: images, maps of heights or depth, relief and errors side by side, on shared colour scales.

Only matplotlib's objects are used, never pyplot: no state is shared, nothing needs a display.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from Utils.core.files import atomic_write_bytes
from Utils.pictures.quantity import HEIGHT, Quantity

__all__ = ["Panel", "hillshade", "round_up", "save_comparison", "save_overview"]

# Lengths in pixels of the finished picture.
_DPI = 100
_GAP = 6
_MARGIN = 14
_LINE = 17
_BAR_HEIGHT = 11
_BAR_SPACE = 64
_TEXT_POINTS = 9.0
_TITLE_POINTS = 11.0
# A character of _TEXT_POINTS is about this wide; titles are wrapped by it.
_CHARACTER = 7.0

_INVALID_COLOUR = "#8c8c8c"
# The whole range of heights is lit as a hill a sixth as high as the tile is wide: detail shows, little is black.
_RELIEF_SHARE = 1.0 / 6.0
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Panel:
    """One map or image of a picture.

    Attributes:
        title: text above it; wrapped to its width.
        values: ``image``: (3, H, W) or (H, W, 3) in [0, 1]. Other kinds: (H, W), with NaN where there is no data.
        kind: ``height`` (a map of heights or depth) and ``error`` (prediction - truth, signed) are coloured, each on
            one scale for the whole picture. ``relief`` takes heights and draws them as shaded hills, which shows at a
            glance what is blurred.
    """

    title: str
    values: NDArray[Any]
    kind: Literal["image", "height", "error", "relief"]

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit the kind."""
        shape = self.values.shape
        if self.kind not in ("image", "height", "error", "relief"):
            raise ValueError(f"Panel {self.title!r}: kind {self.kind!r} is none of image, height, error, relief")
        if self.kind == "image":
            fits = len(shape) == 3 and 3 in (shape[0], shape[2])
        else:
            fits = len(shape) == 2
        if not fits or 0 in shape:
            wanted = "(3, H, W) or (H, W, 3)" if self.kind == "image" else "(H, W)"
            raise ValueError(f"Panel {self.title!r}: kind {self.kind!r} needs shape {wanted}, got {shape}")


@dataclass(frozen=True)
class _Style:
    """How wide a panel is, in pixels, and how many shades the scales have: fewer make smaller files."""

    panel_width: int
    height_shades: int
    error_shades: int


_COMPARISON = _Style(220, height_shades=256, error_shades=128)
# For a README: four rows of six stay below 600 kB. Tiles of 128 pixels are drawn as they are.
_OVERVIEW = _Style(128, height_shades=64, error_shades=32)


def hillshade(height: NDArray[Any], z_factor: float = 1.0) -> NDArray[np.float64]:
    """Light a height map from the north-west, 45 degrees up (Lambert's cosine law).

    Args:
        height: (H, W) with H and W at least 2, row 0 in the north; NaN where there is no data.
        z_factor: pixels per unit of height.

    Returns:
        (H, W) in [0, 1]: the share of the light that a pixel reflects, 0.71 on flat ground; NaN at and beside NaN.
    """
    south, east = np.gradient(np.asarray(height, np.float64) * z_factor)
    # The surface normal is (-east, south, 1) in (east, north, up); the light comes from (-1, 1, sqrt(2)) / 2.
    cosine = (east + south + math.sqrt(2.0)) / (2.0 * np.sqrt(1.0 + east**2 + south**2))
    shade: NDArray[np.float64] = np.clip(cosine, 0.0, 1.0)
    return shade


def save_comparison(
    path: str | os.PathLike[str],
    panels: Sequence[Panel],
    title: str,
    valid: NDArray[np.bool_] | None = None,
    *,
    columns: int = 6,
    quantity: Quantity = HEIGHT,
) -> None:
    """Draw the panels of one tile from left to right; steps of a refinement are panels like any other.

    Args:
        path: a .png (exact colours) or .jpg (half the size) in an existing folder. It is whole or absent.
        panels: at least one; more than ``columns`` go on in a further line.
        title: the line above all panels.
        valid: (H, W) bool; pixels that are False are grey in all panels but images.
        columns: most panels in a line.
        quantity: what the maps show, which gives their colour scale its ends and its label.

    Raises:
        ValueError: no panels, a mask of another shape than the maps, or another suffix.
        OSError: the file cannot be written.
    """
    masked = [_masked(panel, valid) for panel in panels]
    rows = [masked[start : start + columns] for start in range(0, len(masked), columns)]
    _save_grid(path, rows, None, title, _COMPARISON, quantity)


def save_overview(
    path: str | os.PathLike[str],
    rows: Sequence[Sequence[Panel]],
    row_labels: Sequence[str],
    title: str = "",
    valids: Sequence[NDArray[np.bool_] | None] | None = None,
    *,
    quantity: Quantity = HEIGHT,
) -> None:
    """Draw several tiles, one a row, on shared scales. Titles that all rows share stand at the top only.

    Args:
        path: a .png (exact colours) or .jpg (half the size) in an existing folder. It is whole or absent.
        rows: the panels of each tile.
        row_labels: a short name for each row, set at its left side.
        title: the line above all panels; may be empty.
        valids: for each row None or (H, W) bool, as in :func:`save_comparison`.
        quantity: what the maps show, which gives their colour scale its ends and its label.

    Raises:
        ValueError: an empty row, not one label and mask for each row, a mask of another shape, or another suffix.
        OSError: the file cannot be written.
    """
    masks = [None] * len(rows) if valids is None else list(valids)
    if not len(rows) == len(row_labels) == len(masks):
        raise ValueError(f"{len(rows)} rows, {len(row_labels)} row labels, {len(masks)} masks: must be as many")
    masked = [[_masked(panel, mask) for panel in row] for row, mask in zip(rows, masks, strict=True)]
    _save_grid(path, masked, row_labels, title, _OVERVIEW, quantity)


@dataclass(frozen=True)
class _Scale:
    """One colour scale: values from ``low`` to ``high``; ``clipped`` where some lie beyond."""

    colours: Colormap
    low: float
    high: float
    clipped: bool = False


@dataclass(frozen=True)
class _Scales:
    """The scales of a picture: of colours, None where unused, and the span of heights that sets the relief."""

    height: _Scale | None
    error: _Scale | None
    relief: _Scale
    relief_span: float


def _masked(panel: Panel, valid: NDArray[np.bool_] | None) -> Panel:
    if valid is None or panel.kind == "image":
        return panel
    if valid.shape != panel.values.shape:
        raise ValueError(f"Panel {panel.title!r}: {panel.values.shape} values under a mask of {valid.shape}")
    return replace(panel, values=np.where(valid, panel.values, np.nan))


def _save_grid(
    path: str | os.PathLike[str],
    rows: Sequence[Sequence[Panel]],
    row_labels: Sequence[str] | None,
    title: str,
    style: _Style,
    quantity: Quantity,
) -> None:
    """Place everything by whole pixels from the top left corner, so that tiles are not resampled unevenly."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{os.fspath(path)}: a picture is written as .png, .jpg or .jpeg, not {suffix or 'bare'!r}")
    if not rows or not all(rows):
        raise ValueError("A picture needs at least one panel in every row")
    panel_width = style.panel_width
    scales = _scales([panel for row in rows for panel in row], quantity.fixed_range, style)
    titles = _visible_titles(rows, max(8, int(panel_width / _CHARACTER)))
    title_lines = [max(text.count("\n") + 1 if text else 0 for text in line) for line in titles]
    panel_height = round(panel_width * max(_aspect(panel) for row in rows for panel in row))

    left = _MARGIN + (_LINE + 4 if row_labels else 0)
    right = left + max(len(row) for row in rows) * (panel_width + _GAP) - _GAP
    heading = textwrap.wrap(title, max(16, int((right - left) / (_CHARACTER * _TITLE_POINTS / _TEXT_POINTS))))
    tops = []
    bottom = _MARGIN + len(heading) * (_LINE + 3) + (4 if heading else 0)
    for lines in title_lines:
        tops.append(bottom + lines * _LINE)
        bottom = tops[-1] + panel_height + _GAP
    has_bars = scales.height is not None or scales.error is not None
    canvas = _Canvas(right + _MARGIN, bottom - _GAP + (_BAR_SPACE if has_bars else _MARGIN))

    for number, line in enumerate(heading):
        canvas.text(left, _MARGIN + number * (_LINE + 3), line, points=_TITLE_POINTS, weight="bold")
    for row_number, (row, top) in enumerate(zip(rows, tops, strict=True)):
        if row_labels:
            most = max(4, int(panel_height / _CHARACTER))
            label = row_labels[row_number]
            label = label if len(label) <= most else label[: most - 3] + "..."
            canvas.text(_MARGIN, top + panel_height / 2, label, rotation=90, vertical="center")
        for column, panel in enumerate(row):
            x = left + column * (panel_width + _GAP)
            text = titles[row_number][column]
            canvas.text(x + panel_width / 2, top - 4, text, horizontal="center", vertical="bottom")
            _draw(canvas.axes(x, top, panel_width, panel_height), panel, scales)
    _draw_bars(canvas, scales, left, right, bottom + 8, quantity)
    atomic_write_bytes(path, canvas.encoded(suffix))


class _Canvas:
    """A figure measured in pixels from its top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self._figure.set_layout_engine("none")
        self._canvas: Any = FigureCanvasAgg(self._figure)  # Any: matplotlib leaves its drawing calls untyped

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Add axes with their top left corner at (x, y)."""
        bounds = (x / self._width, 1 - (y + height) / self._height, width / self._width, height / self._height)
        return self._figure.add_axes(bounds)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        points: float = _TEXT_POINTS,
        horizontal: Literal["left", "center", "right"] = "left",
        vertical: Literal["top", "center", "bottom"] = "top",
        rotation: float = 0.0,
        weight: str = "normal",
    ) -> None:
        """Write text anchored at (x, y); a dollar sign is a dollar sign, not mathematics."""
        self._figure.text(
            x / self._width,
            1 - y / self._height,
            text,
            fontsize=points,
            ha=horizontal,
            va=vertical,
            rotation=rotation,
            weight=weight,
            color="black",
            parse_math=False,
        )

    def bar(self, scale: _Scale, axes: Axes, label: str) -> None:
        """Fill axes with a colour bar, with arrows at its ends where values lie beyond."""
        mappable = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
        extend = "both" if scale.clipped else "neither"
        bar = self._figure.colorbar(mappable, cax=axes, orientation="horizontal", extend=extend, extendfrac=0.03)
        if scale.low == -scale.high:
            bar.set_ticks([scale.low, scale.low / 2, 0.0, scale.high / 2, scale.high])
        else:
            bar.locator = MaxNLocator(nbins=6, min_n_ticks=3)
        bar.ax.tick_params(labelsize=_TEXT_POINTS - 1, length=3, pad=2)
        bar.set_label(label, fontsize=_TEXT_POINTS, labelpad=2)

    def encoded(self, suffix: str) -> bytes:
        """Render the figure as PNG or JPEG; matplotlib's own PNG would hold an alpha channel, a tenth of the file."""
        self._canvas.draw()
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3].copy())
        buffer = io.BytesIO()
        if suffix == ".png":
            picture.save(buffer, format="PNG")
        else:
            # Colours at full resolution: they carry the values.
            picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
        return buffer.getvalue()


def _scales(panels: Sequence[Panel], height_range: tuple[float, float] | None, style: _Style) -> _Scales:
    heights = [panel.values for panel in panels if panel.kind == "height"]
    errors = [panel.values for panel in panels if panel.kind == "error"]
    reliefs = [panel.values for panel in panels if panel.kind == "relief"]
    low, high = height_range or _finite_range(heights or reliefs)
    height = error = None
    if heights:
        lowest, highest = _finite_range(heights)
        height = _Scale(_colours("viridis", style.height_shades), low, high, lowest < low or highest > high)
    if errors:
        magnitudes = np.abs(np.concatenate([values[np.isfinite(values)] for values in errors]))
        # A few wild pixels must not turn all others white: the scale ends near the 99th percentile.
        limit = round_up(float(np.percentile(magnitudes, 99.0))) if magnitudes.size else 1.0
        clipped = bool(magnitudes.size and magnitudes.max() > limit)
        error = _Scale(_colours("RdBu_r", style.error_shades), -limit, limit, clipped)
    return _Scales(height, error, _Scale(_colours("gray", style.height_shades), 0.0, 1.0), high - low)


def _colours(name: str, shades: int) -> Colormap:
    """Colours that the colour-blind can tell apart: viridis is even in brightness, RdBu has no green."""
    return matplotlib.colormaps[name].resampled(shades).with_extremes(bad=_INVALID_COLOUR)


def _finite_range(arrays: Sequence[NDArray[Any]]) -> tuple[float, float]:
    finite = [values[np.isfinite(values)] for values in arrays]
    filled = [values for values in finite if values.size]
    if not filled:
        return 0.0, 1.0
    low, high = float(min(v.min() for v in filled)), float(max(v.max() for v in filled))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten: ends of scales that read well."""
    if not value > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0) if step * power >= value)


def _visible_titles(rows: Sequence[Sequence[Panel]], characters: int) -> list[list[str]]:
    """Wrapped titles, empty where the row above and all others have the same one in that column."""
    lines = [["\n".join(textwrap.wrap(panel.title, characters)) for panel in row] for row in rows]
    if len(lines) > 1 and all(line == lines[0] for line in lines):
        return [lines[0]] + [[""] * len(lines[0]) for _ in lines[1:]]
    return lines


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(values, 0, -1) if values.shape[0] == 3 else values


def _aspect(panel: Panel) -> float:
    height, width = (_channels_last(panel.values) if panel.kind == "image" else panel.values).shape[:2]
    return float(height) / float(width)


def _draw(axes: Axes, panel: Panel, scales: _Scales) -> None:
    axes.set_axis_off()
    if panel.kind == "image":
        axes.imshow(np.clip(np.nan_to_num(_channels_last(panel.values).astype(np.float64)), 0.0, 1.0))
        return
    values = panel.values.astype(np.float64)
    scale = {"height": scales.height, "error": scales.error, "relief": scales.relief}[panel.kind]
    assert scale is not None, "every kind that is drawn has its scale"
    if panel.kind == "relief":
        values = hillshade(values, _RELIEF_SHARE * max(values.shape) / scales.relief_span)
    axes.imshow(np.ma.masked_invalid(values), cmap=scale.colours, vmin=scale.low, vmax=scale.high)


def _draw_bars(canvas: _Canvas, scales: _Scales, left: int, right: int, top: int, quantity: Quantity) -> None:
    """Set the colour bars below the panels, centred, each on its half where there are two."""
    labelled = [(scales.height, quantity.label), (scales.error, quantity.error_label)]
    bars = [(scale, label) for scale, label in labelled if scale is not None]
    for number, (scale, label) in enumerate(bars):
        share = (right - left) / len(bars)
        width = min(0.8 * share, 360.0)
        x = left + (number + 0.5) * share - width / 2
        canvas.bar(scale, canvas.axes(x, top, width, _BAR_HEIGHT), label)
