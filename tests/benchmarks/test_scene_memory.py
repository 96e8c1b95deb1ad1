"""python -m benchmarks.scene_memory: what it sees of a process's memory, the scene it makes, what it writes."""

from __future__ import annotations

import functools
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("psutil", reason="benchmarks/requirements.txt is not installed")

from benchmarks import scene_memory
from benchmarks.scene_memory import Measurement, main, measure, write_scene

MEGABYTE = 2**20


def nothing() -> None:
    """Prepare nothing."""


def hold(megabytes: int, seconds: float) -> None:
    """Fill memory, keep it for a while, give it back."""
    ballast = np.ones(megabytes * MEGABYTE, np.uint8)
    time.sleep(seconds)
    assert ballast[-1] == 1


kept = []


def hold_for_good(megabytes: int) -> None:
    """Fill memory that stays."""
    kept.append(np.ones(megabytes * MEGABYTE, np.uint8))


def fail() -> None:
    raise ValueError("no model\nof this name")


def test_a_peak_is_seen_and_what_was_there_before_is_not() -> None:
    found = measure(functools.partial(hold_for_good, 150), functools.partial(hold, 100, 1.0))
    # Beside the ballast Python takes a few pages; that of the preparation belongs to the process.
    assert 100 <= found.peak_bytes / MEGABYTE < 110
    assert found.own_bytes > 150 * MEGABYTE
    assert found.seconds >= 1.0
    times, held = (np.array(values) for values in zip(*found.curve, strict=True))
    assert (np.diff(times) > 0).all() and times[0] < 0 and times[-1] <= found.seconds + 0.01
    assert 100 <= (held[times > 0].max() - found.own_bytes) / MEGABYTE < 110


def test_a_failure_is_told(forks_for_spawns: None) -> None:
    with pytest.raises(RuntimeError, match="the process failed: ValueError: no model"):
        measure(nothing, fail)


def test_the_scene_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one.tif", "other.tif"):
        write_scene(tmp_path / name, 700)  # a whole block and parts of three
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "other.tif").read_bytes()
    with rasterio.open(tmp_path / "one.tif") as source:
        assert (source.count, source.shape, source.dtypes) == (3, (700, 700), ("uint8",) * 3)
        assert source.profile["tiled"] and source.crs.to_epsg() == 32643
        pixels = source.read()
    # A corner that was not written would hold zeros; the noise alone has a deviation of 6.
    corners = [
        pixels[:, rows, columns] for rows in (slice(90), slice(-90, None)) for columns in (slice(90), slice(-90, None))
    ]
    assert all(corner.std() > 5 for corner in corners)
    # Blocks join without a step, but for the noise.
    smooth = pixels[:, :, 480:544].astype(float).mean(axis=(0, 1))
    assert np.abs(np.diff(smooth)).max() < 5


def test_the_scene_is_written_in_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for size in (1024, 3072):
        tracemalloc.start()
        write_scene(tmp_path / "scene.tif", size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_curves_keep_their_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_memory, "_CURVE_POINTS", 10)
    samples = [(float(k), 5 if k != 77 else 900) for k in range(95)]
    thin = scene_memory._thinned(samples)
    assert len(thin) <= 10 and (77.0, 900) in thin
    assert scene_memory._thinned([]) == [] and scene_memory._thinned(samples[:10]) == samples[:10]


def test_the_model_can_be_loaded() -> None:
    scene_memory._import_model()
    assert "Modules.d3rsmde.pipeline" in sys.modules


def test_command(
    tmp_path: Path, forks_for_spawns: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scene_memory, "_import_model", nothing)  # it takes seconds
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert main(["--size", "600", "--output", str(tmp_path / "results"), "--scratch", str(scratch)]) == 0
    assert not list(scratch.iterdir())
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {f"scene_memory_600.{suffix}" for suffix in ("json", "md", "png")}
    said = json.loads((tmp_path / "results" / "scene_memory_600.json").read_text(encoding="utf-8"))
    assert said["size"] == 600 and said["machine"]["cores"] >= 1 and said["date"].startswith("20")
    printed = capsys.readouterr().out
    assert "600 x 600 pixels" in printed
    assert list(said["cases"]) == list(scene_memory.CASES)
    for case in said["cases"].values():
        assert case["own_bytes"] > 100e6 and 0 < case["peak_bytes"] < 2e9 and case["seconds"] > 0 and case["curve"]
        assert f"{case['peak_bytes'] / 1e9:.2f}" in printed
    assert printed.strip() in (tmp_path / "results" / "scene_memory_600.md").read_text(encoding="utf-8")
    with Image.open(tmp_path / "results" / "scene_memory_600.png") as picture:
        assert picture.width > 600


def test_a_scene_without_room_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scene_memory, "write_scene", lambda *_: pytest.fail("it was made"))
    assert main(["--size", "40000000", "--scratch", str(tmp_path)]) == 2
    assert "name another folder with --scratch" in capsys.readouterr().err
    assert main(["--size", "0"]) == 2
    assert "--size 0" in capsys.readouterr().err


def test_half_a_map_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_a_corner(*_: object) -> Measurement:
        profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": 9, "width": 9}
        (name,) = tmp_path.iterdir()
        with rasterio.open(name / "drawn.tif", "w", **profile) as target:
            target.write(np.zeros((1, 9, 9), np.float32))
        return Measurement(1, 1, 1.0, [])

    monkeypatch.setattr(scene_memory, "measure", copy_a_corner)
    with pytest.raises(RuntimeError, match=r"\(9, 9\) pixels"):
        scene_memory.run(64, tmp_path / "results", tmp_path)
