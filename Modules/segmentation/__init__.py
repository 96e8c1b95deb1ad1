"""Networks that draw classes from an image and a relative depth map, and nothing that reads files but weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Modules.segmentation.networks import SegmentationNetwork

__all__ = ["SegmentationNetwork"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from Modules.segmentation import networks

        return getattr(networks, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
