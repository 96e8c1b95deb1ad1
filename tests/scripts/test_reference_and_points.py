"""predict.py with a coarse DEM and points together: the points mend the DEM's level, and some judge the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

import predict
from tests.scenes import ORIGIN, landscape, write_raster
from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.points_on_scene import read_points

SIDE, CELL = 96, 4


class Bench:
    """A scene, a DEM that is 6 m too high in the west and right in the east, and true heights along tracks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "height.tif"
        self.truth = gaussian_filter(landscape(SIDE, SIDE, 4), 2.0) * 200.0
        image = (255 * landscape(SIDE, SIDE, 8)).astype(np.uint8)
        self.image = write_raster(folder / "image.tif", np.stack([image] * 3))
        wrong = self.truth + np.where(np.arange(SIDE) < SIDE // 2, 6.0, 0.0)
        cells = wrong.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3)).astype(np.float32)
        self.dem = write_raster(folder / "dem.tif", cells, ORIGIN @ Affine.scale(CELL))
        rng = np.random.default_rng(1)
        self.rows = np.concatenate([np.arange(SIDE)] * 6)
        self.columns = np.repeat([5, 20, 40, 55, 70, 90], SIDE)
        self.sigma = np.where(self.columns == 20, 10.0, 0.1)  # one track is bad, and says so
        self.heights = self.truth[self.rows, self.columns] + rng.normal(0.0, self.sigma)
        self.places = [ORIGIN @ (c + 0.5, r + 0.5) for r, c in zip(self.rows, self.columns, strict=True)]

    def table(self) -> Path:
        path = self.folder / "points.csv"
        rows = zip(self.places, self.heights, self.sigma, strict=True)
        path.write_text("x,y,height,sigma\n" + "".join(f"{x},{y},{z:.3f},{s}\n" for (x, y), z, s in rows))
        return path

    def run(self, *arguments: object) -> tuple[dict, np.ndarray]:
        given = ["--input", self.image, "--output", self.output, "--reference", self.dem, "--detail", "none"]
        assert predict.main([str(each) for each in (*given, "--overwrite", "--tile-size", 32, *arguments)]) == 0
        with rasterio.open(self.output) as source:
            return json.loads(self.output.with_suffix(".json").read_text()), source.read(1)

    def rmse(self, heights: np.ndarray) -> float:
        return float(np.sqrt(np.nanmean((heights - self.truth) ** 2)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_points_mend_a_dem_and_those_held_out_say_so(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    _, alone = bench.run()
    given = ["--points", bench.table(), "--points-crs", "EPSG:32643", "--points-accuracy", "sigma"]
    document, both = bench.run(*given, "--hold-out", 0.2)
    assert bench.rmse(both) < 0.6 * bench.rmse(alone)
    held = document["points"]["held_out"]
    assert 0.1 * 576 < held["after"]["count"] < 0.3 * 576
    assert held["after"]["rmse"] < held["before"]["rmse"]
    assert document["points"]["count"] + held["after"]["count"] == 576
    assert "points that were held out" in capsys.readouterr().out
    _, unweighed = bench.run(*given[:4])
    assert bench.rmse(both) < bench.rmse(unweighed)


def test_points_in_a_vector_file_are_the_same_points(bench: Bench) -> None:
    geopandas = pytest.importorskip("geopandas")
    scene = Geometry(SIDE, SIDE, CRS.from_epsg(32643), ORIGIN)
    expected = read_points(bench.table(), "EPSG:32643", scene)
    columns = {"height": np.round(bench.heights, 3)}
    geometry = geopandas.points_from_xy(*zip(*bench.places, strict=True))
    for suffix in ("geojson", "gpkg"):
        path = bench.folder / f"gcps.{suffix}"
        geopandas.GeoDataFrame(columns, geometry=geometry, crs="EPSG:32643").to_file(path)
        found = read_points(path, "EPSG:4326", scene)  # the file's own system counts
        for name in ("rows", "columns", "heights"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=0.01)
    given = ["--input", bench.image, "--output", bench.output, "--reference", bench.dem, "--detail", "none"]
    assert predict.main([*map(str, [*given, "--overwrite", "--points", path, "--points-columns", "x,y,z"])]) == 2
