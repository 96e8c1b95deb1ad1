"""A synthetic georeferenced scene: image, true heights, a coarse global DEM of the place, a satellite's laser tracks.

``python -m Utils.synthetic.terrain_scene --output DIR --size 2048 --seed 7`` writes one.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds, from_origin
from rasterio.warp import reproject, transform, transform_bounds
from scipy import ndimage

from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes
from Utils.pictures.comparison import Panel, save_comparison
from Utils.pictures.quantity import Quantity
from Utils.synthetic.terrain import make_scene
from Utils.synthetic.terrain_hydrology import Floats, Mask, smooth_noise

__all__ = ["VOID", "SceneFiles", "write_preview", "write_scene"]

logger = logging.getLogger(__name__)

VOID = -32768.0
"""Nodata value of the reference, as in SRTM and similar DEMs."""

# UTM zone 43 north; the corner lies in the Pir Panjal range, Jammu and Kashmir.
_SCENE_CRS = "EPSG:32643"
_WEST, _NORTH = 452_400.0, 3_789_600.0
_REFERENCE_CRS = _POINTS_CRS = "EPSG:4326"

# Cells by which the reference reaches beyond the scene on every side, at least.
_REFERENCE_RIM = 1.5
# Deviation of the blur, in cells, that makes half of the reference's noise: its correlation is 1/e three cells apart.
_NOISE_BLUR = 1.5
# Share of the reference's side: 3 km of a scene of 60 km, as where a radar did not see into steep valleys.
_VOID_RADIUS = 0.045

_AREA_A_POINT = 20_000.0  # square metres
_FEWEST_POINTS = 10
# ICESat-2: three pairs of beams 3.3 km apart, 90 m within a pair; heights every 20 m along them (ATL08's finest).
_BEAMS = tuple(pair + beam for pair in (-3300.0, 0.0, 3300.0) for beam in (-45.0, 45.0))
_POINT_SPACING = 20.0
# A narrower scene gets the same pattern on a smaller scale.
_NARROWEST = 1000.0
_POINT_NOISE = 0.3
_OUTLIER_SHARE = 0.02
# Errors in metres, drawn evenly in their logarithm; three in four are too high: clouds, birds, roofs.
_OUTLIERS = (5.0, 200.0)


@dataclass(frozen=True)
class SceneFiles:
    """Where the parts of a scene lie; `write_scene` says what they hold."""

    image: Path
    truth: Path
    reference: Path
    points: Path


@dataclass(frozen=True)
class _Reference:
    """A coarse DEM: ``height`` (rows, columns) float32, metres, and its ``transform`` in degrees."""

    height: Floats
    transform: Affine


def write_scene(
    folder: Path, size: int, seed: int, *, factor: int = 8, noise: float = 3.0, ground_sample_distance: float = 30.0
) -> SceneFiles:
    """Write a scene, what may be known about its heights in practice, and a README.txt that says what it is.

    - ``image.tif``: (3, size, size) uint8, red, green, blue; tiled GeoTIFF in UTM 43 north.
    - ``truth.tif``: (size, size) float32, metres, on the image's grid.  Both are those of `terrain.make_scene`.
    - ``reference.tif``: a global DEM of the place, float32, metres, in longitude and latitude, on a grid that is not
      the image's.  Each cell, as wide and as high as ``factor`` pixels, holds the mean of the truth in it, plus noise,
      half of whose variance is correlated over a few cells, as it is in DEMs from radar.  Heights are not rounded to
      whole metres.  A patch of steep ground is void (-32768).  It covers a little more than the scene.
    - ``points.csv``: x, y (longitude, latitude), height in metres along laser tracks, a point for every 20,000 square
      metres of the scene, at least ten, noise of 0.3 m; 2 % of them are wrong by 5 to 200 m.

    The files depend on the arguments alone. Files in ``folder`` from the same arguments are written again.

    Args:
        folder: made if it does not exist.
        size: pixels a side, at least four cells of the reference.
        seed: not negative.
        factor: pixels of the image to a cell of the reference, a side.
        noise: deviation of the reference's noise, metres.
        ground_sample_distance: metres a pixel.

    Raises:
        UserError: an argument is out of range, or ``folder`` holds another scene.
        OSError: a file cannot be written.
    """
    _check(size, seed, factor, noise, ground_sample_distance)
    files = SceneFiles(*(folder / name for name in ("image.tif", "truth.tif", "reference.tif", "points.csv")))
    _claim(folder, files, _description(size, seed, factor, noise, ground_sample_distance))
    torus = make_scene(_torus_side(size), seed, ground_sample_distance)
    image, truth = torus.image[:size, :size].transpose(2, 0, 1), torus.height[:size, :size]
    grid = _grid(ground_sample_distance)

    _write_raster(files.image, image, grid, _SCENE_CRS, photometric="rgb", interleave="pixel", predictor=2)
    _write_heights(files.truth, truth, grid, _SCENE_CRS)
    reference = _spoil(_generator(seed, 1), _average(torus.height, size, ground_sample_distance, factor), noise)
    _write_heights(files.reference, reference.height, reference.transform, _REFERENCE_CRS, nodata=VOID)
    _write_points(_generator(seed, 2), files.points, truth, ground_sample_distance)
    return files


def _check(size: int, seed: int, factor: int, noise: float, ground_sample_distance: float) -> None:
    if seed < 0 or factor < 1 or not 0 <= noise < math.inf or not 0 < ground_sample_distance < math.inf:
        given = f"seed {seed}, factor {factor}, noise {noise}, ground sample distance {ground_sample_distance}"
        allowed = "the seed must be 0 or more, the factor 1 or more, the noise 0 or more, the distance above 0"
        raise UserError(f"cannot write a scene of {given}: {allowed}")
    if size < 4 * factor:
        raise UserError(
            f"cannot write a scene of {size} x {size} pixels with a reference {factor} times coarser: "
            f"the size must be {4 * factor} or more, four cells of the reference"
        )


def _generator(seed: int, branch: int) -> np.random.Generator:
    """A generator for each part, so that another factor does not change the points, nor another noise the void."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(branch,)))


