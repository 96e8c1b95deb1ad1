"""Where the pixels of a scene, or the cells of a coarse map, lie; and where those of one are in the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS

from Utils.rasters.coordinates import nearest_turn, transformed

Floats = NDArray[np.float64]

_NODES = 32.0  # pixels from one exact position to the next


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of a scene lie.

    Attributes:
        height: rows.
        width: columns.
        crs: its coordinate reference system, of two dimensions.
        transform: from (column, row) to coordinates; may be rotated. Longitudes may exceed 180 degrees, so that they
            rise or fall steadily across a scene.
    """

    height: int
    width: int
    crs: CRS
    transform: Affine

    def window(self, row: int, column: int, height: int, width: int) -> Geometry:
        """The geometry of a part of the scene."""
        return Geometry(height, width, self.crs, self.transform @ Affine.translation(column, row))

    def grown(self, pixels: int) -> Geometry:
        """The geometry with a border of so many pixels around it."""
        return self.window(-pixels, -pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def finer(self, times: int) -> Geometry:
        """The geometry with so many pixels along each side of a pixel."""
        return Geometry(self.height * times, self.width * times, self.crs, self.transform @ Affine.scale(1.0 / times))

    @property
    def centre(self) -> tuple[float, float]:
        """Coordinates of the middle."""
        x, y = self.transform @ (self.width / 2, self.height / 2)
        return float(x), float(y)

    def coordinates(self, rows: ArrayLike, columns: ArrayLike) -> tuple[Floats, Floats]:
        """X and y at rows and columns (N,), where 0 is the border of the first pixel and 0.5 its centre."""
        to = self.transform
        rows, columns = np.asarray(rows, np.float64), np.asarray(columns, np.float64)
        return to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f

    def place(self, xs: ArrayLike, ys: ArrayLike, crs: CRS, near: float | None = None) -> tuple[Floats, Floats]:
        """Rows and columns (N,) of this grid at points in any system, as ``coordinates`` counts them.

        Longitudes of either sense (-180 to 180, 0 to 360) lead to the same place. NaN where this grid's system cannot
        express a point.

        Args:
            xs: (N,) eastings or longitudes.
            ys: (N,) northings or latitudes.
            crs: their system.
            near: the longitude within half a turn of which places are sought; None for this grid's middle.

        Raises:
            RasterioError, CPLE_BaseError: no way leads from one system to the other.
        """
        x, y = transformed(crs, self.crs, xs, ys)
        x = nearest_turn(self.crs, x, self.centre[0] if near is None else near)
        columns, rows = ~self.transform @ (x, y)
        return np.asarray(rows), np.asarray(columns)

    def locate(self, other: Geometry) -> Floats:
        """Rows and columns, (2, H, W), of this grid under each pixel centre of another; 0 is the first cell's centre.

        It is exact at every 32nd pixel and linear between them, where projections bend by less than a thousandth of a
        pixel. Far outside what this grid's system can express the place is far outside this grid.
        """
        rows, columns = (_nodes(length) for length in (other.height, other.width))
        xs, ys = other.coordinates(np.repeat(rows + 0.5, len(columns)), np.tile(columns + 0.5, len(rows)))
        found = [np.nan_to_num(values, nan=-1e9) for values in self.place(xs, ys, other.crs)]
        nodes = [values.reshape(len(rows), len(columns)) - 0.5 for values in found]
        down = np.interp(np.arange(other.height), rows, np.arange(len(rows)))
        across = np.interp(np.arange(other.width), columns, np.arange(len(columns)))
        return np.stack([_between(values, down, across) for values in nodes])

    def outline(self, crs: CRS, points: int = 33, margin: float = 0.0) -> tuple[Floats, Floats]:
        """Coordinates (x, y) in another system along the border, or ``margin`` pixels outside it; closed."""
        return transformed(self.crs, crs, *self.coordinates(*self._border(points, margin)))

    def outline_of(
        self, other: Geometry, points: int = 33, margin: float = 0.0, near: float | None = None
    ) -> tuple[Floats, Floats]:
        """Rows and columns in this grid along the border of another, or ``margin`` of its pixels outside it."""
        return self.place(*other.coordinates(*other._border(points, margin)), other.crs, near)

    def _border(self, points: int, margin: float) -> tuple[Floats, Floats]:
        """Rows and columns, so many on each side."""
        step = np.linspace(0.0, 1.0, points)[:-1]
        zeros, ones = np.zeros_like(step), np.ones_like(step)
        columns = np.concatenate([step, ones, 1 - step, zeros, [0.0]]) * (self.width + 2 * margin) - margin
        rows = np.concatenate([zeros, step, ones, 1 - step, [0.0]]) * (self.height + 2 * margin) - margin
        return rows, columns

    def steps(self, other: Geometry, points: int = 5, near: float | None = None) -> Floats:
        """How this grid's rows and columns change from pixel to pixel of another, at places spread over the other.

        Args:
            other: the other grid.
            points: places along each side.
            near: as for ``place``.

        Returns:
            (points, points, 2, 2): change of (row, column) here with (row, column) there; NaN where it is unknown.
        """
        share = np.linspace(0.0, 1.0, points)
        rows, columns = (grid.ravel() for grid in np.meshgrid(share * other.height, share * other.width, indexing="ij"))
        half = 0.5
        shifts = [(half, 0.0), (-half, 0.0), (0.0, half), (0.0, -half)]
        places = [
            np.stack(self.place(*other.coordinates(rows + down, columns + across), other.crs, near))
            for down, across in shifts
        ]
        change = np.stack([places[0] - places[1], places[2] - places[3]], axis=-1)  # (2, N, 2)
        return np.moveaxis(change, 0, 1).reshape(points, points, 2, 2)


def _nodes(length: int) -> Floats:
    """The positions of every 32nd of so many pixels, and of the last."""
    return np.unique(np.append(np.arange(0.0, length, _NODES), length - 1.0))


def _between(nodes: Floats, rows: Floats, columns: Floats) -> Floats:
    """Bilinear values (H, W) at fractional rows (H,) and columns (W,) of nodes."""

    def along(values: Floats, places: Floats) -> Floats:
        low = np.minimum(places.astype(int), max(len(values) - 2, 0))
        share = (places - low)[:, None]
        return (1.0 - share) * values[low] + share * values[np.minimum(low + 1, len(values) - 1)]

    return along(along(nodes, rows).T, columns).T
