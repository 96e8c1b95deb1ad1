"""The protocol of detail that is added to the ground as a coarse DEM shows it: errors to those of the DEM alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.sample import Batch
from Utils.scoring.scores import Metric, Row, ScoreProtocol, TileScorer

DETAIL: tuple[Metric, ...] = (
    Metric("rmse", "RMSE of the DEM alone that is left", "lower", digits=1, percent=True),
    Metric("slope", "error of slope of the DEM alone that is left", "lower", digits=1, percent=True),
)
DETAIL_PROTOCOL = ScoreProtocol(
    "detail",
    "root mean square errors of heights and of slopes (size of the gradient), divided by those of the surface that is "
    "estimated from the coarse DEM alone; without unit, the mean over tiles",
    DETAIL,
    ("rmse", "slope"),
)


class DetailScorer(TileScorer):
    """Scores heights about a surface; a batch holds ``surface``, ``truth`` and ``valid``, each (B, 1, H, W)."""

    protocols = (DETAIL_PROTOCOL,)
    ranked_by = "detail.rmse"

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """A row for each tile; None where the DEM alone has no error or nothing is valid."""
        maps = [values[:, 0].double().cpu().numpy() for values in (batch["surface"], prediction, batch["truth"])]
        valid = batch["valid"][:, 0].cpu().numpy()
        return [_row(*tile) for tile in zip(*maps, valid, strict=True)]


def _row(surface: NDArray, added: NDArray, truth: NDArray, valid: NDArray[np.bool_]) -> Row | None:
    before, after = _errors(surface, truth, valid), _errors(surface + added, truth, valid)
    if not all(math.isfinite(error) and error > 0 for error in before):
        return None
    return {f"detail.{m.key}": new / old for m, old, new in zip(DETAIL, before, after, strict=True)}


def _errors(heights: NDArray, truth: NDArray, valid: NDArray[np.bool_]) -> tuple[float, float]:
    """Root mean square errors of heights and of slopes over pixels that are valid; slopes where all neighbours are."""
    if not valid.any():
        return math.nan, math.nan
    unknown = np.where(valid, 0.0, np.nan)
    slopes = np.hypot(*np.gradient(heights)) - np.hypot(*np.gradient(truth + unknown))
    known = slopes[np.isfinite(slopes)]
    slope = math.sqrt(float((known**2).mean())) if known.size else math.nan
    return math.sqrt(float(((heights - truth)[valid] ** 2).mean())), slope
