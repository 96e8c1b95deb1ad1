"""The scorer of land cover: confusion, F1, boundary IoU and calibration, all over the pixels of all tiles together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from Utils.data.sample import IGNORED_LABEL, Batch
from Utils.scoring.labels import LabelScorer
from Utils.scoring.land_cover.boundaries import boundary_counts, boundary_width
from Utils.scoring.land_cover.calibration import BINS, calibration_counts, expected_calibration_error
from Utils.scoring.land_cover.rule_names import AbsentClasses
from Utils.scoring.scores import Metric, Row, ScoreProtocol, mean_of

__all__ = ["ClassScorer"]

_CONFUSION, _BOUNDARY, _CALIBRATION = "confusion", "boundary", "calibration"


class ClassScorer(LabelScorer):
    """Scores class probabilities (B, classes, H, W) against ``label`` (B, H, W); ``IGNORED_LABEL`` counts nowhere.

    Args:
        classes: names of the classes, by number.
        absent: what an absent class does in means over classes. It has no IoU of its own either way.
        boundaries: whether boundary IoU is taken, which takes most of the time.
        calibration: whether the calibration error is taken; class maps alone have no probabilities.
    """

    def __init__(
        self,
        classes: Sequence[str],
        absent: AbsentClasses = "count as 0",
        boundaries: bool = True,
        calibration: bool = True,
    ) -> None:
        super().__init__(classes)
        self.absent_classes: AbsentClasses = absent
        self.boundaries = boundaries
        rule = (
            f"means over all {len(self.classes)} classes, one that neither truth nor prediction has counts as 0"
            if absent == "count as 0"
            else "means leave out classes that neither truth nor prediction has"
        )
        overall = (
            Metric("miou", "Mean IoU", "higher", digits=2, percent=True),
            Metric("accuracy", "Accuracy", "higher", digits=2, percent=True),
            Metric("f1", "Mean F1", "higher", digits=2, percent=True),
            Metric("boundary_iou", "Mean boundary IoU", "higher", digits=2, percent=True),
            Metric("calibration", "Calibration error", "lower", digits=2, percent=True),
        )
        by_class = tuple(Metric(f"iou_{name}", name, "higher", digits=2, percent=True) for name in self.classes)
        definition = f"one confusion matrix over all labelled pixels of all tiles; {rule}"
        if boundaries:
            definition += "; boundaries are 2 % of a tile's diagonal wide"
        if calibration:
            definition += f"; calibration in {BINS} bins of confidence"
        shown = ("miou", "accuracy")
        self.protocols = (
            ScoreProtocol("pooled", definition, overall, shown, pooled=True),
            ScoreProtocol("classes", "IoU of each class, from the same matrix", by_class, pooled=True),
        )
        taken = (("pooled.boundary_iou", boundaries), ("pooled.calibration", calibration))
        self.absent = frozenset(key for key, there in taken if not there)

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """The counts of each tile; ``prediction`` holds probabilities, which add up to 1 over the classes."""
        confidence, guesses = (found.cpu().numpy() for found in prediction.float().max(dim=1))
        labels = batch["label"].cpu().numpy()
        return [self._counts(*tile) for tile in zip(labels, guesses, confidence, strict=True)]

    def count_maps(self, label: np.ndarray, guess: np.ndarray) -> Row | None:
        """The confusion of class maps (H, W) alone, without boundaries and calibration; None where nothing counts."""
        return self._count(label, guess)

    def _counts(self, label: np.ndarray, guess: np.ndarray, confidence: np.ndarray) -> Row | None:
        row = self._count(label, guess)
        if row is None:
            return None
        counted = label != IGNORED_LABEL
        row[_CALIBRATION] = calibration_counts(confidence[counted], (label == guess)[counted])
        if self.boundaries:
            width = boundary_width((label.shape[0], label.shape[1]))
            row[_BOUNDARY] = boundary_counts(label, guess, counted, len(self.classes), width)
        return row

    def scores_of(self, counts: Row) -> dict[str, float]:
        """The scores of counts that were added up over tiles."""
        matrix = np.asarray(counts[_CONFUSION], dtype=np.float64)  # truth by row, prediction by column
        hits = np.diag(matrix)
        either = matrix.sum(axis=0) + matrix.sum(axis=1)
        iou = _ratio(hits, either - hits)
        found = {
            "pooled.miou": self._mean(iou),
            "pooled.accuracy": float(hits.sum() / matrix.sum()),
            "pooled.f1": self._mean(_ratio(2 * hits, either)),
            **{f"classes.iou_{name}": float(value) for name, value in zip(self.classes, iou, strict=True)},
        }
        if "pooled.calibration" not in self.absent:
            found["pooled.calibration"] = expected_calibration_error(counts[_CALIBRATION])
        if self.boundaries:
            pixels = np.asarray(counts[_BOUNDARY], dtype=np.float64)
            found["pooled.boundary_iou"] = self._mean(_ratio(pixels[:, 0], pixels[:, 1]))
        return found

    def _mean(self, values: np.ndarray) -> float:
        if self.absent_classes == "count as 0":
            return float(np.nan_to_num(values, nan=0.0).mean())
        return mean_of(values[~np.isnan(values)])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
