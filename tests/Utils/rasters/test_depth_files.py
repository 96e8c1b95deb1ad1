"""Depth of 16 bits: units, holes, and what no depth is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_raster
from Utils.core.errors import RasterError
from Utils.rasters.depth_files import METRES_PER_UNIT, read_depth


def test_sixteen_bits_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 256], [257, 20000, 65535, 0]], np.uint16)
    write_raster(tmp_path / "d.png", values)
    found = read_depth(tmp_path / "d.png", METRES_PER_UNIT["kitti"])
    assert found.values.tolist() == (values / 256).tolist() and found.values.dtype == np.float32
    assert found.valid.tolist() == (values > 0).tolist()
    millimetres = read_depth(tmp_path / "d.png", METRES_PER_UNIT["nyu"])
    assert millimetres.values[1, 1] == 20.0 and millimetres.values[0, 1] == np.float32(0.001)


def test_other_holes_and_floats(tmp_path: Path) -> None:
    values = np.array([[1.5, -1.0, np.nan, 0.0]], np.float32)
    write_raster(tmp_path / "d.tif", values)
    found = read_depth(tmp_path / "d.tif", 1.0, hole=-1.0)
    assert found.values.tolist() == [[1.5, 0, 0, 0]] and found.valid.tolist() == [[True, False, False, False]]


def test_negative_depth_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "d.tif", np.array([[1.5, -1.0, -2.5]], np.float32))
    with pytest.raises(RasterError, match=r"d\.tif: 2 negative depths, down to -2\.5; give the value that marks holes"):
        read_depth(tmp_path / "d.tif", 1.0)
    with pytest.raises(ValueError, match="metres_per_unit is 0"):
        read_depth(tmp_path / "d.tif", 0)
