"""Synthetic terrain for demonstrations: seeded landscapes with real drainage, and what a satellite sees of them.

``python -m Utils.synthetic.terrain --dataset DIR`` writes a dataset in the published layout.
"""

import argparse
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from Utils.synthetic.dataset_folder import claim, make_scenes
from Utils.synthetic.terrain_hydrology import Climate, evolve
from Utils.synthetic.terrain_image import View, expose_tile, render, slopes
from Utils.synthetic.terrain_water import WaterPlan, add_water

__all__ = ["Scene", "make_scene", "write_contact_sheet", "write_dataset"]

logger = logging.getLogger(__name__)

TRAIN_PART = "singleRGBNormalization"
TEST_PART = "singleRGBNormalizationTest"
IMAGE_FOLDER = "png-stretched-unique"
HEIGHT_FOLDER = "DEM_255-unique"

# Below this the coarsest of the nested grids has too few cells for a valley.
_SMALLEST_GRID = 128
# A scene of 4 x 4 tiles: large enough for rivers of several orders, small enough to make many different ones.
_TILES_A_SIDE = 4
# Of these the one with the least relief is left out: a bare plain or lake has nothing to teach.
_TILES_A_SCENE = _TILES_A_SIDE**2 - 1


@dataclass(frozen=True)
class Scene:
    """A landscape seen from above: ``image`` (H, W, 3) uint8, red, green, blue; ``height`` (H, W) float32, metres."""

    image: NDArray[np.uint8]
    height: NDArray[np.float32]


def make_scene(size: int, seed: int, ground_sample_distance: float = 30.0) -> Scene:
    """Make a square scene of ``size`` pixels; the same arguments give the same scene.

    Args:
        size: pixels a side, at least 1. Shapes are set in pixels: main valleys lie 40 to 100 apart at any size.
        seed: not negative.
        ground_sample_distance: metres a pixel; slopes are those of real mountains, so heights grow with it.

    Raises:
        ValueError: an argument is out of range.
    """
    if size < 1 or seed < 0 or not 0 < ground_sample_distance < math.inf:
        given = f"size {size}, seed {seed}, ground_sample_distance {ground_sample_distance}"
        raise ValueError(f"cannot make a scene of {given}: size must be 1 or more, seed 0 or more, distance above 0")
    rng = np.random.default_rng(seed)
    grid = max(_SMALLEST_GRID, math.ceil(size / 32) * 32)
    climate = Climate(
        creep=float(np.exp(rng.uniform(*np.log((1.5, 7.0))))),
        range_wavelength=float(rng.uniform(150, 350)),
        range_contrast=float(rng.uniform(0.3, 0.8)),
        rock_contrast=float(rng.uniform(0.15, 0.4)),
        **_landform(rng),
    )
    bedrock, outlets = evolve(rng, grid, climate)
    # The steepest tenth of what rises; plains and sea are not asked.
    steep = 1 - 0.1 * (1 - climate.lowland)
    gradient = np.quantile(np.hypot(*slopes(bedrock, ground_sample_distance)), steep)
    bedrock *= np.float32(np.tan(np.radians(rng.uniform(28, 42))) / gradient)

    relief = float(np.quantile(bedrock, 0.99))
    land = add_water(rng, bedrock, outlets, _water_plan(rng, relief, grid, climate.lowland))
    image = render(rng, land, ground_sample_distance, _view(rng, relief))
    height = land.height + np.float32(rng.uniform(20, 800))
    return Scene(image[:size, :size].copy(), height[:size, :size].astype(np.float32))


def _landform(rng: np.random.Generator) -> dict[str, float]:
    """Draw what the mountains stand in, by the keys of `Climate`: nothing, plains, or plains and the sea."""
    kind = rng.choice(["highland", "plain", "coast"], p=[0.3, 0.42, 0.28])
    lowland = 0.0 if kind == "highland" else float(rng.uniform(0.15, 0.7))
    return {
        "coast": float(rng.uniform(0.1, 0.5)),
        "lowland": lowland,
        "sea": float(rng.uniform(0.2, 0.8)) * lowland if kind == "coast" else 0.0,
        "gullies": float(rng.uniform(0.15, 0.5)),
        "roughness": float(rng.uniform(0.1, 0.4)),
    }


