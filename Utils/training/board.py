"""TensorBoard's view of a training stage: curves, rates, memory, and a few tiles as pictures.

The log is the record of a run; the board only shows it. So no failure here ends a run.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from Utils.pictures.comparison import save_comparison
from Utils.training.task import View

logger = logging.getLogger(__name__)

# Names of a log row's values on the board; others (train/..., validation/...) keep their names.
TAGS = {
    "lr": "optimisation/learning_rate",
    "gradient_norm": "optimisation/gradient_norm",
    "step": "optimisation/step",
    "tiles_per_second": "throughput/tiles_per_second",
    "data_wait_share": "throughput/data_wait_share",
    "seconds": "throughput/seconds",
    "memory_gigabytes": "memory/peak_gigabytes",
}
# All pictures stay in the event files; four of this size are up to 0.8 MB each time.
MOST_PICTURES = 4
LONGEST_SIDE = 512
_BYTES = 2**30


class Board:
    """TensorBoard's files of one stage, as long as they can be written.

    The first failed write is logged as a warning and closes the board; from then on its methods do nothing.

    Args:
        folder: folder of the event files; made if it is missing.
        epoch: number of epochs done; later epochs of an earlier, longer attempt are hidden.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        with self._not_ending_the_run():
            self._writer = SummaryWriter(folder, purge_step=epoch + 1)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """Write a log row's finite numbers, its ``epoch`` being their step."""
        if self._writer is None:
            return
        with self._not_ending_the_run():
            for name, value in row.items():
                if name != "epoch" and _is_finite_number(value):
                    self._writer.add_scalar(TAGS.get(name, name), value, row["epoch"])
            # Flushing shows failures inside this guard, and keeps the curves up to date every epoch.
            self._writer.flush()

    def pictures(self, epoch: int, views: Sequence[View]) -> None:
        """Write the first samples' panels, as ``tiles/<name>``; ``epoch`` is their step."""
        if self._writer is None:
            return
        with self._not_ending_the_run():
            for view in views[:MOST_PICTURES]:
                self._writer.add_image(f"tiles/{view.name}", _draw(view), epoch, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """End the files; may be called twice."""
        if self._writer is not None:
            with self._not_ending_the_run():
                self._writer.close()
        self._writer = None

    @contextmanager
    def _not_ending_the_run(self) -> Iterator[None]:
        """Turn any error into one warning, and switch the board off.

        TensorBoard writes in a thread.  A write that fails there ends the thread, which prints a traceback as if the
        run had failed, and the next call of the writer raises the thread's exception here.
        """
        outer_hook = threading.excepthook
        threads_before = set(threading.enumerate())

        def quiet_hook(arguments: threading.ExceptHookArgs) -> None:
            if not _belongs_to_tensorboard(arguments.thread):
                outer_hook(arguments)

        threading.excepthook = quiet_hook
        try:
            yield
        # Any error: where TensorFlow is installed, a full disk raises errors of TensorFlow.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning("TensorBoard's files in '%s' end here (%s); the run goes on", self._folder, reason)
            self._abandon(threads_before)
        finally:
            threading.excepthook = outer_hook

    def _abandon(self, threads_before: set[threading.Thread]) -> None:
        """Drop the writer and its thread, which may not have reported yet why it ended."""
        file_writer = self._writer.file_writer if self._writer is not None else None
        self._writer = None
        if file_writer is not None:
            try:
                # Not the SummaryWriter's close(): it flushes first, which raises again and leaves the file open.
                file_writer.close()
            except Exception as error:
                logger.debug("closing TensorBoard's file: %s", error)
        for thread in set(threading.enumerate()) - threads_before:
            if _belongs_to_tensorboard(thread):
                thread.join(timeout=1.0)


def peak_memory_gigabytes(device: torch.device) -> float:
    """The most memory held so far, in units of 2^30 bytes: the GPU's by torch, on a CPU this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _BYTES
    if sys.platform == "win32":
        import psutil  # installed together with accelerate

        return float(psutil.Process().memory_info().peak_wset) / _BYTES
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _BYTES


def _belongs_to_tensorboard(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw(view: View) -> NDArray[np.uint8]:
    """A sample's panels as (height, width, 3) uint8."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tile.png"
        # Two panels in a line: four in one line would be half as large in a picture of the same width.
        save_comparison(path, view.panels, f"tile {view.name}", view.valid, columns=2, quantity=view.quantity)
        with Image.open(path) as picture:
            picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
            return np.asarray(picture.convert("RGB"))
