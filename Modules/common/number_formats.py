"""How trained networks run fast: number format, memory layout, compilation.  None of it is saved with a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from Modules.common.precision import Precision

logger = logging.getLogger(__name__)

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_MOST_SIZES = 64


def set_format(network: nn.Module, precision: Precision, channels_last: bool = True) -> None:
    """Give a network, in place, a number format and a memory layout.

    Args:
        network: any convolutional network; the caller casts its inputs to the same format.
        precision: number format of its weights.
        channels_last: whether convolutions keep a pixel's channels together in memory, which was the fastest layout in
            every format on a CPU.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # torch's own method, because that of diffusers warns about every cast.
    nn.Module.to(network, dtype=DTYPES[precision], memory_format=layout)  # type: ignore[call-overload]


def draw_in_fp32(network: nn.Module) -> None:
    """Let a network's last convolution compute and return fp32.

    In half precision a map would have terraces: bf16 has only 128 values between 0.5 and 1.
    """
    last = [part for part in network.modules() if isinstance(part, nn.Conv2d)][-1].float()
    if not last._forward_pre_hooks:
        last.register_forward_pre_hook(_to_fp32)


def _to_fp32(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


def compile_networks(networks: Sequence[nn.Module], probe: Callable[[], Any]) -> bool:
    """Compile networks in place with torch.compile; where that fails, say so and leave them as they were.

    Args:
        networks: the networks to compile.
        probe: runs all of them once, at any size.

    Returns:
        Whether they are compiled now.
    """
    # Each size of tile and batch is a separate graph; beyond its limit of 8 torch would silently stop compiling.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SIZES)
    for network in networks:
        network.compile(dynamic=False)  # a graph for each size of tile: with sizes left open inductor fails on some
    try:
        probe()
    except Exception as error:  # each of no compiler, no Triton, a graph that cannot be lowered raises another kind
        for network in networks:
            network._compiled_call_impl = None  # torch has no public way back
        torch._dynamo.reset()
        cause = getattr(error, "inner_exception", error)  # the one informative line of a backend's message
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        logger.warning("torch.compile does not work here, going on without it: %s", reason)
        return False
    return True
