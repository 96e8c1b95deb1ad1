"""The scene in its canonical form: heights that are known everywhere, an image of them, a coarse DEM, points, truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.warp import transform as transform_places
from torch import Tensor

from tests.Utils.scenes.metamorphic.rasters import Raster

Floats = NDArray[np.float64]

SIZE, PIXEL = 96, 10.0  # pixels a side, and metres
CELL = 40.0  # side of a cell of the DEM, metres
MARGIN = 12  # cells around the scene; the reading takes 8
TILE = 96  # the whole scene: joining tiles is tested elsewhere, and costs half of the time
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
LOW, HIGH = 500.0, 740.0


@dataclass(frozen=True)
class Site:
    """Where the scene lies: its upper left corner in a projected CRS."""

    crs: str
    east: float
    north: float

    @property
    def corner(self) -> Affine:
        """From metres east and south of the corner to coordinates."""
        return Affine(1.0, 0.0, self.east, 0.0, -1.0, self.north)


HOME = Site("EPSG:32643", 600_000.0, 3_800_000.0)


@cache
def _waves(seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Wave numbers east and south, phases and amplitudes."""
    rng = np.random.default_rng(seed)
    length = np.geomspace(60.0, 1500.0, 36)
    angle = rng.uniform(0.0, 2.0 * np.pi, 36)
    number = 2.0 * np.pi / length
    return number * np.cos(angle), number * np.sin(angle), rng.uniform(0.0, 2.0 * np.pi, 36), length**0.9


def _field(places: Floats, seed: int) -> Floats:
    """A sum of waves of several lengths at places (2, ...), of about unit deviation."""
    east, south, phase, amplitude = _waves(seed)
    total = np.zeros(places.shape[1:])
    for a, b, c, d in zip(east, south, phase, amplitude, strict=True):
        total += d * np.sin(a * places[0] + b * places[1] + c)
    return total / np.sqrt(0.5 * (amplitude**2).sum())


def terrain(places: Floats) -> Floats:
    """True heights in metres at places (2, ...), metres east and south of the corner: between 500 and 740."""
    return np.clip(620.0 + 45.0 * _field(places, seed=1), LOW, HIGH)


def pixel_places(height: int, width: int, to_places: Affine) -> Floats:
    """Centres (2, H, W) of pixels."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack(to_places @ (columns, rows))


def cell_means(edges: tuple[Floats, Floats]) -> Floats:
    """Means over cells of 5 x 5 values of the terrain at places (5 H, 5 W) each."""
    heights = terrain(np.stack(edges))
    height, width = heights.shape[0] // 5, heights.shape[1] // 5
    return heights.reshape(height, 5, width, 5).mean(axis=(1, 3))


def heights_on(
    site: Site, transform: Affine, height: int, width: int, crs: Any = None, whole: bool = True
) -> tuple[Floats, Floats]:
    """Mean heights (H, W) of the terrain over the cells of any grid, and the cells' centres (2, H, W) as places.

    Heights are whole metres, which every type of number holds exactly.
    """
    fine = transform @ Affine.scale(0.2)
    columns, rows = np.meshgrid(np.arange(5 * width) + 0.5, np.arange(5 * height) + 0.5)
    middles = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    found = []
    for place in (fine @ (columns, rows), transform @ tuple(middles)):
        x, y = np.asarray(place[0]), np.asarray(place[1])
        if crs is not None:
            x, y = into(crs, site.crs, x, y)
        found.append(~site.corner @ (np.asarray(x), np.asarray(y)))
    means = cell_means(found[0])
    return (np.rint(means) if whole else means), np.stack(found[1])


def into(here: str, there: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates, x first, in another CRS."""
    found = transform_places(CRS.from_user_input(here), CRS.from_user_input(there), x.ravel(), y.ravel())
    return np.reshape(found[0], x.shape), np.reshape(found[1], y.shape)


def bounds_in(site: Site, crs: str) -> tuple[float, float, float, float]:
    """West, south, east and north of the scene and 480 m around it in another CRS; east may lie beyond 180 degrees."""
    side = np.linspace(-MARGIN * CELL, SIZE * PIXEL + MARGIN * CELL, 33)
    x, y = site.corner @ tuple(np.meshgrid(side, side))
    xs, ys = into(site.crs, crs, np.asarray(x), np.asarray(y))
    if CRS.from_user_input(crs).is_geographic and np.ptp(xs) > 180.0:
        xs = np.where(xs < 0.0, xs + 360.0, xs)
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def _void(places: Floats, middle: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    return (np.abs(places[0] - middle[0]) < radius) & (np.abs(places[1] - middle[1]) < radius)


def image_of(places: Floats, transform: Affine, crs: Any) -> Raster:
    """The image: three bands that show the heights unlike each other, 8 bits, one corner without data."""
    height = (terrain(places) - LOW) / (HIGH - LOW)
    other = 0.5 + 0.15 * np.clip(_field(places, seed=2), -3.0, 3.0)
    bands = np.stack([0.85 * height + 0.15 * other, 0.6 * height + 0.4 * other, 1.0 - 0.7 * height - 0.2 * other])
    values = np.rint(1.0 + 253.0 * np.clip(bands, 0.0, 1.0))
    valid = ~_void(places, (0.0, 0.0), 125.0)
    return Raster(values, valid, places, transform, crs, dtype="uint8", nodata=0.0, colours=RGB)


@cache
def canonical_image(site: Site = HOME) -> Raster:
    """The image on a grid that points north."""
    to_places = Affine.scale(PIXEL)
    return image_of(pixel_places(SIZE, SIZE, to_places), site.corner @ to_places, site.crs)


def dem_of(heights: Floats, places: Floats, transform: Affine, crs: Any) -> Raster:
    """A DEM with a void in the scene."""
    valid = ~_void(places, (600.0, 400.0), 80.0)
    return Raster(heights[None], valid, places, transform, crs)


@cache
def canonical_dem(site: Site = HOME, margin: int = MARGIN) -> Raster:
    """Cells of 40 m on the grid of the image, with a margin of so many cells."""
    count = round(SIZE * PIXEL / CELL) + 2 * margin
    to_places = Affine.translation(-margin * CELL, -margin * CELL) @ Affine.scale(CELL)
    transform = site.corner @ to_places
    return dem_of(*heights_on(site, transform, count, count), transform, site.crs)


@cache
def canonical_truth(site: Site = HOME) -> Raster:
    """True heights, twice as fine as the image and 200 m wider on each side, a corner of the scene unknown."""
    count = round(2 * (SIZE * PIXEL + 400.0) / PIXEL)
    transform = site.corner @ Affine.translation(-200.0, -200.0) @ Affine.scale(PIXEL / 2)
    heights, places = heights_on(site, transform, count, count)
    return Raster(heights[None], ~_void(places, (960.0, 960.0), 150.0), places, transform, site.crs)


@cache
def canonical_prediction(site: Site = HOME) -> Raster:
    """Heights with errors of some metres on the grid of the image, for scoring."""
    image = canonical_image(site)
    heights = np.rint(terrain(image.places) + 4.0 * _field(image.places, seed=3))
    return replace(image, values=heights[None], dtype="float32", nodata=-9999.0, colours=None)


def whole(raster: Raster) -> Raster:
    """The same without voids."""
    return replace(raster, valid=np.ones_like(raster.valid))


def model(images: Tensor) -> Tensor:
    """A model that knows something: bands count unequally, and each tile is stretched as the real one's maps are."""
    grey = 0.7 * images[:, 0] + 0.4 * images[:, 1] - 0.1 * images[:, 2]
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return (grey - low) / (high - low).clamp_min(1e-6)
