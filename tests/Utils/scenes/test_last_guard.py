"""The last look at heights: none that known heights and the model's relief cannot give is written as valid."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.scenes import write_raster
from Utils.core.errors import UserError
from Utils.scenes.output.last_guard import LastGuard, check_refused, guard_of

GROUND = (-11_000.0, 9_000.0)


def guard(tmp_path: Path, low: float, high: float, relief: float = 200.0) -> LastGuard:
    mosaic = np.linspace(0.0, relief, 64 * 64, dtype=np.float32).reshape(64, 64)
    mosaic[0, 0] = 1e7  # one wild pixel is no relief
    return guard_of(np.array([low, np.nan, high]), write_raster(tmp_path / "mosaic.tif", mosaic, nodata=np.nan), GROUND)


def test_the_bounds_leave_room_for_relief_and_end_where_ground_ends(tmp_path: Path) -> None:
    wide = guard(tmp_path, 500.0, 1500.0)
    assert -2000.0 < wide.low < -1500.0 and 3500.0 < wide.high < 4000.0
    flat = guard(tmp_path, 10.0, 10.0, relief=0.1)
    assert flat.low == pytest.approx(-90.0) and flat.high == pytest.approx(110.0)
    high = guard(tmp_path, 0.0, 8000.0)
    assert (high.low, high.high) == GROUND or high.high == 9000.0


def test_heights_that_cannot_be_are_refused_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looking = guard(tmp_path, 500.0, 1500.0)
    heights = np.full((10, 100), 900.0, np.float32)
    heights[0, :4], heights[1, :5] = (-1.3e7, 9000.0, np.inf, -np.inf), np.nan
    np.testing.assert_array_equal(looking.refuse(heights), np.isinf(heights) | (np.abs(heights) > 8000))
    looking.refuse(heights[5:])
    document = looking.describe()
    assert document["refused"] == 4 and document["share"] == pytest.approx(4 / 1495)
    assert "4 heights (0.268 %)" in caplog.text and caplog.records[0].levelno == logging.WARNING


def test_a_scene_without_refused_heights_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looking = guard(tmp_path, 500.0, 1500.0)
    assert not looking.refuse(np.linspace(300, 1800, 100, dtype=np.float32)[None]).any()
    assert looking.describe()["share"] == 0.0 and not caplog.records


def test_above_a_bound_the_scene_has_failed() -> None:
    numbers = {"low": 0.0, "high": 900.0, "refused": 7}
    check_refused(Path("height.tif"), {"guard": numbers | {"share": 0.009}})
    check_refused(Path("height.tif"), {})
    with pytest.raises(UserError, match="'height.tif' is written, but 2.0 % of its heights, outside of 0 to 900 m"):
        check_refused(Path("height.tif"), {"guard": numbers | {"share": 0.02}})
