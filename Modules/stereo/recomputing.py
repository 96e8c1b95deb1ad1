"""Parts of a network that are computed again in the backward pass, so that their activations need not be kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, by torch's own checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(compute: Callable[[], Tensor], part: nn.Module) -> Tensor:
    """What ``compute`` gives; its backward pass calls it a second time.

    Args:
        compute: draws nothing at random, and depends on tensors and on ``part`` alone.
        part: the module that it calls, whose batch norms count the batch once.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(part)

    found: Tensor = checkpoint(compute, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return found


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """The running statistics of batch norms do not change within."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
