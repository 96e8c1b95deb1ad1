"""How scores describe themselves, and how those of tiles become the numbers of a table.

A score that does not exist is NaN, never 0: summaries leave it out and say how many tiles they counted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from Utils.data.sample import Batch

Row = dict[str, Any]
"""The result of scoring one tile: its scores by key, or the counts of a pooled scorer."""

Summary = dict[str, dict[str, float]]
"""For every score its ``mean``, the ``standard_error`` of that mean, and ``count``, the tiles behind it."""

_ARROWS = {"higher": "↑", "lower": "↓", "zero": ""}
# Number of resamples for a pooled score's standard error, which is then known to about 5 per cent.
_RESAMPLES = 200


@dataclass(frozen=True)
class Metric:
    """One score, as tables show it.

    Attributes:
        key: its key in a row of scores.
        name: what tables call it.
        better: which values are better; ``zero``: those near 0, from either side.
        digits: digits after the point.
        unit: its unit, empty for none.
        percent: whether it is a share in 0..1 that tables show as per cent.
    """

    key: str
    name: str
    better: Literal["lower", "higher", "zero"]
    digits: int
    unit: str = ""
    percent: bool = False

    @property
    def heading(self) -> str:
        """Name and unit."""
        unit = "%" if self.percent else self.unit
        return f"{self.name} ({unit})" if unit else self.name

    @property
    def arrow(self) -> str:
        """Which way is better; empty where that is neither up nor down."""
        return _ARROWS[self.better]

    def format(self, value: float) -> str:
        """The value as a table cell without its unit; a score that does not exist reads ``n/a``."""
        if math.isnan(value):
            return "n/a"
        return f"{value * 100 if self.percent else value:.{self.digits}f}"


@dataclass(frozen=True)
class ScoreProtocol:
    """Scores that are taken in one way, and belong in one table.

    Attributes:
        name: name of the protocol, in front of each key of a row, such as ``paper`` in ``paper.mae``; every result file
            has it.
        definition: what the protocol does, for those who read the numbers.
        metrics: its scores, in the order of the table.
        shown_per_tile: keys of the scores that the table of single tiles shows.
        pooled: whether scores are taken over all pixels together instead of averaged over tiles.
    """

    name: str
    definition: str
    metrics: tuple[Metric, ...]
    shown_per_tile: tuple[str, ...] = ()
    pooled: bool = False

    @property
    def title(self) -> str:
        """Heading of the table."""
        return f"{self.name.capitalize()} protocol"

    def key(self, metric: Metric) -> str:
        """A score's key in a row."""
        return f"{self.name}.{metric.key}"


class Scorer(ABC):
    """Scores tiles, and says what its scores are; tables and reports are made from that.

    Attributes:
        protocols: the protocols of its scores.
        absent: keys of scores that cannot be taken here, because weights or a ground distance are missing.
        ranked_by: key of the score by which tiles are ranked from best to worst.
    """

    protocols: tuple[ScoreProtocol, ...]
    absent: frozenset[str] = frozenset()
    ranked_by: str

    @abstractmethod
    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """A row for each tile of a batch; None for a tile in which nothing can be scored."""

    @abstractmethod
    def tile_scores(self, row: Row | None) -> dict[str, float]:
        """The scores of one tile."""

    @abstractmethod
    def summarise(self, rows: Sequence[Row | None]) -> Summary:
        """The scores of all tiles."""

    @abstractmethod
    def change(self, before: Sequence[Row | None], after: Sequence[Row | None]) -> Summary:
        """The change of each score, after minus before, over the same tiles in the same order."""

    def metric(self, key: str) -> Metric:
        """The score with a key such as ``paper.mae``."""
        (found,) = [m for protocol in self.protocols for m in protocol.metrics if protocol.key(m) == key]
        return found

    @property
    def keys(self) -> list[str]:
        """Keys of the scores that are taken."""
        keys = [protocol.key(metric) for protocol in self.protocols for metric in protocol.metrics]
        return [key for key in keys if key not in self.absent]


class TileScorer(Scorer):
    """A scorer whose rows are scores, and whose summary is their mean over tiles."""

    def tile_scores(self, row: Row | None) -> dict[str, float]:
        """The row itself; NaN for every score of a tile without a row."""
        return dict.fromkeys(self.keys, math.nan) if row is None else row

    def summarise(self, rows: Sequence[Row | None]) -> Summary:
        """Means over tiles."""
        return summarise([self.tile_scores(row) for row in rows])

    def change(self, before: Sequence[Row | None], after: Sequence[Row | None]) -> Summary:
        """Mean changes, paired by tile."""
        return paired_change([self.tile_scores(row) for row in before], [self.tile_scores(row) for row in after])


