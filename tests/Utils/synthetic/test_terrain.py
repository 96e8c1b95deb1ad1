"""The synthetic terrain: reproducible, laid out as published, and shaped by water rather than by noise."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from Utils.synthetic import terrain
from Utils.synthetic.terrain import Scene, make_scene, write_contact_sheet, write_dataset
from Utils.synthetic.terrain_hydrology import (
    Flow,
    drained_area,
    fill_upstream,
    neighbour_cells,
    route,
    smooth_noise,
    solve_upstream,
)
from Utils.synthetic.terrain_image import illumination
from Utils.synthetic.terrain_water import WaterPlan, add_water

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TRAIN = "singleRGBNormalization"
TEST = "singleRGBNormalizationTest"


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A scene of 192 x 192 pixels."""
    return make_scene(192, seed=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and four test tiles of 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("terrain") / "Demo"
    write_dataset(folder, 5, 4, 32, seed=1, workers=1)
    return folder


def _read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as source:
        values: NDArray[np.uint8] = source.read()
    return values


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rising_noise(size: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    height = smooth_noise(rng, size, 12.0, 2.0).ravel()
    outlets = np.zeros(height.size, dtype=bool)
    outlets[np.argmin(height)] = True
    return height, outlets


# --- scenes


def test_scene_shape_and_types(scene: Scene) -> None:
    assert scene.image.shape == (192, 192, 3)
    assert scene.image.dtype == np.uint8
    assert scene.height.shape == (192, 192)
    assert scene.height.dtype == np.float32
    assert np.isfinite(scene.height).all()
    assert 100 < np.ptp(scene.height) < 5000
    assert scene.image.std() > 15


def test_same_seed_same_scene_and_no_global_randomness() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    one = make_scene(64, seed=5)
    assert np.random.random() == expected
    other = make_scene(64, seed=5)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.height, other.height)


def test_other_seed_other_scene() -> None:
    one, other = make_scene(64, seed=5), make_scene(64, seed=6)
    assert not np.array_equal(one.image, other.image)
    assert not np.array_equal(one.height, other.height)


def test_slopes_keep_with_the_ground_sample_distance() -> None:
    near, far = (make_scene(64, seed=5, ground_sample_distance=distance) for distance in (5.0, 30.0))
    assert np.ptp(far.height) > 3 * np.ptp(near.height)


@pytest.mark.parametrize("arguments", [(0, 1), (64, -1), (64, 1, 0.0), (64, 1, float("nan")), (64, 1, float("inf"))])
def test_impossible_scenes_are_refused(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="cannot make a scene"):
        make_scene(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 37])
def test_any_size(size: int) -> None:
    assert make_scene(size, seed=0).image.shape == (size, size, 3)


# --- what the terrain looks like


def test_terrain_is_smooth(scene: Scene) -> None:
    # White noise has a median step near a third of its range (5th to 95th percentile); gravel a tenth.
    spread = np.subtract(*np.quantile(scene.height, (0.95, 0.05)))
    steps = np.abs(np.diff(scene.height, axis=0))
    assert np.median(steps) < 0.04 * spread


def test_terrain_drains(scene: Scene) -> None:
    lowest = ndimage.minimum_filter(scene.height, footprint=np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]))
    pits = (scene.height < lowest)[1:-1, 1:-1]
    # Noise has a pit in every ninth pixel.
    assert pits.mean() < 0.001


def test_no_direction_of_the_grid_stands_out() -> None:
    gradients = [np.gradient(make_scene(128, seed).height) for seed in range(3)]
    rows, columns = (np.concatenate([pair[axis].ravel() for pair in gradients]) for axis in (0, 1))
    octant = np.floor((np.arctan2(rows, columns) / (np.pi / 4)) + 0.5).astype(int) % 2
    steep = np.hypot(rows, columns) > 1
    # Half of the slopes should face within 22.5 degrees of an axis, half of a diagonal.
    assert 0.4 < octant[steep].mean() < 0.6


def test_water_lies_low_and_lakes_are_flat() -> None:
    rng = np.random.default_rng(0)
    bedrock = 300 + 100 * smooth_noise(rng, 128, 60.0, 3.0)
    bedrock -= bedrock.min()
    outlets = bedrock < 5
    land = add_water(rng, bedrock, outlets, WaterPlan(20.0, 10.0, 0.05, 8.0, 2, 30.0))
    water = land.water > 0.9
    assert 0.005 < water.mean() < 0.5
    around = ndimage.uniform_filter(land.height, 21, mode="wrap")
    assert (land.height <= around + 1)[water].mean() > 0.9
    lake = bedrock < 20
    assert (land.water[lake] == 1).all()
    assert np.unique(land.height[lake]).size == 1


