"""predictStereo.py end to end on pictures of known ground, and what it says of input that cannot serve."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.warp import transform

import predictStereo
from Systems.stereo.dsm.matchers import SweepMatcher
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.point_cloud import write_points
from Systems.stereo.dsm.views import opened_views
from tests.rational_cameras import camera, write_image
from tests.rational_views import TILTS, hills, metres, write_views
from Utils.rasters.rational import read_rational

FAST = ("--heights", "15,70")


def run(images: list[Path], output: Path, *more: str) -> int:
    return predictStereo.main(["--images", *map(str, images), "--output", str(output), *more])


@dataclass(frozen=True)
class Made:
    """What a run wrote: layers (h, w), NaN where there is none, and heights of the ground under them."""

    height: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    views: NDArray[np.float64]
    flags: NDArray[np.float64]
    truth: NDArray[np.float64]
    tags: dict[str, str]
    document: dict

    @property
    def error(self) -> NDArray[np.float64]:
        return self.height - self.truth


def made(output: Path, heights: Callable = hills) -> Made:
    with rasterio.open(output) as source:
        layers = source.read(masked=True).astype(float).filled(np.nan)
        rows, columns = np.mgrid[: source.height, : source.width]
        xs, ys = source.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
        longitude, latitude = (np.array(axis) for axis in transform(source.crs, "EPSG:4326", xs, ys))
        truth = heights(*metres(longitude, latitude)).reshape(layers.shape[1:])
        tags = source.tags()
    return Made(*layers, truth, tags, json.loads(output.with_suffix(".json").read_text()))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_views(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose cameras are three pixels off, with all that can be written."""
    folder = tmp_path_factory.mktemp("disturbed")
    images = write_views(folder, moved=[(0.5, -1.5), (-0.5, 1.5)])
    more = ("--preview", "--report", "--points", str(folder / "dsm.ply"))
    assert run(images, folder / "dsm.tif", *FAST, *more) == 0
    return folder


def test_ground_comes_back_though_the_cameras_are_off(disturbed: Path) -> None:
    found = made(disturbed / "dsm.tif")
    known = np.isfinite(found.height)
    assert found.document["coverage"]["share"] > 0.85
    error = found.error[known]
    # What lies along the way that points take with their height is a height: one vertical shift is left.
    assert abs(np.median(error)) < 3.0
    left = error - np.median(error)
    assert np.median(np.abs(left)) < 0.25 and np.percentile(np.abs(left), 95) < 1.2
    # Of errors as large as is said, 68 and 95 % lie within one and two deviations.
    within = np.abs(left) / found.uncertainty[known]
    assert 0.6 < (within < 1).mean() < 0.8 and 0.88 < (within < 2).mean() < 0.98
    pointing = found.document["pointing"]
    assert pointing["residual_before"]["median"] > 1.0
    assert pointing["residual_after"]["median"] < 0.1
    assert pointing["matches"] > 20


def test_bands_and_tags_say_what_they_are(disturbed: Path) -> None:
    with rasterio.open(disturbed / "dsm.tif") as source:
        assert source.descriptions == ("height", "uncertainty", "views", "flags")
        assert source.dtypes == ("float32",) * 4 and source.crs.to_epsg() == 32632
        assert source.tags()["VERTICAL_DATUM"] == "EPSG:4979"
        assert "ellipsoid" in source.tags(1)["long_name"]
        assert source.overviews(1) == [] or source.overviews(1)[0] == 2
    found = made(disturbed / "dsm.tif")
    known = np.isfinite(found.height)
    assert (found.views[known] == 2).all() and (found.views[~known] == 0).all()
    assert set(np.unique(found.flags)) <= {0.0, 2.0, 4.0, 8.0}
    assert np.isfinite(found.uncertainty).tolist() == known.tolist()
    assert found.uncertainty[known].min() > 0.1
    assert not (disturbed / ".dsm.tif.work").exists()


def test_the_page_and_the_picture_are_written(disturbed: Path) -> None:
    page = (disturbed / "dsm.html").read_text()
    assert "Shifts in pixels" in page and "view_2.tif" in page and "the WGS 84 ellipsoid" in page
    assert (disturbed / "dsm.png").stat().st_size > 5000


