"""The scorer of class maps: one confusion matrix over all pixels of all tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from Utils.data.sample import IGNORED_LABEL, Batch
from Utils.scoring.scores import Metric, PooledScorer, Row, ScoreProtocol, mean_of

_COUNTS = "confusion"


class LabelScorer(PooledScorer):
    """Scores predicted classes against ``label`` of a batch, (B, H, W); ``IGNORED_LABEL`` counts nowhere.

    A class's IoU is its true positives over the pixels where truth or prediction has it.  A class that neither has
    anywhere has no IoU, and the mean IoU leaves it out.

    Args:
        classes: names of the classes, by number.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        metrics = (
            Metric("miou", "Mean IoU", "higher", digits=1, percent=True),
            Metric("accuracy", "Accuracy", "higher", digits=1, percent=True),
            *(Metric(f"iou_{name}", name, "higher", digits=1, percent=True) for name in self.classes),
        )
        definition = (
            "one confusion matrix over all pixels of all tiles; a class absent from truth and prediction is left out"
        )
        self.protocols = (ScoreProtocol("pooled", definition, metrics, ("miou", "accuracy"), pooled=True),)
        self.ranked_by = "pooled.miou"

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """The confusion matrix of each tile; ``prediction`` (B, classes, H, W) scores each class."""
        labels = batch["label"].cpu().numpy()
        guesses = prediction.argmax(dim=1).cpu().numpy()
        return [self._count(*tile) for tile in zip(labels, guesses, strict=True)]

    def _count(self, label: np.ndarray, guess: np.ndarray) -> Row | None:
        counted = label != IGNORED_LABEL
        if not counted.any():
            return None
        count = len(self.classes)
        pairs = np.bincount(label[counted].astype(np.int64) * count + guess[counted], minlength=count**2)
        return {_COUNTS: pairs.reshape(count, count)}  # rows: truth

    def scores_of(self, counts: Row) -> dict[str, float]:
        """The scores of one confusion matrix (truth by row, prediction by column)."""
        matrix = np.asarray(counts[_COUNTS], dtype=np.float64)
        hits = np.diag(matrix)
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
        iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
        return {
            "pooled.miou": mean_of(iou[~np.isnan(iou)]),
            "pooled.accuracy": float(hits.sum() / matrix.sum()),
            **{f"pooled.iou_{name}": float(value) for name, value in zip(self.classes, iou, strict=True)},
        }
