"""How sure the change from one map to another is, where their errors are alike over a distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.scenes.accuracy.error_correlation import ErrorCorrelation
from Utils.scenes.accuracy.scene_scores import FloatArray
from Utils.scenes.accuracy.variogram import Variogram

__all__ = ["ChangeCorrelation"]


class ChangeCorrelation:
    """Variograms of the paired differences behind the changes of MAE, RMSE and slope error.

    Args:
        metres: of a pixel from row to row and from column to column; None where unknown: then there are no slopes.
        size: pixels of the grid.
    """

    def __init__(self, metres: tuple[float, float] | None, size: int) -> None:
        self._heights = ErrorCorrelation(metres, size, 3)
        self._slopes = None if metres is None else ErrorCorrelation(metres, size)

    def add(
        self,
        window: Window,
        scored: NDArray[np.bool_],
        after: FloatArray,
        before: FloatArray,
        slope_after: FloatArray,
        slope_before: FloatArray,
    ) -> None:
        """Take in the errors of a window, and the sizes of its errors of slope in degrees, all (H, W).

        Args:
            window: the window.
            scored: which pixels count.
            after: of the prediction.
            before: of the other map.
            slope_after: of the prediction; NaN where unknown.
            slope_before: of the other map.
        """
        after, before = np.where(scored, after, np.nan), np.where(scored, before, np.nan)
        self._heights.add(window, np.abs(after) - np.abs(before), after * after, before * before)
        if self._slopes is not None:
            self._slopes.add(window, np.where(scored, slope_after - slope_before, np.nan))

    def variograms(self, rmse_after: float, rmse_before: float) -> dict[str, Variogram]:
        """By score, the variogram of the differences whose mean is the change.

        The change of RMSE is the mean of e^2 / (2 RMSE) of the one less that of the other, to first order.
        """
        found = {"mae": self._heights.variogram((1.0, 0.0, 0.0))}
        if rmse_after > 0.0 and rmse_before > 0.0:
            found["rmse"] = self._heights.variogram((0.0, 0.5 / rmse_after, -0.5 / rmse_before))
        if self._slopes is not None:
            found["slope_error_degrees"] = self._slopes.variogram()
        return found
