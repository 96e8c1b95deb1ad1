"""Fits of single tiles to heights in metres: a robust line from the model's map to a coarse DEM, or to points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum
from Utils.scenes.fusion.reference import CoarseHeights, Geometry
from Utils.scenes.joining.tile_alignment import Anchor
from Utils.scenes.tiles.tile_grid import Tile

Floats = NDArray[np.float64]
Map = NDArray[np.float32]

_HUBER = 1.345
_MAD_TO_SIGMA = 1.4826
FEWEST_HEIGHTS = 8
"""Fewer heights than this fix no scale and shift."""
# Cells of a DEM resemble their neighbours, and so do a model's errors: this many count as one.
_CELLS_AN_OBSERVATION = 8.0
# A slope that is fewer standard errors than this above 0 does not support the tile's scale.
_LEAST_SIGNIFICANCE = 2.0
_GROUPS_A_SIDE = 4


@dataclass(frozen=True)
class Line:
    """A robust fit ``y = scale * x + shift``.

    Attributes:
        scale: slope.
        shift: intercept.
        scale_error: the slope's standard error, if every observation counts.
        correlation: weighted correlation of x and y.
        residual: robust standard deviation of y about the line.
        inside: (N,) whether an observation lies within three of these of the line.
    """

    scale: float
    shift: float
    scale_error: float
    correlation: float
    residual: float
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Heights at points, in pixels of the scene: (N,) each; row 0.5, column 0.5 is the centre of the first pixel.

    ``left_out`` has, by reason, how many rows of their table are not among them; ``datum`` is what heights refer to;
    ``sigma`` their accuracy, one standard deviation in metres (N,), or None where it is unknown;
    ``labels`` their classes as text (N,), or None.
    """

    rows: Floats
    columns: Floats
    heights: Floats
    left_out: Mapping[str, int] = field(default_factory=dict)
    datum: VerticalDatum = UNKNOWN
    sigma: Floats | None = None
    labels: NDArray[np.str_] | None = None

    def under(self, tile: Tile) -> Points:
        """The points that lie on a tile."""
        inside = (self.rows >= tile.row) & (self.rows < tile.row + tile.height)
        inside &= (self.columns >= tile.column) & (self.columns < tile.column + tile.width)
        return Points(self.rows[inside], self.columns[inside], self.heights[inside])


def fit_line(x: Floats, y: Floats) -> Line:
    """Huber's regression of y on x, both (N,), N at least 2."""
    weights = np.ones_like(x)
    scale = shift = 0.0
    for _ in range(20):
        total = weights.sum()
        mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
        power = (weights * (x - mean_x) ** 2).sum()
        before = scale
        scale = float((weights * (x - mean_x) * (y - mean_y)).sum() / power) if power > 0 else 0.0
        shift = float(mean_y - scale * mean_x)
        residual = y - shift - scale * x
        spread = _MAD_TO_SIGMA * float(np.median(np.abs(residual)))
        if spread <= 1e-9 * float(np.ptp(y)):
            break
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(residual), 1e-300))
        if abs(scale - before) <= 1e-6 * abs(scale):
            break
    power_y = (weights * (y - mean_y) ** 2).sum()
    correlation = scale * float(np.sqrt(power / power_y)) if power_y > 0 else 0.0
    error = spread / float(np.sqrt(power)) if power > 0 else np.inf
    return Line(scale, shift, error, correlation, spread, np.abs(residual) <= 3.0 * spread + 1e-9)


def anchor_to_reference(tile: Tile, values: Map, scene: Geometry, reference: CoarseHeights) -> Anchor | None:
    """Fit a tile's map to the reference's cells that lie wholly inside it.

    Args:
        tile: the tile.
        values: its map (H, W), NaN where invalid.
        scene: where the scene's pixels lie.
        reference: the DEM.

    Returns:
        None where too few cells are known to both.
    """
    place = scene.window(tile.row, tile.column, tile.height, tile.width)
    part = reference.part(place)
    # Cells so wide that too few fit into the tile; around the tile they would need a border without bounds.
    if part is None or FEWEST_HEIGHTS * reference.pixels_a_cell**2 > 2.0 * tile.height * tile.width:
        return None
    heights, cells = part.beside_tile(values, place)
    rows, columns = np.nonzero(np.isfinite(cells) & np.isfinite(heights))
    if len(rows) < FEWEST_HEIGHTS:
        return None
    xs, ys = part.geometry.coordinates(rows + 0.5, columns + 0.5)
    scene_rows, scene_columns = scene.place(xs, ys, part.geometry.crs)
    return _anchor(
        tile,
        scene_rows,
        scene_columns,
        cells[rows, columns].astype(np.float64),
        heights[rows, columns].astype(np.float64),
        observations=len(rows) / _CELLS_AN_OBSERVATION,
    )


def anchor_to_points(tile: Tile, values: Map, points: Points) -> Anchor | None:
    """Fit a tile's map (H, W) to the points on it; None where too few lie on valid pixels."""
    mine = points.under(tile)
    found = sample(values, mine.rows - tile.row, mine.columns - tile.column)
    known = np.isfinite(found)
    if known.sum() < FEWEST_HEIGHTS:
        return None
    return _anchor(
        tile, mine.rows[known], mine.columns[known], found[known], mine.heights[known], observations=known.sum() / 2.0
    )


def sample(values: NDArray[np.floating], rows: Floats, columns: Floats) -> Floats:
    """A map (H, W) at places given as for ``Points``, bilinearly; NaN where a neighbour is invalid."""
    places = np.stack([rows - 0.5, columns - 0.5])
    return np.asarray(map_coordinates(values.astype(np.float64), places, order=1, mode="nearest"))


def supports_scale(line: Line, count: int, observations: float) -> bool:
    """Say whether a line's slope is surely positive, where so many heights are worth so many independent ones."""
    error = line.scale_error * float(np.sqrt(count / max(observations, 1.0)))
    return line.scale > 0 and (line.residual == 0 or line.scale > _LEAST_SIGNIFICANCE * error)


def _anchor(tile: Tile, rows: Floats, columns: Floats, values: Floats, heights: Floats, observations: float) -> Anchor:
    line = fit_line(values, heights)
    error = line.scale_error * float(np.sqrt(len(values) / max(observations, 1.0)))
    held = supports_scale(line, len(values), observations)
    group = _groups(tile, rows, columns)
    inside = line.inside.astype(np.float64)
    counts = np.bincount(group, inside)

    def means(of: Floats) -> Floats:
        return np.bincount(group, of * inside)[counts > 0] / counts[counts > 0]

    return Anchor(
        tile=tile.number,
        log_scale=float(np.log(line.scale)) if held else float("nan"),
        log_scale_error=error / line.scale if held else float("inf"),
        rows=means(rows),
        columns=means(columns),
        values=means(values),
        heights=means(heights),
        correlation=line.correlation,
        residual=line.residual,
        count=len(values),
    )


def _groups(tile: Tile, rows: Floats, columns: Floats) -> NDArray[np.intp]:
    """Divide the tile into a few groups; the common solution needs only their means."""
    down = np.clip((rows - tile.row) / tile.height * _GROUPS_A_SIDE, 0, _GROUPS_A_SIDE - 1).astype(np.intp)
    across = np.clip((columns - tile.column) / tile.width * _GROUPS_A_SIDE, 0, _GROUPS_A_SIDE - 1).astype(np.intp)
    groups: NDArray[np.intp] = down * _GROUPS_A_SIDE + across
    return groups
