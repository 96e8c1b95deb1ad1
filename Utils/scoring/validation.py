"""Scores over a loader: what validation asks for after an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from Utils.core.processes import everywhere, gather_in_turn
from Utils.data.loaders import on_device
from Utils.data.sample import Batch
from Utils.scoring.scores import Row, Scorer


@torch.no_grad()
def scores_over(
    loader: Iterable[Batch], scorer: Scorer, device: torch.device, predict: Callable[[Batch], Tensor]
) -> dict[str, float]:
    """The scores of all of a loader's tiles, by key.

    In a launch of several processes the loader is a shared one, and every process gets the scores of all tiles.

    Args:
        loader: the batches.
        scorer: scores the predictions.
        device: where the network lives.
        predict: predicts what the scorer compares with the batch.

    Returns:
        An empty dict where no tile can be scored. A score of predictions that are not finite is NaN.
    """

    def score() -> list[list[Row | None]]:
        return [scorer.score_batch(batch, predict(batch)) for batch in on_device(loader, device)]

    rows = [row for rows in gather_in_turn(everywhere(score)) for row in rows if row is not None]
    if not rows:
        return {}
    summary = scorer.summarise(rows)
    return {key: summary[key]["mean"] for key in scorer.keys if key in summary}
