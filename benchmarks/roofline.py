"""What a device can do at best, as measured on it, and what share of that a part of a model reaches.

A part cannot take less than its FLOPs over the rate of matrix products, nor less than its bytes over the bandwidth of
memory; the larger of the two over the measured time is the share reached (Williams, Waterman and Patterson, "Roofline",
CACM 2009).  Bytes are those of operators run one by one, so what caches or fused operators spare lifts the share, even
past 1, where memory is the limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from benchmarks.measuring import WHOLE, time_runs
from benchmarks.plan import Case
from Modules.common.number_formats import DTYPES
from Modules.common.precision import Precision

Row = dict[str, Any]
# Sides of the matrices, and bytes that a copy moves: more than any cache holds.
_SMALL: tuple[tuple[int, ...], int] = (256,), 2**24
_MEDIUM: tuple[tuple[int, ...], int] = (1024, 2048), 2**31
_LARGE: tuple[tuple[int, ...], int] = (4096, 8192, 16384), 2**33


def measure_rates(case: Case) -> Iterator[Row]:
    """One row: ``matrix_rates`` in FLOP/s per precision, ``bandwidth`` in bytes/s."""
    device = torch.device(case.device)
    sides, bytes_moved = _LARGE if device.type == "cuda" else _MEDIUM
    if case.scale == "toy":
        sides, bytes_moved = _SMALL
    rates: dict[str, float] = {name: _matrix_rate(DTYPES[name], sides, device) for name in _precisions(device)}
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        # cuDNN's fp32 convolutions use tensor cores unless told not to, so that is what bounds fp32 models.
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        rates["fp32 matrix products without TF32"] = rates["fp32"]
        rates["fp32"] = _matrix_rate(torch.float32, sides, device)
        torch.backends.cuda.matmul.allow_tf32 = allowed
    yield {"label": "device", "matrix_rates": rates, "bandwidth": _bandwidth(bytes_moved, device)}


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    return ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")


def _matrix_rate(dtype: torch.dtype, sides: tuple[int, ...], device: torch.device) -> float:
    """The best of several square products, each the median of its repeats."""
    return max(_product_rate(dtype, side, device) for side in sides)


def _product_rate(dtype: torch.dtype, side: int, device: torch.device) -> float:
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * side**3 / _median_seconds(lambda: torch.mm(left, right, out=out), device)


def _bandwidth(size: int, device: torch.device) -> float:
    """Bytes read and written by a copy between two arrays of ``size`` / 2 bytes, larger than any cache."""
    source = torch.ones(size // 8, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    return moved / _median_seconds(lambda: target.copy_(source), device)


def _median_seconds(run: Any, device: torch.device) -> float:
    runs = time_runs(run, {}, device, 5)
    return sorted(one[WHOLE][0] for one in runs[1:])[1]  # the first warms up; of four the better middle one


def roofline_share(work: Mapping[str, Any], rates: Mapping[str, Any], precision: str) -> Row:
    """``share`` of the bound that a part reaches, and its ``limit``: ``compute`` or ``memory``.

    Args:
        work: the part: ``seconds``, ``flops``, ``traffic`` and, where it is not the model's, ``precision``.
        rates: of the device.
        precision: of the model.
    """
    precision = work.get("precision", precision)
    compute = work["flops"] / rates["matrix_rates"][precision]
    memory = work["traffic"] / rates["bandwidth"]
    return {"share": max(compute, memory) / work["seconds"], "limit": "compute" if compute >= memory else "memory"}
