"""Known heights of a scene keep their vertical datum, or are brought to the one that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from tests.scenes import ORIGIN, landscape, write_raster
from Utils.core.errors import UserError
from Utils.rasters.geometry import Geometry
from Utils.rasters.vertical_datum import UNKNOWN, parse_datum
from Utils.scenes.fusion.points_on_scene import read_points
from Utils.scenes.fusion.reference import read_reference

SCENE = Geometry(64, 64, CRS.from_epsg(32643), ORIGIN)
LN02 = parse_datum("EPSG:5728")  # of Switzerland: nothing leads to it from here, whatever grids there are


def reference(folder: Path, crs: str) -> Path:
    cells = landscape(16, 16).astype(np.float32) * 100
    return write_raster(folder / "dem.tif", cells, ORIGIN @ Affine.scale(4), CRS.from_user_input(crs))


def points(folder: Path) -> Path:
    path = folder / "points.csv"
    places = [ORIGIN @ (column + 0.5, 7.5) for column in range(40)]
    path.write_text("x,y,height\n" + "".join(f"{x},{y},{number}\n" for number, (x, y) in enumerate(places)))
    return path


@pytest.mark.parametrize(
    ("crs", "wanted", "code"),
    [("32643", "", ""), ("32643+5773", "", "EPSG:5773"), ("32643", "EPSG:3855", "EPSG:3855")],
)
def test_heights_keep_their_datum(crs: str, wanted: str, code: str, tmp_path: Path) -> None:
    datum = parse_datum(wanted)
    cells = read_reference(reference(tmp_path, f"EPSG:{crs}"), SCENE, datum=datum)
    assert cells.datum.code == code
    assert cells.description["vertical_datum"]["code"] == (code or "unknown")
    found = read_points(points(tmp_path), f"EPSG:{crs}", SCENE, datum=datum)
    assert found.datum.code == (code if "+" in crs else "")  # what nothing says stays unknown
    np.testing.assert_array_equal(found.heights, np.arange(40.0))


def test_heights_of_another_datum_are_not_taken_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"EPSG:5773.*EPSG:5728.*no way"):
        read_reference(reference(tmp_path, "EPSG:32643+5773"), SCENE, datum=LN02)
    with pytest.raises(UserError, match=r"EPSG:5773.*EPSG:5728.*no way"):
        read_points(points(tmp_path), "EPSG:32643+5773", SCENE, datum=LN02)
    assert not read_points(points(tmp_path), "EPSG:32643", SCENE, datum=UNKNOWN).datum.known
