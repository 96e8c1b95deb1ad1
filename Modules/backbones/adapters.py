"""Adapters: a frozen transformer learns a new task by a narrow layer beside each of its MLPs, and nothing else."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AdaptedMlp", "add_adapters"]


class AdaptedMlp(nn.Module):
    """A frozen MLP with a bottleneck beside it (AdaptFormer, Chen et al., NeurIPS 2022, arXiv 2205.13535).

    The bottleneck starts as 0, so that a new network draws what the frozen one draws.

    Args:
        inner: the MLP, from ``channels`` to ``channels``.
        channels: of its input.
        width: channels of the bottleneck.
    """

    def __init__(self, inner: nn.Module, channels: int, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, channels) to tokens of the same shape."""
        found: Tensor = self.inner(tokens) + self.up(functional.gelu(self.down(tokens)))
        return found


def add_adapters(encoder: nn.Module, width: int) -> int:
    """Freeze an encoder, and put an adapter into each of its transformer blocks, in place.

    Args:
        encoder: with blocks that have an ``mlp``, as timm's vision transformers do.
        width: channels of each bottleneck.

    Returns:
        How many blocks have one.

    Raises:
        ValueError: no such blocks.
    """
    encoder.requires_grad_(False)
    blocks = [
        (part, part.mlp)
        for part in encoder.modules()
        if hasattr(part, "attn") and isinstance(getattr(part, "mlp", None), nn.Module)
    ]
    if not blocks:
        raise ValueError(
            "there are no transformer blocks to adapt; name a vision transformer, or leave adapter_width out"
        )
    for block, inner in blocks:
        assert isinstance(inner, nn.Module)
        first = next(part for part in inner.modules() if isinstance(part, nn.Linear))
        block.mlp = AdaptedMlp(inner, first.in_features, width)
    return len(blocks)
