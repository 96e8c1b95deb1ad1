"""The geometry of views by the kind of their cameras; what networks and sweeps import."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from Modules.stereo.pinhole import PinholeGeometry
from Modules.stereo.positions import Geometry, Positions, sample
from Modules.stereo.rational import RationalGeometry

__all__ = ["Geometry", "PinholeGeometry", "Positions", "RationalGeometry", "geometry_of", "sample"]


def geometry_of(kind: Literal["pinhole", "rpc"], cameras: Tensor) -> Geometry:
    """The geometry of a batch of views.

    Args:
        kind: "pinhole" for values that are z-depths, "rpc" for values that are heights.
        cameras: [B, V, 4, 4] or [B, V, 170]; see ``PinholeGeometry`` and ``RationalGeometry``.

    Raises:
        ValueError: another kind, or cameras that cannot be used.
    """
    kinds: dict[str, type[PinholeGeometry] | type[RationalGeometry]] = {
        "pinhole": PinholeGeometry,
        "rpc": RationalGeometry,
    }
    if kind not in kinds:
        raise ValueError(f"kind of cameras '{kind}'; give one of {', '.join(kinds)}")
    return kinds[kind](cameras)
