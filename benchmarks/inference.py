"""An image in, a map out: seconds, work and memory of one model, by steps, by batch and by image size."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import (
    WHOLE,
    Budget,
    Counted,
    Memory,
    count,
    parameter_count,
    summarise,
    time_runs,
    weight_bytes,
)
from benchmarks.models.subject import Size, Steps, Subject, sides
from benchmarks.plan import Case
from Modules.common.number_formats import DTYPES

Row = dict[str, Any]
Runs = list[dict[str, list[float]]]
_VIT = "ViT"
_FORMATS = {dtype: name for name, dtype in DTYPES.items()}
# Below this many seconds a run is warmed up once more on a CPU; a longer one has warmed up by being counted.
_SHORT = 2.0


def draw_images(batch: int, size: Size, device: torch.device) -> Tensor:
    """The same random images (B, 3, H, W) in [0, 1] for every model."""
    return torch.rand(batch, 3, *sides(size), generator=torch.Generator().manual_seed(0)).to(device)


class _Bench:
    """One model on one device, timed again and again."""

    def __init__(self, subject: Subject, case: Case, memory: Memory) -> None:
        self.subject = subject
        self.budget = Budget(case.effort)
        self._effort = case.effort
        self._memory = memory
        self._device = torch.device(case.device)
        # torch.compile would trace into the hooks that time parts; a compiled model is timed as a whole.
        self.parts = {} if case.switches.compile else subject.parts
        self.slow_start = case.device == "cuda" or case.switches.compile

    def runner(self, batch: int, size: Size, steps: Steps) -> Callable[[], Tensor]:
        """The run that is timed."""
        images = draw_images(batch, size, self._device)
        return torch.no_grad()(lambda: self.subject.run(images, steps))

    def warm_ups(self, predicted: float) -> int:
        """Runs before those that are timed: a GPU's first ones choose kernels, a compiled model's compile it."""
        return 3 if self.slow_start else 1 if predicted < _SHORT else 0

    def measure(self, batch: int, size: Size, steps: Steps, predicted: float) -> tuple[Runs, Row]:
        """Timed runs, and the row that they make."""
        run = self.runner(batch, size, steps)
        for _ in range(self.warm_ups(predicted)):
            (warm,) = time_runs(run, {}, self._device, 1)
            predicted = warm[WHOLE][0]
        self._memory.restart()
        runs = time_runs(run, self.parts, self._device, self._effort.repeats(predicted))
        seconds = summarise([one[WHOLE][0] for one in runs])
        after_vit = [one[WHOLE][0] - sum(one.get(_VIT, [])) for one in runs]
        row = {
            "label": self.subject.label,
            "batch": batch,
            "size": size,
            "steps": steps,
            "computed": False,
            "seconds": seconds,
            "seconds_per_image": seconds["median"] / batch,
            # What stage 2 takes of a model that has one.
            "after_vit_seconds": statistics.median(after_vit) if self.parts else None,
            **self._memory.peak(),
        }
        return runs, row

    def not_run(self, batch: int, size: Size, steps: Steps, reason: str) -> Row:
        """The row of a run that there was no room for."""
        return {"label": self.subject.label, "batch": batch, "size": size, "steps": steps, "failure": reason}


def measure_inference(case: Case, subject: Subject, memory: Memory) -> Iterator[Row]:
    """Rows of one model at one image size: each number of steps, then larger batches of each that was really run.

    A number of steps whose repeats do not fit the case's seconds is computed: the first one's time and so many medians
    of its step more (or fewer).
    """
    bench = _Bench(subject, case, memory)
    about = {
        "notes": subject.notes,
        "parameters": parameter_count(subject.networks),
        "weight_bytes": weight_bytes(subject.networks),
    }
    first, size = case.steps[0], case.frame or case.size
    run = bench.runner(1, size, first)
    started = time.perf_counter()
    counted = count(run, subject.parts)
    predicted = time.perf_counter() - started
    if case.switches.compile:
        subject.switch(case.switches)
    runs, base = bench.measure(1, size, first, predicted)
    yield about | base | vars(counted.whole) | {"parts": _parts(bench, counted, runs)}
    measured = {first: base["seconds"]["median"]}
    for steps in case.steps[1:]:
        row = _at_other_steps(bench, base, runs, counted, steps)
        if not row["computed"]:
            measured[steps] = row["seconds"]["median"]
        yield about | row
    for steps, seconds in measured.items():
        for row in _larger_batches(bench, case, size, steps, seconds):
            yield about | row


def _parts(bench: _Bench, counted: Counted, runs: Runs) -> dict[str, Row]:
    """Per part: calls of a run, seconds and work of all of them, and the format of its weights.

    With fp16 a large autoencoder of ours stays in fp32.
    """
    return {
        name: {
            "calls": counted.calls[name],
            "seconds": statistics.median(sum(run[name]) for run in runs),
            "precision": _FORMATS[next(bench.parts[name].parameters()).dtype],
            **vars(counted.parts[name]),
        }
        for name in bench.parts
    }


def _at_other_steps(bench: _Bench, base: Row, runs: Runs, counted: Counted, steps: Steps) -> Row:
    """A row at another number of steps: measured if there is time, else computed."""
    part, first = bench.subject.step_part, base["steps"]
    assert steps is not None and first is not None and part is not None
    more, calls, work = steps - first, counted.calls[part], counted.parts[part]
    flops = counted.whole.flops + more * work.flops // calls
    traffic = counted.whole.traffic + more * work.traffic // calls
    about = {"flops": flops, "traffic": traffic}
    if bench.parts:
        step = statistics.median(value for run in runs for value in run[part])
    else:  # without parts: as if steps were all there is, which decides, but is never reported
        step = base["seconds"]["median"] / first
    computed = base["seconds"]["median"] + more * step
    if not bench.parts or bench.budget.allows(computed, bench.warm_ups(computed)):
        _, row = bench.measure(1, base["size"], steps, computed)
        return row | about | {"computed_seconds": computed if bench.parts else None}
    moved = {name: base["seconds"][name] + more * step for name in ("median", "low", "high")}
    return (
        base
        | about
        | {
            "steps": steps,
            "computed": True,
            "seconds": base["seconds"] | moved,
            "seconds_per_image": computed,
            "after_vit_seconds": base["after_vit_seconds"] + more * step,
        }
    )


def _larger_batches(bench: _Bench, case: Case, size: Size, steps: Steps, seconds: float) -> Iterator[Row]:
    """Batches above one, as long as memory and the case's seconds allow; ``seconds`` is the time of an image."""
    for batch in sorted(set(case.batches) - {1}):
        predicted = batch * seconds
        if not bench.budget.allows(predicted, bench.warm_ups(predicted)):
            return
        try:
            _, row = bench.measure(batch, size, steps, predicted)
        except RuntimeError as error:  # memory used up, or more elements than a kernel can count
            yield bench.not_run(batch, size, steps, _reason(error))
            return
        yield row
        seconds = row["seconds_per_image"]