def _torus_side(size: int) -> int:
    """The side of the torus from which `make_scene` cuts a scene of ``size``; for that side it gives all of it."""
    return max(128, math.ceil(size / 32) * 32)


def _grid(ground_sample_distance: float, rim: int = 0) -> Affine:
    """Where the scene's pixels lie, or those of the scene with a ``rim`` of so many pixels."""
    reach = rim * ground_sample_distance
    return from_origin(_WEST - reach, _NORTH + reach, ground_sample_distance, ground_sample_distance)


# --- the reference


def _average(torus: Floats, size: int, ground_sample_distance: float, factor: int) -> _Reference:
    """Average the scene in the first corner of ``torus``, and the land around it, over cells in degrees.

    Beyond its edges the land goes on as it does at the torus's other side, without a step.
    """
    extent = size * ground_sample_distance
    scene = (_WEST, _NORTH - extent, _WEST + extent, _NORTH)
    step_x, step_y = _degrees(scene, factor * ground_sample_distance)
    west, south, east, north = transform_bounds(_SCENE_CRS, _REFERENCE_CRS, *scene)
    # Cells count from longitude 0 and latitude 0, as those of global DEMs do.
    first, last = math.floor(west / step_x - _REFERENCE_RIM), math.ceil(east / step_x + _REFERENCE_RIM)
    bottom, top = math.floor(south / step_y - _REFERENCE_RIM), math.ceil(north / step_y + _REFERENCE_RIM)
    grid = from_origin(first * step_x, top * step_y, step_x, step_y)
    covered = transform_bounds(_REFERENCE_CRS, _SCENE_CRS, first * step_x, bottom * step_y, last * step_x, top * step_y)
    reach = max(abs(outer - inner) for outer, inner in zip(covered, scene, strict=True))
    rim = math.ceil(reach / ground_sample_distance) + 1
    around = np.arange(-rim, size + rim) % torus.shape[0]
    height = np.empty((top - bottom, last - first), np.float32)
    reproject(
        torus[np.ix_(around, around)],
        height,
        src_transform=_grid(ground_sample_distance, rim),
        src_crs=_SCENE_CRS,
        dst_transform=grid,
        dst_crs=_REFERENCE_CRS,
        dst_nodata=np.nan,
        resampling=Resampling.average,
    )
    assert np.isfinite(height).all(), "the land around the scene covers all cells"
    return _Reference(height, grid)


def _degrees(scene: tuple[float, float, float, float], metres: float) -> tuple[float, float]:
    """Longitude that ``metres`` to the east are in the middle of the scene, and latitude that they are to the north."""
    east, north = (scene[0] + scene[2]) / 2, (scene[1] + scene[3]) / 2
    longitudes, latitudes = transform(
        _SCENE_CRS, _REFERENCE_CRS, [east, east + metres, east], [north, north, north + metres]
    )
    return longitudes[1] - longitudes[0], latitudes[2] - latitudes[0]


def _spoil(rng: np.random.Generator, reference: _Reference, noise: float) -> _Reference:
    """Give the reference a void, where the ground is steep, and noise of a deviation of ``noise`` metres."""
    void = _draw_void(rng, reference.height)
    noisy = reference.height + np.float32(noise) * _draw_noise(rng, reference.height.shape)
    return _Reference(np.where(void, np.float32(VOID), noisy), reference.transform)


