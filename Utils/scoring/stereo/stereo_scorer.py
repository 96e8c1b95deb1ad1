"""The scorer of multi-view stereo: per image, and pooled over all pixels; all of them, and kinds of them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from Utils.data.sample import Batch
from Utils.scoring.map_pairs import BoolArray
from Utils.scoring.scores import Metric, PooledScorer, Row, ScoreProtocol, Scorer, Summary, TileScorer
from Utils.scoring.stereo.stereo_metrics import (
    ALL_SHARES,
    COMPLETENESS,
    CONFIDENCE,
    MEANS,
    MEDIANS,
    Errors,
    image_scores,
    scores_of_sums,
    sums_of,
)

STEREO = "stereo"
"""The protocol of whole images; ``stereo.mae`` chooses weights."""
_POOLED = "pooled"
_WHOLE: tuple[Metric, ...] = (*MEANS, *MEDIANS, *ALL_SHARES, *COMPLETENESS, *CONFIDENCE)
_PART: tuple[Metric, ...] = (MEANS[0], MEANS[2], *MEDIANS, *ALL_SHARES[2:5], ALL_SHARES[-1], COMPLETENESS[0])
_SUMS: tuple[Metric, ...] = (*MEANS, *ALL_SHARES, *COMPLETENESS)

# For a batch, by name of a kind of pixels: where they are, (B, 1, H, W) bool.
PixelKinds = Callable[[Batch], Mapping[str, Tensor]]


class StereoScorer(Scorer):
    """Scores (B, 1 or more, H, W): depth or height in metres and, where there is a second channel, confidence.

    A batch has the truth in ``target`` (B, 1, H, W) metres, the pixels that have one in ``mask``, and the file's
    ``interval`` (B, 1) metres. An estimate that is not finite is missing.

    Args:
        least_confidence: from which confidence on an estimate counts as given, in completeness.
        kinds: names and definitions of kinds of pixels that are scored apart too.
        pixels: finds them in a batch.
    """

    def __init__(
        self,
        least_confidence: float = 0.3,
        kinds: Mapping[str, str] | None = None,
        pixels: PixelKinds = lambda batch: {},
    ) -> None:
        self.least_confidence = least_confidence
        self._kinds = dict(kinds or {})
        self._pixels = pixels
        told = (
            "errors are estimate minus truth in metres, unclipped but for 'MAE of errors < 250 m'; means are over "
            "pixels with an estimate, shares over all with a truth; an interval is that of the file; complete: "
            f"estimates of confidence {least_confidence:g} or more"
        )
        shown = ("mae", "median", "below_1m", "complete")
        self.protocols = (
            ScoreProtocol(STEREO, f"{told}; mean over images", _WHOLE, shown),
            *(ScoreProtocol(name, f"{said}; mean over images", _PART, ("mae",)) for name, said in self._kinds.items()),
            ScoreProtocol(_POOLED, "as 'stereo', over the pixels of all images together", _SUMS, (), pooled=True),
        )
        self.ranked_by = f"{STEREO}.mae"
        self._images = _Images([f"{p.name}.{m.key}" for p in self.protocols[:-1] for m in p.metrics])
        self._pool = _Pool([f"{_POOLED}.{metric.key}" for metric in _SUMS])

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """A row for each image; None for one without any truth."""
        truth, known = (batch[name][:, 0].cpu().numpy() for name in ("target", "mask"))
        drawn = prediction.detach().float().cpu().numpy()
        kinds = {name: where[:, 0].cpu().numpy() for name, where in self._pixels(batch).items()}
        intervals = batch["interval"].reshape(-1).tolist()
        rows: list[Row | None] = []
        for place, interval in enumerate(intervals):
            pixels = known[place].astype(bool) & np.isfinite(truth[place])
            if not pixels.any():
                rows.append(None)
                continue
            estimate = drawn[place, 0, pixels].astype(np.float64)
            confidence = drawn[place, 1, pixels].astype(np.float64) if drawn.shape[1] > 1 else None
            error = np.where(np.isfinite(estimate), estimate - truth[place, pixels], np.nan)
            errors = Errors(error, confidence, interval, self.least_confidence)
            rows.append(self._row(errors, {name: where[place, pixels] for name, where in kinds.items()}))
        return rows

    def _row(self, errors: Errors, kinds: Mapping[str, BoolArray]) -> Row:
        found = {f"{STEREO}.{key}": value for key, value in image_scores(errors).items()}
        for name in self._kinds:
            there = kinds.get(name)
            part = image_scores(errors.of(there)) if there is not None and there.any() else {}
            found |= {f"{name}.{metric.key}": part.get(metric.key, math.nan) for metric in _PART}
        return {"scores": found, "sums": sums_of(errors)}

    def tile_scores(self, row: Row | None) -> dict[str, float]:
        """The scores of one image."""
        scores, sums = _split(row)
        return self._images.tile_scores(scores) | self._pool.tile_scores(sums)

    def summarise(self, rows: Sequence[Row | None]) -> Summary:
        """Means over images, and the scores of all pixels."""
        images, sums = _parts(rows)
        return self._images.summarise(images) | self._pool.summarise(sums)

    def change(self, before: Sequence[Row | None], after: Sequence[Row | None]) -> Summary:
        """Changes paired by image, and those of the pooled scores."""
        (old, old_sums), (new, new_sums) = _parts(before), _parts(after)
        return self._images.change(old, new) | self._pool.change(old_sums, new_sums)


class _Images(TileScorer):
    """The half of the scorer that takes means over images."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = list(keys)

    @property
    def keys(self) -> list[str]:
        return self._keys

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        raise NotImplementedError


class _Pool(PooledScorer):
    """The half of the scorer that adds up sums."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = list(keys)

    @property
    def keys(self) -> list[str]:
        return self._keys

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        raise NotImplementedError

    def scores_of(self, counts: Row) -> dict[str, float]:
        return {f"{_POOLED}.{key}": value for key, value in scores_of_sums(counts).items()}


def _split(row: Row | None) -> tuple[Row | None, Row | None]:
    return (None, None) if row is None else (row["scores"], row["sums"])


def _parts(rows: Sequence[Row | None]) -> tuple[list[Row | None], list[Row | None]]:
    split = [_split(row) for row in rows]
    return [scores for scores, _ in split], [sums for _, sums in split]
