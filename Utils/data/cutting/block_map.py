"""The map of a cut: which tiles are for training, for which fold, for the test, and what is left out.

Only matplotlib's objects are used, never pyplot: no state is shared, nothing needs a display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import binary_opening

from Utils.core.files import atomic_write_bytes
from Utils.data.cutting.blocks import TEST, BlockLayout, BlockName, Place
from Utils.data.cutting.pairs import Pairs
from Utils.data.cutting.records import label_of
from Utils.data.cutting.resampling import resampled
from Utils.data.cutting.survey import KEPT, Look
from Utils.rasters.geometry import Geometry

__all__ = ["draw_map"]

# Colours that the colour-blind can tell apart (Okabe and Ito); more folds than these take a sequence.
_TEST_COLOUR = "#d55e00"
_FOLD_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#f0e442", "#56b4e9")
_GAP_COLOUR = (1.0, 1.0, 1.0, 0.75)
_LEFT_OUT_COLOUR = "#333333"
_HATCH = "xx"
_MOST_PANELS = 12
_PANEL = 6.0  # inches
_SIDE = 700

Thumbnails = Callable[[int], NDArray[np.uint8] | None]


def draw_map(
    path: Path,
    pairs: Pairs,
    layout: BlockLayout,
    places: Sequence[Place],
    looks: Sequence[Look],
    sides: Mapping[BlockName, str],
    thumbnails: Thumbnails,
) -> None:
    """Draw the map, a panel an area; of many areas those with the most tiles.

    Args:
        path: a .png in an existing folder; it is whole or absent.
        pairs: the images.
        layout: sizes of tiles and blocks.
        places: all tiles.
        looks: what each of them holds.
        sides: the side of each block that has a tile.
        thumbnails: gives the small picture (h, w, 3) of an image by its number.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    numbers = sorted({place.block[0] for place in places}, key=lambda area: -sum(p.block[0] == area for p in places))
    shown = numbers[:_MOST_PANELS]
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure = Figure((columns * _PANEL + 2.4, rows * _PANEL + 0.6), dpi=100, facecolor="white")
    figure.set_layout_engine("constrained")
    canvas: Any = FigureCanvasAgg(figure)
    panels: Any = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    colours = _colours(set(sides.values()))
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, number in zip(panels, shown, strict=False):
        mine = [(place, one) for place, one in zip(places, looks, strict=True) if place.block[0] == number]
        _draw_area(axes, pairs, pairs.areas[number], layout, mine, sides, colours, thumbnails)
    counts = {
        side: sum(sides.get(p.block) == side and o.verdict == KEPT for p, o in zip(places, looks, strict=True))
        for side in colours
    }
    _legend(figure, colours, counts, sum(one.verdict != KEPT for one in looks))
    if len(shown) < len(numbers):
        figure.suptitle(f"the {len(shown)} areas with the most tiles, of {len(numbers)}")
    canvas.draw()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).save(buffer, format="PNG", optimize=True)
    atomic_write_bytes(path, buffer.getbuffer())


def _colours(sides: set[str]) -> dict[str, Any]:
    import matplotlib

    folds = sorted(sides - {TEST}, key=int)
    sequence = matplotlib.colormaps["viridis"](np.linspace(0.0, 1.0, len(folds)))
    shades = _FOLD_COLOURS if len(folds) <= len(_FOLD_COLOURS) else sequence
    colours = dict(zip(folds, shades, strict=False))
    return ({TEST: _TEST_COLOUR} if TEST in sides else {}) | colours


