"""From one vertical datum to another: with the best operation that PROJ knows, or not at all."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from Utils.core.errors import UserError
from Utils.rasters.coordinates import TRANSFORM_ERRORS, transformed
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.vertical_datum import VerticalDatum

if TYPE_CHECKING:
    import pyproj

__all__ = ["DatumShift"]

Floats = NDArray[np.float64]

# A geoid model has no detail below a minute of arc: between nodes so far apart it is straight to millimetres.
_SPACING = 500.0


@dataclass(frozen=True)
class DatumShift:
    """What is added to heights so that they refer to another datum, anywhere in a system.

    Attributes:
        source: the known datum that the heights refer to.
        target: the known one that they shall refer to.
        crs: the flat system of the places.
        what: the file, for messages.
    """

    source: VerticalDatum
    target: VerticalDatum
    crs: CRS
    what: str

    def at(self, xs: Floats, ys: Floats) -> Floats:
        """Metres to add at places (N,) of the system.

        Raises:
            UserError: a grid of PROJ that the best operation needs is not installed, or nothing leads from one datum
                to the other.
        """
        import pyproj

        if not len(xs):
            return np.zeros(0)
        # Metres between horizontal datums do not matter to a geoid, and their grids shall not be asked for.
        flat = pyproj.CRS.from_epsg(4326)
        try:
            longitudes, latitudes = transformed(self.crs, CRS.from_epsg(4326), xs, ys)
        except TRANSFORM_ERRORS as error:
            raise UserError(
                f"{self.what}: no vertical datum can be changed, because no way leads from '{self.crs.to_string()}' to "
                "longitudes and latitudes on Earth"
            ) from error
        start, end = (_with_heights(flat, datum.system()) for datum in (self.source, self.target))
        operation = self._operation(start, end, longitudes, latitudes)
        heights = np.asarray(operation.transform(longitudes, latitudes, np.zeros(len(xs)))[2], np.float64)
        lost = ~np.isfinite(heights)
        if lost.any() and np.isfinite(longitudes[lost]).any():
            raise self._refusal(start, end, longitudes, latitudes)
        return heights * end.axis_info[-1].unit_conversion_factor

    def over(self, transform: Affine, row: int, column: int, height: int, width: int) -> Floats:
        """Metres to add to the pixels (height, width) of a part of a raster, whose first pixel is given."""
        metres = ground_sample_distance(self.crs, transform, row + height, column + width)
        step = [max(1, int(_SPACING / side)) if metres and side > 0 else 1 for side in metres or (1.0, 1.0)]
        sides = [
            np.arange(0, length + wide, wide, dtype=float) for length, wide in zip((height, width), step, strict=True)
        ]
        rows, columns = np.meshgrid(row + sides[0] + 0.5, column + sides[1] + 0.5, indexing="ij")
        a, b, c, d, e, f = transform[:6]
        xs, ys = a * columns + b * rows + c, d * columns + e * rows + f
        nodes = self.at(xs.ravel(), ys.ravel()).reshape(rows.shape)
        along = [np.arange(length) / wide for length, wide in zip((height, width), step, strict=True)]
        down = _between(nodes, along[0])
        return _between(down.T, along[1]).T

    def check(self, xs: Floats, ys: Floats) -> None:
        """Refuse before the long work what cannot be done at some places.

        Raises:
            UserError: as :meth:`at`.
        """
        self.at(xs, ys)

    def _operation(self, start: pyproj.CRS, end: pyproj.CRS, xs: Floats, ys: Floats) -> pyproj.Transformer:
        import pyproj

        if not self._group(start, end, xs, ys).best_available:
            raise self._refusal(start, end, xs, ys)
        try:
            return pyproj.Transformer.from_crs(
                start, end, always_xy=True, only_best=True, allow_ballpark=False, area_of_interest=_area(xs, ys)
            )
        except pyproj.exceptions.ProjError as error:
            raise self._refusal(start, end, xs, ys) from error

    def _group(self, start: pyproj.CRS, end: pyproj.CRS, xs: Floats, ys: Floats) -> pyproj.transformer.TransformerGroup:
        from pyproj.transformer import TransformerGroup

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the best is missing is what is asked
            return TransformerGroup(start, end, always_xy=True, allow_ballpark=False, area_of_interest=_area(xs, ys))

    def _refusal(self, start: pyproj.CRS, end: pyproj.CRS, xs: Floats, ys: Floats) -> UserError:
        """Name the grids; without them PROJ would shift nothing, and say nothing."""
        from pyproj.datadir import get_user_data_dir

        what = f"{self.what}: heights refer to {self.source.label} ({self.source.name}), and {self.target.label} "
        what += f"({self.target.name}) is wanted"
        missing = [
            grid.short_name
            for operation in self._group(start, end, xs, ys).unavailable_operations[:1]
            for grid in operation.grids
            if not grid.available
        ]
        if not missing:
            return UserError(f"{what}; PROJ knows no way between them here. Convert one of the files first")
        names = " and ".join(missing)
        return UserError(
            f"{what}; that needs the PROJ grid {names}, which is not installed: nothing was shifted. Fetch it "
            f"(projsync --file {missing[0]}) into {get_user_data_dir()}, or convert the file first"
        )


def _between(nodes: Floats, along: Floats) -> Floats:
    """Rows between the rows of (n, m) nodes, linearly."""
    first = np.minimum(along.astype(int), len(nodes) - 2)
    share = (along - first)[:, None]
    return np.asarray((1 - share) * nodes[first] + share * nodes[first + 1])


def _with_heights(flat: pyproj.CRS, vertical: pyproj.CRS) -> pyproj.CRS:
    """A geographic system with the heights of another: above its geoid, or above the ellipsoid."""
    from pyproj.crs import CompoundCRS

    return CompoundCRS(f"{flat.name} + {vertical.name}", [flat, vertical]) if vertical.is_vertical else vertical.to_3d()


def _area(xs: Floats, ys: Floats) -> Any:
    from pyproj.aoi import AreaOfInterest

    known = np.isfinite(xs) & np.isfinite(ys)
    if not known.any():
        return None
    west, east, south, north = xs[known].min(), xs[known].max(), ys[known].min(), ys[known].max()
    return AreaOfInterest(float(west), max(float(south), -90.0), float(east), min(float(north), 90.0))
