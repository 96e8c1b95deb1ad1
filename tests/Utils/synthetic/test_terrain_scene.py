"""The synthetic scene: what its files hold, and how the reference and the points are related to the truth."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from rasterio import Affine
from rasterio.warp import transform
from scipy import ndimage

from Utils.core.errors import UserError
from Utils.synthetic import terrain_scene
from Utils.synthetic.terrain import make_scene
from Utils.synthetic.terrain_scene import VOID, SceneFiles, write_preview, write_scene

SIZE, SEED, DISTANCE = 96, 3, 30.0
UTM, DEGREES = "EPSG:32643", "EPSG:4326"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """A scene of 96 x 96 pixels; its reference has no noise."""
    return write_scene(tmp_path_factory.mktemp("terrain") / "scene", SIZE, SEED, noise=0.0)


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as source:
        values: NDArray[Any] = source.read()
    return values


def _digests(files: SceneFiles) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in vars(files).items()}


def _points(files: SceneFiles) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of the points in pixels (0 is the border of the first), and their heights."""
    x, y, height = np.loadtxt(files.points, delimiter=",", skiprows=1, unpack=True)
    with rasterio.open(files.truth) as truth:
        columns, rows = _to_pixels(truth.transform, UTM, x, y)
    return columns, rows, height


def _true_heights(files: SceneFiles, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The truth between the centres of its pixels, bilinear."""
    where = np.stack([rows, columns]) - 0.5
    return ndimage.map_coordinates(_read(files.truth)[0].astype(np.float64), where, order=1, mode="nearest")


def _to_map(grid: Affine, columns: ArrayLike, rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return grid.c + grid.a * np.asarray(columns, np.float64), grid.f + grid.e * np.asarray(rows, np.float64)


def _to_pixels(grid: Affine, crs: str, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows on a grid, of points in the coordinates of the other of the two systems."""
    there = {UTM: DEGREES, DEGREES: UTM}[crs]
    x, y = (np.array(values) for values in transform(there, crs, np.ravel(x), np.ravel(y)))
    return (x - grid.c) / grid.a, (y - grid.f) / grid.e


# --- image and truth


def test_image_and_truth_are_those_of_the_terrain(scene: SceneFiles) -> None:
    made = make_scene(SIZE, SEED, DISTANCE)
    assert np.array_equal(_read(scene.image), made.image.transpose(2, 0, 1))
    assert np.array_equal(_read(scene.truth), made.height[None])


def test_image_and_truth_share_a_tiled_grid_in_utm(scene: SceneFiles) -> None:
    with rasterio.open(scene.image) as image, rasterio.open(scene.truth) as truth:
        for source in (image, truth):
            assert source.crs.to_string() == UTM
            assert source.profile["tiled"] and source.compression == rasterio.enums.Compression.deflate
            assert source.nodata is None
        assert image.transform == truth.transform
        assert (truth.transform.a, truth.transform.e) == (DISTANCE, -DISTANCE)
        assert image.dtypes == ("uint8",) * 3 and truth.dtypes == ("float32",)
        assert [band.name for band in image.colorinterp] == ["red", "green", "blue"]
        assert truth.units == ("m",)
        (longitude,), (latitude,) = transform(UTM, DEGREES, [truth.bounds.left], [truth.bounds.top])
    assert 73 < longitude < 77 and 32.5 < latitude < 35.5  # Jammu and Kashmir


# --- the reference


def test_reference_covers_a_little_more_than_the_scene(scene: SceneFiles) -> None:
    with rasterio.open(scene.truth) as truth, rasterio.open(scene.reference) as reference:
        assert reference.crs.to_string() == DEGREES
        assert reference.dtypes == ("float32",) and reference.nodata == VOID and reference.units == ("m",)
        outline = np.linspace(0, SIZE * DISTANCE, 20)
        zero, full = np.zeros(20), np.full(20, SIZE * DISTANCE)
        east = truth.bounds.left + np.concatenate([outline, outline, zero, full])
        north = truth.bounds.bottom + np.concatenate([zero, full, outline, outline])
        columns, rows = _to_pixels(reference.transform, DEGREES, east, north)
        beyond = (columns.min(), rows.min(), reference.width - columns.max(), reference.height - rows.max())
        assert all(1 < cells < 4 for cells in beyond)


def test_cells_are_as_large_as_factor_pixels(scene: SceneFiles) -> None:
    with rasterio.open(scene.reference) as reference:
        x, y = _to_map(reference.transform, [5, 6, 5], [5, 5, 6])
    east, north = transform(DEGREES, UTM, x, y)
    # A cell is so many degrees, which are a few parts in 10,000 longer at one edge of the scene than at the other.
    assert math.hypot(east[1] - east[0], north[1] - north[0]) == pytest.approx(8 * DISTANCE, rel=1e-3)
    assert math.hypot(east[2] - east[0], north[2] - north[0]) == pytest.approx(8 * DISTANCE, rel=1e-3)


def test_cells_hold_the_mean_of_the_truth_within(scene: SceneFiles) -> None:
    with rasterio.open(scene.reference) as reference:
        heights = reference.read(1, masked=True)
        fine = (np.arange(40) + 0.5) / 40  # points within a cell, a side
        across, down = ((np.arange(cells)[:, None] + fine).ravel() for cells in (reference.width, reference.height))
        x, y = _to_map(reference.transform, *np.meshgrid(across, down))
    with rasterio.open(scene.truth) as truth:
        columns, rows = _to_pixels(truth.transform, UTM, x, y)
        pixels = truth.read(1)

    def errors(right: float, down: float) -> NDArray[np.float64]:
        """Errors of the cells, if their grid were shifted by so many pixels of the truth."""
        places = [np.floor(values).astype(int) for values in (rows + down, columns + right)]
        inside = np.logical_and(*((0 <= place) & (place < SIZE) for place in places))
        found = np.where(inside, pixels[tuple(np.clip(place, 0, SIZE - 1) for place in places)], np.nan)
        means = found.reshape(heights.shape[0], 40, heights.shape[1], 40).mean(axis=(1, 3))
        compared = np.isfinite(means) & ~heights.mask
        assert compared.sum() > 70
        return np.asarray((heights - means)[compared], np.float64)

    # The error is not 0, because GDAL averages over the upright box around a cell that is turned by 0.3 degrees. How
    # large it is depends on the terrain, and that on the rounding of the processor; it is smallest where the grid lies.
    shifted = min(errors(*shift).std() for shift in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2)))
    error = errors(0.0, 0.0)
    assert np.sqrt(np.mean(error**2)) < 0.5 * shifted
    assert abs(error.mean()) < 0.05


