"""Points: tables as people have them, rows that are no heights, and corrections for any layout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from tests.scenes import ORIGIN, UTM, landscape, write_raster
from Utils.core.errors import UserError
from Utils.scenes.fusion.anchors import Points
from Utils.scenes.fusion.points import correct_to_points
from Utils.scenes.fusion.points_on_scene import read_points
from Utils.scenes.fusion.reference import Geometry

SIZE = 256
SCENE = Geometry(SIZE, SIZE, UTM, ORIGIN)
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'


def points(count: int = 100) -> NDArray[np.float64]:
    """(N, 3): x, y in the scene's system, height; on its grid of centimetres."""
    rng = np.random.default_rng(0)
    columns, rows, heights = (
        rng.uniform(1, SIZE - 1, count),
        rng.uniform(1, SIZE - 1, count),
        rng.uniform(700, 900, count),
    )
    xs, ys = ORIGIN @ (columns, rows)
    return np.round(np.stack([xs, ys, heights], axis=1), 2)


GOOD = points()


def lines(rows: NDArray[np.float64], separator: str = ",", pattern: str = "{:.2f}") -> list[str]:
    return [separator.join(pattern.format(value) for value in row) for row in rows]


def comma(rows: Sequence[str]) -> list[str]:
    return [row.replace(".", ",") for row in rows]


def table(path: Path, *rows: str, heading: str = "x,y,height", encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([heading, *rows]) + "\n", encoding=encoding)
    return path


def read(path: Path, crs: str = "EPSG:32643", scene: Geometry = SCENE, **options) -> NDArray[np.float64]:
    found = read_points(path, crs, scene, **options)
    xs, ys = scene.transform @ (found.columns, found.rows)
    return np.stack([xs, ys, found.heights], axis=1)


