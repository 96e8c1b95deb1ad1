"""Loaders: what stands between tiles on disk and the device, and how long the device waits for it.

Workers live as long as their loader, with the tiles that they have decoded.  torch gives each of them one thread, so
``num_workers`` is the number of cores that reading takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from Utils.seeds import named_generator
from Utils.tiles import Batch, TileDataset


def make_loader(
    dataset: TileDataset, batch_size: int, num_workers: int, order: Sampler[int] | None = None
) -> DataLoader[Batch]:
    """A loader in the dataset's own order, for validation and evaluation, or in another."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        # A loader draws a seed for its workers, from a generator of its own: the global one is dropout's.
        generator=torch.Generator(),
    )


class TrainingLoader:
    """One loader for all epochs of a stage, each in an order of its own.

    Args:
        tiles: the tiles.
        batch_size: tiles a step.
        num_workers: processes that read them.
        seed: of the orders.
    """

    def __init__(self, tiles: TileDataset, batch_size: int, num_workers: int, seed: int) -> None:
        self.tiles = tiles
        self._loader = make_loader(tiles, batch_size, num_workers, EpochOrder(tiles, seed))

    def batches(self, epoch: int) -> TimedBatches:
        """The batches of an epoch; those of the epoch before must have been taken."""
        self.tiles.epoch = epoch
        return TimedBatches(self._loader)


class TimedBatches:
    """One pass over a loader that counts the seconds in which the loop stood still for a batch.

    On a CPU nothing is computed in these seconds.  A GPU goes on with what was queued before, so there their share of
    the time is the most that it may have been idle for want of data.

    Attributes:
        seconds: waited so far.
    """

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        started = time.perf_counter()
        batches = iter(self._loader)
        while True:
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch
            started = time.perf_counter()


class EpochOrder(Sampler[int]):
    """The order of an epoch's tiles, a function of seed and epoch alone.

    Args:
        tiles: the tiles; their ``epoch`` counts when an iteration begins.
        seed: of the order.
    """

    def __init__(self, tiles: TileDataset, seed: int) -> None:
        self.tiles = tiles
        self.seed = seed

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __iter__(self) -> Iterator[int]:
        generator = named_generator(self.seed, "order", self.tiles.epoch)
        # torch's shuffling loader takes this number before it shuffles; so the orders are those that it gave.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        yield from torch.randperm(len(self.tiles), generator=generator).tolist()