def measure_growth(case: Case, subject: Subject, memory: Memory) -> Iterator[Row]:
    """Rows of one model by batch at the smallest image size, then by image size at batch 1.

    A size that would take more time than the case has left, or more memory than the machine has, is not tried: where
    memory runs out on a CPU, the system ends processes, and not always the one that asked for it.
    """
    if case.switches.compile:
        subject.switch(case.switches)
    bench = _Bench(subject, case, memory)
    smallest, *larger = sorted(case.sizes)
    steps = case.steps[0]
    run = bench.runner(1, smallest, steps)
    (warm,) = time_runs(run, {}, torch.device(case.device), 1)
    _, first = bench.measure(1, smallest, steps, warm[WHOLE][0])
    yield first
    yield from _larger_batches(bench, case, smallest, steps, first["seconds"]["median"])
    found = [(smallest, first["seconds"]["median"])]
    weights, peak = weight_bytes(subject.networks), first["peak_bytes"]
    for size in larger:
        predicted = _extrapolate(found, size)
        # Activations grow with the area: attention is fused, and keeps no map of all pairs.
        needed = weights + (peak - weights) * (size / found[-1][0]) ** 2
        if (room := memory.room()) is not None and needed > room:
            reason = f"about {needed / 1e9:.0f} GB, more than the {room / 1e9:.0f} that are free"
            yield bench.not_run(1, size, steps, reason)
            continue
        if not bench.budget.allows(predicted, bench.warm_ups(predicted)):
            reason = f"about {predicted:.0f} s a run, more than this case has left"
            yield bench.not_run(1, size, steps, reason)
            continue
        try:
            _, row = bench.measure(1, size, steps, predicted)
        except RuntimeError as error:
            yield bench.not_run(1, size, steps, _reason(error))
            return
        yield row
        found.append((size, row["seconds"]["median"]))
        peak = row["peak_bytes"]


def _reason(error: RuntimeError) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _extrapolate(found: list[tuple[int, float]], size: int) -> float:
    """Seconds of a larger image: the last growth goes on, at least as the area, at most as its square (attention)."""
    last_size, last_seconds = found[-1]
    power = 3.0
    if len(found) > 1:
        before_size, before_seconds = found[-2]
        power = math.log(last_seconds / before_seconds) / math.log(last_size / before_size)
    return last_seconds * (size / last_size) ** min(max(power, 2.0), 4.0)
