"""Which pixels of a depth map count: the crops of the published tables, and the nearest and farthest depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from Utils.scoring.depth.depth_names import CROPS, Crop
from Utils.scoring.map_pairs import BoolArray, FloatArray, check_positive

_NYU = (480, 640)
# Rows and columns of the NYU frames that hold depth after rectification (Eigen et al., NeurIPS 2014).
_EIGEN_NYU = np.s_[45:471, 41:601]
# Shares of height and width of a KITTI frame in which its lidar measures (Garg et al., ECCV 2016).
_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)


@dataclass(frozen=True)
class DepthLimits:
    """Which pixels count.

    Attributes:
        nearest: metres; truths at or below it do not count, and predictions are clipped to it.
        farthest: metres, likewise; infinite for no limit.
        crop: ``eigen_nyu`` for NYU frames, ``garg`` for KITTI frames, or ``none``.
    """

    nearest: float = 1e-3
    farthest: float = math.inf
    crop: Crop = "none"

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing."""
        check_positive(self.nearest, "nearest")
        if not self.farthest > self.nearest:
            raise ValueError(f"farthest is {self.farthest}; it must lie beyond nearest, {self.nearest}.")
        if self.crop not in CROPS:
            raise ValueError(f"unknown crop '{self.crop}'; known: {', '.join(CROPS)}.")

    def counted(self, true: FloatArray, valid: BoolArray) -> BoolArray:
        """The pixels (H, W) that count, of a truth in metres and its valid pixels.

        Raises:
            ValueError: a crop that was made for frames of another size.
        """
        inside = np.zeros_like(valid)
        inside[self._window(true.shape)] = True
        return inside & valid & (true > self.nearest) & (true < self.farthest)

    def clip(self, guess: FloatArray) -> FloatArray:
        """A prediction within the limits; what is not finite stays so."""
        clipped: FloatArray = np.where(np.isfinite(guess), np.clip(guess, self.nearest, self.farthest), guess)
        return clipped

    def describe(self) -> str:
        """The limits in words, for the definition of a protocol."""
        farthest = "without a farthest" if math.isinf(self.farthest) else f"to {self.farthest:g} m"
        crops = {
            "none": "whole frames",
            "eigen_nyu": "Eigen's crop of NYU frames (rows 45 to 470, columns 41 to 600)",
            "garg": "Garg's crop of KITTI frames",
        }
        return f"{crops[self.crop]}, truths from {self.nearest:g} m {farthest}, predictions clipped to that"

    def _window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        height, width = shape
        if self.crop == "garg":
            top, bottom, left, right = _GARG
            return np.s_[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
        if self.crop == "eigen_nyu":
            if shape != _NYU:
                raise ValueError(
                    f"the crop eigen_nyu is for frames of 640 x 480 pixels, not {width} x {height}; set another crop."
                )
            return _EIGEN_NYU
        return np.s_[:, :]


NYU_LIMITS = DepthLimits(farthest=10.0, crop="eigen_nyu")
"""As tables of NYU Depth v2 are made, on Eigen's 654 test frames."""
KITTI_LIMITS = DepthLimits(farthest=80.0, crop="garg")
"""As tables of KITTI are made, on Eigen's test frames."""
