"""One seed, many named streams.  Nothing depends on how often another stream was drawn from, so resuming is exact."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream called ``names``, the same on every machine."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def named_generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for the stream called ``names``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
