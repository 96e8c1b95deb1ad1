"""Synthetic land cover of two domains for the segmentation demo: colours change from one to the other, heights do not.

python -m Utils.synthetic.land_cover --output FOLDER [--seed 0]

In the domain Inland most roofs are red, roads are grey and grass is green. In the domain Coast roofs and roads are of
one sandy grey and grass is dry: what tells a roof from a road there is its height, its outline and its shadow.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from scipy import ndimage

from Utils.rasters.environment import gdal_environment, georeference_optional
from Utils.synthetic.dataset_folder import claim

__all__ = ["CLASSES", "DOMAINS", "SOURCE", "TARGET", "LandCover", "make_land_cover", "write_dataset", "write_scene"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

CLASSES = ("grass", "building", "road", "water", "forest")
GRASS, BUILDING, ROAD, WATER, FOREST = range(5)
_SHOWN = ((150, 200, 90), (200, 40, 40), (120, 120, 120), (40, 90, 200), (20, 90, 30))
SOURCE, TARGET = DOMAINS = ("Inland", "Coast")
PIXEL = 0.5
"""Metres of a pixel's side."""

# Red, green, blue in [0, 1]; a roof has one of several.
_COLOURS: dict[str, dict[int, Sequence[tuple[float, float, float]]]] = {
    SOURCE: {
        GRASS: [(0.42, 0.56, 0.26)],
        BUILDING: [(0.66, 0.30, 0.22), (0.60, 0.24, 0.20), (0.72, 0.42, 0.28), (0.50, 0.49, 0.48)],
        ROAD: [(0.47, 0.47, 0.48)],
        WATER: [(0.14, 0.26, 0.36)],
        FOREST: [(0.18, 0.34, 0.16)],
    },
    TARGET: {
        GRASS: [(0.62, 0.58, 0.36)],
        BUILDING: [(0.66, 0.62, 0.56)],
        ROAD: [(0.66, 0.62, 0.56)],
        WATER: [(0.20, 0.38, 0.40)],
        FOREST: [(0.34, 0.40, 0.22)],
    },
}
_SUN = (math.cos(math.radians(225)), math.sin(math.radians(225)))  # rows and columns a step away from the sun
_SUN_ELEVATION = 50.0  # degrees


@dataclass(frozen=True)
class LandCover:
    """One piece of ground.

    Attributes:
        image: (H, W, 3) in [0, 1].
        labels: (H, W) numbers of ``CLASSES``.
        heights: (H, W) metres, ground with what stands on it.
    """

    image: Floats
    labels: NDArray[np.uint8]
    heights: Floats


def make_land_cover(domain: str, size: tuple[int, int], rng: np.random.Generator) -> LandCover:
    """Ground with grass, forest, water, roads and houses, as it looks in a domain.

    Args:
        domain: one of ``DOMAINS``; it changes colours alone.
        size: rows and columns.
        rng: draws the ground.
    """
    terrain = 6.0 * _smooth(rng, size, 60.0)
    labels = np.full(size, GRASS, np.uint8)
    above = np.zeros(size)
    woods = _smooth(rng, size, 14.0) > 0.75
    labels[woods] = FOREST
    above[woods] = (7.0 + 2.5 * _smooth(rng, size, 1.5))[woods].clip(2.0)
    pond = _smooth(rng, size, 16.0) > 1.35
    labels[pond], above[pond] = WATER, -1.0
    area = size[0] * size[1] / 96**2
    # A larger place has longer roads, so that their share of the ground stays.
    for _ in range(max(1, round(1.5 * math.sqrt(area)))):
        _lay_road(labels, above, rng)
    roofs = np.zeros(size, np.int64)
    for number in range(1, 1 + round(10 * area)):
        _build_house(labels, above, roofs, number, rng)
    # Water lies level, roads nearly so: what stands on the ground follows it.
    heights = terrain + above
    return LandCover(_look(domain, labels, heights, roofs, rng), labels, heights)


