"""Which device networks run on, and how freed memory is kept."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

from Utils.core.processes import launch

if TYPE_CHECKING:
    import torch


def pick_device() -> torch.device:
    """The device of this process: a GPU where there is one, else the CPU."""
    return launch().device


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed maps for the next ones; nothing happens without glibc's allocator.

    By default glibc gives every large block back to the system when it is freed, and the next block has to be mapped
    and zeroed page by page. At 512 x 512 pixels a large VAE spent a third of its time on that.
    """
    # malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD, with values that no map reaches.
    options = ((-1, 2**31 - 1), (-2, 2**28), (-3, 2**30))
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        for option, value in options:
            library.mallopt(option, value)
