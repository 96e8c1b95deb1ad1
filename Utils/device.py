"""Where networks run."""

from __future__ import annotations

import torch
from accelerate import PartialState


def pick_device() -> torch.device:
    """The device of this process: a GPU where there is one, else the CPU."""
    return PartialState().device