def test_sunlit_slopes_are_brighter(monkeypatch: pytest.MonkeyPatch) -> None:
    views = []
    draw = terrain._view

    def record(rng: np.random.Generator, relief: float) -> terrain.View:
        views.append(draw(rng, relief))
        return views[-1]

    monkeypatch.setattr(terrain, "_view", record)
    for seed in range(4):
        scene = make_scene(128, seed)
        light = illumination(scene.height, 30.0, views[-1].sun_azimuth, views[-1].sun_elevation)
        inner = np.s_[16:-16, 16:-16]  # the crop does not wrap around as the scene did
        brightness = scene.image.mean(axis=2)
        assert np.corrcoef(light[inner].ravel(), brightness[inner].ravel())[0, 1] > 0.15
        # Nor may the image give heights away: a network has to read shapes.
        assert abs(np.corrcoef(scene.height[inner].ravel(), brightness[inner].ravel())[0, 1]) < 0.8


def test_sun_from_the_east_lights_eastern_slopes_and_throws_shadows() -> None:
    column = np.arange(64, dtype=np.float32)
    ridge = np.tile(np.maximum(0, 12 - np.abs(column - 32)), (64, 1)) * 30  # slopes of 45 degrees
    light = illumination(ridge.astype(np.float32), 30.0, azimuth=90.0, elevation=30.0)
    assert light[:, 33:43].min() > 1.5
    assert light[:, 22:31].max() < 0.1
    assert light[:, 16].max() < 0.1  # flat ground behind the ridge
    assert np.allclose(light[:, :4], 1.0)


# --- flow


def test_every_cell_drains_to_the_outlet() -> None:
    height, outlets = _rising_noise(48, seed=0)
    flow = route(height, outlets, neighbour_cells(48))
    area = drained_area(flow)
    assert area[outlets] == height.size
    assert area.min() == 1
    inner = ~outlets
    here, there = (np.stack(np.divmod(cells[inner], 48)) for cells in (np.arange(height.size), flow.receiver))
    step = (there - here + 24) % 48 - 24
    assert np.abs(step).max() == 1
    assert np.allclose(flow.length[inner], np.hypot(*step))


def test_closed_basins_spill_over_their_lowest_saddle() -> None:
    # Two hollows in a plateau; the left one is the outlet, the right one's lowest way out is the notch at row 5.
    height = np.full((12, 12), 10.0, dtype=np.float32)
    height += np.linspace(0, 0.01, 144, dtype=np.float32).reshape(12, 12)
    height[4:8, 1:4], height[4:8, 7:10] = 1.0, 2.0
    height[5, 4:7] = 5.0
    outlets = np.zeros(144, dtype=bool)
    outlets[5 * 12 + 2] = True
    flow = route(height.ravel(), outlets, neighbour_cells(12))
    visited, cell = set(), 6 * 12 + 8
    while cell < 144:
        visited.add(cell)
        cell = int(flow.receiver[cell])
    assert {5 * 12 + column for column in (4, 5, 6)} <= visited


def test_solvers_agree_with_walking_the_tree() -> None:
    receiver = np.array([5, 0, 1, 1, 0])
    flow = Flow(receiver, np.ones(5, dtype=np.float32))
    constant, factor = np.array([1, 2, 3, 4, 5], dtype=np.float32), np.array([0, 0.5, 2, 1, 3], dtype=np.float32)
    assert np.allclose(solve_upstream(flow, constant, factor), [1, 2.5, 8, 6.5, 8])
    rise = np.full(5, 0.25, dtype=np.float32)
    floor = np.array([3, 1, 9, 0, 0], dtype=np.float32)
    assert np.allclose(fill_upstream(flow, floor, rise), [3, 3.25, 9, 3.5, 3.25])
    assert drained_area(flow).tolist() == [5, 3, 1, 1, 1]


# --- files


