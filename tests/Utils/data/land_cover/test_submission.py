"""Submissions: what a challenge would not take is refused before it is written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from Utils.core.errors import UserError
from Utils.data.land_cover.submission import check_submission, write_submission
from Utils.rasters.label_files import encode_labels

SIZES = {"1.png": (4, 6), "2.png": (4, 6)}
MAP = np.arange(24, dtype=np.uint8).reshape(4, 6) % 7


def test_a_whole_submission_is_written(tmp_path: Path) -> None:
    write_submission(tmp_path / "s.zip", dict.fromkeys(SIZES, encode_labels(MAP)), SIZES, 7)
    check_submission((tmp_path / "s.zip").read_bytes(), SIZES, 7, "s.zip")


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ({"1.png": encode_labels(MAP)}, "'2.png' is missing (1 of 2)"),
        ({"a/1.png": encode_labels(MAP), "2.png": encode_labels(MAP)}, "'a/1.png' lies in a folder"),
        ({name: encode_labels(MAP) for name in ("1.png", "2.png", "3.png")}, "'3.png' is asked for by nobody"),
        (dict.fromkeys(SIZES, encode_labels(MAP + np.uint8(1))), "holds the value 7; class numbers go from 0 to 6"),
        (dict.fromkeys(SIZES, encode_labels(MAP, [(0, 0, 0)] * 7)), "a PNG of mode P"),
        (dict.fromkeys(SIZES, encode_labels(MAP.T)), "is 4 x 6 pixels, and its image is 6 x 4"),
    ],
)
def test_what_would_score_nothing_is_not_written(pictures: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        write_submission(tmp_path / "s.zip", pictures, SIZES, 7)
    assert words in str(error.value) and not (tmp_path / "s.zip").exists()


def test_a_doubled_file_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name in ("1.png", "2.png", "2.png"):
            archive.writestr(name, encode_labels(MAP))
    with pytest.raises(UserError, match=r"'2\.png' stands twice"):
        check_submission(buffer.getvalue(), SIZES, 7, "s.zip")
