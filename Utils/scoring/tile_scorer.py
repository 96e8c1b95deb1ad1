"""Scores of tiles, the same in validation and evaluation: a row a tile, keys ``paper.<name>``, ``aligned.<name>``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor

from Utils.core.processes import everywhere, gather_in_turn, launch
from Utils.core.stopping import stop_if_asked
from Utils.data.tiles import Batch
from Utils.scoring.metrics import aligned_scores, paper_scores, stretch_to_255, summarise
from Utils.scoring.perceptual import LpipsScore

# Not scores: the fit of the aligned protocol, and what is known only with a ground sample distance.
_FITTED = ("aligned.scale", "aligned.shift", "aligned.slope_error_degrees")


@dataclass(frozen=True)
class Scorer:
    """How tiles are scored.

    Attributes:
        ground_sample_distance: metres a pixel, None where unknown (then there is no slope error).
        metres_per_unit: metres that one unit of the height files stands for.
        lpips: the perceptual distance, None without AlexNet's weights.
    """

    ground_sample_distance: float | None = None
    metres_per_unit: float = 1.0
    lpips: LpipsScore | None = None

    def score(
        self, target: NDArray[np.float32], prediction: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> dict[str, float]:
        """Score one map, all (H, W): the target in its file's unit, the prediction of any range."""
        paper = paper_scores(target, prediction, valid)
        if self.lpips is not None:
            filled = stretch_to_255(target, valid), stretch_to_255(prediction, valid)
            paper["lpips"] = self.lpips(*filled) if valid.any() else float("nan")
        aligned = aligned_scores(target, prediction, valid, self.ground_sample_distance, self.metres_per_unit)
        return {f"paper.{key}": value for key, value in paper.items()} | {
            f"aligned.{key}": value for key, value in aligned.items()
        }

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[dict[str, float]]:
        """Score a batch's tiles; ``prediction`` is (B, 1, H, W)."""
        targets, valids = batch["target"][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        maps = prediction[:, 0].float().cpu().numpy()
        return [self.score(*tile) for tile in zip(targets, maps, valids, strict=True)]


def on_device(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The loader's batches, moved; in a run that is asked to stop, none any more.

    Raises:
        Stopped: a signal came, and no other process of the launch waits for this one.
    """
    for batch in loader:
        if launch().num_processes == 1:
            stop_if_asked()
        yield send_to_device(batch, device, non_blocking=True)


@torch.no_grad()
def mean_scores(loader: Iterable[Batch], device: torch.device, predict: Callable[[Batch], Tensor]) -> dict[str, float]:
    """Mean scores over a loader's tiles with a valid pixel; ``predict`` makes (B, 1, H, W) of a batch.

    In a launch of several processes the loader is a shared one, and every process gets the scores of all tiles.

    A score of predictions that are no finite numbers is NaN; without any such tile there is no score at all.
    """
    scorer = Scorer()

    def score() -> list[list[dict[str, float]]]:
        return [
            [
                row
                for row, valid in zip(scorer.score_batch(batch, predict(batch)), batch["valid"], strict=True)
                if valid.any()
            ]
            for batch in on_device(loader, device)
        ]

    batches = gather_in_turn(everywhere(score))
    summary = summarise([row for rows in batches for row in rows])
    return {key: values["mean"] for key, values in summary.items() if key not in _FITTED}
