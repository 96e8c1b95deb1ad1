"""Training steps per second: the loss that the scripts use, its gradient, and AdamW."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measuring import (
    WHOLE,
    Budget,
    Memory,
    count,
    parameter_count,
    summarise,
    time_runs,
    weight_bytes,
)
from benchmarks.models.ours import build_model
from benchmarks.models.sizes import SIZES
from benchmarks.plan import Case, Training
from Modules.common.number_formats import DTYPES
from Modules.common.precision import Precision
from Modules.d3rsmde.coarse import CoarseNet
from Systems.d3rsmde.tasks.coarse_task import CoarseTask
from Systems.d3rsmde.tasks.refiner_task import RefinerTask

Row = dict[str, Any]
_RATES: Mapping[int, tuple[float, float]] = {1: (5e-5, 1e-4), 2: (1e-4, 0.01)}  # stage: learning rate, weight decay


def draw_batch(batch: int, size: int, device: torch.device) -> dict[str, Any]:
    """Random tiles as the loader gives them: image (B, 3, H, W), height, prior and valid (B, 1, H, W)."""
    generator = torch.Generator().manual_seed(0)

    def draw(channels: int) -> Tensor:
        return torch.rand(batch, channels, size, size, generator=generator).to(device)

    return {
        "id": [str(place) for place in range(batch)],
        "image": draw(3),
        "height": draw(1),
        "prior": draw(1),
        "valid": torch.ones(batch, 1, size, size, dtype=torch.bool, device=device),
    }


def measure_training(case: Case, memory: Memory) -> Iterator[Row]:
    """A row for each batch size; the first losses are kept, to show that faster ways come to the same result."""
    training = case.training
    assert training is not None
    device = torch.device(case.device)
    torch.manual_seed(0)  # weights, and dropout
    task = _build_task(training, case.scale)
    task.to(device)
    task.network.train()
    rate, decay = _RATES[training.stage]
    optimiser = torch.optim.AdamW(task.network.parameters(), lr=rate, weight_decay=decay, fused=True)
    budget = Budget(case.effort)
    predicted = 0.0
    for size in sorted(case.batches):
        batch = draw_batch(size, case.size, device)
        if training.stage == 2 and training.cached:
            assert isinstance(task, RefinerTask)
            batch |= task.encode(batch)
        if predicted and not budget.allows(predicted * size, warm_ups=1):
            return
        losses: list[float] = []

        def step(batch: dict[str, Any] = batch, losses: list[float] = losses) -> None:
            with _attention(training):
                with _precision(case.switches.precision, device):
                    loss = task.loss(batch, [torch.Generator() for _ in batch["id"]])
                losses.append(loss.item())  # as the loop does, to stop at the first that is no number
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
            optimiser.step()

        row = _measure(step, case, device, memory)
        predicted = row["seconds"]["median"] / size
        yield row | {
            "label": describe(training, case.switches.precision),
            "batch": size,
            "size": case.size,
            "steps_per_second": 1.0 / row["seconds"]["median"],
            "tiles_per_second": size / row["seconds"]["median"],
            "losses": losses[:4],
            "parameters": parameter_count([task.network]),
            "weight_bytes": weight_bytes([task.network]),
        }


def _measure(step: Callable[[], None], case: Case, device: torch.device, memory: Memory) -> Row:
    """Count one step, which also makes the optimiser's state, and time further ones."""
    started = time.perf_counter()
    counted = count(step, {})
    predicted = time.perf_counter() - started
    for _ in range(3 if device.type == "cuda" else 0):
        (warm,) = time_runs(step, {}, device, 1)
        predicted = warm[WHOLE][0]
    memory.restart()
    runs = time_runs(step, {}, device, case.effort.repeats(predicted))
    seconds = summarise([run[WHOLE][0] for run in runs])
    return {"seconds": seconds, "computed": False, **vars(counted.whole), **memory.peak()}


def _build_task(training: Training, scale: str) -> CoarseTask | RefinerTask:
    sizes = SIZES[scale]
    if training.stage == 1:
        return CoarseTask(CoarseNet(**sizes.coarse), ["HDNLoss"])
    model = build_model(training.vae_type, sizes, None)
    return RefinerTask(model, ["L1Loss"])


def _attention(training: Training) -> AbstractContextManager[None]:
    return sdpa_kernel(SDPBackend.MATH) if training.attention == "unfused" else nullcontext()


def _precision(name: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision as the training loop has it: weights and their updates stay in float32."""
    if name == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[name])


def describe(training: Training, precision: str) -> str:
    """A variant in words."""
    if training.stage == 1:
        return f"stage 1, {precision}"
    latents = "kept latents" if training.cached else "latents encoded in every step"
    attention = "" if training.attention == "fused" else ", attention without fused kernels"
    return f"stage 2, {training.vae_type}, {latents}, {precision}{attention}"
