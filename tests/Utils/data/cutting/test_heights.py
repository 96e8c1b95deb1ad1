"""Heights on other grids: means, interpolation, voids, and several DEMs of one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from tests.scenes import write_raster
from tests.Utils.data.cutting.ground import ORIGIN, UTM, surface_on, write_dem
from Utils.data.cutting import heights as heights_module
from Utils.data.cutting.heights import HeightReader, open_dem
from Utils.data.cutting.resampling import resampled
from Utils.rasters.geometry import Geometry

GRID = Geometry(64, 64, UTM, ORIGIN)
NOISE = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32)


def read(target: Geometry, *paths: Path) -> np.ndarray:
    with HeightReader([open_dem(path) for path in paths], target) as reader:
        return reader.read(target)


def test_finer_values_are_averaged() -> None:
    coarse = Geometry(8, 8, UTM, ORIGIN @ Affine.scale(8))
    assert np.allclose(resampled(NOISE, GRID, coarse), NOISE.reshape(1, 8, 8, 8, 8).mean(axis=(2, 4)), atol=1e-6)


def test_coarser_values_are_interpolated() -> None:
    rows, columns = np.mgrid[:64, :64]
    plane = (3.0 * columns - 2.0 * rows)[None].astype(np.float32)
    inside = GRID.window(16, 16, 32, 32).finer(4)
    found = resampled(plane, GRID, inside)[0]
    rows, columns = 16 + (np.mgrid[:128, :128] + 0.5) / 4 - 0.5
    assert np.abs(found - (3.0 * columns - 2.0 * rows)).max() < 1e-4


@pytest.mark.parametrize("times", [4, 1, 0.25])
def test_nothing_is_interpolated_across_a_void(times: float) -> None:
    values = NOISE.copy()
    values[:, 20:24, 20:28] = np.nan
    values[:, 40, 40] = np.nan
    target = Geometry(round(64 * times), round(64 * times), UTM, ORIGIN @ Affine.scale(1 / times))
    unknown = np.isnan(resampled(values, GRID, target)[0])
    if times >= 1:
        assert np.array_equal(unknown, np.kron(np.isnan(values[0]), np.ones((int(times), int(times)), bool)))
    else:  # a mean of which at least half is known is known
        assert np.argwhere(unknown).tolist() == [[5, 5], [5, 6]]


def test_stored_values_of_the_same_grid_are_kept_to_the_bit() -> None:
    assert np.array_equal(resampled(NOISE, GRID, GRID), NOISE)


def test_sheets_are_joined_and_a_tile_has_one_product(tmp_path: Path) -> None:
    """The finer DEM counts, but not where it is void; its heights and those of the coarser one are never mixed."""
    fine = surface_on(ORIGIN, 64, 64).astype(np.float32)
    fine[:, 40:48] = np.nan
    write_raster(tmp_path / "west.tif", fine[:, :32], ORIGIN, UTM)
    write_raster(tmp_path / "east.tif", fine[:, 32:], ORIGIN @ Affine.translation(32, 0), UTM)
    coarse = np.full((16, 16), 7.0, np.float32)
    write_raster(tmp_path / "coarse.tif", coarse, ORIGIN @ Affine.scale(4), UTM)
    paths = [tmp_path / name for name in ("coarse.tif", "west.tif", "east.tif")]
    assert np.array_equal(read(GRID.window(0, 16, 32, 24), *paths), fine[:32, 16:40])
    assert (read(GRID.window(0, 30, 16, 16), *paths) == 7.0).all()


def test_a_dem_on_the_other_side_of_the_date_line(tmp_path: Path) -> None:
    """Heights at 180 degrees from a DEM of -180 to 180, of 0 to 360, and for a scene in a projection."""
    crs, step = CRS.from_epsg(4326), 0.01
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (40, 100))
    around = Affine(step, 0.0, 179.5, 0.0, -step, 10.0)
    write_raster(tmp_path / "east.tif", ramp, around, crs)
    whole = np.full((40, 36000), -1.0, np.float32)
    whole[:, -50:], whole[:, :50] = ramp[:, :50], ramp[:, 50:]
    write_raster(tmp_path / "whole.tif", whole, Affine(step, 0.0, -180.0, 0.0, -step, 10.0), crs)
    targets = {
        "east": Geometry(20, 60, crs, around @ Affine.translation(20, 10)),
        "west": Geometry(20, 60, crs, Affine.translation(-360.0, 0.0) @ around @ Affine.translation(20, 10)),
    }
    for name in ("east.tif", "whole.tif"):
        for target in targets.values():
            assert np.allclose(read(target, tmp_path / name), ramp[10:30, 20:80], atol=1e-3), name
        projected = Geometry(20, 60, CRS.from_epsg(3832), Affine(1113.2, 0.0, 3306000.0, 0.0, -1113.2, 1100000.0))
        assert np.ptp(read(projected, tmp_path / name)) == pytest.approx(59.0, abs=0.2)


def test_a_large_part_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dem(tmp_path / "dem.tif", 256)
    target = Geometry(24, 20, UTM, ORIGIN @ Affine.scale(10))
    whole = read(target, path)
    monkeypatch.setattr(heights_module, "_MOST_AT_ONCE", 2000)
    assert np.allclose(read(target, path), whole, atol=1e-3)


def test_coordinates_in_feet_and_heights_without_unit_are_doubted(tmp_path: Path, caplog) -> None:
    crs = CRS.from_epsg(2263)  # New York Long Island, US survey feet
    path = write_raster(tmp_path / "dem.tif", np.ones((8, 8), np.float32), Affine(10, 0, 1e6, 0, -10, 2e5), crs)
    assert open_dem(path).metres == 1.0
    assert "coordinates are in feet and its heights name no unit; they are taken as metres" in caplog.text
    assert open_dem(path, unit="us-ft").metres == pytest.approx(0.3048006)