def test_layout_on_disk(dataset: Path) -> None:
    ids: dict[str, list[int]] = {}
    for part, count in ((TRAIN, 5), (TEST, 4)):
        images = sorted((dataset / part / "png-stretched-unique").iterdir())
        heights = sorted((dataset / part / "DEM_255-unique").iterdir())
        assert [path.stem for path in images] == [path.stem for path in heights]
        assert {path.suffix for path in images} == {".png"}
        assert {path.suffix for path in heights} == {".tif"}
        ids[part] = [int(path.stem.removeprefix("tile_")) for path in images]
        assert len(ids[part]) == count
    assert not set(ids[TRAIN]) & set(ids[TEST])
    readme = (dataset / "README.txt").read_text(encoding="utf-8")
    assert "Synthetic" in readme and "seed 1" in readme and "32 x 32" in readme


def test_tiles_are_8_bit_and_heights_are_stretched(dataset: Path) -> None:
    for path in dataset.rglob("*.png"):
        image = _read(path)
        assert image.shape == (3, 32, 32) and image.dtype == np.uint8
    for path in dataset.rglob("*.tif"):
        height = _read(path)
        assert height.shape == (1, 32, 32) and height.dtype == np.uint8
        assert (height.min(), height.max()) == (0, 255)
        with rasterio.open(path) as source:
            assert source.compression == rasterio.enums.Compression.deflate


def test_tiles_differ_from_one_another(dataset: Path) -> None:
    digests = [hashlib.sha256(_read(path).tobytes()).digest() for path in dataset.rglob("tile_*")]
    assert len(set(digests)) == len(digests) == 18


def test_parts_come_from_different_scenes() -> None:
    train = terrain._plan(TRAIN, 0, 100, seed=0)
    test = terrain._plan(TEST, 100, 40, seed=0)
    seeds = [plan.seed for plan in train + test]
    assert len(set(seeds)) == len(seeds)
    ids = [plan.first_id + k for plan in train + test for k in range(plan.tiles)]
    assert ids == list(range(140))


def test_tiles_of_a_scene_do_not_overlap(dataset: Path) -> None:
    (plan,) = terrain._plan(TRAIN, 0, 5, seed=1)
    scene = make_scene(3 * 32, plan.seed)
    found = []
    for path in (dataset / TRAIN / "DEM_255-unique").iterdir():
        tile = _read(path)[0]
        found += [
            (row, column)
            for row in range(0, 96, 32)
            for column in range(0, 96, 32)
            if np.array_equal(terrain._stretched(scene.height[row : row + 32, column : column + 32]), tile)
        ]
    assert len(found) == len(set(found)) == 5


def test_files_do_not_depend_on_the_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, 5, 4, 32, seed=1, workers=2)
    assert _digests(tmp_path) == _digests(dataset)


def test_other_data_are_not_overwritten(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, 0, 16, seed=0, workers=1)
    before = _digests(tmp_path)
    write_dataset(tmp_path, 1, 0, 16, seed=0, workers=1)
    with pytest.raises(FileExistsError, match="another dataset"):
        write_dataset(tmp_path, 1, 0, 16, seed=1, workers=1)
    assert _digests(tmp_path) == before
    (tmp_path / "real" / TRAIN).mkdir(parents=True)
    with pytest.raises(FileExistsError, match="another dataset"):
        write_dataset(tmp_path / "real", 1, 0, 16, seed=0, workers=1)


def test_impossible_datasets_are_refused(tmp_path: Path) -> None:
    for numbers in ((-1, 1, 16, 0), (1, -1, 16, 0), (1, 1, 0, 0), (1, 1, 16, -1)):
        with pytest.raises(ValueError, match="cannot write a dataset"):
            write_dataset(tmp_path / "new", *numbers)
    assert not (tmp_path / "new").exists()


def test_flat_ground_becomes_zero() -> None:
    assert not terrain._stretched(np.full((4, 4), 7.5, dtype=np.float32)).any()


def test_command_line_and_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sheet = tmp_path / "Demo", tmp_path / "sheet.png"
    numbers = ["--train-tiles", "2", "--test-tiles", "1", "--tile-size", "16", "--seed", "4"]
    terrain.main(["--dataset", str(folder), *numbers, "--preview", str(sheet)])
    assert len(list(folder.rglob("tile_*"))) == 6
    assert _read(sheet).shape == (3, 2 * 18, 8 * 18)
    with pytest.raises(SystemExit) as stopped:
        terrain.main(["--dataset", str(folder), "--seed", "5"])
    assert stopped.value.code == 2
    assert "another dataset" in capsys.readouterr().err


def test_contact_sheet_needs_tiles(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no tiles"):
        write_contact_sheet(tmp_path, tmp_path / "sheet.png")