def _draw_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Noise (rows, columns) of deviation 1: half of its variance white, half correlated over a few cells."""
    white = rng.standard_normal(shape, dtype=np.float32)
    reach = math.ceil(4 * _NOISE_BLUR)
    wider = rng.standard_normal([length + 2 * reach for length in shape], dtype=np.float32)
    correlated = ndimage.gaussian_filter(wider, _NOISE_BLUR, truncate=4.0)[reach:-reach, reach:-reach]
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1.0
    deviation = np.sum(ndimage.gaussian_filter1d(impulse, _NOISE_BLUR, truncate=4.0) ** 2)  # its root for each axis
    return np.asarray((white + correlated / deviation) * math.sqrt(0.5), dtype=np.float32)


def _draw_void(rng: np.random.Generator, height: Floats) -> Mask:
    """A patch with a ragged outline around the steepest ground in the inner half of the map."""
    rows, columns = height.shape
    radius = max(1.0, _VOID_RADIUS * min(rows, columns))
    steepness = ndimage.gaussian_filter(np.hypot(*np.gradient(height)), radius / 2)
    top, left = rows // 4, columns // 4
    inner = steepness[top : rows - top, left : columns - left]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    centre = (top + int(row), left + int(column))

    y, x = np.ogrid[:rows, :columns]
    distance = np.hypot(y - centre[0], x - centre[1]) / radius
    ragged = np.clip(smooth_noise(rng, max(rows, columns), max(3.0, 1.5 * radius), 2.5), -1.5, 1.5)
    patches, _ = ndimage.label(distance < 1 + 0.4 * ragged[:rows, :columns])  # holds the centre, always
    return np.asarray(ndimage.binary_fill_holes(patches == patches[centre]), dtype=np.bool_)


# --- the points


def _write_points(rng: np.random.Generator, path: Path, truth: Floats, ground_sample_distance: float) -> None:
    """Measure ``truth`` along the tracks, with noise and outliers."""
    extent = truth.shape[0] * ground_sample_distance
    count = max(_FEWEST_POINTS, round(extent**2 / _AREA_A_POINT))
    east, south = _draw_tracks(rng, extent, count)
    where = np.stack([south, east]) / ground_sample_distance - 0.5  # rows and columns; 0 is a pixel's centre
    heights = ndimage.map_coordinates(truth, where, order=1, mode="nearest", output=np.float64)
    heights += _POINT_NOISE * rng.standard_normal(count)
    wrong = rng.choice(count, round(_OUTLIER_SHARE * count), replace=False)
    upwards = np.where(rng.random(wrong.size) < 0.75, 1.0, -1.0)
    low, high = np.log(_OUTLIERS).tolist()
    heights[wrong] += upwards * np.exp(rng.uniform(low, high, wrong.size))

    longitudes, latitudes = transform(_SCENE_CRS, _POINTS_CRS, _WEST + east, _NORTH - south)
    table = np.stack([longitudes, latitudes, heights], axis=1)
    text = io.StringIO()
    # 1e-7 degrees are a centimetre.
    np.savetxt(text, table, fmt=("%.7f", "%.7f", "%.2f"), delimiter=",", header="x,y,height", comments="")
    atomic_write_bytes(path, text.getvalue().encode("ascii"))


def _draw_tracks(
    rng: np.random.Generator, extent: float, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along the beams of as many passes as it takes, ascending and descending in turn.

    Returns:
        Metres to the east and to the south of the scene's north-western corner, (count,) each, in 0 .. ``extent``.
    """
    scale = min(1.0, extent / _NARROWEST)
    found: list[NDArray[np.float64]] = []
    missing = count
    start, passes = rng.random(), 0
    while missing > 0:
        tilt = math.radians(rng.uniform(6.0, 12.0)) * (-1) ** passes
        # Steps of the golden ratio spread the passes evenly, however many there will be.
        middle = (start + passes * (math.sqrt(5) - 1) / 2) % 1 * extent
        passes += 1
        for beam in _BEAMS:
            along = scale * _POINT_SPACING * rng.random() + np.arange(-extent, extent, scale * _POINT_SPACING)
            east = middle + scale * beam / math.cos(tilt) + along * math.sin(tilt)
            south = extent / 2 - along * math.cos(tilt)
            inside = (east >= 0) & (east <= extent) & (south >= 0) & (south <= extent)
            found.append(np.stack([east, south])[:, inside][:, :missing])  # the last beam may end early
            missing -= found[-1].shape[1]
    points = np.concatenate(found, axis=1)
    return points[0], points[1]


# --- files


