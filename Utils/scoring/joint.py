"""Several scorers as one: protocols that are means over tiles beside protocols that are pooled over pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from Utils.scoring.scores import Row, Scorer, Summary

if TYPE_CHECKING:
    from torch import Tensor

    from Utils.data.sample import Batch


class JointScorer(Scorer):
    """Every score of several scorers; a row holds a row of each.

    Args:
        scorers: the scorers, with protocols of different names; tiles are ranked by the first.
    """

    def __init__(self, *scorers: Scorer) -> None:
        self._scorers = scorers
        self.protocols = tuple(protocol for scorer in scorers for protocol in scorer.protocols)
        self.absent = frozenset(key for scorer in scorers for key in scorer.absent)
        self.ranked_by = scorers[0].ranked_by

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """A row for each tile of which any scorer has one."""
        found = zip(*(scorer.score_batch(batch, prediction) for scorer in self._scorers), strict=True)
        return [None if all(row is None for row in rows) else {"rows": rows} for rows in found]

    def tile_scores(self, row: Row | None) -> dict[str, float]:
        """The scores of one tile, in the order of the protocols."""
        if row is None:
            return dict.fromkeys(self.keys, math.nan)
        pairs = zip(self._scorers, row["rows"], strict=True)
        return {key: value for scorer, own in pairs for key, value in scorer.tile_scores(own).items()}

    def summarise(self, rows: Sequence[Row | None]) -> Summary:
        """The scores of all tiles, each by its own scorer."""
        return {
            key: value
            for place, scorer in enumerate(self._scorers)
            for key, value in scorer.summarise(_of(rows, place)).items()
        }

    def change(self, before: Sequence[Row | None], after: Sequence[Row | None]) -> Summary:
        """The change of each score, by its own scorer."""
        return {
            key: value
            for place, scorer in enumerate(self._scorers)
            for key, value in scorer.change(_of(before, place), _of(after, place)).items()
        }


def _of(rows: Sequence[Row | None], place: int) -> list[Row | None]:
    return [None if row is None else row["rows"][place] for row in rows]
