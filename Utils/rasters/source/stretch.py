"""From the values of a file to [0, 1]: one stretch for a whole scene, so that all tiles have the same contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import UserError

__all__ = ["Stretch", "percentile_stretch"]


@dataclass(frozen=True)
class Stretch:
    """A linear stretch for each band.

    Attributes:
        low: the value that becomes 0, in the file's values; one for each band used.
        high: the value that becomes 1; not below ``low``. Where both are equal, the band is flat.
        percentiles: the shares of valid pixels, in percent, below ``low`` and ``high``; None for the full range of
            the file's type.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    percentiles: tuple[float, float] | None

    def __post_init__(self) -> None:
        """Refuse bounds that are not one pair a band."""
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError(f"a stretch needs as many low as high ends; got {self.low} and {self.high}")
        if not all(low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a stretch needs finite ends, low <= high; got {self.low} and {self.high}")

    def apply(self, bands: NDArray[Any]) -> NDArray[np.float32]:
        """Stretch and clip.

        Args:
            bands: (C, h, w) of any real type, in the file's values; may hold NaN and infinities.

        Returns:
            (C, h, w) float32 in [0, 1]; 0 for NaN. In a flat band, 0 at its value.
        """
        if bands.ndim != 3 or len(bands) != len(self.low):
            raise ValueError(f"a stretch of {len(self.low)} bands cannot be applied to shape {bands.shape}")
        low = np.array(self.low)[:, None, None]
        span = np.array(self.high)[:, None, None] - low
        # In double precision: large integers and heights above an ellipsoid differ in digits that floats lack.
        scaled = bands.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled -= low
            scaled /= np.where(span > 0.0, span, 1.0)
        np.clip(scaled, 0.0, 1.0, out=scaled)
        scaled[np.isnan(scaled)] = 0.0
        return scaled.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Give the stretch as JSON holds it."""
        percentiles = None if self.percentiles is None else list(self.percentiles)
        return {"low": list(self.low), "high": list(self.high), "percentiles": percentiles}


def percentile_stretch(
    sample: NDArray[Any], valid: NDArray[np.bool_], percentiles: tuple[float, float]
) -> tuple[Stretch, list[int]]:
    """Take the stretch from a sample of the scene.

    A band whose two percentiles are equal, as where nearly everything is sea, is stretched from its lowest to its
    highest value instead.

    Args:
        sample: (C, h, w) in the file's values.
        valid: (h, w) bool, with at least one pixel set; the sample is finite there.
        percentiles: the low and the high one, in percent.

    Returns:
        The stretch, and the positions (0-based) of the bands that took the lowest and highest value.

    Raises:
        UserError: percentiles that are not 0 <= low < high <= 100.
    """
    if not 0.0 <= percentiles[0] < percentiles[1] <= 100.0:
        low, high = percentiles
        raise UserError(f"--stretch {low:g} {high:g}: needs 0 <= low < high <= 100, for example --stretch 2 98")
    ends, widened = [], []
    for position, band in enumerate(sample):
        values = band[valid].astype(np.float64)
        low, high = (float(end) for end in np.percentile(values, percentiles))
        if low == high:
            low, high = float(values.min()), float(values.max())
            widened.append(position)
        ends.append((low, high))
    lows, highs = zip(*ends, strict=True)
    return Stretch(lows, highs, (float(percentiles[0]), float(percentiles[1]))), widened