def _smooth(rng: np.random.Generator, size: tuple[int, int], sigma: float) -> Floats:
    """Noise of one scale, mean 0 and deviation 1 over ground of any size."""
    # Slow noise is drawn on coarse cells and made fine by splines, which is as smooth and costs little.
    step = max(1, int(sigma / 3))
    scale, margin = sigma / step, math.ceil(4 * sigma / step)
    shape = [math.ceil(side / step) + 2 * margin + 2 for side in size]
    coarse = ndimage.gaussian_filter(rng.standard_normal(shape), scale)
    # The deviation of white noise after a Gaussian filter.
    coarse *= 2.0 * math.sqrt(math.pi) * scale
    if step > 1:
        rows, columns = (margin + np.arange(side) / step for side in size)
        fine = ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=3)
        return np.asarray(fine, np.float64)
    return np.asarray(coarse[margin : margin + size[0], margin : margin + size[1]], np.float64)


def _lay_road(labels: NDArray[np.uint8], above: Floats, rng: np.random.Generator) -> None:
    rows, columns = np.indices(labels.shape)
    angle, width = rng.uniform(0, math.pi), rng.uniform(6, 10)
    middle = rng.uniform(0.2, 0.8, 2) * labels.shape
    across = (rows - middle[0]) * math.cos(angle) - (columns - middle[1]) * math.sin(angle)
    along = (rows - middle[0]) * math.sin(angle) + (columns - middle[1]) * math.cos(angle)
    bent = across + rng.uniform(2, 8) * np.sin(along / rng.uniform(20, 40))
    road = np.abs(bent) < width / 2
    labels[road], above[road] = ROAD, 0.0


def _build_house(
    labels: NDArray[np.uint8], above: Floats, roofs: NDArray[np.int64], number: int, rng: np.random.Generator
) -> None:
    """A house with a flat roof; none where a road, water or another house is."""
    rows, columns = np.indices(labels.shape)
    angle = rng.uniform(0, math.pi)
    half = rng.uniform(4, 9), rng.uniform(5, 16)
    middle = rng.uniform(0, 1, 2) * labels.shape
    across = (rows - middle[0]) * math.cos(angle) - (columns - middle[1]) * math.sin(angle)
    along = (rows - middle[0]) * math.sin(angle) + (columns - middle[1]) * math.cos(angle)
    house = (np.abs(across) < half[0]) & (np.abs(along) < half[1])
    if not house.any() or np.isin(labels[house], (ROAD, WATER, BUILDING)).any():
        return
    labels[house], above[house], roofs[house] = BUILDING, rng.uniform(4.0, 12.0), number