def _water_plan(rng: np.random.Generator, relief: float, grid: int, lowland: float) -> WaterPlan:
    """Draw how wet the scene is; ``relief`` in metres, ``lowland`` as in `Climate`."""
    return WaterPlan(
        # A plain lies barely above its sea: what fills a mountain valley would drown all of it.
        lake_depth=float(rng.uniform(0, 0.05 if lowland == 0 else 0.006)) * relief,
        fill=float(rng.uniform(0.015, 0.055)) * relief,
        floor_slope=float(rng.uniform(0.6e-4, 1.5e-4)) * relief,
        river_width=float(rng.uniform(1.0, 2.8)),
        reservoirs=int(rng.poisson(2.5 * (grid / 512) ** 2)),
        dam_height=0.05 * relief,
    )


def _view(rng: np.random.Generator, relief: float) -> View:
    """Draw the season and the light; ``relief`` in metres above the lowest ground."""
    palette = str(rng.choice(["summer", "autumn", "winter", "dry", "alpine"], p=[0.3, 0.2, 0.25, 0.13, 0.12]))
    alpine = palette == "alpine"
    return View(
        palette=palette,
        forest=float(rng.uniform(-0.6, 0.4) if palette == "dry" else rng.uniform(0.0, 1.2)),
        tree_line=float(rng.uniform(0.5, 0.75) if alpine else rng.uniform(0.9, 1.5)) * relief,
        snow_line=float(rng.uniform(0.78, 1.0) if alpine else rng.uniform(1.5, 3.0)) * relief,
        sun_azimuth=float(rng.uniform(115, 170)),
        sun_elevation=float(rng.uniform(22, 50)),
        haze=float(rng.uniform(0.0, 0.18)),
        noise=float(rng.uniform(1.0, 4.0)),
        rock=float(rng.uniform(0.66, 0.95) if alpine or palette == "dry" else rng.uniform(0.7, 1.5)),
        patches=float(rng.uniform(0.15, 0.8)),
        texture=float(rng.uniform(0.03, 0.2)),
        towns=float(rng.uniform(0.0, 0.8) ** 2),
        gamma=float(rng.uniform(0.75, 1.25)),
        black=float(rng.uniform(0.01, 0.12)),
        white=float(rng.uniform(0.95, 0.985)),
    )


@dataclass(frozen=True)
class _ScenePlan:
    """One scene's part of a dataset: the tiles ``first_id`` .. ``first_id + tiles - 1`` of ``part``."""

    part: str
    first_id: int
    tiles: int
    seed: int


def write_dataset(
    folder: Path, train_tiles: int, test_tiles: int, tile_size: int, seed: int, workers: int | None = None
) -> None:
    """Write a synthetic dataset in the published layout, and a README.txt that says what it is.

    Train and test tiles come from different scenes, and ids are unique across both parts. Tiles of one scene do not
    overlap. The files depend on the arguments alone, not on ``workers``.

    Args:
        folder: made if it does not exist.
        train_tiles: tiles in the training part, with the ids 0 .. train_tiles - 1.
        test_tiles: tiles in the test part, whose ids follow.
        tile_size: pixels a side.
        seed: not negative.
        workers: processes that make scenes; by default one per core that this process may use.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: ``folder`` holds another dataset than the one that would be written.
    """
    if train_tiles < 0 or test_tiles < 0 or tile_size < 1 or seed < 0:
        given = f"{train_tiles} train tiles, {test_tiles} test tiles, tile size {tile_size}, seed {seed}"
        raise ValueError(f"cannot write a dataset of {given}: the tile size must be 1 or more, the rest 0 or more")
    claim(folder, _description(train_tiles, test_tiles, tile_size, seed), (TRAIN_PART, TEST_PART))
    plans = _plan(TRAIN_PART, 0, train_tiles, seed) + _plan(TEST_PART, train_tiles, test_tiles, seed)
    for part in (TRAIN_PART, TEST_PART):
        for kind in (IMAGE_FOLDER, HEIGHT_FOLDER):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)

    work = partial(_write_scene, folder, tile_size)
    make_scenes(work, plans, workers)
    logger.info("wrote %d training and %d test tiles to %s", train_tiles, test_tiles, folder)


def _description(train_tiles: int, test_tiles: int, tile_size: int, seed: int) -> str:
    """Text of the README.txt of a dataset; it also tells whether two datasets are the same."""
    return (
        f"Synthetic terrain, seed {seed}: {train_tiles} training and {test_tiles} test tiles of "
        f"{tile_size} x {tile_size} pixels at 30 m, made by Utils/synthetic/terrain.py (D3-RSMDE). No place on Earth "
        "looks like this. Rivers cut and slopes creep on a grid until valleys and ridges have formed, between plains "
        "and seas; sediment and lakes fill the valley floors, and the image adds land cover, sunlight, haze, sensor "
        "noise and an exposure of each tile. Heights are stretched per tile to 0..255; higher is higher ground. Train "
        "and test tiles come from different scenes.\n"
    )


