"""What every protocol of height maps needs: checked pairs of maps, and scores on valid pixels alone."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import minimum_filter
from skimage.metrics import structural_similarity

from Utils.scoring.scores import Metric, mean_of

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# skimage's default window; stated because the mask has to be eroded by the same one.
_SSIM_WINDOW = 7

DELTAS = tuple(Metric(f"delta{power}", f"delta{power}", "higher", digits=1, percent=True) for power in (1, 2, 3))
"""The shares of pixels within a factor 1.25, 1.25^2 and 1.25^3 of the truth."""


def as_map(values: ArrayLike, name: str) -> FloatArray:
    """Return (H, W) `values` as float64; ValueError where it is no map."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; a height map is (H, W).")
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype.kind in "iub"):
        raise ValueError(f"{name} has dtype {array.dtype}; a height map holds real numbers.")
    return array.astype(np.float64, copy=False)


def as_mask(valid: BoolArray | None, shape: tuple[int, ...]) -> BoolArray:
    """The mask, or one of all pixels; ValueError where it is no bool mask of ``shape``."""
    if valid is None:
        return np.ones(shape, dtype=np.bool_)
    mask = np.asarray(valid)
    # A mask of 0 and 1 (or 255) would silently index pixels instead of selecting them.
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"valid is {mask.dtype} of shape {mask.shape}; a mask for this map is bool of shape {shape}.")
    return mask


def as_pair(
    target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Target, prediction and mask (H, W), checked; ValueError where they do not fit together."""
    target, prediction = as_map(target, "target"), as_map(prediction, "prediction")
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape.")
    return target, prediction, as_mask(valid, target.shape)


def check_positive(value: float, name: str) -> None:
    """Raise ValueError unless ``value`` is positive and finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be a positive finite number.")


def comparable(true: FloatArray, guess: FloatArray) -> bool:
    """Whether there are values to compare, all of them finite."""
    return true.size > 0 and bool(np.isfinite(true).all() and np.isfinite(guess).all())


def fill(values: FloatArray, inside: BoolArray) -> FloatArray:
    """Lay (N,) valid values back into their (H, W) map.

    All other pixels get the mean. No window that is averaged contains them, but the running sums of the box filter pass
    over them, and a value of similar size keeps the precision of these sums.
    """
    if values.size == inside.size:
        return values.reshape(inside.shape)
    filled = np.full(inside.shape, values.mean())
    filled[inside] = values
    return filled


def delta_shares(true: FloatArray, guess: FloatArray) -> dict[str, float]:
    """Shares of pixels with max(t/p, p/t) < 1.25^k for t >= 0, written without a division.

    Multiplied out, 0 < 0 and x < 0 are false, so 0/0, x/0 and a negative guess are misses without special cases.
    """
    low, high = np.minimum(true, guess), np.maximum(true, guess)
    if not true.size:
        return {f"delta{power}": math.nan for power in (1, 2, 3)}
    return {f"delta{power}": float(np.mean(high < 1.25**power * low)) for power in (1, 2, 3)}


def mean_ssim(true: FloatArray, guess: FloatArray, inside: BoolArray, data_range: float) -> float:
    """Mean structural similarity of (H, W) maps over pixels whose whole window is in the image and valid."""
    if min(true.shape) < _SSIM_WINDOW:
        return math.nan
    mean, each = structural_similarity(true, guess, win_size=_SSIM_WINDOW, data_range=data_range, full=True)
    if inside.all():
        return float(mean)
    whole = minimum_filter(inside, size=_SSIM_WINDOW, mode="constant", cval=False)
    return mean_of(each[whole])
