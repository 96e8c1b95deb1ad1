"""Loading: the order of an epoch, workers that outlive it, and the time that the loop waits."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.conftest import TRAINING, TRAINING_IDS, height_path, image_path, prior_path
from Utils.core.seeds import named_generator
from Utils.data import loaders
from Utils.data.loaders import TrainingLoader, epoch_order, make_loader
from Utils.data.published_layout import find_priors, list_tiles
from Utils.data.sample import Batch
from Utils.data.tile_dataset import TileDataset


class Watched(TileDataset):
    """Tiles that tell who read them."""

    def __getitem__(self, index: int) -> Batch:
        return super().__getitem__(index) | {"process": os.getpid(), "threads": torch.get_num_threads()}


class Slow(TileDataset):
    """Tiles that take a while."""

    def __getitem__(self, index: int) -> Batch:
        time.sleep(0.05)
        return super().__getitem__(index)


def open_tiles(dataset: Path, kind: type[TileDataset] = Watched, **options: Any) -> TileDataset:
    files = list_tiles(dataset, TRAINING)
    return kind(files, list(files), find_priors(dataset, TRAINING, list(files)), **options)


def take(loader: TrainingLoader, epoch: int) -> list[Batch]:
    return [part.batch for parts in loader.epoch(epoch) for part in parts]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first["id"] == second["id"]
        for name in ("image", "target", "valid", "prior"):
            assert torch.equal(first[name], second[name])


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (0, 2), (42, 1), (42, 60)])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_orders_are_those_of_torchs_shuffling(seed: int, epoch: int, workers: int, shared_dataset: Path) -> None:
    """Results of a seed hang on them."""
    tiles = open_tiles(shared_dataset)
    shuffling = DataLoader(
        tiles, batch_size=4, shuffle=True, generator=named_generator(seed, "order", epoch), num_workers=workers
    )
    ordered = TrainingLoader(tiles, 4, 0, seed)
    assert [batch["id"] for batch in take(ordered, epoch)] == [batch["id"] for batch in shuffling]


def test_an_order_hangs_on_seed_and_epoch_alone() -> None:
    orders = {}
    for seed in (1, 2):
        for epoch in (1, 2, 3):
            orders[seed, epoch] = epoch_order(6, seed, epoch)
            assert sorted(orders[seed, epoch]) == list(range(6))
            assert epoch_order(6, seed, epoch) == orders[seed, epoch]
    assert len({tuple(order) for order in orders.values()}) > 3


def test_workers_outlive_an_epoch_and_see_the_next(shared_dataset: Path) -> None:
    options: dict[str, Any] = {"flips": ["horizontal", "vertical"], "crop": 16, "seed": 3}
    alone = TrainingLoader(open_tiles(shared_dataset, **options), 2, 0, seed=1)
    parted = TrainingLoader(open_tiles(shared_dataset, **options), 2, 2, seed=1)
    processes = []
    for epoch in (1, 2, 3):
        batches = take(parted, epoch)
        assert_same(take(alone, epoch), batches)
        processes.append({int(number) for batch in batches for number in batch["process"]})
    assert processes[0] == processes[1] == processes[2]
    assert len(processes[0]) == 2 and os.getpid() not in processes[0]
    # A run that is resumed there, with as many workers or another number of them.
    for workers in (1, 2):
        resumed = TrainingLoader(open_tiles(shared_dataset, **options), 2, workers, seed=1)
        assert_same(take(alone, 3), take(resumed, 3))


def test_what_a_worker_decoded_it_keeps(dataset: Path) -> None:
    loader = TrainingLoader(open_tiles(dataset, cache_bytes=1e9), 2, 1, seed=1)
    first = take(loader, 1)
    for tile in TRAINING_IDS:
        for path in (image_path, height_path, prior_path):
            path(dataset, tile).unlink()
    second = take(loader, 2)
    by_id = {tile: batch["image"][place] for batch in first for place, tile in enumerate(batch["id"])}
    for batch in second:
        for place, tile in enumerate(batch["id"]):
            assert torch.equal(batch["image"][place], by_id[tile])


def test_validation_loaders_keep_their_workers_too(shared_dataset: Path) -> None:
    loader = make_loader(open_tiles(shared_dataset), 3, 1)
    first, second = list(loader), list(loader)
    assert_same(first, second)
    assert torch.equal(first[0]["process"], second[0]["process"])


def test_a_worker_has_one_thread(shared_dataset: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        (batch,) = take(TrainingLoader(open_tiles(shared_dataset), 6, 1, seed=1), 1)
    finally:
        torch.set_num_threads(before)
    assert set(batch["threads"].tolist()) == {1}


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_global_generator(workers: int, shared_dataset: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(TrainingLoader(open_tiles(shared_dataset, flips=["horizontal"]), 2, workers, seed=1), 1)
    list(make_loader(open_tiles(shared_dataset), 2, workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_wait_is_the_loops_not_its_work(shared_dataset: Path) -> None:
    loader = TrainingLoader(open_tiles(shared_dataset, Slow), 2, 0, seed=1)
    assert loader.steps == 3
    started = time.perf_counter()
    for _ in loader.epoch(1):
        time.sleep(0.1)
    total = time.perf_counter() - started
    # Six tiles of 0.05 s are waited for, three steps of 0.1 s are not.
    assert 0.3 <= loader.seconds <= total - 0.3


def test_workers_load_while_the_loop_works(shared_dataset: Path) -> None:
    loader = TrainingLoader(open_tiles(shared_dataset, Slow), 2, 1, seed=1)
    take(loader, 1)
    before = loader.seconds
    for _ in loader.epoch(2):
        time.sleep(0.3)
    # Two of three batches, 0.1 s each, are there when they are asked for.  The rest is room for a busy machine.
    assert loader.seconds - before < 0.2


def test_the_share_of_waiting_is_logged(vit_run: Path, diffusion_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage in (vit_run / "final", diffusion_run / "vae", diffusion_run / "unet"):
        (row,) = [json.loads(line) for line in (stage / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        assert 0.0 < row["data_wait_share"] < 1.0
        events = EventAccumulator(str(stage / "tensorboard"))
        events.Reload()
        assert events.Scalars("throughput/data_wait_share")[0].value == pytest.approx(row["data_wait_share"])


def test_a_worker_that_breaks_off_in_handing_over_a_batch_is_replaced(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed at that moment it leaves the main process with half a message, and torch does not say that it died."""
    real = loaders.DataLoader
    ends = [EOFError(), ConnectionResetError("reset")]

    def fragile(*arguments: Any, **options: Any) -> Any:
        whole = real(*arguments, **options)
        return Breaking(whole, ends.pop()) if ends else whole

    monkeypatch.setattr(loaders, "DataLoader", fragile)
    tiles = open_tiles(dataset)
    with caplog.at_level(logging.WARNING):
        found = [tile for batch in make_loader(tiles, 2, 2) for tile in batch["id"]]
    assert found == tiles.ids
    assert caplog.text.count("a process that reads tiles died; it is replaced") == 2


class Breaking:
    """A loader that ends with an error after its first batch."""

    def __init__(self, whole: Any, error: Exception) -> None:
        self._whole, self._error = whole, error

    def __iter__(self) -> Iterator[Batch]:
        yield next(iter(self._whole))
        raise self._error


@pytest.mark.parametrize(("batch", "left"), [(4, 4), (3, 6), (6, 6), (8, 6)])
def test_an_epoch_of_whole_batches_leaves_out_the_rest(batch: int, left: int, shared_dataset: Path) -> None:
    loader = TrainingLoader(open_tiles(shared_dataset), batch, 0, seed=1, whole_batches=True)
    epochs = [[tile for taken in take(loader, epoch) for tile in taken["id"]] for epoch in (1, 2, 3)]
    assert {len(tiles) for tiles in epochs} == {left} and loader.tiles_an_epoch == left
    whole = TrainingLoader(open_tiles(shared_dataset), batch, 0, seed=1)
    assert epochs[0] == [tile for taken in take(whole, 1) for tile in taken["id"]][:left]
    assert left == 6 or len({frozenset(tiles) for tiles in epochs}) > 1, "each epoch leaves out others"
