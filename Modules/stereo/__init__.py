"""Heights and depths from several images: camera geometry, cost volumes, and the networks on them.

Rasters and configs of such images belong elsewhere; this folder knows tensors only. ``Modules.stereo.CasMVSNet`` and
its like are imported when they are asked for: names alone need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Modules.stereo.networks import CasMVSNet, CasRED, StereoNetwork, UCSNet

__all__ = ["CasMVSNet", "CasRED", "StereoNetwork", "UCSNet"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from Modules.stereo import networks

        return getattr(networks, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
