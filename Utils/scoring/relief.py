"""The protocols of relief, metres whose zero is unknown: as published for HiRISE terrain models, and free of offsets.

``published``: pooled over all pixels, on metres below the summit of each tile; a pixel at the summit itself counts as
a miss in delta1 to delta3, because nothing is within a factor of 0. ``relief``: a tile's errors are taken about their
median, so that a wrong summit does not count; then about the plane that fits them, so that a wrong tilt does not; and
slopes, which have neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.sample import Batch
from Utils.scoring.aligned import slope_error
from Utils.scoring.control_maps import plane_of
from Utils.scoring.joint import JointScorer
from Utils.scoring.map_pairs import DELTAS, as_pair, comparable, delta_shares
from Utils.scoring.scores import Metric, PooledScorer, Row, ScoreProtocol, TileScorer

_RELIEF = ScoreProtocol(
    "relief",
    "metres as predicted, never scaled; the median of each tile's errors is taken away, for the MAE without plane the "
    "plane that fits its errors best; slope error: mean difference of slope angles",
    (
        Metric("mae", "MAE", "lower", digits=3, unit="m"),
        Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
        Metric("plane_removed_mae", "MAE without plane", "lower", digits=3, unit="m"),
        Metric("slope_error_degrees", "Slope error", "lower", digits=2, unit="deg"),
    ),
    ("mae", "rmse", "plane_removed_mae", "slope_error_degrees"),
)
_PUBLISHED = ScoreProtocol(
    "published",
    "metres below the summit of each tile, with its offset, over all pixels of all tiles together; pixels at a summit "
    "are misses in delta1 to delta3",
    (
        *DELTAS,
        Metric("mae", "MAE", "lower", digits=3, unit="m"),
        Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
    ),
    ("mae",),
    pooled=True,
)
_COUNTS = ("within1", "within2", "within3", "absolute", "squared")


def relief_scores(
    truth: NDArray[np.floating],
    prediction: NDArray[np.floating],
    valid: NDArray[np.bool_],
    ground_sample_distance: float | None = None,
) -> dict[str, float]:
    """Score heights of one tile whose zero is unknown.

    Args:
        truth: (H, W) heights in metres.
        prediction: (H, W) heights in metres.
        valid: (H, W); pixels outside it count nowhere.
        ground_sample_distance: metres between neighbouring pixels, for the slope; None where unknown.

    Returns:
        ``mae``, ``rmse``, ``plane_removed_mae`` in metres, ``slope_error_degrees``; NaN where no pixel is valid, or a
        valid one is not finite.
    """
    true_map, guess_map, inside = as_pair(truth, prediction, valid)
    true, guess = true_map[inside], guess_map[inside]
    if not comparable(true, guess):
        return {metric.key: math.nan for metric in _RELIEF.metrics}
    # The pixels around stay finite, whatever the maps hold there.
    error = np.where(inside, guess_map - true_map, 0.0)
    centred = error[inside] - np.median(error[inside])
    plane = plane_of(error.astype(np.float32), inside)
    return {
        "mae": float(np.mean(np.abs(centred))),
        "rmse": math.sqrt(float(np.mean(centred**2))),
        "plane_removed_mae": float(np.mean(np.abs((error - plane)[inside]))),
        "slope_error_degrees": math.nan
        if ground_sample_distance is None
        else slope_error(true_map, guess_map, inside, 1.0 / ground_sample_distance),
    }


class _ReliefOfTiles(TileScorer):
    """The protocol ``relief``, a mean over tiles."""

    protocols = (_RELIEF,)
    ranked_by = "relief.mae"

    def __init__(self, sizes: Mapping[str, float | None]) -> None:
        self._sizes = sizes
        self.absent = frozenset() if any(sizes.values()) else frozenset({"relief.slope_error_degrees"})

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """A row for each tile with a valid pixel; ``prediction`` is (B, 1, H, W), heights in metres."""
        rows: list[Row | None] = []
        for tile, truth, guess, valid in zip(batch["id"], *_maps(batch, prediction), strict=True):
            found = relief_scores(truth, guess, valid, self._sizes.get(tile)) if valid.any() else None
            rows.append(None if found is None else {f"relief.{key}": value for key, value in found.items()})
        return rows


class _PublishedRelief(PooledScorer):
    """The protocol ``published``, pooled over pixels."""

    protocols = (_PUBLISHED,)
    ranked_by = "published.mae"

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """Counts of each tile with a valid pixel whose prediction is known there."""
        rows: list[Row | None] = []
        for truth, guess, valid in zip(*_maps(batch, prediction), strict=True):
            true, drawn = -truth[valid].astype(np.float64), -guess[valid].astype(np.float64)
            if not comparable(true, drawn):
                rows.append(None)
                continue
            error = drawn - true
            shares = delta_shares(true, drawn)
            totals = [shares[f"delta{power}"] * len(true) for power in (1, 2, 3)]
            totals += [float(np.abs(error).sum()), float((error**2).sum())]
            rows.append({"pixels": len(true)} | dict(zip(_COUNTS, totals, strict=True)))
        return rows

    def scores_of(self, counts: Row) -> dict[str, float]:
        """The scores of counts that were added up over tiles."""
        pixels = counts["pixels"]
        found = {f"delta{power}": counts[f"within{power}"] / pixels for power in (1, 2, 3)}
        found |= {"mae": counts["absolute"] / pixels, "rmse": math.sqrt(counts["squared"] / pixels)}
        return {f"published.{key}": value for key, value in found.items()}


class ReliefScorer(JointScorer):
    """Scores heights in metres above a tile's summit, so 0 or less, against ``depth``, metres below it, of a batch.

    Args:
        sizes: metres from pixel to pixel of each tile, by id; None where unknown.
    """

    truth = "depth"

    def __init__(self, sizes: Mapping[str, float | None]) -> None:
        super().__init__(_ReliefOfTiles(sizes), _PublishedRelief())

    def pixels(self, row: Row | None) -> int:
        """Number of pixels behind a row's scores."""
        counts = None if row is None else row["rows"][1]
        return 0 if counts is None else int(counts["pixels"])


def _maps(batch: Batch, prediction: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """True heights above the summit, predicted ones, and valid pixels, each (B, H, W)."""
    truth, valid = -batch["depth"][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
    return truth, prediction[:, 0].float().cpu().numpy(), valid