def _draw_area(
    axes: Any,
    pairs: Pairs,
    area: Sequence[int],
    layout: BlockLayout,
    tiles: Sequence[tuple[Place, Look]],
    sides: Mapping[BlockName, str],
    colours: Mapping[str, Any],
    thumbnails: Thumbnails,
) -> None:
    """One area on the grid that measures its blocks."""
    from matplotlib.collections import PolyCollection

    reference = pairs.images[area[0]].grid
    outlines = [reference.outline_of(pairs.images[scene].grid) for scene in area]
    top, left = (math.floor(min(np.nanmin(outline[side]) for outline in outlines)) for side in (0, 1))
    bottom, right = (math.ceil(max(np.nanmax(outline[side]) for outline in outlines)) for side in (0, 1))
    frame = _frame(reference, top, left, bottom, right)
    picture = _picture(pairs, area, frame, thumbnails)
    extent = (left, right, bottom, top)
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.imshow(_gaps(picture, layout, top, left, bottom, right), extent=extent, interpolation="nearest")
    for is_kept in (True, False):
        chosen = [place for place, one in tiles if (one.verdict == KEPT) == is_kept]
        corners = [_corners(reference, pairs.images[place.scene].grid, place, layout.size) for place in chosen]
        faces = [colours[sides[place.block]] if is_kept else _LEFT_OUT_COLOUR for place in chosen]
        style: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.4, "alpha": 0.5}
        if corners:
            axes.add_collection(PolyCollection(corners, facecolors=faces, hatch=None if is_kept else _HATCH, **style))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])
    names = ", ".join(pairs.images[scene].path.name for scene in area[:2]) + (", ..." if len(area) > 2 else "")
    axes.set_title(names, fontsize=9, parse_math=False)


def _frame(reference: Geometry, top: int, left: int, bottom: int, right: int) -> Geometry:
    step = max(1.0, max(bottom - top, right - left) / _SIDE)
    height, width = max(1, round((bottom - top) / step)), max(1, round((right - left) / step))
    move = Affine.translation(left, top) @ Affine.scale((right - left) / width, (bottom - top) / height)
    return Geometry(height, width, reference.crs, reference.transform @ move)


def _picture(pairs: Pairs, area: Sequence[int], frame: Geometry, thumbnails: Thumbnails) -> NDArray[np.float32]:
    """The images in grey (h, w, 3) in [0, 1], white where there is none."""
    grey = np.full((frame.height, frame.width), np.nan, np.float32)
    for scene in area:
        small = thumbnails(scene)
        if small is None:
            continue
        own = pairs.images[scene].own
        values = small.astype(np.float32).mean(axis=-1) / 255.0
        # Single black pixels are dark ground, areas of them have no data.
        values[binary_opening((small == 0).all(axis=-1), np.ones((3, 3), bool))] = np.nan
        height, width = values.shape
        place = Geometry(height, width, own.crs, own.transform @ Affine.scale(own.width / width, own.height / height))
        grey = np.where(np.isnan(grey), resampled(values[None], place, frame)[0], grey)
    shown = np.clip(np.where(np.isnan(grey), 1.0, 0.15 + 0.85 * grey), 0.0, 1.0)
    return np.repeat(shown[..., None], 3, axis=-1)


def _gaps(
    picture: NDArray[np.float32], layout: BlockLayout, top: int, left: int, bottom: int, right: int
) -> NDArray[np.float32]:
    """The strips between blocks as a transparent layer (h, w, 4)."""
    height, width = picture.shape[:2]
    rows = top + (np.arange(height) + 0.5) * (bottom - top) / height
    columns = left + (np.arange(width) + 0.5) * (right - left) / width
    beside = (rows % layout.pitch >= layout.side)[:, None] | (columns % layout.pitch >= layout.side)[None]
    layer = np.zeros((height, width, 4), np.float32)
    layer[beside] = _GAP_COLOUR
    return layer


def _corners(reference: Geometry, grid: Geometry, place: Place, size: int) -> NDArray[np.float64]:
    """Corners (5, 2) of a tile as (column, row) on the reference's grid."""
    rows, columns = reference.outline_of(grid.window(place.row, place.column, size, size), points=2)
    return np.column_stack([columns, rows])


def _legend(figure: Any, colours: Mapping[str, Any], counts: Mapping[str, int], left_out: int) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, alpha=0.6, label=f"{label_of(side, colours)}: {counts[side]}")
        for side, colour in colours.items()
    ]
    label = f"left out, too few data: {left_out}"
    handles.append(Patch(facecolor=_LEFT_OUT_COLOUR, alpha=0.5, hatch=_HATCH, label=label))
    handles.append(Patch(facecolor="#f2f2f2", edgecolor="#999999", label="gap between blocks"))
    handles.append(Patch(facecolor="#888888", label="no tile: rest at an edge"))
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