class PooledScorer(Scorer):
    """A scorer whose rows are counts that are added up over tiles before the scores are taken from them.

    Standard errors come from the bootstrap over tiles: the scores of tiles drawn with replacement, with a fixed seed.
    """

    @abstractmethod
    def scores_of(self, counts: Row) -> dict[str, float]:
        """The scores of counts that were added up over tiles."""

    def tile_scores(self, row: Row | None) -> dict[str, float]:
        """The scores of one tile's counts."""
        return dict.fromkeys(self.keys, math.nan) if row is None else self.scores_of(row)

    def summarise(self, rows: Sequence[Row | None]) -> Summary:
        """The scores of all tiles' counts together."""
        return self._pooled(lambda chosen: self.scores_of(_added([row for row in chosen if row is not None])), rows)

    def change(self, before: Sequence[Row | None], after: Sequence[Row | None]) -> Summary:
        """The differences of the pooled scores; a resample draws the same tiles for both."""
        _check_pairs(before, after)
        pairs = [None if old is None or new is None else (old, new) for old, new in zip(before, after, strict=True)]

        def difference(chosen: Sequence[Any]) -> dict[str, float]:
            known = [pair for pair in chosen if pair is not None]
            old, new = (self.scores_of(_added([pair[side] for pair in known])) for side in (0, 1))
            return {key: new[key] - old[key] for key in new}

        return self._pooled(difference, pairs)

    def _pooled(self, score: Any, rows: Sequence[Any]) -> Summary:
        known = [row for row in rows if row is not None]
        if not known:
            nothing = {"mean": math.nan, "standard_error": math.nan, "count": 0}
            return {key: dict(nothing) for key in self.keys}
        found = score(known)
        random = np.random.default_rng(0)
        draws = [
            score([known[place] for place in random.integers(len(known), size=len(known))]) for _ in range(_RESAMPLES)
        ]
        return {
            key: {
                "mean": value,
                "standard_error": _spread([draw[key] for draw in draws]) if len(known) > 1 else math.nan,
                "count": len(known),
            }
            for key, value in found.items()
        }


def _added(rows: Sequence[Row]) -> Row:
    """The counts of several tiles together."""
    return {key: sum(row[key] for row in rows) for key in rows[0]}


def _spread(values: Sequence[float]) -> float:
    known = np.array([value for value in values if not math.isnan(value)])
    return float(known.std(ddof=1)) if known.size > 1 else math.nan


def _check_pairs(before: Sequence[object], after: Sequence[object]) -> None:
    if len(before) != len(after):
        raise ValueError(
            f"a change of scores got {len(before)} tiles before and {len(after)} after; it needs the same tiles in the "
            "same order in both."
        )


def summarise(rows: Sequence[Mapping[str, float]]) -> Summary:
    """Average the scores of tiles, one row a tile.

    Returns:
        For every key found in any row: `mean`; `standard_error` of that mean, the sample standard deviation over
        sqrt(count), NaN below two tiles; and `count`, the tiles behind them. A tile whose score is NaN or absent is
        left out, and the count shows it; with none left the mean is NaN.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: _summary([row.get(key, math.nan) for row in rows]) for key in keys}


def paired_change(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> Summary:
    """Average the change of each score, after - before, over the same tiles in the same order.

    Pairing removes the difficulty of single tiles from the standard error, which two separate summaries would keep.

    Returns:
        As `summarise`; a tile counts where both of its scores exist.
    """
    _check_pairs(before, after)
    changes = [
        {key: new.get(key, math.nan) - old.get(key, math.nan) for key in {**old, **new}}
        for old, new in zip(before, after, strict=True)
    ]
    return summarise(changes)


def _summary(scores: Sequence[float]) -> dict[str, float]:
    known = np.array([score for score in scores if not math.isnan(score)], dtype=np.float64)
    error = math.nan
    if known.size > 1:
        error = float(np.std(known, ddof=1)) / math.sqrt(known.size)
    return {"mean": mean_of(known), "standard_error": error, "count": known.size}


def mean_of(values: ArrayLike) -> float:
    """The mean; NaN, without numpy's warning, where there are no values."""
    array: NDArray[np.float64] = np.asarray(values)
    return float(np.mean(array)) if array.size else math.nan
