"""The scorer of relative height maps: the paper protocol and the aligned one, each a mean over tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Utils.data.sample import Batch
from Utils.scoring.aligned import ALIGNED, aligned_scores
from Utils.scoring.offset import OFFSET_PROTOCOL, offset_scores
from Utils.scoring.paper import LPIPS, PAPER, paper_scores, stretch_to_255
from Utils.scoring.perceptual import LpipsScore
from Utils.scoring.scores import Row, ScoreProtocol, TileScorer

_PAPER = ScoreProtocol(
    "paper",
    "target and prediction each stretched to 0..255 by their own extremes and rounded",
    (*PAPER, LPIPS),
    ("mae", "psnr", "ssim", "lpips"),
)
_ALIGNED = ScoreProtocol(
    "aligned",
    "float, prediction fitted to the target by least-squares scale (>= 0) and shift per tile",
    ALIGNED,
    ("mae", "rmse", "ssim", "gradient_error", "slope_error_degrees"),
)


class HeightScorer(TileScorer):
    """Scores predicted heights against ``target`` and ``valid`` of a batch.

    Args:
        ground_sample_distance: metres a pixel, None where unknown (then there is no slope error).
        metres_per_unit: metres that one unit of the height files stands for.
        lpips: the perceptual distance, None without AlexNet's weights.
        metres: whether predictions are in metres, so that the protocol ``offset`` can score them too.
    """

    protocols: tuple[ScoreProtocol, ...] = (_PAPER, _ALIGNED)
    ranked_by = "aligned.mae"

    def __init__(
        self,
        ground_sample_distance: float | None = None,
        metres_per_unit: float = 1.0,
        lpips: LpipsScore | None = None,
        metres: bool = False,
    ) -> None:
        self._metres = metres
        if metres:
            self.protocols = (_PAPER, _ALIGNED, OFFSET_PROTOCOL)
        self.ground_sample_distance = ground_sample_distance
        self.metres_per_unit = metres_per_unit
        self.lpips = lpips
        absent = ["paper.lpips"] if lpips is None else []
        absent += ["aligned.slope_error_degrees"] if ground_sample_distance is None else []
        self.absent = frozenset(absent)

    def score(
        self, target: NDArray[np.float32], prediction: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> dict[str, float]:
        """Score one map, all (H, W): the target in its file's unit, the prediction of any range."""
        paper = paper_scores(target, prediction, valid)
        if self.lpips is not None:
            filled = stretch_to_255(target, valid), stretch_to_255(prediction, valid)
            paper["lpips"] = self.lpips(*filled)
        aligned = aligned_scores(target, prediction, valid, self.ground_sample_distance, self.metres_per_unit)
        found = {"paper": paper, "aligned": aligned}
        if self._metres:
            found["offset"] = offset_scores(target, prediction, valid, self.metres_per_unit)
        return {f"{name}.{key}": value for name, scores in found.items() for key, value in scores.items()}

    def score_batch(self, batch: Batch, prediction: Tensor) -> list[Row | None]:
        """Score a batch's tiles; ``prediction`` is (B, 1, H, W).  A tile without a valid pixel has no row."""
        targets, valids = batch["target"][:, 0].cpu().numpy(), batch["valid"][:, 0].cpu().numpy()
        maps = prediction[:, 0].float().cpu().numpy()
        return [
            self.score(target, drawn, valid) if valid.any() else None
            for target, drawn, valid in zip(targets, maps, valids, strict=True)
        ]
