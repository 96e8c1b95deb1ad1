"""The hierarchical loss beside the direct mask formulation, on the CPU: time and peak memory, gradient included.

python -m benchmarks.loss
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor

from benchmarks.measuring import Memory
from Modules.losses.contexts import FAMILIES
from Modules.losses.height_losses import HDNLoss
from tests.hdn_oracle import oracle_hdn


def _loss(prediction: Tensor, target: Tensor) -> Tensor:
    return HDNLoss()(prediction, target)


def _masks(prediction: Tensor, target: Tensor) -> Tensor:
    everywhere = torch.ones_like(target, dtype=torch.bool)
    return torch.stack([oracle_hdn(prediction, target, everywhere, family) for family in FAMILIES]).mean()


_WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"loss": _loss, "masks": _masks}


def _make_maps(size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Prediction and target (B, 1, S, S): noise of distinct values, the prediction akin to the target."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(batch, 1, size, size, generator=generator)
    prediction = 0.5 * target + torch.rand(target.shape, generator=generator)
    return prediction.requires_grad_(), target


def _step(way: str, prediction: Tensor, target: Tensor) -> float:
    """Seconds of one value with its gradient."""
    prediction.grad = None
    start = time.perf_counter()
    _WAYS[way](prediction, target).backward()
    return time.perf_counter() - start


def _peak_bytes(way: str, size: int, batch: int) -> int:
    """Growth of this process's peak resident memory by one value with its gradient, that gradient included."""
    _step(way, *_make_maps(16, 1))  # libraries are loaded and threads started
    maps = _make_maps(size, batch)
    memory = Memory(torch.device("cpu"))
    memory.restart()
    _step(way, *maps)
    return memory.peak()["peak_bytes"]


def measure_loss(size: int = 512, batch: int = 8, repeats: int = 5) -> dict[str, float]:
    """Measure forward and backward pass of ``HDNLoss`` and of the masks, fp32 on the CPU, with torch's set threads.

    The two are timed in turn, after a run of each that is not counted, and compared pair by pair, so that other work
    on the machine meets both. The peak is taken in a fresh process for each: how far its peak resident memory rises
    over what it held just before the call, inputs included.

    Args:
        size: height and width of the square maps.
        batch: images in the batch.
        repeats: timed runs of each.

    Returns:
        ``threads``, ``times_faster`` and ``times_smaller`` (masks over loss), and for ``loss_`` and ``masks_``
        ``seconds`` (median), ``seconds_least``, ``seconds_most`` and ``peak_bytes``; ``times_faster`` is the median of
        the pairs' ratios, with ``times_faster_least`` and ``times_faster_most``.
    """
    maps = _make_maps(size, batch)
    seconds: dict[str, list[float]] = {way: [] for way in _WAYS}
    for way in _WAYS:
        _step(way, *maps)
    for _ in range(repeats):
        for way, found in seconds.items():
            found.append(_step(way, *maps))
    ratios = [masks / loss for loss, masks in zip(seconds["loss"], seconds["masks"], strict=True)]

    results: dict[str, float] = {"size": size, "batch": batch, "repeats": repeats, "threads": torch.get_num_threads()}
    results |= _spread("times_faster", ratios)
    # A forked process would begin with this one's peak.
    context = multiprocessing.get_context("spawn")
    for way, found in seconds.items():
        with ProcessPoolExecutor(
            1, mp_context=context, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
        ) as process:
            peak = process.submit(_peak_bytes, way, size, batch).result()
        results |= _spread(f"{way}_seconds", found) | {f"{way}_peak_bytes": peak}
    results["times_smaller"] = results["masks_peak_bytes"] / results["loss_peak_bytes"]
    return results


def _spread(name: str, values: list[float]) -> dict[str, float]:
    return {name: statistics.median(values), f"{name}_least": min(values), f"{name}_most": max(values)}


if __name__ == "__main__":
    print(json.dumps(measure_loss(), indent=2))
