"""Files of heights: what their readers get is without voids that nothing declares, and untouched where all is well."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tests.scenes import ORIGIN, UTM, landscape, write_raster
from Utils.rasters.trusted_heights import Doubts, Place, trusted_heights

DOUBTS = Doubts("truth 'dem.tif'", "--keep-outliers takes them as heights")


@pytest.fixture
def mountains() -> NDArray[np.int16]:
    return np.rint(700.0 + 900.0 * landscape(96, 96)).astype(np.int16)


def read(path: Path, doubts: Doubts = DOUBTS, place: Place | None = None) -> tuple[NDArray[np.float64], dict]:
    with rasterio.open(path) as source, trusted_heights(source, 1, place, doubts) as (trusted, band, left_out):
        assert trusted.crs == source.crs and trusted.transform == source.transform and trusted.shape == source.shape
        assert trusted.scales[band - 1] == source.scales[0]
        found = trusted.read(band, masked=True).astype(np.float64).filled(np.nan)
        return found, left_out.describe()


def test_a_file_without_suspects_is_given_as_it_is(tmp_path: Path, mountains: NDArray) -> None:
    mountains[3, 3] = -32768
    path = write_raster(tmp_path / "dem.tif", mountains, nodata=-32768)
    with rasterio.open(path) as source, trusted_heights(source, 1, None, DOUBTS) as (trusted, band, left_out):
        assert trusted is source and band == 1 and left_out.line() == ""


def test_what_is_left_out_is_said_in_one_line(
    tmp_path: Path, mountains: NDArray, caplog: pytest.LogCaptureFixture
) -> None:
    expected = mountains.astype(np.float64)
    for where, value in (((slice(5, 9), 5), -32768), ((50, 60), 8500), ((slice(70, 80), 70), 12_000), ((2, 2), -9999)):
        mountains[where], expected[where] = value, np.nan
    found, facts = read(write_raster(tmp_path / "dem.tif", mountains, nodata=-9999))
    np.testing.assert_array_equal(found, expected)
    assert facts == {"undeclared_voids": {"-32768": 4}, "impossible": 10, "spikes": 1}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in (
        "truth 'dem.tif'",
        "4 cells of -32768",
        "10 cells",
        "12000 m",
        "1 cell unlike",
        "8500 m",
        DOUBTS.remedy,
    ):
        assert part in record.getMessage()


def test_a_given_value_comes_in_addition_to_the_files_own(tmp_path: Path, mountains: NDArray) -> None:
    mountains[3, 3], mountains[4, 4] = -32768, 777
    path = write_raster(tmp_path / "dem.tif", mountains, nodata=-32768)
    found, facts = read(path, Doubts("dem", "", nodata=777.0))
    np.testing.assert_array_equal(np.isnan(found), (mountains == -32768) | (mountains == 777))
    assert facts == {}


@pytest.mark.parametrize("how", ["mask", "alpha", "NaN", "alpha named later"])
def test_every_other_sign_of_a_void_becomes_nan(tmp_path: Path, mountains: NDArray, how: str) -> None:
    """Warping would take what lies under some masks for heights."""
    void = np.zeros(mountains.shape, bool)
    void[10:20, 10:20] = True
    path = tmp_path / "dem.tif"
    bands = np.where(void, np.nan, mountains).astype(np.float32) if how == "NaN" else mountains
    if how.startswith("alpha"):
        bands = np.stack([bands, np.where(void, 0, 255).astype(np.int16)])
    write_raster(path, bands, **({"alpha": "yes"} if how == "alpha" else {}))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        if how == "mask":
            target.write_mask(~void)
        if how == "alpha named later":
            target.colorinterp = [target.colorinterp[0], rasterio.enums.ColorInterp.alpha]
    with rasterio.open(path) as source, trusted_heights(source, 1, None, DOUBTS) as (trusted, band, _):
        assert np.isnan(trusted.nodata)
        np.testing.assert_array_equal(np.isnan(trusted.read(band)), void)


def test_scale_and_unit_decide_what_no_ground_has(tmp_path: Path, mountains: NDArray) -> None:
    """The same numbers in decimetres are heights of 70 to 160 m, and 3276.7 m far above is a single wrong cell."""
    path = write_raster(tmp_path / "dem.tif", mountains)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (0.1,), (5.0,)
    assert read(path)[1] == {}
    mountains[50, 50] = 32000
    with rasterio.open(path, "r+") as target:
        target.write(mountains, 1)
    found, facts = read(path)
    assert facts == {"spikes": 1} and np.isnan(found[50, 50]) and found[0, 0] == mountains[0, 0]
    assert read(path, Doubts("dem", "", unit=100.0))[1]["impossible"] > 100


def test_only_the_place_that_is_read_is_looked_at(tmp_path: Path, mountains: NDArray) -> None:
    wide = np.tile(mountains, (1, 8))
    wide[10, 40] = wide[10, 600] = -32768
    path = write_raster(tmp_path / "dem.tif", wide)
    found, facts = read(path, place=Place(UTM, ORIGIN, 96, 96))
    assert facts == {"undeclared_voids": {"-32768": 1}}
    np.testing.assert_array_equal(np.isnan(found[:, :96]), wide[:, :96] == -32768)


def test_windows_agree_on_what_a_value_means(tmp_path: Path) -> None:
    """A void that fills the first window, so that only the others show its rim; and a sea that does."""
    heights = np.rint(700.0 + 900.0 * np.tile(landscape(96, 96), (6, 12)))
    void = np.zeros(heights.shape, bool)
    void[:, :560] = True
    for value in (-9999.0, 0.0):
        found, _ = read(write_raster(tmp_path / f"{value}.tif", np.where(void, value, heights).astype(np.int16)))
        np.testing.assert_array_equal(np.isnan(found), void)
    sea = np.where(void, 0.0, np.minimum(heights - 700.0, 20.0 * (np.arange(heights.shape[1]) - 559)))
    assert read(write_raster(tmp_path / "sea.tif", sea.astype(np.int16)))[1] == {}


def test_outliers_are_kept_on_request(tmp_path: Path, mountains: NDArray) -> None:
    mountains[5:9, 5], mountains[50, 60] = -32768, 8500
    found, facts = read(write_raster(tmp_path / "dem.tif", mountains), Doubts("dem", "", voids=False, errors=False))
    np.testing.assert_array_equal(found, mountains)
    assert facts == {}