@pytest.mark.parametrize("size", [SIZE, 130])
def test_the_land_goes_on_beyond_the_scene(size: int) -> None:
    torus = make_scene(terrain_scene._torus_side(size), SEED).height
    for land in (torus, torus.T):
        steps = np.abs(land - np.roll(land, 1, axis=0)).mean(axis=1)
        # From the last line to the first it is no further than between others; unrelated lines are three times as far.
        assert steps[0] < 1.2 * steps[1:].max()


def test_noise_is_half_white_and_half_correlated() -> None:
    noise = terrain_scene._draw_noise(np.random.default_rng(0), (600, 600)).astype(np.float64)
    # A mean over 360,000 cells with about 30 in each correlated patch: the tolerance is three to four deviations.
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    for lag in (1, 3, 8):
        for one, other in ((noise[lag:], noise[:-lag]), (noise[:, lag:], noise[:, :-lag])):
            # White noise blurred by a Gaussian of deviation s is correlated by exp(-d^2 / 4 s^2).
            assert np.mean(one * other) == pytest.approx(0.5 * math.exp(-(lag**2) / (4 * 1.5**2)), abs=0.02)


def test_noise_in_the_file_has_the_deviation_asked_for(scene: SceneFiles, tmp_path: Path) -> None:
    noisy = write_scene(tmp_path, SIZE, SEED, noise=6.0)
    clean, spoilt = _read(scene.reference)[0], _read(noisy.reference)[0]
    void = clean == VOID
    assert np.array_equal(void, spoilt == VOID)
    # 256 cells, of which the correlated half of the variance makes about 20 independent ones.
    assert 4.0 < (spoilt - clean)[~void].std() < 8.0


