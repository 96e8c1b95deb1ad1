"""The points of the scenes of a dataset, kept in a scratch folder until the height raster is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from Systems.stereo.dsm.cell_fusion import Points
from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.folder.view_points import Checked
from Utils.data.stereo.view_choice import PinholeView, ViewGeometry
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["LOCAL", "KeptScene", "ScenePoints", "grid_of", "pixel_of", "seen_twice"]

Floats = NDArray[np.float64]

LOCAL = CRS.from_wkt('LOCAL_CS["axes of the cameras",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]')
"""The system of pinhole cameras whose world nobody has named."""


@dataclass(frozen=True)
class ScenePoints:
    """Points (N,) of a scene on which its views agree.

    Attributes:
        points: where they are, in the system of the raster.
        deviation: metres of the least deviation of each (N,).
        tolerance: metres by which views might disagree.
    """

    points: Points
    deviation: Floats
    tolerance: float

    @staticmethod
    def of(views: Sequence[Checked], geometries: Sequence[ViewGeometry], crs: CRS) -> ScenePoints:
        """Those of all views of a scene."""
        found = np.concatenate([view.points for view in views])
        x, y = found[:, 0], found[:, 1]
        if not isinstance(geometries[0], PinholeView):
            x, y = transformed(GEOGRAPHIC, crs, x, y)
        points = Points(
            x,
            y,
            found[:, 2],
            np.concatenate([view.weight for view in views]),
            np.concatenate([view.views for view in views]),
        )
        deviation = np.concatenate([np.full(len(view.points), view.deviation) for view in views])
        return ScenePoints(points, deviation, min(view.tolerance for view in views))

    def within(self, west: float, south: float, east: float, north: float) -> ScenePoints:
        """Those inside of a rectangle."""
        p = self.points
        keep = (p.x >= west) & (p.x <= east) & (p.y >= south) & (p.y <= north)
        inside = Points(p.x[keep], p.y[keep], p.height[keep], p.weight[keep], p.views[keep])
        return ScenePoints(inside, self.deviation[keep], self.tolerance)


@dataclass(frozen=True)
class KeptScene:
    """A scene whose points lie in a file.

    Attributes:
        path: the file.
        geometries: cameras of its views.
        bounds: west, south, east and north of its points.
        height: their median height in metres.
        pixel: metres of a pixel of its views on the ground.
        datum: the code of what its heights refer to; "" where it is unknown.
    """

    path: Path
    geometries: tuple[ViewGeometry, ...]
    bounds: tuple[float, float, float, float]
    height: float
    pixel: float
    datum: str

    @staticmethod
    def keep(path: Path, found: ScenePoints, geometries: Sequence[ViewGeometry], pixel: float, datum: str) -> KeptScene:
        """Write the points of a scene that has some."""
        p = found.points
        parts = {"x": p.x, "y": p.y, "height": p.height, "weight": p.weight, "views": p.views}
        np.savez(path, allow_pickle=False, **parts, deviation=found.deviation, tolerance=np.array(found.tolerance))
        bounds = float(p.x.min()), float(p.y.min()), float(p.x.max()), float(p.y.max())
        return KeptScene(path, tuple(geometries), bounds, float(np.median(p.height)), pixel, datum)

    def load(self) -> ScenePoints:
        """Its points."""
        with np.load(self.path, allow_pickle=False) as stored:
            points = Points(stored["x"], stored["y"], stored["height"], stored["weight"], stored["views"])
            return ScenePoints(points, stored["deviation"], float(stored["tolerance"]))


def pixel_of(view: ViewGeometry, height: float, crs: CRS) -> float:
    """Metres of a pixel on the ground in the middle of a view, at its own value ``height``: the root of its area."""
    rows, columns = (side / 2 for side in view.size)
    around = np.array([columns, columns + 1, columns]), np.array([rows, rows, rows + 1])
    found = view.ground(*around, np.full(3, height))
    x, y = found[:, 0], found[:, 1]
    if not isinstance(view, PinholeView):
        x, y = transformed(GEOGRAPHIC, crs, x, y)
    return float(np.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))))


def grid_of(scenes: Sequence[KeptScene], crs: CRS, resolution: float) -> Geometry:
    """The grid that holds all points, on whole cells of the system."""
    west, south = (min(scene.bounds[side] for scene in scenes) for side in (0, 1))
    east, north = (max(scene.bounds[side] for scene in scenes) for side in (2, 3))
    left, bottom = (np.floor(value / resolution) * resolution for value in (west, south))
    width, height = (max(1, int(np.ceil((end - start) / resolution))) for start, end in ((left, east), (bottom, north)))
    to = Affine(resolution, 0.0, left, 0.0, -resolution, bottom + height * resolution)
    return Geometry(height, width, crs, to)


def seen_twice(scene: KeptScene, place: Geometry) -> NDArray[np.bool_]:
    """Which cells (h, w) two views of a scene see, or more, at its median height."""
    rows, columns = np.mgrid[: place.height, : place.width]
    x, y = place.coordinates(rows.ravel() + 0.5, columns.ravel() + 0.5)
    if not isinstance(scene.geometries[0], PinholeView):
        x, y = transformed(place.crs, GEOGRAPHIC, x, y)
    points = np.stack([x, y, np.full(len(x), scene.height)], axis=1)
    seen = np.zeros(len(x), np.intp)
    for view in scene.geometries:
        across, down = view.pixels(points).T
        seen += (across >= -0.5) & (across < view.size[1] - 0.5) & (down >= -0.5) & (down < view.size[0] - 0.5)
    return np.asarray(seen >= 2).reshape(place.height, place.width)
