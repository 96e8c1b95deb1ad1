"""Footprints of DTMs on the sphere of Mars, and the groups of pairs that share ground or a source image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio.crs import CRS
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["Footprint", "crossing", "footprint_of", "group_pairs", "share_ground"]

Floats = NDArray[np.float64]

_POINTS_AN_EDGE = 8

RADIUS = 3_396_190.0
"""Metres; products on spheres of other radii differ by up to 0.6 %, which no footprint notices."""


@dataclass(frozen=True)
class Footprint:
    """Where a DTM has heights: the corners of a convex outline.

    Attributes:
        longitudes: (N,) degrees east, not brought to any range.
        latitudes: (N,) degrees, planetocentric.
    """

    longitudes: tuple[float, ...]
    latitudes: tuple[float, ...]

    @property
    def directions(self) -> Floats:
        """(N, 3) unit vectors from the centre of Mars."""
        around, up = np.radians(self.longitudes), np.radians(self.latitudes)
        return np.stack([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)], axis=1)

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude (-180 to 180) and latitude of the middle, in degrees."""
        x, y, z = self.directions.mean(axis=0)
        return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def footprint_of(grid: Geometry, known: NDArray[np.bool_]) -> Footprint:
    """The convex outline of a DTM's heights.

    Args:
        grid: the DTM's grid.
        known: (h, w) whether there are heights, at fewer pixels than the grid may have; at least one.
    """
    rows, columns = np.nonzero(known)
    scale = np.array([grid.width / known.shape[1], grid.height / known.shape[0]])
    # The corners of each pixel, so that no ground is lost between the pixels that were looked at.
    corners = [np.stack([columns + across, rows + down], axis=1) for down in (0, 1) for across in (0, 1)]
    places = _with_points_between(_hull(np.concatenate(corners) * scale))
    xs, ys = grid.coordinates(places[:, 1], places[:, 0])
    longitudes, latitudes = transformed(grid.crs, _sphere(grid.crs), xs, ys)
    seen = np.isfinite(longitudes) & np.isfinite(latitudes)
    return Footprint(tuple(longitudes[seen].tolist()), tuple(latitudes[seen].tolist()))


def _hull(points: Floats) -> Floats:
    """The corners of the convex outline of points (N, 2), in order around it."""
    return np.asarray(points[ConvexHull(points).vertices])


def _with_points_between(corners: Floats) -> Floats:
    """Corners (N, 2) with points between them: edges are straight on the map, not on the sphere."""
    share = np.linspace(0.0, 1.0, _POINTS_AN_EDGE, endpoint=False)[:, None]
    following = np.roll(corners, -1, axis=0)
    return np.concatenate([(1.0 - share) * one + share * other for one, other in zip(corners, following, strict=True)])


def _sphere(crs: CRS) -> CRS:
    """The geographic system under a projected one."""
    found = pyproj.CRS.from_wkt(crs.to_wkt()).geodetic_crs
    assert found is not None, "a projected system has one"
    return CRS.from_wkt(found.to_wkt("WKT2_2019"))


def share_ground(one: Footprint, other: Footprint, margin: float = 0.0) -> bool:
    """Whether two footprints meet, or come as near as ``margin`` metres; at the poles and at 180 degrees as well."""
    if not _may_meet([one, other], margin)[0, 1]:
        return False
    # A plane around the first one, on which areas are true.
    longitude, latitude = one.centre
    plane = pyproj.Proj(proj="laea", lon_0=longitude, lat_0=latitude, R=RADIUS)
    shapes = [_hull(np.stack(plane(own.longitudes, own.latitudes), axis=1)) for own in (one, other)]
    return _apart(*shapes) <= margin


def _may_meet(footprints: Sequence[Footprint], margin: float) -> NDArray[np.bool_]:
    """(N, N) whether circles around footprints come as near as ``margin`` metres: most pairs are ruled out by it."""
    middles, reaches = [], []
    for footprint in footprints:
        directions = footprint.directions
        middle = directions.mean(axis=0)
        middles.append(middle / np.linalg.norm(middle))
        reaches.append(_angle(directions @ middles[-1]).max())
    apart = _angle(np.array(middles) @ np.array(middles).T)
    return np.asarray(apart <= np.add.outer(reaches, reaches) + margin / RADIUS)


def _angle(cosines: Floats) -> Floats:
    return np.arccos(np.clip(cosines, -1.0, 1.0))


def _apart(one: Floats, other: Floats) -> float:
    """How far two convex outlines (N, 2) lie apart along the normals of their edges; 0 or less where they meet.

    Corner to corner they may be farther apart, by up to 1.4 times, so that a margin rather joins too much.
    """
    edges = np.concatenate([np.roll(shape, -1, axis=0) - shape for shape in (one, other)])
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    normals = normals[np.linalg.norm(normals, axis=1) > 0.0]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    first, second = one @ normals.T, other @ normals.T
    gaps = np.maximum(second.min(axis=0) - first.max(axis=0), first.min(axis=0) - second.max(axis=0))
    return float(gaps.max())


def group_pairs(
    footprints: Mapping[str, Footprint], sources: Mapping[str, Sequence[str]], margin: float = 0.0
) -> dict[str, str]:
    """The group of each pair: pairs that share ground or a source image are in one, through others as well.

    Args:
        footprints: by name of the pair.
        sources: the source observations of each pair.
        margin: metres between footprints that still count as one ground.

    Returns:
        By pair, the name of the group, which is that of its first pair in the order of names.
    """
    names = sorted(footprints)
    near = _may_meet([footprints[name] for name in names], margin)
    edges = [
        (i, j)
        for i, one in enumerate(names)
        for j, other in enumerate(names[:i])
        if set(sources[one]) & set(sources[other])
        or (near[i, j] and share_ground(footprints[one], footprints[other], margin))
    ]
    ends = np.array(edges, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, numbers = connected_components(graph, directed=False)
    first: dict[int, str] = {}
    for name, number in zip(names, numbers.tolist(), strict=True):
        first.setdefault(number, name)
    return {name: first[number] for name, number in zip(names, numbers.tolist(), strict=True)}


def crossing(sides: Mapping[str, str], groups: Mapping[str, str]) -> list[str]:
    """The groups whose pairs are on more than one side, sorted."""
    seen: dict[str, set[str]] = {}
    for pair, group in groups.items():
        seen.setdefault(group, set()).add(sides[pair])
    return sorted(group for group, found in seen.items() if len(found) > 1)
