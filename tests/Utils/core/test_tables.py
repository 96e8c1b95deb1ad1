"""Tables as people and programs read them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from Utils.core.tables import format_table, read_csv, write_csv, write_json


def test_table_is_aligned_markdown() -> None:
    table = format_table(
        ["method", "MAE", "time"], [["AdaBins", "28.4", "—"], ["D³ (AEKL)", "**1,021.6**", "0.33 s"], ["", "", ""]]
    )
    assert table.splitlines() == [
        "| method    |         MAE |   time |",
        "|:----------|------------:|-------:|",
        "| AdaBins   |        28.4 |      — |",
        "| D³ (AEKL) | **1,021.6** | 0.33 s |",
        "|           |             |        |",
    ]


@pytest.mark.parametrize(
    "cell", ["1", "-0.5", "\N{MINUS SIGN}3", "1e-05", "72.1 %", "21.6 ± 0.2", "inf", "nan", "<0.1"]
)
def test_numbers_go_right(cell: str) -> None:
    assert format_table(["a long heading"], [[cell]]).splitlines()[1].endswith("-:|")


@pytest.mark.parametrize("cell", ["tile_3", "3D", "1x1", "information", "", "-"])
def test_text_goes_left(cell: str) -> None:
    assert format_table(["a long heading"], [[cell]]).splitlines()[1].endswith("--|")


def test_cells_cannot_break_the_table() -> None:
    lines = format_table(["a|b"], [["x\ny"], ["高度"]]).splitlines()
    assert lines == ["| a\\|b   |", "|:-------|", "| x y    |", "| 高度   |"]


def test_table_needs_full_rows() -> None:
    with pytest.raises(ValueError, match="Row 2 has 1 cells for 2 headings"):
        format_table(["a", "b"], [["1", "2"], ["1"]])
    with pytest.raises(ValueError, match="heading"):
        format_table([], [])


def test_csv_header_is_the_union_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [{"id": "a,b", "mae": 0.1}, {"id": 'say "x"', "psnr": np.float32(0.5), "mae": math.nan}])
    assert path.read_bytes().decode() == 'id,mae,psnr\n"a,b",0.1,\n"say ""x""",,0.5\n'


def test_csv_reads_back_typed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows: list[dict[str, object]] = [
        {"id": "tile_1", "n": 3, "x": 1 / 3, "ok": True, "inf": -math.inf, "none": None, "code": "0012", "pair": "1_2"},
        {"id": "Größe\n高", "n": -4, "x": 1e-300, "ok": False, "inf": 2.5, "none": None, "code": "7", "pair": "3"},
    ]
    write_csv(path, rows)
    assert read_csv(path) == rows
    assert [type(value) for value in read_csv(path)[0].values()] == [str, int, float, bool, float, type(None), str, str]


def test_csv_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [{"x": math.nan, "s": "", "b": None}, {"x": 2, "s": "t", "b": True}])
    first, second = read_csv(path)
    assert isinstance(first["x"], float) and math.isnan(first["x"])
    assert (first["s"], first["b"]) == ("", None)
    assert second == {"x": 2, "s": "t", "b": True}


def test_csv_text_columns_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [{"id": "805", "mae": 1.5}])
    assert read_csv(path, text_columns=["id"]) == [{"id": "805", "mae": 1.5}]
    assert read_csv(path) == [{"id": 805, "mae": 1.5}]


def test_csv_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [])
    assert path.read_bytes() == b"" and read_csv(path) == []
    path.write_text("a,b\n")
    assert read_csv(path) == []


def test_csv_with_a_lone_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_csv(path, [{"x": 1.5}, {"x": math.nan}])
    assert len(read_csv(path)) == 2
    path.write_text("x\n1.5\n\n")
    assert len(read_csv(path)) == 2


def test_csv_with_uneven_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match=r"t\.csv: row 3 has 1 cells, the header 2"):
        read_csv(path)


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_csv_keeps_every_digit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.getbasetemp() / "digits.csv"
    write_csv(path, [{"x": value} for value in values])
    assert [row["x"] for row in read_csv(path)] == values


def test_json_holds_numpy_paths_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    data = {
        "mae": np.float32(0.5),
        "n": np.int64(3),
        "ok": np.bool_(True),
        "bad": [math.nan, np.float64("inf"), -math.inf],
        "array": np.array([[1.0, np.nan]]),
        "path": Path("a") / "b",
        "tuple": (1, "ü"),
        1: None,
    }
    write_json(path, data)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "mae": 0.5,
        "n": 3,
        "ok": True,
        "bad": [None, None, None],
        "array": [[1.0, None]],
        "path": "a/b",
        "tuple": [1, "ü"],
        "1": None,
    }
    assert text.startswith('{\n  "mae": 0.5,\n') and text.endswith("}\n") and "ü" in text


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_json(path, [1])
    with pytest.raises(TypeError, match="set"):
        write_json(path, {"x": {1, 2}})
    assert json.loads(path.read_text()) == [1]
    assert os.listdir(tmp_path) == ["r.json"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    for write in (write_csv, write_json):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            write(tmp_path / "absent" / "t", [])