def test_void_lies_on_the_steepest_ground_in_one_ragged_patch() -> None:
    height = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(200, 240)), 8) * 100
    height[120:, :] += 400.0  # an escarpment, of which the inner half is eligible
    shapes = []
    for seed in range(5):
        void = terrain_scene._draw_void(np.random.default_rng(seed), height.astype(np.float32))
        rows, columns = np.nonzero(void)
        assert ndimage.label(void)[1] == 1 and ndimage.label(~void)[1] == 1
        assert 0.002 < void.mean() < 0.015
        assert abs(rows.mean() - 120) < 9 and 50 < columns.mean() < 190
        boundary = (void & ~ndimage.binary_erosion(void)).sum()
        shapes.append(boundary / math.sqrt(4 * math.pi * void.sum()))
    # A disc of this size on a grid has about 0.9; ragged ones have more.
    assert np.mean(shapes) > 1.0


def test_void_lies_within_the_scene(scene: SceneFiles) -> None:
    with rasterio.open(scene.reference) as reference:
        rows, columns = np.nonzero(reference.read(1) == VOID)
        assert rows.size
        x, y = _to_map(reference.transform, columns + 0.5, rows + 0.5)
    with rasterio.open(scene.truth) as truth:
        columns, rows = _to_pixels(truth.transform, UTM, x, y)
    assert min(columns.min(), rows.min()) > 8 and max(columns.max(), rows.max()) < SIZE - 8


# --- the points


def test_points_are_sparse_and_within_the_scene(scene: SceneFiles) -> None:
    assert scene.points.read_text(encoding="ascii").startswith("x,y,height\n")
    columns, rows, _ = _points(scene)
    assert columns.size == round((SIZE * DISTANCE) ** 2 / 20_000)
    # 1e-7 degrees, the last digit, are less than a thousandth of a pixel.
    assert min(columns.min(), rows.min()) > -1e-3 and max(columns.max(), rows.max()) < SIZE + 1e-3


def test_points_lie_on_oblique_lines(scene: SceneFiles) -> None:
    columns, rows, _ = _points(scene)
    east, north = DISTANCE * np.diff(columns), -DISTANCE * np.diff(rows)
    steps = np.hypot(east, north)
    along = np.abs(steps - 20.0) < 0.1
    assert along.mean() > 0.95  # the rest leads from beam to beam
    tilts = np.degrees(np.arctan2(np.abs(east), np.abs(north)))[along]
    # Both digits and the grid's convergence, 0.3 degrees, leave their mark.
    assert 5.5 < tilts.min() and tilts.max() < 12.5


def test_points_are_accurate_but_for_two_in_a_hundred(tmp_path: Path) -> None:
    files = write_scene(tmp_path, 128, SEED, ground_sample_distance=120.0)
    columns, rows, height = _points(files)
    error = height - _true_heights(files, columns, rows)
    wrong = np.abs(error) > 3.0  # ten deviations; outliers begin at 5 m
    assert wrong.sum() == round(0.02 * height.size) > 200
    assert np.abs(error).max() < 205
    assert (error[wrong] > 0).mean() == pytest.approx(0.75, abs=0.11)  # four deviations
    # 11,600 points: the deviation is known to 0.7 %; digits cut off, a centimetre each way, add nothing to speak of.
    assert error[~wrong].std() == pytest.approx(0.3, rel=0.03)
    assert abs(error[~wrong].mean()) < 0.03


@given(st.floats(0.01, 1e5), st.integers(1, 3000), st.integers(0, 2**32))
def test_tracks_have_as_many_points_as_asked_for(extent: float, count: int, seed: int) -> None:
    east, south = terrain_scene._draw_tracks(np.random.default_rng(seed), extent, count)
    assert east.shape == south.shape == (count,)
    assert min(east.min(), south.min()) >= 0 and max(east.max(), south.max()) <= extent


