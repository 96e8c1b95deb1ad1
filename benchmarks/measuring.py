"""Time, work and memory of one run: synchronised clocks, counted operations, the process's own peak.

Times of the parts of a model come from forward hooks inside the very runs that are timed as a whole.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

WHOLE = "whole"


@dataclass(frozen=True)
class Effort:
    """How much time a measurement may take.

    Attributes:
        target: seconds of repeats that are aimed at.
        least: fewest repeats; a run longer than ``long`` is repeated once.
        most: most repeats.
        case: seconds after which a case begins no further measurement.
        timeout: seconds after which a case is ended from outside.
        long: see ``least``.
    """

    target: float
    least: int
    most: int
    case: float
    timeout: float
    long: float = 60.0

    def repeats(self, predicted: float) -> int:
        """Repeats of a run that is expected to take ``predicted`` seconds."""
        if predicted > self.long:
            return 1
        return max(self.least, min(self.most, math.ceil(self.target / max(predicted, 1e-6))))


class Budget:
    """What is left of a case's seconds."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._end = time.monotonic() + effort.case

    def allows(self, predicted: float, warm_ups: int = 0) -> bool:
        """Whether the fewest repeats of a run of ``predicted`` seconds still fit."""
        fewest = min(self.effort.least, self.effort.repeats(predicted)) + warm_ups
        return predicted * fewest <= self._end - time.monotonic()


def summarise(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles; of fewer than four values their extremes stand for the quartiles."""
    ordered = sorted(seconds)
    if len(ordered) >= 4:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    else:
        low, high = ordered[0], ordered[-1]
    return {"median": statistics.median(ordered), "low": low, "high": high, "repeats": len(ordered)}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Mark:
    """A moment on the device's own time line: an event on a GPU, which stops nothing, else the clock."""

    def __init__(self, device: torch.device) -> None:
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        else:
            self._time = time.perf_counter()

    def until(self, later: _Mark) -> float:
        """Seconds; on a GPU both must have been reached."""
        if self._event is not None:
            return self._event.elapsed_time(later._event) / 1e3
        return later._time - self._time


@contextmanager
def _around(
    modules: Mapping[str, nn.Module], enter: Callable[[], Any], leave: Callable[[str, Any], None]
) -> Iterator[None]:
    """Call ``enter`` before each forward pass of each module, and ``leave`` with its name and result after it."""
    handles = []
    for name, module in modules.items():
        entered: list[Any] = []

        def before(*_: Any, entered: list[Any] = entered) -> None:
            entered.append(enter())

        def after(*_: Any, name: str = name, entered: list[Any] = entered) -> None:
            leave(name, entered.pop())

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def time_runs(
    run: Callable[[], object], modules: Mapping[str, nn.Module], device: torch.device, repeats: int
) -> list[dict[str, list[float]]]:
    """Seconds of ``repeats`` runs: each the whole, and one entry a call for each of the modules."""
    found = []
    for _ in range(repeats):
        marks: list[tuple[str, _Mark, _Mark]] = []

        def leave(name: str, entered: _Mark, marks: list[tuple[str, _Mark, _Mark]] = marks) -> None:
            marks.append((name, entered, _Mark(device)))

        with _around(modules, lambda: _Mark(device), leave):
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            whole = time.perf_counter() - start
        seconds: dict[str, list[float]] = {WHOLE: [whole]} | {name: [] for name in modules}
        for name, entered, left in marks:
            seconds[name].append(entered.until(left))
        found.append(seconds)
    return found


@dataclass
class Work:
    """Operations of a run.

    Attributes:
        flops: floating point operations of matrix products, convolutions and attention, two a multiply-add.
        traffic: bytes that its operators read and write, each by itself: what fused ones save is not subtracted.
    """

    flops: int = 0
    traffic: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.traffic + other.traffic)

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.traffic - other.traffic)


@dataclass
class Counted:
    """Work of one run, as a whole and by module, with the number of the modules' calls."""

    whole: Work = field(default_factory=Work)
    parts: dict[str, Work] = field(default_factory=lambda: defaultdict(Work))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class _Traffic(TorchDispatchMode):
    """Adds up the sizes of what operators take and give; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [value for value in tree_iter((args, kwargs, result)) if isinstance(value, Tensor)]
            self.bytes += sum(value.numel() * value.element_size() for value in tensors)
        return result


def count(run: Callable[[], object], modules: Mapping[str, nn.Module]) -> Counted:
    """Count the work of one run."""
    counted = Counted()
    traffic, flops = _Traffic(), FlopCounterMode(display=False)

    def so_far() -> Work:
        return Work(flops.get_total_flops(), traffic.bytes)

    def leave(name: str, entered: Work) -> None:
        counted.parts[name] += so_far() - entered
        counted.calls[name] += 1

    with traffic, flops, _around(modules, so_far, leave):
        run()
    counted.whole = so_far()
    return counted


class Memory:
    """The peak of this process's memory above where it stood when this object was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._base = psutil.Process().memory_info().rss

    def restart(self) -> None:
        """Forget the peak so far, where the system allows it."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                pass  # the peak then holds the building of the model as well

    def room(self) -> int | None:
        """What the peak can reach at most, in bytes; None on a GPU, which says itself when its memory is used up."""
        if self._device.type == "cuda":
            return None
        return psutil.virtual_memory().available + psutil.Process().memory_info().rss - self._base

    def peak(self) -> dict[str, int]:
        """``peak_bytes``, and on a GPU ``reserved_bytes``, what its allocator took."""
        if self._device.type == "cuda":
            return {
                "peak_bytes": torch.cuda.max_memory_allocated(self._device),
                "reserved_bytes": torch.cuda.max_memory_reserved(self._device),
            }
        return {"peak_bytes": _peak_resident_bytes() - self._base}


def _peak_resident_bytes() -> int:
    """Most memory this process has held, of its own: Linux hands ``ru_maxrss`` of a parent on to its children."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def parameter_count(modules: Sequence[nn.Module]) -> int:
    """Parameters of networks."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def weight_bytes(modules: Sequence[nn.Module]) -> int:
    """Bytes of networks' parameters and buffers."""
    tensors = [value for module in modules for value in (*module.parameters(), *module.buffers())]
    return sum(value.numel() * value.element_size() for value in tensors)
