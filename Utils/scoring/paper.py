"""The protocol of the published tables: both maps stretched to 0..255 by their own extremes and rounded."""

import math

import numpy as np
from numpy.typing import ArrayLike

from Utils.scoring.map_pairs import (
    DELTAS,
    BoolArray,
    FloatArray,
    as_map,
    as_mask,
    as_pair,
    comparable,
    delta_shares,
    fill,
    mean_ssim,
)
from Utils.scoring.scores import Metric

# The published protocol counts a zero error of a pixel as this, which bounds PSNR at 168.13 dB.
_ZERO_ERROR = 1e-6

PAPER: tuple[Metric, ...] = (
    Metric("mae", "MAE", "lower", digits=2),
    Metric("mse", "MSE", "lower", digits=1),
    Metric("rmse", "RMSE", "lower", digits=2),
    Metric("psnr", "PSNR", "higher", digits=2, unit="dB"),
    Metric("ssim", "SSIM", "higher", digits=4),
    *DELTAS,
)
"""The scores of `paper_scores`, in the order of its table."""

LPIPS = Metric("lpips", "LPIPS", "lower", digits=4)
"""The learned distance of the same protocol; its weights may be absent (`Utils.scoring.perceptual`)."""


def stretch_to_255(values: ArrayLike, valid: BoolArray | None = None) -> FloatArray:
    """Stretch a map to whole numbers 0..255 by its own minimum and maximum, as the published protocol does.

    Args:
        values: (H, W), any real dtype and unit.
        valid: (H, W) bool; the minimum and maximum are taken over these pixels, all of them when None.

    Returns:
        (H, W) float64 of rint(255 (v - min) / (max - min)). A constant map, zero or not, has no range to stretch and
        becomes 0. Invalid pixels become 0. A NaN or infinity among the valid pixels leaves no range: they all become
        NaN.
    """
    values = as_map(values, "values")
    inside = as_mask(valid, values.shape)
    stretched = np.zeros(values.shape)
    stretched[inside] = _stretch(values[inside])
    return stretched


def paper_scores(target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None = None) -> dict[str, float]:
    """Score a prediction by the protocol of the published tables (AAAI 2026, arXiv 2603.16362).

    Both maps are stretched by `stretch_to_255` first, so any affine change of either (with a positive factor) that
    floats can hold changes nothing, and every score is in these grey levels.

    Args:
        target: (H, W), any real dtype and unit.
        prediction: (H, W), any real dtype and unit.
        valid: (H, W) bool; pixels outside it enter neither the stretch nor any mean.

    Returns:
        `mae`, `mse`, `rmse` in grey levels, where a pixel without error counts as 1e-6;
        `psnr` = 10 log10(255^2 / mse) in dB;
        `ssim`, scikit-image's defaults at data range 255, the mean over the pixels whose whole 7x7 window is inside
        the image and valid (without a mask that is scikit-image's own mean), NaN where there is no such pixel;
        `delta1..3`, the share (0..1) of pixels with max(t/p, p/t) < 1.25^k, where 0/0 and x/0 are misses.
        All are NaN when no pixel is valid, or when a valid pixel of either map is NaN or infinite.
    """
    target, prediction, inside = as_pair(target, prediction, valid)
    true, guess = target[inside], prediction[inside]
    if not comparable(true, guess):
        return {metric.key: math.nan for metric in PAPER}
    true, guess = _stretch(true), _stretch(guess)

    error = np.abs(true - guess)
    error[error == 0] = _ZERO_ERROR
    mse = float(np.mean(error**2))
    return {
        "mae": float(np.mean(error)),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "psnr": 10 * math.log10(255**2 / mse),
        "ssim": mean_ssim(fill(true, inside), fill(guess, inside), inside, data_range=255.0),
        **delta_shares(true, guess),
    }


def _stretch(values: FloatArray) -> FloatArray:
    """Stretch (N,) values to whole numbers 0..255; see `stretch_to_255`."""
    if not np.isfinite(values).all():
        return np.full(values.shape, np.nan)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if low == high:
        return np.zeros(values.shape)
    return np.rint((values - low) / (high - low) * 255)