def test_passes_are_spread_over_the_scene() -> None:
    east, south = terrain_scene._draw_tracks(np.random.default_rng(0), 60_000.0, 180_000)
    counts, _, _ = np.histogram2d(south, east, bins=6, range=[[0, 60_000.0]] * 2)
    assert counts.min() > 0.2 * counts.mean()


# --- files


def test_files_depend_on_the_arguments_alone(scene: SceneFiles, tmp_path: Path) -> None:
    again = write_scene(tmp_path / "elsewhere", SIZE, SEED, noise=0.0)
    assert _digests(again) == _digests(scene)
    assert (again.image.parent / "README.txt").read_bytes() == (scene.image.parent / "README.txt").read_bytes()
    assert sorted(path.name for path in again.image.parent.iterdir()) == [
        "README.txt",
        "image.tif",
        "points.csv",
        "reference.tif",
        "truth.tif",
    ]


def test_each_part_has_its_own_randomness(scene: SceneFiles, tmp_path: Path) -> None:
    before = _digests(scene)
    coarser = _digests(write_scene(tmp_path / "coarser", SIZE, SEED, factor=12, noise=2.0))
    assert coarser["reference"] != before["reference"]
    assert {**coarser, "reference": ""} == {**before, "reference": ""}
    other = _digests(write_scene(tmp_path / "other", SIZE, SEED + 1, noise=0.0))
    assert all(other[name] != before[name] for name in before)


def test_readme_says_what_it_is(scene: SceneFiles) -> None:
    text = (scene.image.parent / "README.txt").read_text(encoding="utf-8")
    for words in ("Synthetic", "seed 3", "96 x 96 pixels at 30 m", "8 x 8 pixels", "240 m", "noise of 0 m", "-32768"):
        assert words in text


def test_other_data_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(b"a real scene")
    with pytest.raises(UserError, match="image.tif' belongs to another scene; delete that one or choose"):
        write_scene(tmp_path, 32, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]
    assert (tmp_path / "image.tif").read_bytes() == b"a real scene"


def test_the_same_scene_is_written_again_and_no_other_over_it(tmp_path: Path) -> None:
    files = write_scene(tmp_path, 32, 0)
    before = _digests(files)
    files.points.unlink()
    assert _digests(write_scene(tmp_path, 32, 0)) == before
    with pytest.raises(UserError, match="another scene"):
        write_scene(tmp_path, 32, 1)
    assert _digests(files) == before


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ((31, 0), {}, "size must be 32 or more"),
        ((64, -1), {}, "seed must be 0"),
        ((64, 0), {"factor": 0}, "factor must|factor 0"),
        ((64, 0), {"noise": -1.0}, "noise -1"),
        ((64, 0), {"noise": math.nan}, "noise nan"),
        ((64, 0), {"ground_sample_distance": 0.0}, "distance above 0"),
        ((64, 0), {"ground_sample_distance": math.inf}, "distance above 0"),
    ],
)
def test_impossible_scenes_are_refused(
    arguments: tuple[int, int], options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=problem):
        write_scene(tmp_path / "new", *arguments, **options)
    assert not (tmp_path / "new").exists()


def test_preview_shows_four_maps(scene: SceneFiles, tmp_path: Path) -> None:
    write_preview(scene, tmp_path / "scene.png", width=48)
    picture = _read(tmp_path / "scene.png")
    assert picture.shape[0] == 3 and picture.shape[2] > 4 * 200
    assert picture.std() > 20


def test_command_line(scene: SceneFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scene"
    numbers = ["--size", str(SIZE), "--seed", str(SEED), "--noise", "0"]
    terrain_scene.main(["--output", str(folder), *numbers, "--preview", str(tmp_path / "scene.png")])
    assert (folder / "truth.tif").read_bytes() == scene.truth.read_bytes()
    assert (tmp_path / "scene.png").is_file()
    with pytest.raises(SystemExit) as stopped:
        terrain_scene.main(["--output", str(folder), "--size", "16"])
    assert stopped.value.code == 2
    assert "size must be 32" in capsys.readouterr().err
