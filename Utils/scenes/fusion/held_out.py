"""Points that are kept from the fit, so that they can judge it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from Utils.core.seeds import derive_seed
from Utils.scenes.fusion.anchors import Points

__all__ = ["split_points"]

_BLOCKS = 8  # along the longer side: points of one track lie close, and neighbours would judge too kindly


def split_points(points: Points, share: float, height: int, width: int) -> tuple[Points, Points | None]:
    """Keep a share of the points back, in whole blocks of the scene.

    Args:
        points: on a scene of (height, width) pixels.
        share: 0 to 0.5.
        height: rows of the scene.
        width: its columns.

    Returns:
        Those for the fit, and those that judge it; None where none are kept back.
    """
    if share <= 0.0:
        return points, None
    side = max(height, width) / _BLOCKS
    blocks = (points.rows // side).astype(int) * (_BLOCKS + 1) + (points.columns // side).astype(int)
    order = np.random.default_rng(derive_seed(0, "held-out points")).permutation(np.unique(blocks))
    counts = np.array([int((blocks == block).sum()) for block in order])
    wanted = max(1, round(share * len(points.rows)))
    chosen = order[: int(np.searchsorted(np.cumsum(counts), wanted)) + 1]
    kept_back = np.isin(blocks, chosen)
    if kept_back.mean() > 1.5 * share + 1.0 / len(blocks):  # few blocks: single points then
        kept_back = np.zeros(len(blocks), bool)
        generator = np.random.default_rng(derive_seed(0, "held-out points"))
        kept_back[generator.permutation(len(blocks))[:wanted]] = True
    return _part(points, ~kept_back), _part(points, kept_back)


def _part(points: Points, chosen: NDArray[np.bool_]) -> Points:
    sigma = None if points.sigma is None else points.sigma[chosen]
    return Points(
        points.rows[chosen], points.columns[chosen], points.heights[chosen], points.left_out, points.datum, sigma
    )
