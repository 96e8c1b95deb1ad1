"""The synthetic dataset of depth: its tables, its splits, and what its files hold."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from Utils.data.dataset_table import read_table
from Utils.rasters.tile_files import read_height, read_image
from Utils.synthetic.box_scenes import make_frames
from Utils.synthetic.depth_frames import SHUFFLED, TABLE, VALIDATION, main, write_dataset

SIZE = (12, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four test scenes of two frames; read only."""
    folder = tmp_path_factory.mktemp("frames") / "d"
    write_dataset(folder, 12, 4, 2, SIZE, seed=3, workers=1)
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_is_one_that_the_house_reads(folder: Path) -> None:
    table = read_table(folder / TABLE)
    assert table.has_parts and len(table.rows) == 32
    for row in table.rows:
        image, depth = read_image(folder / row.image), read_height(folder / row.height, row.coding)
        assert image.shape == (3, *SIZE) and depth.values.shape == SIZE
        known = depth.values[depth.valid]
        assert 0.1 < known.min() and known.max() < 66.0, "metres, whatever the file stores"


def test_files_hold_the_frames_that_the_seed_gives(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", 12, 4, 2, SIZE, seed=3, workers=2)
    for path in sorted(folder.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path.name
    write_dataset(tmp_path / "other", 12, 4, 2, SIZE, seed=4, workers=1)
    name = lines(folder / TABLE)[0]["image"]
    assert (folder / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_depth_is_kept_to_half_a_millimetre(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frames = make_frames("street", 1, SIZE, 9)
    monkeypatch.setattr("Utils.synthetic.depth_frames.make_frames", lambda *_: frames)
    write_dataset(tmp_path / "d", 4, 1, 1, SIZE, seed=0, workers=1)
    row = read_table(tmp_path / "d" / TABLE).rows[0]
    written = read_height(tmp_path / "d" / row.height, row.coding)
    np.testing.assert_array_equal(written.valid, frames[0].depth > 0)
    np.testing.assert_allclose(written.values[written.valid], frames[0].depth[written.valid], atol=0.000501)


def test_no_scene_is_in_two_parts(folder: Path) -> None:
    rows = lines(folder / TABLE)
    scenes = {part: {row["scene"] for row in rows if row["part"] == part} for part in ("train", "test")}
    assert (len(scenes["train"]), len(scenes["test"])) == (12, 4) and not scenes["train"] & scenes["test"]
    held = (folder / VALIDATION).read_text().split()
    scene_of = {row["id"]: row["scene"] for row in rows}
    validation = {scene_of[tile] for tile in held}
    assert validation < scenes["train"] and len(held) == 2 * len(validation) == 4
    assert {scene.partition("-")[0] for scene in validation} == {"room", "street"}


def test_shuffled_truths_are_those_of_other_scenes(folder: Path) -> None:
    plain, shuffled = lines(folder / TABLE), lines(folder / SHUFFLED)
    scene_of = {row["height"]: row["scene"] for row in plain}
    for row, changed in zip(plain, shuffled, strict=True):
        assert {key: row[key] for key in row if key != "height"} == {
            key: changed[key] for key in row if key != "height"
        }
        assert (scene_of[changed["height"]] == row["scene"]) == (row["part"] == "test")
    assert sorted(row["height"] for row in plain) == sorted(row["height"] for row in shuffled), "each is used once"


def test_another_dataset_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileExistsError, match="already holds another dataset"):
        write_dataset(folder, 12, 4, 2, SIZE, seed=4)
    with pytest.raises(SystemExit) as ended:
        main(["--dataset", str(folder), "--seed", "9"])
    assert ended.value.code == 2 and "already holds another dataset" in capsys.readouterr().err
    with pytest.raises(ValueError, match="4 training scenes"):
        write_dataset(folder / "new", 1, 1, 1, SIZE, seed=0)