def test_points_are_the_cells_of_the_raster(disturbed: Path) -> None:
    data = (disturbed / "dsm.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    assert b"heights above the WGS 84 ellipsoid" in header and b"property uchar grey" in header
    names = [("x", "<f8"), ("y", "<f8"), ("z", "<f4"), ("uncertainty", "<f4"), ("grey", "u1")]
    points = np.frombuffer(body, np.dtype(names))
    with rasterio.open(disturbed / "dsm.tif") as source:
        height = source.read(1, masked=True)
        columns, rows = (np.floor(axis).astype(int) for axis in ~source.transform @ (points["x"], points["y"]))
    assert count == len(points) == height.count()
    np.testing.assert_array_equal(height.data[rows, columns], points["z"])
    assert points["grey"].std() > 20


def test_three_views_agree_and_one_of_them_may_be_the_reference(tmp_path: Path) -> None:
    images = write_views(tmp_path, 3)
    area = "9.9997,-0.0003,10.0003,0.0003"
    assert run(images, tmp_path / "dsm.tif", *FAST, "--aoi", area, "--references", "2", "--agreeing", "2") == 0
    found = made(tmp_path / "dsm.tif")
    known = np.isfinite(found.height)
    assert found.height.shape == (68, 68)  # 0.0006 degrees
    assert known.mean() > 0.8 and (found.views[known] == 3).all()
    assert np.median(np.abs(found.error[known])) < 0.25


def test_an_interrupted_run_goes_on(pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = (*FAST, "--tile-size", "70", "--aoi", "9.9996,-0.00025,10.0004,0.00025")
    assert run(pair, tmp_path / "whole.tif", *more) == 0
    match, calls = SweepMatcher.match, []

    def stops(self: SweepMatcher, *given: object) -> object:
        calls.append(given)
        if len(calls) > 14:  # in the second of two tiles
            raise KeyboardInterrupt
        return match(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SweepMatcher, "match", stops)
    assert run(pair, tmp_path / "dsm.tif", *more) == 130
    assert not (tmp_path / "dsm.tif").exists() and list((tmp_path / ".dsm.tif.work").glob("tile_*.npy"))
    monkeypatch.setattr(SweepMatcher, "match", match)
    assert run(pair, tmp_path / "dsm.tif", *more) == 2  # neither --resume nor --overwrite
    assert run(pair, tmp_path / "dsm.tif", *more, "--resume") == 0
    np.testing.assert_array_equal(made(tmp_path / "dsm.tif").height, made(tmp_path / "whole.tif").height)


def test_holes_are_filled_and_flagged_on_request(tmp_path: Path) -> None:
    images = write_views(tmp_path)
    with rasterio.open(images[0], "r+") as source:
        pixels = source.read(1)
        pixels[50:68, 55:73] = 600  # a lake without detail
        source.write(pixels, 1)
    area = "9.9997,-0.0003,10.0003,0.0003"
    assert run(images, tmp_path / "dsm.tif", *FAST, "--aoi", area, "--fill") == 0
    found = made(tmp_path / "dsm.tif")
    hole = found.flags == 1
    assert 50 < hole.sum() < 1500
    assert np.isfinite(found.height[hole]).all() and not (found.views[hole] > 0).any()
    assert np.median(np.abs(found.error[hole])) < 2.0


def test_heights_above_a_geoid_on_request(pair: list[Path], tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "geoid.tif", "w", driver="GTiff", dtype="float32", count=1, width=4, height=4, crs="EPSG:4326",
        transform=rasterio.transform.from_origin(8.0, 2.0, 1.0, 1.0),
    ) as file:  # fmt: skip
        file.write(np.full((4, 4), 25.0, np.float32), 1)
    more = (*FAST, "--aoi", "9.9998,-0.0002,10.0002,0.0002", "--geoid", str(tmp_path / "geoid.tif"))
    assert run(pair, tmp_path / "dsm.tif", *more) == 0
    found = made(tmp_path / "dsm.tif")
    assert np.nanmedian(found.error) == pytest.approx(-25.0, abs=0.3)
    assert found.tags["VERTICAL_DATUM"] == "the geoid of geoid.tif"


def test_a_dem_says_where_to_search(pair: list[Path], tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", dtype="int16", count=1, width=10, height=10, crs="EPSG:4326",
        transform=rasterio.transform.from_origin(9.998, 0.002, 0.0004, 0.0004),
    ) as file:  # fmt: skip
        file.write(np.full((10, 10), 40, np.int16), 1)
    more = ("--aoi", "9.9998,-0.0002,10.0002,0.0002", "--reference", str(tmp_path / "dem.tif"))
    assert run(pair, tmp_path / "dsm.tif", *more) == 0
    found = made(tmp_path / "dsm.tif")
    assert found.document["limits"] == [-20.0, 100.0]
    assert np.nanmedian(np.abs(found.error)) < 0.25


def test_points_as_laz_where_laspy_is_installed(
    disturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    laspy = pytest.importorskip("laspy")
    images = tuple(sorted(disturbed.glob("view_*.tif")))
    with opened_views(DsmOptions(images, disturbed / "dsm.tif")) as views:
        write_points(tmp_path / "dsm.laz", disturbed / "dsm.tif", views, "the WGS 84 ellipsoid")
    with laspy.open(tmp_path / "dsm.laz") as file:
        points, crs = file.read(), file.header.vlrs
    with rasterio.open(disturbed / "dsm.tif") as source:
        height = source.read(1, masked=True)
        columns, rows = (np.floor(axis).astype(int) for axis in ~source.transform @ (points.x, points.y))
    assert len(points) == height.count() and "UTM zone 32N" in crs[0].string
    np.testing.assert_allclose(points.z, height.data[rows, columns], atol=6e-4)
    monkeypatch.setitem(sys.modules, "laspy", None)  # as where it is not installed
    assert run(list(images), tmp_path / "other.tif", "--points", str(tmp_path / "dsm.las")) == 2
    assert "needs laspy" in capsys.readouterr().err


def _noise(folder: Path, share: float) -> list[Path]:
    """Two views, of the second of which a share is cloud: noise that the first does not show."""
    images = write_views(folder)
    with rasterio.open(images[1], "r+") as source:
        pixels = source.read(1)
        rows = round(share * len(pixels))
        pixels[:rows] = np.random.default_rng(0).integers(1, 2047, pixels[:rows].shape)
        source.write(pixels, 1)
    return images


def test_clouds_leave_a_holed_raster_that_is_not_called_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = _noise(tmp_path, 0.6)
    assert run(images, tmp_path / "dsm.tif", *FAST) == 2
    said = capsys.readouterr().err
    assert "dsm.tif' was written, but only" in said and "--min-coverage asks for 50 %" in said
    assert made(tmp_path / "dsm.tif").document["coverage"]["share"] < 0.5


def test_images_of_nothing_in_common_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_noise(tmp_path, 1.0), tmp_path / "dsm.tif", *FAST) == 2
    assert "nothing matched" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["view_1.tif", "view_2.tif"]


def test_exchanged_lines_and_samples_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_views(tmp_path)
    model = read_rational(images[1])
    with rasterio.open(images[1]) as source:
        pixels = source.read(1)
    write_image(images[1], pixels, model.swapped())
    assert run(images, tmp_path / "dsm.tif", *FAST) == 2
    assert "'view_2.tif' matches when line and sample of its RPC are exchanged" in capsys.readouterr().err


def test_a_range_that_misses_the_ground_is_said(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(pair, tmp_path / "dsm.tif", "--heights", "120,180") == 2
    assert "between 120 and 180 m" in capsys.readouterr().err
    caplog.clear()
    run(pair, tmp_path / "dsm.tif", "--heights", "35,47")
    assert "of the best matches lie at the ends of the range 35 to 47 m" in caplog.text + capsys.readouterr().err


def test_a_black_border_is_no_ground(tmp_path: Path) -> None:
    images = write_views(tmp_path)
    for image in images:
        with rasterio.open(image, "r+") as source:
            pixels = source.read(1)
            pixels[:32] = 0
            source.write(pixels, 1)
    run(images, tmp_path / "dsm.tif", *FAST, "--min-coverage", "0.2")
    found = made(tmp_path / "dsm.tif")
    known = np.isfinite(found.height)
    assert 0.4 < found.document["coverage"]["share"] < 0.85
    assert np.percentile(np.abs(found.error[known]), 95) < 1.0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--heights", "80,0"), "--heights 80,0"),
        (("--aoi", "20,0,21,1"), "no two images see anything of it"),
        (("--aoi", "10.1,0,10,1"), "each pair rising"),
        (("--references", "3"), "there are images 1 to 2"),
        (("--agreeing", "2"), "--agreeing 2"),
        (("--resolution", "0.1"), "--resolution 0.1"),
        (("--resolution", "-1"), "--resolution -1"),
        (("--window", "8"), "--window 8"),
        (("--min-coverage", "50"), "--min-coverage 50"),
        (("--tolerance", "0"), "--tolerance 0"),
        (("--crs", "EPSG:4326"), "needs? a projected system in metres"),
        (("--crs", "EPSG:0"), "--crs 'EPSG:0': not known"),
        (("--points", "a.obj"), "ending in .ply"),
        (("--rpcs", "a.txt"), "--rpcs: 1 files for 2 images"),
        (("--reference", "absent.tif"), "absent.tif"),
        (("--tile-size", "8"), "--tile-size 8"),
        (("--geoid", "EPSG:999999"), "--geoid 'EPSG:999999'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_on_the_command_line_are_one_line(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    assert run(pair, tmp_path / "dsm.tif", *more) == 2
    said = capsys.readouterr().err
    assert words.replace("needs? ", "") in said.replace("need ", "").replace("needs ", "")
    assert "Traceback" not in said and not list(tmp_path.iterdir())


def test_images_that_cannot_serve_are_refused(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*images: Path) -> str:
        assert run(list(images), tmp_path / "dsm.tif") == 2
        return capsys.readouterr().err

    assert "--images: 1 given" in said(pair[0])
    assert "is given twice" in said(pair[0], pair[0])
    assert "No such file" in said(pair[0], tmp_path / "absent.tif")
    bare = write_image(tmp_path / "bare.tif", np.ones((50, 50), np.uint8), None)
    assert "bare.tif: has no RPC" in said(pair[0], bare)
    pixels = np.random.default_rng(0).integers(1, 999, (120, 126)).astype(np.uint16)
    same = write_image(tmp_path / "same.tif", pixels, read_rational(pair[0]))
    assert "have the same RPC" in said(pair[0], same)
    far = camera(TILTS[1], (120, 126))
    far.direct[3] += 0.5
    elsewhere = write_image(tmp_path / "far.tif", pixels, far)
    assert "no two images see the same ground" in said(pair[0], elsewhere)
    high = camera((0.0, 0.1), (120, 126), heights=(300.0, 400.0))
    assert "heights that do not meet" in said(pair[0], write_image(tmp_path / "high.tif", pixels, high))
    assert not (tmp_path / "dsm.tif").exists()