def _description(size: int, seed: int, factor: int, noise: float, ground_sample_distance: float) -> str:
    """Text of the README.txt; it also tells whether two scenes are the same."""
    return (
        f"Synthetic scene, seed {seed}: {size} x {size} pixels at {ground_sample_distance:g} m, made by "
        "Utils/terrain_scene.py (D3-RSMDE).\nNo place on Earth looks like this, least of all the one that the "
        "coordinates name.\n\n"
        "image.tif      what a satellite sees: red, green, blue, 8 bits, EPSG:32643\n"
        "truth.tif      true heights on the same grid, metres\n"
        f"reference.tif  what a global DEM would know: means over cells of {factor} x {factor} pixels, "
        f"{factor * ground_sample_distance:g} m, in EPSG:4326, metres,\n"
        f"               not rounded; noise of {noise:g} m, half its variance white, half correlated over about three "
        f"cells; a void ({VOID:g})\n"
        f"points.csv     laser tracks like ICESat-2's: x and y in EPSG:4326, height in metres, a point for every "
        f"{_AREA_A_POINT:,.0f}\n"
        f"               square metres; noise of {_POINT_NOISE:g} m; {_OUTLIER_SHARE:.0%} are outliers, "
        f"{_OUTLIERS[0]:g} to {_OUTLIERS[1]:g} m off\n\n"
        "Heights belong to no vertical datum.\n"
    )


def _claim(folder: Path, files: SceneFiles, description: str) -> None:
    """Put README.txt into ``folder``, unless it holds other data: a mistake must not overwrite a real scene."""
    readme = folder / "README.txt"
    if not (readme.is_file() and readme.read_text(encoding="utf-8") == description):
        for path in (files.image, files.truth, files.reference, files.points):
            if path.exists():
                raise UserError(f"'{path}' belongs to another scene; delete that one or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(readme, description.encode("utf-8"))


def _write_heights(path: Path, height: Floats, grid: Affine, crs: str, **options: Any) -> None:
    """Write ``height`` (H, W) in metres."""
    _write_raster(path, height[None], grid, crs, unit="m", predictor=3, **options)


def _write_raster(
    path: Path, bands: NDArray[Any], grid: Affine, crs: str, unit: str | None = None, **options: Any
) -> None:
    """Write ``bands`` (C, H, W) as a tiled, deflated GeoTIFF; the file is whole or absent."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": bands.dtype, "count": count, "height": height, "width": width}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 4}
    with MemoryFile() as memory:
        with memory.open(**profile, **layout, crs=crs, transform=grid, **options) as target:
            target.write(bands)
            target.update_tags(TIFFTAG_IMAGEDESCRIPTION="synthetic terrain, see README.txt")
            if unit:
                target.units = (unit,) * count
        atomic_write_bytes(path, memory.getbuffer())


def write_preview(files: SceneFiles, picture: Path, width: int = 440) -> None:
    """Draw the scene: image, true and reference relief, and the reference's error; grey where it is void.

    Args:
        files: of a scene that has been written.
        picture: .png or .jpg to write, in an existing folder.
        width: pixels of each map before it is drawn, at most.

    Raises:
        OSError: a file is missing or cannot be written.
        ValueError: another suffix.
    """
    with rasterio.open(files.image) as image, rasterio.open(files.truth) as truth:
        side = min(width, truth.width)
        colours = image.read(out_shape=(3, side, side), resampling=Resampling.average) / 255.0
        heights = truth.read(1, out_shape=(side, side), resampling=Resampling.average)
        grid = from_bounds(*truth.bounds, side, side)
    known = np.full((side, side), np.nan, np.float32)
    with rasterio.open(files.reference) as reference:
        reproject(
            rasterio.band(reference, 1),
            known,
            dst_transform=grid,
            dst_crs=_SCENE_CRS,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    panels = [
        Panel("image", colours, "image"),
        Panel("truth", heights, "relief"),
        Panel("reference", known, "relief"),
        Panel("reference minus truth", known - heights, "error"),
    ]
    save_comparison(
        picture, panels, f"synthetic scene in {files.image.parent.name}", quantity=Quantity("height", "heights", "m")
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a synthetic scene with its coarse reference and laser tracks, and if asked a picture of it."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.terrain_scene", description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=2048, help="pixels a side, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--factor", type=int, default=8, help="pixels to a cell of the reference, default %(default)s")
    parser.add_argument("--noise", type=float, default=3.0, help="of the reference, metres, default %(default)s")
    distance = "metres a pixel, default %(default)s"
    parser.add_argument("--ground-sample-distance", type=float, default=30.0, metavar="METRES", help=distance)
    parser.add_argument("--preview", type=Path, metavar="FILE.png", help="picture to draw")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        files = write_scene(
            options.output,
            options.size,
            options.seed,
            factor=options.factor,
            noise=options.noise,
            ground_sample_distance=options.ground_sample_distance,
        )
        logger.info("wrote a scene of %d x %d pixels to %s", options.size, options.size, options.output)
        if options.preview:
            write_preview(files, options.preview)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