FORMS = {
    "commas": (lines(GOOD), {}),
    "semicolons": (lines(GOOD, "; "), {"heading": "X ; Y ; Height"}),
    "semicolons and decimal commas": (comma(lines(GOOD, ";")), {"heading": "x;y;height"}),
    "tabs": (lines(GOOD, "\t"), {"heading": "x\ty\theight"}),
    "tabs and decimal commas": (comma(lines(GOOD, "\t")), {"heading": "x\ty\theight"}),
    "an empty heading, as pandas writes its index": (
        [f"{i}\t{row}" for i, row in enumerate(lines(GOOD, "\t"))], {"heading": "\tx\ty\theight"},
    ),
    "spaces": ([f"  {row}  " for row in lines(GOOD, "   ")], {"heading": "x  y height"}),
    "spaces in the heading, tabs in the rows": (lines(GOOD, "\t"), {"heading": "x y height"}),
    "bars": (lines(GOOD, " | "), {"heading": "x | y | height"}),
    "quotes": (lines(GOOD, pattern='"{:.2f}"'), {"heading": '"x","y","height"'}),
    "quotes and decimal commas": (
        [",".join(f'"{value:.2f}"'.replace(".", ",") for value in row) for row in GOOD], {},
    ),
    "single quotes": (lines(GOOD, pattern="'{:.2f}'"), {}),
    "thousands": (
        [";".join(f"{value:,.2f}".translate({44: ".", 46: ","}) for value in row) for row in GOOD],
        {"heading": "x;y;height"},
    ),
    "a byte order mark": (lines(GOOD), {"encoding": "utf-8-sig"}),
    "UTF-16, as spreadsheets write it": (lines(GOOD, "\t"), {"heading": "x\ty\theight", "encoding": "utf-16"}),
    "Latin letters": ([f"{row},Höhe" for row in lines(GOOD)], {"heading": "x,y,height,Größe", "encoding": "latin-1"}),
    "comments and blank lines": (["# beam 1", *lines(GOOD), "", " , , "], {"heading": "# of today\nx,y,height"}),
    "a heading that is a comment": (lines(GOOD, " "), {"heading": "# x y height"}),
    "capitals and other columns": ([f"7,{row},gt1r" for row in lines(GOOD)], {"heading": "Id, X , Y ,HEIGHT,beam"}),
    "exponents": (lines(GOOD, pattern="{:.9e}"), {}),
    "a separator at the ends": ([f"{row}," for row in lines(GOOD)], {"heading": "x,y,height,"}),
    "a quote that nothing closes": ([f'{row},"5' for row in lines(GOOD)], {"heading": "x,y,height,note"}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_every_form_say_the_same(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    rows, options = FORMS[form]
    np.testing.assert_allclose(read(table(tmp_path / "points.csv", *rows, **options)), GOOD, atol=1e-6)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_columns_go_by_name(tmp_path: Path, order: list[int]) -> None:
    names = np.array(["lon", "lat", "h_te_best_fit"])[order]
    path = table(tmp_path / "points.csv", *lines(GOOD[:, order]), heading=",".join(names))
    np.testing.assert_allclose(read(path, columns=("lon", "lat", "h_te_best_fit")), GOOD, atol=1e-6)
    with pytest.raises(UserError, match="no column x.*'h_te_best_fit'.*--points-columns"):
        read(path)


def test_of_two_heights_the_one_of_the_docs_is_taken(tmp_path: Path) -> None:
    path = table(tmp_path / "points.csv", *[f"{row},9" for row in lines(GOOD)], heading="x,y,height,Height")
    np.testing.assert_allclose(read(path), GOOD, atol=1e-6)


@pytest.mark.parametrize("heading", ["x,y,Height,HEIGHT", "x,y,height,height", 'x,y,Height," height"'])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, heading: str) -> None:
    path = table(tmp_path / "points.csv", *[f"{row},9" for row in lines(GOOD)], heading=heading)
    with pytest.raises(
        UserError, match="several columns that say height: column 3 '.*' and column 4 '.*points-columns"
    ):
        read(path)
    if heading == "x,y,Height,HEIGHT":
        np.testing.assert_allclose(read(path, columns=("x", "y", "Height")), GOOD, atol=1e-6)


BAD_ROWS = [
    "nan,nan,nan", "inf,inf,800", "-9999,-9999,-9999", "1e30,1e30,800", "500000,3800000,", ",,800", "a,b,c", "500000",
    "500000,3799000,high", "500000,3799000,8.0,0,0,7", "74.1,34.2,800", "3.4e38,3.4e38,3.4e38", "x,y,height",
]  # fmt: skip


@pytest.mark.parametrize("row", BAD_ROWS)
def test_one_bad_row_is_left_out(tmp_path: Path, row: str, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path / "points.csv", *lines(GOOD[:50]), row, *lines(GOOD[50:]))
    np.testing.assert_allclose(read(path), GOOD, atol=1e-6)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    elsewhere = row.startswith("74.1")  # that is no fault: tracks go on beyond the scene
    assert len(warnings) == (0 if elsewhere else 1)
    assert elsewhere or "line 52" in warnings[0]


@pytest.mark.parametrize(
    "fill", ["3.4028235e+38", "-9999", "-32768", "inf", "1e30", "nan", "9999", "32767", "-1.8e308"]
)
def test_fill_values_are_left_out_and_counted(tmp_path: Path, fill: str, caplog: pytest.LogCaptureFixture) -> None:
    filled = [f"{x:.2f},{y:.2f},{fill}" for x, y, _ in points(150)[100:]]
    path = table(tmp_path / "points.csv", *filled, *lines(GOOD))
    np.testing.assert_allclose(read(path), GOOD, atol=1e-6)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "50 " in warning and "line 2" in warning


def test_rows_that_are_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    more = ["nan,nan,nan", "a,b,c", "900000,3799000,800", "503000,3799000,3.4e38", "503000,3799000,20000"]
    rows = read_points(table(tmp_path / "points.csv", *lines(GOOD), *more), "EPSG:32643", SCENE)
    assert rows.left_out == {"unusable": 2, "beside_the_scene": 1, "fill_values": 1, "impossible": 1}
    assert read_points(table(tmp_path / "points.csv", *lines(GOOD)), "EPSG:32643", SCENE).left_out == {}


def test_outliers_are_told_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ramp = np.add.outer(np.arange(SCENE.height), np.arange(SCENE.width)).astype(np.float32)
    ramp[:40, :40] = np.nan
    mosaic = write_raster(tmp_path / "mosaic.tif", ramp, ORIGIN, UTM, nodata=np.nan)
    where = np.linspace(10.5, SCENE.height - 10.5, 60)
    heights = 2.0 * where - 1.0 + np.tile([-1.0, 0.0, 1.0], 20)
    heights[[30, 45]] += 500.0
    found = correct_to_points(Points(where, where, heights), mosaic, SCENE, spacing=16)
    assert found.left_out == {"on_invalid_pixels": int((where < 40).sum()), "outliers": 2}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "left out 2 of" in warning and "from the model's map" in warning


def test_outliers_are_kept_on_request(tmp_path: Path) -> None:
    path = table(tmp_path / "points.csv", *lines(GOOD), "503000,3799000,-9999")
    assert len(read(path, keep_outliers=True)) == 101


def degrees() -> NDArray[np.float64]:
    xs, ys = transform(UTM, "EPSG:4326", GOOD[:, 0], GOOD[:, 1])
    return np.stack([xs, ys, GOOD[:, 2]], axis=1)


@pytest.mark.parametrize("longitude", [0.0, 360.0])
def test_one_row_outside_of_the_projection_ends_nothing(tmp_path: Path, longitude: float) -> None:
    rows = lines(degrees() + np.array([longitude, 0, 0]), pattern="{:.9f}")
    path = table(tmp_path / "points.csv", *rows, "500000,3800000,800", "-9999,-9999,-9999", "34,174,800")
    np.testing.assert_allclose(read(path, "EPSG:4326"), GOOD, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "crs", "says"),
    [
        (lines(degrees()[:, [1, 0, 2]], pattern="{:.7f}"), "EPSG:4326", "look swapped.*--points-columns y,x,height"),
        (lines(GOOD), "EPSG:4326", "in its own CRS: give --points-crs 'EPSG:32643'"),
        (lines(GOOD[:, [1, 0, 2]]), "EPSG:4326", "swapped and in its own CRS"),
        (lines(GOOD), LOCAL, "neither geographic nor projected"),
        (lines(GOOD), "EPSG:5773", "neither geographic nor projected"),
        (["1,2,high"], "EPSG:4326", "1 of 1 rows cannot be read; line 2: 'high' is no number"),
        (comma(lines(GOOD)), "EPSG:32643", "decimal commas.*semicolons"),
        (["nan,nan,nan"] * 60 + lines(GOOD[:40]), "EPSG:32643", "40 of 100 points.*60 lie outside"),
        ([f"{x},{y},-9999" for x, y, _ in GOOD], "EPSG:32643", "0 of 100 points lie on the scene.*with a height"),
    ],
)
def test_a_table_that_is_mostly_wrong_is_refused_with_a_reason(
    tmp_path: Path, rows: list[str], crs: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        read(table(tmp_path / "points.csv", *rows), crs)


def test_a_comma_beside_decimal_points_is_not_guessed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """1,234 may be a thousand: in a table with decimal points it is no number."""
    path = table(tmp_path / "points.csv", *lines(GOOD, ";"), "503000;3799000;1,234", heading="x;y;height")
    assert len(read(path)) == 100
    assert "line 102: a comma in a number" in caplog.text


def test_points_of_a_local_system_go_with_a_scene_of_the_same(tmp_path: Path) -> None:
    scene = Geometry(SIZE, SIZE, CRS.from_user_input(LOCAL), ORIGIN)
    np.testing.assert_allclose(read(table(tmp_path / "points.csv", *lines(GOOD)), LOCAL, scene), GOOD, atol=1e-6)
    with pytest.raises(UserError, match="no way from 'EPSG:32643'"):
        read(tmp_path / "points.csv", "EPSG:32643", scene)


def tracks(layout: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of points on straight lines, one cell apart."""
    along = np.arange(2.5, SIZE - 2)
    if layout == "diagonal":
        return along, along
    at = {"one": [120.5], "two close": [120.5, 121.5], "three": [40.5, 120.5, 200.5], "jittered": [40.5, 120.5, 200.5]}
    columns = np.repeat(at[layout], len(along))
    if layout == "jittered":
        columns = columns + 0.2 * np.random.default_rng(0).standard_normal(len(columns))
    return np.tile(along, len(at[layout])), columns


@pytest.mark.parametrize("layout", ["one", "two close", "three", "jittered", "diagonal"])
@pytest.mark.parametrize("dtype", ["few", "many"])
def test_points_on_straight_lines_give_sane_heights(tmp_path: Path, layout: str, dtype: str) -> None:
    truth = 1000.0 + 500.0 * landscape(SIZE, SIZE)
    rows, columns = tracks(layout)
    if dtype == "few":
        rows, columns = rows[::20], columns[::20]
    heights = truth[rows.astype(int), columns.astype(int)]
    tilted = (truth + np.linspace(-60, 60, SIZE)[:, None]).astype(np.float32)
    mosaic = write_raster(tmp_path / "mosaic.tif", tilted, nodata=np.nan)
    correction = correct_to_points(Points(rows, columns, heights), mosaic, SCENE, spacing=16).correction
    error = correction.apply(tilted, SCENE) - truth
    assert np.abs(error).max() < 120.0  # of a range of 500, and 60 before
    near = np.abs(error[rows.astype(int), columns.astype(int)])
    assert np.median(near) < 10.0


def test_points_at_one_place_give_a_level(tmp_path: Path) -> None:
    mosaic = write_raster(tmp_path / "mosaic.tif", np.full((SIZE, SIZE), 100.0, np.float32), nodata=np.nan)
    where = np.full(10, 99.5)
    correction = correct_to_points(Points(where, where, np.full(10, 107.0)), mosaic, SCENE, spacing=16).correction
    np.testing.assert_allclose(correction.apply(np.full((SIZE, SIZE), 100.0, np.float32), SCENE), 107.0, atol=0.01)
