"""Loaders, which bring tiles from disk to the device and measure how long the loop waits for them.

Workers live as long as their loader and keep the tiles that they have decoded. torch gives each of them one thread, so
``num_workers`` is the number of cores that reading takes, in each process of a launch.
"""

from __future__ import annotations

import logging
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Sampler

from Utils.core.errors import UserError
from Utils.core.processes import launch, share
from Utils.core.seeds import named_generator
from Utils.core.stopping import is_main_thread, stop_if_asked
from Utils.data.dataset import SampleDataset
from Utils.data.sample import Batch

logger = logging.getLogger(__name__)

# Most deaths in a row: without a limit, a worker that dies every time would be restarted for ever.
_RESTARTS = 3


class SampleLoader:
    """Batches of tiles, for one or several passes.

    A worker that dies (some systems kill one when memory runs out) is replaced, and the iteration continues with the
    missing batch.

    Args:
        dataset: the tiles.
        batches: which tiles make up each batch.
        num_workers: processes that read tiles; 0 reads in this process.

    Attributes:
        seconds: time spent waiting for batches so far. On a CPU nothing is computed meanwhile. A GPU continues with the
            work that was queued before, so for a GPU this is the most time that it may have been idle for lack of data.
    """

    def __init__(self, dataset: SampleDataset, batches: _Batches, num_workers: int) -> None:
        self.seconds = 0.0
        self._dataset = dataset
        self._batches = batches
        self._num_workers = num_workers
        self._loader: DataLoader[Batch] | None = None

    def __len__(self) -> int:
        """Number of batches."""
        return self._batches.count

    def __iter__(self) -> Iterator[Batch]:
        """All batches."""
        return self.after(0)

    def after(self, done: int) -> Iterator[Batch]:
        """The batches but for the first ones, which are not read.

        Raises:
            UserError: a file that cannot be read; workers that die again and again.
        """
        deaths = 0
        while done < len(self):
            self._batches.first = done
            started = time.perf_counter()
            try:
                for batch in self._start():
                    self.seconds += time.perf_counter() - started
                    done, deaths = done + 1, 0
                    yield batch
                    started = time.perf_counter()
            except (RuntimeError, EOFError, ConnectionError) as error:
                if not self._is_death(error):
                    raise
                deaths += 1
                # The other workers may be in a bad state too, so all are replaced; new ones read the same tiles.
                self._loader = None
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                if deaths > _RESTARTS:
                    raise UserError(
                        f"the processes that read tiles die again and again ({reason}); perhaps the machine has too "
                        "little memory: set num_workers and cache_gigabytes lower"
                    ) from error
                logger.warning("a process that reads tiles died; it is replaced (%s)", reason)

    def _is_death(self, error: Exception) -> bool:
        """Whether an error tells that a worker died: torch says so, or the worker broke off in handing over a batch."""
        broke_off = isinstance(error, EOFError | ConnectionError) and self._num_workers > 0
        return broke_off or "DataLoader worker (pid" in str(error)

    def _start(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._batches,
                num_workers=self._num_workers,
                persistent_workers=self._num_workers > 0,
                pin_memory=torch.cuda.is_available(),
                # A loader draws a seed for its workers from a separate generator, because the global one is used by
                # dropout.
                generator=torch.Generator(),
                worker_init_fn=_start_worker,
            )
        if not self._num_workers or not hasattr(signal, "SIGCHLD") or not is_main_thread():
            return iter(self._loader)
        # torch's handler raises at any place of the loop when a worker dies, even in the middle of an optimiser step.
        # Without it the next batch notices within seconds.
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._loader)
        signal.signal(signal.SIGCHLD, before)
        return batches


def _start_worker(number: int) -> None:
    # Ctrl-C reaches all processes of a terminal; only the main process reacts to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_device(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The loader's batches, moved to a device; they end when the run is asked to stop.

    Raises:
        Stopped: a signal came, and no other process of the launch waits for this one.
    """
    for batch in loader:
        if launch().num_processes == 1:
            stop_if_asked()
        yield send_to_device(batch, device, non_blocking=True)


def make_loader(dataset: SampleDataset, batch_size: int, num_workers: int, shared: bool = False) -> SampleLoader:
    """A loader in the order of the dataset, for validation and evaluation.

    Args:
        dataset: the tiles.
        batch_size: tiles a batch.
        num_workers: processes that read them.
        shared: whether the processes of a launch take turns: each of n gets every n-th batch, and each batch is read
            once.
    """
    count = len(dataset)
    places = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    return SampleLoader(dataset, _Listed(share(places) if shared else places), num_workers)


class _Batches(Sampler[list[int]], ABC):
    """Positions of tiles in the dataset, one list for each batch.

    Attributes:
        first: number of the batch with which an iteration begins.
    """

    first = 0

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of batches, the first ones included."""

    def __len__(self) -> int:
        """Number of batches of an iteration."""
        return self.count - self.first


