"""PFM: what is written is read back, rows from the bottom, both byte orders; damage has a line."""

from __future__ import annotations

import numpy as np
import pytest

from Utils.core.errors import RasterError
from Utils.rasters.pfm import read_pfm, write_pfm


def test_a_map_comes_back(tmp_path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) / 7.0
    values[1, 2] = np.nan
    write_pfm(tmp_path / "a.pfm", values)
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), values)


@pytest.mark.parametrize(("scale", "order"), [(b"-1.0", "<f4"), (b"1.0", ">f4"), (b"-0.003922", "<f4")])
def test_the_last_row_comes_first_in_the_order_that_the_scale_tells(tmp_path, scale, order) -> None:
    rows = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # as stored
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 2\n" + scale + b"\n" + rows.astype(order).tobytes())
    assert read_pfm(tmp_path / "a.pfm").tolist() == [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]]


def test_a_first_pixel_that_looks_like_white_space_is_kept(tmp_path) -> None:
    first = np.frombuffer(b"\x20\x0a\x20\x41", "<f4")  # a float whose bytes begin with a blank
    (tmp_path / "a.pfm").write_bytes(b"Pf 1 1 -1\n" + first.tobytes())
    assert read_pfm(tmp_path / "a.pfm")[0, 0] == first[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (b"Pf\n2 2\n", "no header"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "three bands"),
        (b"P5\n2 2\n255\n" + bytes(4), "no header"),
        (b"Pf\n2 x\n-1.0\n" + bytes(16), "damaged header"),
        (b"Pf\n2 -2\n-1.0\n" + bytes(16), "2 x -2 pixels"),
        (b"Pf\n2 2\n0.0\n" + bytes(16), "scale 0"),
        (b"Pf\n2 2\n-1.0\n" + bytes(15), "15 bytes of pixels"),
        (b"Pf\n2 2\n-1.0\n" + bytes(17), "17 bytes of pixels"),
        (b"Pf\n99999 99999\n-1.0\n" + bytes(16), "cut it up"),
    ],
)
def test_a_damaged_file_has_a_line(tmp_path, content, said) -> None:
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(RasterError, match=said):
        read_pfm(tmp_path / "a.pfm")


def test_a_missing_file_has_a_line(tmp_path) -> None:
    with pytest.raises(RasterError, match="no such file"):
        read_pfm(tmp_path / "a.pfm")