def _look(
    domain: str, labels: NDArray[np.uint8], heights: Floats, roofs: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """The image: colours, texture, light on slopes, shadows, haze and noise."""
    image = np.zeros((*labels.shape, 3))
    for number, colours in _COLOURS[domain].items():
        image[labels == number] = colours[0]
    for house in np.unique(roofs[roofs > 0]):
        of_house = _COLOURS[domain][BUILDING]
        image[roofs == house] = np.array(of_house[int(rng.integers(len(of_house)))]) + rng.normal(0, 0.03)
    image *= 1.0 + 0.06 * _smooth(rng, labels.shape, 1.0)[..., None]
    image *= 1.0 + 0.08 * _smooth(rng, labels.shape, 10.0)[..., None]
    image[_shadow(heights)] *= 0.55
    gain, tint = rng.normal(1.0, 0.06), rng.normal(1.0, 0.03, 3)
    return np.clip(image * gain * tint + rng.normal(0, 0.02, image.shape), 0.0, 1.0)


def _shadow(heights: Floats) -> NDArray[np.bool_]:
    """Where something towards the sun is in its way."""
    slope = math.tan(math.radians(_SUN_ELEVATION)) * PIXEL
    shadow = np.zeros(heights.shape, bool)
    for step in range(1, math.ceil(14.0 / slope)):
        rows, columns = round(step * _SUN[0]), round(step * _SUN[1])
        # What lies beyond the edge casts none.
        moved = np.full(heights.shape, -np.inf)
        moved[: rows or None, : columns or None] = heights[-rows:, -columns:]
        shadow |= moved - heights > slope * step
    return shadow


def relative_depth(heights: Floats, rng: np.random.Generator) -> NDArray[np.uint16]:
    """What a good monocular model would draw: larger is nearer, bent, a little blurred, with a slow error, no unit."""
    low, high = heights.min(), heights.max()
    share = ((heights - low) / max(high - low, 1e-9)) ** rng.uniform(0.8, 1.25)
    blurred = ndimage.gaussian_filter(share, 0.7) + 0.03 * _smooth(rng, share.shape, 20.0)
    noisy = blurred + rng.normal(0, 0.01, share.shape)
    return np.rint(np.clip(0.05 + 0.9 * noisy, 0, 1) * 65535).astype(np.uint16)


def write_dataset(folder: Path, train: int, validation: int, size: int, seed: int) -> None:
    """Write both domains in the layout of LoveDA: images, masks and relative depth, and ``classes.json``.

    Args:
        folder: made if it does not exist.
        train: tiles of each domain in the part Train.
        validation: tiles of each domain in the part Val.
        size: side of a tile in pixels.
        seed: not negative. The ground of the two domains differs too.

    Raises:
        FileExistsError: ``folder`` holds another dataset than the one that would be written.
    """
    claim(
        folder,
        f"Synthetic land cover, made by Utils.synthetic.land_cover: {train} training and {validation} validation tiles "
        f"of {size} pixels a domain, seed {seed}.\n",
        ("Train", "Val", "classes.json"),
    )
    classes = [
        {"name": name, "colour": list(colour), "value": number + 1}
        for number, (name, colour) in enumerate(zip(CLASSES, _SHOWN, strict=True))
    ]
    table = {"classes": classes, "ignored_values": [0]}
    (folder / "classes.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    for place, (part, count) in enumerate((("Train", train), ("Val", validation))):
        for number, domain in enumerate(DOMAINS):
            for tile in range(count):
                rng = np.random.default_rng([seed, place, number, tile])
                ground = make_land_cover(domain, (size, size), rng)
                _write_tile(folder / part / domain, f"{tile:03d}", ground, rng)
    logger.info("wrote %d training and %d validation tiles of each domain to %s", train, validation, folder)


def write_scene(folder: Path, size: tuple[int, int], seed: int, domain: str = TARGET) -> None:
    """Write ``scene.tif``, ``surface.tif`` (heights in metres) and ``labels.tif``, georeferenced, of one larger place.

    The labels have half the pixel size, as a map of other origin would.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ground = make_land_cover(domain, size, np.random.default_rng([seed, 9]))
    place = Affine(PIXEL, 0.0, 400_000.0, 0.0, -PIXEL, 5_900_000.0)
    image = np.rint(255 * np.moveaxis(ground.image, -1, 0)).astype(np.uint8)
    _write(folder / "scene.tif", image, place, "GTiff")
    _write(folder / "surface.tif", ground.heights.astype(np.float32)[None], place, "GTiff")
    labels = (ground.labels + 1).repeat(2, axis=0).repeat(2, axis=1)
    _write(folder / "labels.tif", labels[None], place @ Affine.scale(0.5), "GTiff")


def _write_tile(folder: Path, name: str, ground: LandCover, rng: np.random.Generator) -> None:
    image = np.rint(255 * np.moveaxis(ground.image, -1, 0)).astype(np.uint8)
    maps = relative_depth(ground.heights, rng)
    for part, values in (("images_png", image), ("masks_png", ground.labels[None] + 1), ("depth_png", maps[None])):
        (folder / part).mkdir(parents=True, exist_ok=True)
        _write(folder / part / f"{name}.png", values, None, "PNG")


def _write(path: Path, bands: NDArray[np.generic], transform: Affine | None, driver: str) -> None:
    count, height, width = bands.shape
    place = {} if transform is None else {"transform": transform, "crs": CRS.from_epsg(32633)}
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with (
        gdal_environment(GDAL_PAM_ENABLED="NO"),
        georeference_optional(),
        rasterio.open(path, "w", driver=driver, **shape, **place) as target,
    ):
        target.write(bands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.land_cover", description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--validation", type=int, default=24)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_dataset(given.output, given.train, given.validation, given.size, given.seed)


if __name__ == "__main__":
    main()