class _Listed(_Batches):
    """The same batches every time."""

    def __init__(self, places: list[list[int]]) -> None:
        self._places = places

    @property
    def count(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._places[self.first :]


@dataclass(frozen=True)
class Part:
    """The share of a batch that one process computes at once.

    Attributes:
        number: number of the part in its epoch.
        batch: the tiles of the part.
        tiles: how many of these tiles count: all, or none in a process that got a tile only as a stand-in because there
            were fewer tiles than processes.
        step_tiles: number of tiles of the whole optimiser step, in all parts and processes.
    """

    number: int
    batch: Batch
    tiles: int
    step_tiles: int

    @property
    def weight(self) -> float:
        """Weight of the mean over this part's tiles in the loss of the step, which is a mean over all its tiles."""
        return self.tiles / self.step_tiles


class TrainingLoader:
    """One loader for all epochs of a stage, each in another order.

    An optimiser step takes ``accumulate`` batches; the last step of an epoch takes what is left. Each batch is divided
    among the processes of the launch. The tiles of a step depend neither on the number of processes nor on workers.

    Args:
        tiles: the tiles.
        batch_size: tiles a batch.
        num_workers: processes that read them.
        seed: of the orders.
        accumulate: batches an optimiser step.
        epoch_share: share of the tiles that an epoch takes, drawn anew for each.
        whole_batches: whether an epoch leaves out its last tiles where they make no whole batch.

    Attributes:
        steps: number of optimiser steps in an epoch.
        tiles_an_epoch: number of tiles in an epoch.
    """

    def __init__(
        self,
        tiles: SampleDataset,
        batch_size: int,
        num_workers: int,
        seed: int,
        accumulate: int = 1,
        epoch_share: float = 1.0,
        whole_batches: bool = False,
    ) -> None:
        self.tiles = tiles
        self.accumulate = accumulate
        self._shares = _Shares(tiles, batch_size, seed, epoch_share, whole_batches)
        self._loader = SampleLoader(tiles, self._shares, num_workers)
        self.steps = -(-self._shares.count // accumulate)
        self.tiles_an_epoch = self._shares.tiles_an_epoch

    @property
    def seconds(self) -> float:
        """See ``SampleLoader``."""
        return self._loader.seconds

    def epoch(self, epoch: int, done: int = 0) -> Iterator[list[Part]]:
        """The optimiser steps of an epoch that are not done yet; all steps of the epoch before must be done.

        Raises:
            UserError: a file that cannot be read; workers that die again and again.
        """
        self.tiles.epoch = epoch
        number, parts = done * self.accumulate, list[Part]()
        for batch in self._loader.after(number):
            parts.append(self._part(number, batch))
            number += 1
            if number % self.accumulate == 0 or number == self._shares.count:
                yield parts
                parts = []

    def _part(self, number: int, batch: Batch) -> Part:
        step = number // self.accumulate
        size = self._shares.batch_size
        in_step = min((step + 1) * self.accumulate * size, self._shares.tiles_an_epoch) - step * self.accumulate * size
        return Part(number, batch, len(self._shares.own(number)), in_step)


class _Shares(_Batches):
    """The tiles that this process reads of every batch of an epoch, in an order that depends only on seed and epoch.

    Args:
        tiles: the tiles; their ``epoch`` is read when an iteration begins.
        batch_size: tiles a batch, in all processes together.
        seed: of the order.
        epoch_share: share of the tiles that an epoch takes, the first ones of its order.
        whole_batches: whether the last of these are left out where they make no whole batch; fewer tiles than a batch
            are one batch all the same.
    """

    def __init__(
        self, tiles: SampleDataset, batch_size: int, seed: int, epoch_share: float = 1.0, whole_batches: bool = False
    ) -> None:
        self.tiles = tiles
        self.batch_size = batch_size
        self.seed = seed
        self.tiles_an_epoch = max(1, round(epoch_share * len(tiles)))
        if whole_batches and self.tiles_an_epoch > batch_size:
            self.tiles_an_epoch -= self.tiles_an_epoch % batch_size

    @property
    def count(self) -> int:
        return -(-self.tiles_an_epoch // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(len(self.tiles), self.seed, self.tiles.epoch)
        for number in range(self.first, self.count):
            own = self.own(number)
            # Every process takes part in every step: one without a tile reads the first of the batch, which does not
            # count.
            places = own or range(number * self.batch_size, number * self.batch_size + 1)
            yield [order[place] for place in places]

    def own(self, number: int) -> range:
        """The positions, in the epoch's order, of the tiles of a batch that this process has; there may be none."""
        start = number * self.batch_size
        size = min(self.batch_size, self.tiles_an_epoch - start)
        process, processes = launch().process_index, launch().num_processes
        return range(start + size * process // processes, start + size * (process + 1) // processes)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch's tiles."""
    generator = named_generator(seed, "order", epoch)
    # torch's shuffling loader draws this number before it shuffles; drawing it keeps the orders that it gave.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return torch.randperm(count, generator=generator).tolist()
