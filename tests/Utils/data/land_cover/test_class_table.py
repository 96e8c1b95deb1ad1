"""Class tables and masks: LoveDA's codec, one's own classes, palettes, colours, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_raster
from Utils.core.errors import RasterError, UserError
from Utils.data.land_cover.class_table import LOVEDA, read_class_table, read_mask
from Utils.data.sample import IGNORED_LABEL
from Utils.rasters.label_files import write_labels

VALUES = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.uint8)
NUMBERS = np.array([[255, 0, 1, 2], [3, 4, 5, 6]], np.uint8)


def test_loveda_is_coded_and_decoded() -> None:
    assert LOVEDA.encode(VALUES).tolist() == NUMBERS.tolist()
    assert LOVEDA.decode(NUMBERS).tolist() == VALUES.tolist()
    with pytest.raises(ValueError, match="8 \\(2 pixels\\), 200 \\(1 pixels\\)"):
        LOVEDA.encode(np.array([8, 8, 200, 1]))
    with pytest.raises(ValueError, match="7 is no class of 7"):
        LOVEDA.decode(np.array([7]))


@pytest.mark.parametrize("form", ["numbers", "palette of values", "palette of colours", "colours", "grey RGB", "float"])
def test_a_mask_is_read_in_whatever_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("mask.tif" if form == "float" else "mask.png")
    if form == "numbers":
        write_raster(path, VALUES)
    elif form == "float":
        write_raster(path, VALUES.astype(np.float32))
    elif form == "grey RGB":
        write_raster(path, np.stack([VALUES] * 3))
    elif form == "palette of values":
        write_labels(path, VALUES, [(0, 0, 0), *LOVEDA.colours])
    elif form == "palette of colours":
        # Its numbers are not LoveDA's values: 100 and on.
        colours = [(9, 9, 9)] * 100 + [(0, 0, 0), *LOVEDA.colours]
        write_labels(path, VALUES + np.uint8(100), colours)
    else:
        write_raster(path, np.moveaxis(np.rint(LOVEDA.paint(NUMBERS) * 255).astype(np.uint8), -1, 0))
    assert read_mask(path, LOVEDA).tolist() == NUMBERS.tolist()


def test_what_the_file_calls_nodata_is_ignored(tmp_path: Path) -> None:
    write_raster(tmp_path / "mask.tif", np.array([[1, 77]], np.uint8), nodata=77)
    assert read_mask(tmp_path / "mask.tif", LOVEDA).tolist() == [[0, IGNORED_LABEL]]


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (np.array([[1, 8], [8, 250]], np.uint8), "values outside of the class table: 8 (2 pixels), 250 (1 pixels)"),
        (np.array([[[255, 1]], [[0, 2]], [[0, 3]]], np.uint8), "colours outside of the class table: (1, 2, 3) (1 pixe"),
        (np.zeros((2, 2, 2), np.uint8), "a mask with 2 bands"),
        (np.array([[1.5]], np.float32), "numbers that are not whole"),
    ],
)
def test_a_bad_mask_is_refused_with_file_and_value(bands: Any, words: str, tmp_path: Path) -> None:
    write_raster(tmp_path / "mask.tif", bands)
    with pytest.raises(RasterError) as error:
        read_mask(tmp_path / "mask.tif", LOVEDA)
    assert words in str(error.value) and "mask.tif" in str(error.value)


def test_a_palette_of_neither_values_nor_colours_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / "mask.png", np.array([[90]], np.uint8), [(1, 2, 3)] * 100)
    with pytest.raises(RasterError, match=r"a palette with values outside.*90.*and colours outside.*\(1, 2, 3\)"):
        read_mask(tmp_path / "mask.png", LOVEDA)


def test_classes_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    classes = [{"name": "sand", "colour": [200, 180, 90], "value": 40}, {"name": "sea", "colour": [0, 0, 99]}]
    path.write_text(json.dumps({"classes": classes, "ignored_values": [0, 255]}))
    table = read_class_table(path)
    assert (table.names, table.values, table.ignored) == (("sand", "sea"), (40, 1), (0, 255))
    assert table.encode(np.array([40, 1, 0, 255])).tolist() == [0, 1, 255, 255]
    write_labels(tmp_path / "map.png", table.encode(np.array([[40, 1]])), table.colours)
    picture = Image.open(tmp_path / "map.png")
    assert picture.mode == "P" and np.asarray(picture.convert("RGB"))[0].tolist() == [[200, 180, 90], [0, 0, 99]]


A, B = {"name": "a", "colour": [0, 0, 0]}, {"name": "b", "colour": [0, 0, 1]}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "no list of classes"),
        ({"classes": [A]}, "1 classes; 2 to"),
        ({"classes": [A, B | {"name": "a"}]}, "the name a stands twice"),
        ({"classes": [A, B | {"colour": [0, 0, 0]}]}, "the colour (0, 0, 0) stands twice"),
        ({"classes": [A, B | {"colour": [0, 0, 300]}]}, "colour is [0, 0, 300]"),
        ({"classes": [], "ignored": [1]}, "unknown key 'ignored'"),
        ({"classes": [A, B], "ignored_values": [1]}, "the value 1 stands twice"),
    ],
)
def test_a_bad_table_is_refused(document: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(document))
    with pytest.raises(UserError) as error:
        read_class_table(tmp_path / "classes.json")
    assert words in str(error.value) and "classes.json" in str(error.value)
