"""Relative depth of pieces of views, drawn by a monocular model, as stereo networks have learnt it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Utils.core.errors import UserError
from Utils.core.predictor import Predictor
from Utils.core.whole_images import draw_whole
from Utils.data.stereo.relative_maps import blur_pyramid

__all__ = ["RelativeCrops"]

# Percentiles of the grey values that become black and white.
_BLACK, _WHITE = 1.0, 99.0


class RelativeCrops:
    """A monocular model draws pieces one by one.

    The scale of such a map jumps from piece to piece. That is no harm here: a network compares, or is guided by, a map
    within one piece only, and fits it to metres window by window.

    Args:
        predictor: the model.
        device: where it runs.

    Raises:
        UserError: a model that draws no relative depth.
    """

    def __init__(self, predictor: Predictor, device: torch.device) -> None:
        if predictor.predicts == "classes":
            raise UserError("--relative-depth: this model predicts classes, and no relative depth; give another one")
        self._predictor, self._device = predictor, device

    @torch.inference_mode()
    def draw(self, pixels: NDArray[np.float32]) -> Tensor:
        """The map of a piece and two blurred ones, (3, h, w), near is dark, each of mean 0 and deviation 1.

        Args:
            pixels: grey values (h, w), NaN without data; there the maps are 0.
        """
        known = np.isfinite(pixels)
        black, white = np.percentile(pixels[known], (_BLACK, _WHITE))
        grey = np.where(known, (pixels - black) / max(float(white - black), 1e-6), 0.5).clip(0, 1).astype(np.float32)
        image = torch.from_numpy(grey).to(self._device).expand(1, 3, -1, -1)
        rising = draw_whole(self._predictor, image, self._predictor.side)[0].float().cpu().numpy()
        if not np.isfinite(rising).all():
            raise UserError("--relative-depth: the model draws values that are no numbers; give another one")
        pyramid = blur_pyramid(np.where(known, -rising, -np.median(rising[known])).astype(np.float32))
        mean, deviation = (part(pyramid[:, known], axis=1)[:, None, None] for part in (np.mean, np.std))
        scaled = np.where(known, (pyramid - mean) / (deviation + 1e-8), 0.0)
        return torch.from_numpy(np.where(deviation > 1e-6, scaled, 0.0).astype(np.float32))

    def describe(self) -> Mapping[str, Any]:
        """What the model is."""
        return self._predictor.describe()