def _plan(part: str, first_id: int, tiles: int, seed: int) -> list[_ScenePlan]:
    """Share the ``tiles`` of a part out to scenes, each with a seed of its own."""
    plans = []
    for number, done in enumerate(range(0, tiles, _TILES_A_SCENE)):
        branch = np.random.SeedSequence(seed, spawn_key=(part == TEST_PART, number))
        scene_seed = int(branch.generate_state(1, np.uint64)[0])
        plans.append(_ScenePlan(part, first_id + done, min(_TILES_A_SCENE, tiles - done), scene_seed))
    return plans


def _write_scene(folder: Path, tile_size: int, plan: _ScenePlan) -> None:
    """Make one scene and write its tiles."""
    side = min(_TILES_A_SIDE, math.ceil(math.sqrt(plan.tiles + 1)))
    scene = make_scene(side * tile_size, plan.seed)
    starts = range(0, side * tile_size, tile_size)
    windows = [np.s_[row : row + tile_size, column : column + tile_size] for row in starts for column in starts]
    by_relief = sorted(range(len(windows)), key=lambda k: float(np.ptp(scene.height[windows[k]])), reverse=True)
    for offset, chosen in enumerate(sorted(by_relief[: plan.tiles])):
        name = f"tile_{plan.first_id + offset}"
        rng = np.random.default_rng([plan.seed, chosen])
        image = expose_tile(rng, scene.image[windows[chosen]]).transpose(2, 0, 1)
        height = _stretched(scene.height[windows[chosen]])[None]
        _write_raster(folder / plan.part / IMAGE_FOLDER / f"{name}.png", "PNG", image)
        _write_raster(folder / plan.part / HEIGHT_FOLDER / f"{name}.tif", "GTiff", height, compress="deflate")


def _stretched(height: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Stretch ``height`` (H, W) to 0..255 by its own lowest and highest value; a flat tile becomes 0."""
    low, high = float(height.min()), float(height.max())
    return np.rint((height - low) * (255 / (high - low) if high > low else 0.0)).astype(np.uint8)


def _write_raster(path: Path, driver: str, bands: NDArray[np.uint8], **options: str) -> None:
    """Write ``bands`` (C, H, W) without georeference, as the published tiles are."""
    count, height, width = bands.shape
    profile = {"driver": driver, "dtype": "uint8", "count": count, "height": height, "width": width, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as target:
            target.write(bands)


def write_contact_sheet(folder: Path, picture: Path, columns: int = 8, rows: int = 3) -> None:
    """Write a PNG with tiles of the dataset in ``folder``, spread over both parts: each image above its height.

    Raises:
        FileNotFoundError: ``folder`` holds no tiles.
    """
    images = sorted(folder.glob(f"{TRAIN_PART}*/{IMAGE_FOLDER}/tile_*.png"), key=lambda path: int(path.stem[5:]))
    if not images:
        raise FileNotFoundError(f"{folder} holds no tiles in {TRAIN_PART}/{IMAGE_FOLDER} or {TEST_PART}/{IMAGE_FOLDER}")
    spread = np.linspace(0, len(images) - 1, min(columns * rows, len(images))).astype(int)
    cells = [np.concatenate(_tile_and_height(images[k]), axis=1) for k in spread]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    lines = [np.concatenate(cells[k : k + columns], axis=2) for k in range(0, len(cells), columns)]
    _write_raster(picture, "PNG", np.concatenate(lines, axis=1))


def _tile_and_height(image: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read a tile's image and height, both as (3, H, W) with a dark rim on the right and below."""
    height = image.parent.parent / HEIGHT_FOLDER / f"{image.stem}.tif"
    bands = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for path in (image, height):
            with rasterio.open(path) as source:
                values = np.broadcast_to(source.read(), (3, source.height, source.width))
            bands.append(np.pad(values, ((0, 0), (0, 2), (0, 2))))
    return bands[0], bands[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a synthetic dataset, and if asked a contact sheet of it."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.terrain", description=main.__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder to write")
    parser.add_argument("--train-tiles", type=int, default=480, help="default %(default)s")
    parser.add_argument("--test-tiles", type=int, default=60, help="default %(default)s")
    parser.add_argument("--tile-size", type=int, default=128, help="pixels a side, default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--preview", type=Path, metavar="FILE.png", help="contact sheet to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        write_dataset(options.dataset, options.train_tiles, options.test_tiles, options.tile_size, options.seed)
        if options.preview:
            write_contact_sheet(options.dataset, options.preview)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
