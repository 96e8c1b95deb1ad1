"""The raw release becomes the processed layout in one command, which goes on where it was interrupted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stereo_sets import copy_set, raw_of
from Utils.config.stereo_keys import WithViews
from Utils.data.stereo.convert_whu import main
from Utils.data.stereo.reading import read_stereo
from Utils.data.stereo.sets import find_samples
from Utils.rasters.pfm import read_pfm

FIRST = "town0000_0000"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_raw_release_is_converted(tmp_path, capsys) -> None:
    raw = raw_of(copy_set(tmp_path), tmp_path)
    target = tmp_path / "new" / "processed"
    assert run("--input", raw, "--output", target) == 0
    assert "9 views written" in capsys.readouterr().out
    one, other = (find_samples(each, "train", WithViews(views=3)) for each in (raw, target))
    assert list(one) == list(other)
    for name in one:
        first, second = read_stereo(one[name]), read_stereo(other[name])
        for entry in ("cameras", "target", "known"):
            np.testing.assert_array_equal(getattr(first, entry), getattr(second, entry))
        np.testing.assert_array_equal(first.images[2], second.images[2])
        assert (first.value_range, first.interval) == (second.value_range, second.interval)
    text = (target / "train" / "camera" / "0" / f"{FIRST}.txt").read_text(encoding="utf-8").splitlines()
    assert len(text[0].split()) == 4 and text[4] == "" and len(text[5].split()) == 3
    # Without depth a pixel is 0, as in the raw release.
    assert read_pfm(target / "test" / "depth" / "1" / "town5000_0000.pfm")[0, 0] == 0


def test_a_second_run_writes_what_is_missing(tmp_path, capsys) -> None:
    raw, target = raw_of(copy_set(tmp_path), tmp_path), tmp_path / "processed"
    assert run("--input", raw, "--output", target) == 0
    (target / "train" / "camera" / "1" / f"{FIRST}.txt").unlink()
    before = (target / "train" / "camera" / "0" / f"{FIRST}.txt").stat().st_mtime_ns
    capsys.readouterr()
    assert run("--input", raw, "--output", target) == 0
    assert "1 views written" in capsys.readouterr().out
    assert (target / "train" / "camera" / "0" / f"{FIRST}.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda raw: (raw / "train" / "Cams" / "town0000" / "1" / "0000.txt").unlink(), "has no camera file"),
        (lambda raw: (raw / "train" / "Cams" / "town0000" / "1" / "0000.txt").write_text("extrinsic\n1 2"), "holds 2"),
        (lambda raw: (raw / "train" / "Depths" / "town0000" / "1" / "0000.png").write_bytes(b"x"), "neither PNG"),
        (lambda raw: [(raw / part).rename(raw / f"no-{part}") for part in ("train", "test")], "neither train nor test"),
    ],
)
def test_what_is_wrong_has_a_line(tmp_path, capsys, broken, said) -> None:
    raw = raw_of(copy_set(tmp_path), tmp_path)
    broken(raw)
    assert run("--input", raw, "--output", tmp_path / "processed") == 2
    assert said in capsys.readouterr().err


def test_the_release_is_not_written_over(tmp_path, capsys) -> None:
    raw = raw_of(copy_set(tmp_path), tmp_path)
    assert run("--input", raw, "--output", raw) == 2
    assert "give another one" in capsys.readouterr().err
