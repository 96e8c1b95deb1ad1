"""The last look at heights before they are written: what known heights and the model cannot give is no height."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from Utils.core.errors import UserError

__all__ = ["MOST_REFUSED", "LastGuard", "check_refused", "guard_of"]

logger = logging.getLogger(__name__)

MOST_REFUSED = 0.01
"""Share of the heights that may be refused before the scene counts as failed."""

_MOST_LOOKED_AT = 1024
# The known heights' and the model's range count in full on either side: relief between known heights, in voids and
# beyond the points adds to both.
_QUANTILES = (0.01, 0.99)
_LEAST_ROOM = 100.0
_TIMES = 2.0


@dataclass
class LastGuard:
    """Takes heights that cannot be out of a scene, strip by strip, and counts them.

    Attributes:
        low: the lowest height that is believed, in metres.
        high: the highest.
        pixels: pixels with a height that were looked at.
        refused: those of them outside of the two.
    """

    low: float
    high: float
    pixels: int = 0
    refused: int = 0

    def refuse(self, heights: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(H, W) which heights, NaN where there is none, are not believed."""
        known = np.isfinite(heights)
        refused: NDArray[np.bool_] = (known & ((heights < self.low) | (heights > self.high))) | np.isinf(heights)
        self.pixels += int((known | refused).sum())
        self.refused += int(refused.sum())
        return refused

    def describe(self) -> dict[str, Any]:
        """The numbers for the JSON, and a warning if there are any."""
        share = self.refused / max(self.pixels, 1)
        if self.refused:
            logger.warning(
                "%d heights (%.3f %%) lie outside of the %.0f to %.0f m that known heights and the model's relief can "
                "give; they are written as no data",
                self.refused,
                100 * share,
                self.low,
                self.high,
            )
        return {"low": self.low, "high": self.high, "refused": self.refused, "share": share}


def guard_of(known: NDArray[np.floating], mosaic: Path, limits: tuple[float, float]) -> LastGuard:
    """The guard of a scene in metres.

    It believes heights up to twice the range of the known heights and of the model's own relief, both together and at
    least 100 m, below the lowest and above the highest known height, but none that no ground has.

    Args:
        known: heights in metres that the scene is brought to, of any shape, NaN where unknown.
        mosaic: the model's map, in metres as accurate as the fits of its tiles; NaN where invalid.
        limits: the lowest and the highest ground, in metres.
    """
    values = known[np.isfinite(known)].astype(np.float64)
    if not values.size:
        return LastGuard(*limits)
    room = max(_LEAST_ROOM, _TIMES * (float(np.ptp(values)) + _relief(mosaic)))
    return LastGuard(max(limits[0], float(values.min()) - room), min(limits[1], float(values.max()) + room))


def _relief(mosaic: Path) -> float:
    """The range of a mosaic without its extremes, from a view of at most a million of its pixels."""
    with rasterio.open(mosaic) as source:
        shape = tuple(min(length, _MOST_LOOKED_AT) for length in source.shape)
        values = source.read(1, out_shape=shape, resampling=Resampling.nearest)
    values = values[np.isfinite(values)]
    return float(np.subtract(*np.quantile(values, _QUANTILES[::-1]))) if values.size else 0.0


def check_refused(output: Path, document: dict[str, Any]) -> None:
    """Say that a scene failed where more than a few of its heights were refused.

    Args:
        output: the height raster, which is whole.
        document: the content of the JSON beside it.

    Raises:
        UserError: more than ``MOST_REFUSED`` of the heights were.
    """
    found = document.get("guard")
    if found is not None and found["share"] > MOST_REFUSED:
        raise UserError(
            f"'{output}' is written, but {100 * found['share']:.1f} % of its heights, outside of {found['low']:.0f} to "
            f"{found['high']:.0f} m, could not be and are no data; check that the known heights belong to this scene, "
            "their datum, unit and void values"
        )
