"""TensorBoard's files: what can be read back from them, and that no full disk ends a run through them."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import full_disk, shaded_image, synthetic_height
from Utils.data.sample import Batch
from Utils.reports.tile_panels import map_views
from Utils.training.board import LONGEST_SIDE, MOST_PICTURES, Board, peak_memory_gigabytes

# What is drawn is looked at here alone.
pytestmark = pytest.mark.usefixtures("real_boards")

ROW = {
    "epoch": 3,
    "step": 12,
    "lr": 1e-3,
    "train/L1Loss": 0.25,
    "validation/paper.mae": 40.5,
    "tiles_per_second": 8.0,
    "data_wait_share": 0.1,
    "gradient_norm": 2.0,
    "memory_gigabytes": 1.5,
    "seconds": 30.0,
}
GREY = 0x8C


def read_back(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


def decoded(event: Any) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB")).astype(np.int64)


def make_batch(count: int = 1, height: int = 64, width: int = 64) -> tuple[Batch, torch.Tensor]:
    """Tiles whose upper right quarter is not valid, and maps that are 5 too high in the lower half."""
    truth = synthetic_height(1, max(height, width))[:height, :width]
    target = torch.from_numpy(truth).float()[None, None].repeat(count, 1, 1, 1)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[:, :, : height // 2, width // 2 :] = False
    maps = target.clone()
    maps[:, :, height // 2 :] += 5.0
    target[~valid] = float("nan")
    batch = {
        "image": torch.from_numpy(shaded_image(truth)).float()[None].repeat(count, 1, 1, 1) / 255.0,
        "target": target,
        "height": target / 255.0,
        "valid": valid,
        "id": [f"tile-{number}" for number in range(count)],
    }
    return batch, maps


def test_a_row_is_read_back_under_its_tags(tmp_path: Path) -> None:
    with Board(tmp_path, 0) as board:
        board.row(ROW)
    expected = {
        "optimisation/step": 12,
        "optimisation/learning_rate": 1e-3,
        "optimisation/gradient_norm": 2.0,
        "train/L1Loss": 0.25,
        "validation/paper.mae": 40.5,
        "throughput/tiles_per_second": 8.0,
        "throughput/data_wait_share": 0.1,
        "throughput/seconds": 30.0,
        "memory/peak_gigabytes": 1.5,
    }
    assert set(read_back(tmp_path).Tags()["scalars"]) == set(expected)
    for tag, value in expected.items():
        ((step, read),) = points(tmp_path, tag)
        assert step == 3
        assert read == pytest.approx(value, rel=1e-6), tag  # stored in single precision


def test_what_is_no_finite_number_is_left_out(tmp_path: Path) -> None:
    with Board(tmp_path, 0) as board:
        board.row({"epoch": 1, "train/a": float("nan"), "b": None, "c": "text", "d": True, "e": float("inf"), "f": 1})
    assert read_back(tmp_path).Tags()["scalars"] == ["f"]


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with Board(tmp_path, 0) as board:
        board.row(ROW)
        assert points(tmp_path, "train/L1Loss") == [(3, 0.25)]


def test_resuming_hides_what_the_killed_attempt_left(tmp_path: Path) -> None:
    with Board(tmp_path, 0) as board:
        for epoch in (1, 2, 3):
            board.row({"epoch": epoch, "train/L1Loss": 1.0})
    with Board(tmp_path, 1) as board:
        board.row({"epoch": 2, "train/L1Loss": 2.0})
    assert points(tmp_path, "train/L1Loss") == [(1, 1.0), (2, 2.0)]


def test_a_tile_is_drawn_with_its_map_error_and_mask(tmp_path: Path) -> None:
    batch, maps = make_batch()
    with Board(tmp_path, 0) as board:
        board.pictures(4, map_views(batch, maps))
    (event,) = read_back(tmp_path).Images("tiles/tile-0")
    picture = decoded(event)
    assert event.step == 4
    assert picture.shape == (event.height, event.width, 3)
    assert max(picture.shape) == LONGEST_SIDE, "smaller than it may be, or larger"

    # Four panels, two by two: a grey quarter in all but the image; blue to yellow in the maps, red where 5 too high.
    grey = np.abs(picture - GREY).max(axis=2) <= 3  # resampling rounds
    down, right = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = {
        "image": np.s_[:down, :right],
        "truth": np.s_[:down, right:],
        "map": np.s_[down:, :right],
        "error": np.s_[down:, right:],
    }
    shares = {name: grey[place].mean() for name, place in quarters.items()}
    # A panel fills about 0.7 of its quarter, the rest being titles, bars and margins; a quarter of it is masked.
    assert shares["image"] < 0.02
    assert all(0.12 < shares[name] < 0.25 for name in ("truth", "map", "error")), shares
    for name in ("image", "truth", "map"):
        inside = picture[quarters[name]][~grey[quarters[name]]]
        assert inside.std(axis=0).min() > 20, f"{name} is flat"
    red, green, blue = (picture[quarters["error"]][..., channel] for channel in range(3))
    assert ((red > blue + 40) & (red > green + 40)).mean() > 0.15, "no error shown where the map is too high"
    blue, yellow = np.array([68, 1, 84]), np.array([253, 231, 37])  # the ends of viridis
    for name in ("truth", "map"):
        for end in (blue, yellow):
            assert (np.abs(picture[quarters[name]] - end).max(axis=2) < 25).any(), f"{name} is not stretched"


def test_a_handful_of_pictures_at_most(tmp_path: Path) -> None:
    batch, maps = make_batch(MOST_PICTURES + 2)
    with Board(tmp_path, 0) as board:
        board.pictures(1, map_views(batch, maps))
    tags = read_back(tmp_path).Tags()["images"]
    assert tags == [f"tiles/tile-{number}" for number in range(MOST_PICTURES)]
    # As the comment at MOST_PICTURES says.
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 0.8e6


@pytest.mark.parametrize(("height", "width"), [(32, 160), (160, 32)])
def test_long_tiles_stay_within_the_bound(tmp_path: Path, height: int, width: int) -> None:
    batch, maps = make_batch(1, height, width)
    with Board(tmp_path, 0) as board:
        board.pictures(1, map_views(batch, maps))
    (event,) = read_back(tmp_path).Images("tiles/tile-0")
    assert max(event.height, event.width) <= LONGEST_SIDE


def test_tiles_without_a_valid_pixel_and_broken_maps_are_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch, maps = make_batch(2)
    batch["valid"][0] = False
    maps[1] = float("nan")
    with Board(tmp_path, 0) as board:
        board.pictures(1, map_views(batch, maps.bfloat16()))
    assert caplog.text == ""
    assert read_back(tmp_path).Tags()["images"] == ["tiles/tile-0", "tiles/tile-1"]


def test_a_full_disk_ends_the_board_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    batch, maps = make_batch()
    with caplog.at_level(logging.WARNING), full_disk(1500), Board(tmp_path, 0) as board:
        for epoch in range(1, 60):
            board.row(ROW | {"epoch": epoch})
        board.pictures(60, map_views(batch, maps))
    (record,) = caplog.records
    assert all(part in record.message for part in ("the run goes on", "File too large", str(tmp_path)))
    assert reported == [], "TensorBoard's thread printed a traceback"
    assert not [thread for thread in threading.enumerate() if type(thread).__module__.startswith("tensorboard.")]
    # What was written before is there, and a resumed run goes on beside it.
    steps = [step for step, _ in points(tmp_path, "train/L1Loss")]
    assert steps and steps == list(range(1, len(steps) + 1))
    with Board(tmp_path, len(steps)) as board:
        board.row(ROW | {"epoch": len(steps) + 1})
    assert [step for step, _ in points(tmp_path, "train/L1Loss")] == [*steps, len(steps) + 1]


def test_a_board_that_cannot_even_be_opened_does_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    batch, maps = make_batch()
    (tmp_path / "file").write_text("in the way")
    for folder, limit in ((tmp_path / "full", 10), (tmp_path / "file", 10_000)):
        caplog.clear()
        with full_disk(limit), Board(folder, 0) as board:
            board.row(ROW)
            board.pictures(1, map_views(batch, maps))
        assert len(caplog.records) == 1
    assert reported == []


def test_another_threads_exception_is_still_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    outer = threading.excepthook

    def fail() -> None:
        raise ValueError("of another thread")

    class Failing(dict[str, Any]):
        """A row during whose reading another thread fails."""

        def items(self) -> Any:
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
            return super().items()

    with Board(tmp_path, 0) as board:
        board.row(Failing(ROW))
    assert [str(arguments.exc_value) for arguments in reported] == ["of another thread"]
    assert threading.excepthook is outer


def test_peak_memory_is_in_gigabytes_and_never_falls() -> None:
    before = peak_memory_gigabytes(torch.device("cpu"))
    block = np.ones(2**26)  # 0.5 GiB
    held = peak_memory_gigabytes(torch.device("cpu"))
    del block
    # A process with torch takes some 0.3 GiB by itself, and may have been larger before than with the block.
    assert held > 0.6
    assert before <= held <= before + 0.6
    assert peak_memory_gigabytes(torch.device("cpu")) >= held
