"""Vertical datums: read, refused, and brought to each other only where PROJ's grids are."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from Utils.core.errors import UserError
from Utils.rasters.datum_shift import DatumShift
from Utils.rasters.vertical_datum import UNKNOWN, datum_of, parse_datum

PLACE = from_origin(500_000.0, 4_400_000.0, 30.0, 30.0)
UTM = CRS.from_epsg(32613)


def dem(path: Path, crs: str = "EPSG:32613", **tags: str) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=4, count=1, dtype="float32", crs=CRS.from_user_input(crs),
        transform=PLACE,
    ) as target:  # fmt: skip
        target.write(np.zeros((1, 4, 4), np.float32))
        target.update_tags(**tags)
    return path


def read(path: Path, **given):
    with rasterio.open(path) as source:
        return datum_of(path, source, **given)


def write_geoid(folder: Path, name: str, metres: float) -> None:
    """A geoid grid of PROJ: metres at longitude 0, and a hundredth more with each degree of longitude."""
    longitudes = np.linspace(-180.0, 180.0, 1441)
    values = np.broadcast_to(metres + 0.01 * longitudes, (721, 1441)).astype(np.float32)
    with rasterio.open(
        folder / name, "w", driver="GTiff", width=1441, height=721, count=1, dtype="float32", crs="EPSG:4326",
        transform=from_origin(-180.125, 90.125, 0.25, 0.25), compress="deflate",
    ) as target:  # fmt: skip
        target.write(values, 1)
        target.update_tags(TYPE="VERTICAL_OFFSET_GEOGRAPHIC_TO_VERTICAL", AREA_OR_POINT="Point")
        target.set_band_description(1, "geoid_undulation")
        target.units = ("metre",)


@pytest.fixture
def no_grids(tmp_path: Path):
    """PROJ without any grid, whatever this machine has."""
    before = pyproj.datadir.get_data_dir()
    bundled = Path(pyproj.__file__).parent / "proj_dir" / "share" / "proj"
    pyproj.datadir.set_data_dir(str(bundled if bundled.is_dir() else before))
    yield tmp_path
    pyproj.datadir.set_data_dir(before)


@pytest.fixture
def grids(no_grids: Path) -> None:
    """Made grids of both geoids, under the names that PROJ looks for."""
    write_geoid(no_grids, "us_nga_egm96_15.tif", 40.0)
    write_geoid(no_grids, "us_nga_egm08_25.tif", 42.5)
    pyproj.datadir.append_data_dir(str(no_grids))


@pytest.mark.parametrize(
    ("crs", "tags", "code"),
    [
        ("EPSG:32613+5773", {}, "EPSG:5773"),
        ("EPSG:32613+6360", {}, "EPSG:6360"),
        ("EPSG:32613", {"VERTICAL_DATUM": "EPSG:3855"}, "EPSG:3855"),
        ("EPSG:32613", {"VERTICAL_DATUM": "EGM2008 height"}, "EPSG:3855"),
        ("EPSG:32613", {}, ""),
    ],
)
def test_it_is_read_from_system_and_tags(crs: str, tags: dict[str, str], code: str, tmp_path: Path) -> None:
    assert read(dem(tmp_path / "dem.tif", crs, **tags)).code == code


def test_a_product_is_suggested_and_never_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert not read(dem(tmp_path / "srtm_12_03.tif")).known
    assert "--vertical-datum EPSG:5773" in caplog.text


def test_what_no_tag_says_the_user_says_and_not_against_the_file(tmp_path: Path) -> None:
    given = parse_datum("EPSG:5773")
    assert read(dem(tmp_path / "a.tif"), given=given) == given
    with pytest.raises(UserError, match=r"EPSG:3855.*--vertical-datum says EPSG:5773"):
        read(dem(tmp_path / "b.tif", "EPSG:32613+3855"), given=given)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("EGM96", "not a name; EPSG:5773 is EGM96 height"),
        ("mean sea level", "give a code"),
        ("EPSG:32613", "names no vertical datum"),
        ("EPSG:999999", "names no vertical datum"),
        ("EPSG:5336", "depths"),
    ],
)
def test_what_is_no_datum_of_heights_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_datum(text)


def test_feet_make_no_other_datum() -> None:
    assert parse_datum("EPSG:6360").same_as(parse_datum("EPSG:5703"))
    assert not parse_datum("EPSG:5773").same_as(parse_datum("EPSG:3855"))
    assert not UNKNOWN.known


def test_without_the_grid_nothing_is_shifted_silently(no_grids: Path) -> None:
    """PROJ's own default gives the heights back unchanged: that is what must not happen."""
    silent = pyproj.Transformer.from_crs("EPSG:4326+5773", "EPSG:4979", always_xy=True)
    assert silent.transform(-105.0, 39.7, 100.0)[2] == 100.0
    shift = DatumShift(parse_datum("EPSG:5773"), parse_datum("EPSG:4979"), UTM, "truth 'dem.tif'")
    with pytest.raises(UserError, match=r"us_nga_egm96_15\.tif, which is not installed: nothing was shifted"):
        shift.over(PLACE, 0, 0, 4, 4)


def test_with_the_grid_heights_are_brought_over(grids: None) -> None:
    ellipsoid, egm96, egm2008 = (parse_datum(f"EPSG:{code}") for code in (4979, 5773, 3855))
    up = DatumShift(egm96, ellipsoid, UTM, "dem").over(PLACE, 0, 0, 70, 50)
    # The middle of the zone is 105 degrees west; a pixel of 30 m is 0.00035 degrees of longitude here.
    longitudes = -105.0 + (np.arange(50) + 0.5) * 30.0 / (111_320.0 * np.cos(np.radians(39.75)))
    np.testing.assert_allclose(up, np.broadcast_to(40.0 + 0.01 * longitudes, (70, 50)), atol=1e-4)
    across = DatumShift(egm96, egm2008, UTM, "dem").over(PLACE, 5, 7, 3, 2)
    np.testing.assert_allclose(across, -2.5, atol=1e-4)


def test_feet_are_metres_in_the_shift(grids: None) -> None:
    feet = DatumShift(parse_datum("EPSG:5773"), parse_datum("EPSG:4979"), CRS.from_epsg(2232), "dem")
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:2232", [-105.0], [39.7])
    assert feet.at(np.array(x), np.array(y)) == pytest.approx(40.0 - 1.05, abs=1e-3)


def test_where_no_operation_leads_it_is_said(no_grids: Path) -> None:
    shift = DatumShift(parse_datum("EPSG:5703"), parse_datum("EPSG:5728"), UTM, "dem")
    with pytest.raises(UserError, match="PROJ knows no way"):
        shift.check(np.array([500_000.0]), np.array([4_400_000.0]))
