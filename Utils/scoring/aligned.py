"""The aligned protocol: floats in the target's own unit, after a least-squares scale and shift of each tile."""

import math

import numpy as np
from numpy.typing import ArrayLike

from Utils.scoring.map_pairs import (
    DELTAS,
    BoolArray,
    FloatArray,
    as_pair,
    check_positive,
    comparable,
    delta_shares,
    fill,
    mean_ssim,
)
from Utils.scoring.scores import Metric, mean_of

ALIGNED: tuple[Metric, ...] = (
    Metric("abs_rel", "AbsRel", "lower", digits=4),
    Metric("rmse", "RMSE", "lower", digits=3),
    Metric("mae", "MAE", "lower", digits=3),
    *DELTAS,
    Metric("ssim", "SSIM", "higher", digits=4),
    Metric("gradient_error", "Gradient error", "lower", digits=4),
    Metric("slope_error_degrees", "Slope error", "lower", digits=2, unit="deg"),
)
"""The scores of `aligned_scores`; its `scale` and `shift` have no better direction, so no table ranks them."""


def aligned_scores(
    target: ArrayLike,
    prediction: ArrayLike,
    valid: BoolArray | None = None,
    ground_sample_distance: float | None = None,
    metres_per_unit: float = 1.0,
) -> dict[str, float]:
    """Score a relative prediction in the target's own units, after the best scale and shift of this tile.

    The prediction p is replaced by scale p + shift, the least-squares fit to the target over the valid pixels with
    scale >= 0 (Ranftl et al., TPAMI 2022, section 5, plus the bound: hills in place of valleys must not score as
    perfect, so an inverted prediction gets scale 0, the best that is allowed). A flat prediction gets scale 0 and the
    target's mean. A flat target is met exactly by scale 0: its errors are 0 whatever the prediction.

    Args:
        target: (H, W), any real dtype and unit.
        prediction: (H, W), any real dtype and unit.
        valid: (H, W) bool; pixels outside it enter neither the fit nor any mean.
        ground_sample_distance: metres between neighbouring pixels, needed for the slope.
        metres_per_unit: metres of height in one target unit, used by the slope alone.

    Returns:
        `scale`, `shift`: the fit;
        `abs_rel` = mean |t - p| / t and `delta1..3` = share (0..1) with max(t/p, p/t) < 1.25^k, where p <= 0 is a miss,
        both over the valid pixels with t > 0 only, NaN where there are none;
        `rmse`, `mae` in target units;
        `ssim`, scikit-image's defaults with the target's valid range as data range, averaged like that of
        `paper_scores`, NaN for a flat target;
        `gradient_error`, mean length of the difference of the two gradient vectors, in target units per pixel: central
        differences, over the valid pixels whose four neighbours are in the image and valid;
        `slope_error_degrees`, over the same pixels the mean |difference| of the slope angles
        atan(|gradient| metres_per_unit / ground_sample_distance), NaN without a ground sample distance.
        All are NaN when no pixel is valid, or when a valid pixel of either map is NaN or infinite.
    """
    if ground_sample_distance is not None:
        check_positive(ground_sample_distance, "ground_sample_distance")
    check_positive(metres_per_unit, "metres_per_unit")
    target, prediction, inside = as_pair(target, prediction, valid)
    true, guess = target[inside], prediction[inside]
    if not comparable(true, guess):
        return {key: math.nan for key in ("scale", "shift", *(metric.key for metric in ALIGNED))}

    scale, shift, guess = fit_scale_and_shift(true, guess)
    error = np.abs(true - guess)
    # Ratios to a height of zero or below mean nothing.
    positive = true > 0
    true_map, guess_map = fill(true, inside), fill(guess, inside)
    value_range = float(np.ptp(true))
    gradient_error, slope_error = _gradient_errors(
        true_map,
        guess_map,
        inside,
        math.nan if ground_sample_distance is None else metres_per_unit / ground_sample_distance,
    )
    return {
        "scale": scale,
        "shift": shift,
        "abs_rel": mean_of(error[positive] / true[positive]),
        "rmse": math.sqrt(float(np.mean(error**2))),
        "mae": float(np.mean(error)),
        **delta_shares(true[positive], guess[positive]),
        "ssim": mean_ssim(true_map, guess_map, inside, value_range) if value_range > 0 else math.nan,
        "gradient_error": gradient_error,
        "slope_error_degrees": slope_error,
    }


def fit_scale_and_shift(true: FloatArray, guess: FloatArray) -> tuple[float, float, FloatArray]:
    """Fit (N,) guess onto true by least squares with scale >= 0; return scale, shift and the fitted guess."""
    span = float(np.ptp(guess))
    if true.min() == true.max() or span == 0:
        # The exact value of a flat target, because its mean would have a rounding error.
        shift = float(true[0]) if true.min() == true.max() else float(true.mean())
        return 0.0, shift, np.full(guess.shape, shift)
    true_mean, guess_mean = float(true.mean()), float(guess.mean())
    # A span of 1 keeps the squares within the range of floats for predictions of any size.
    centred = (guess - guess_mean) / span
    # Products of arrays, not dot products: for those BLAS starts threads, which is slower here, and sums in any order.
    # The problem is convex in the scale, so where its free optimum is negative the bound itself is optimal.
    scale = max(float(np.mean(centred * (true - true_mean)) / np.mean(centred * centred)), 0.0)
    return scale / span, true_mean - scale / span * guess_mean, true_mean + scale * centred


def _gradient_errors(
    true: FloatArray, guess: FloatArray, inside: BoolArray, rise_per_unit: float
) -> tuple[float, float]:
    """Mean error of the gradient (target units per pixel) and of the slope (degrees) of (H, W) maps.

    `rise_per_unit` turns a gradient into a tangent: metres per target unit over metres per pixel; NaN gives NaN.
    """
    if min(true.shape) < 3:
        return math.nan, math.nan
    centre, up, down = inside[1:-1, 1:-1], inside[:-2, 1:-1], inside[2:, 1:-1]
    whole = centre & up & down & inside[1:-1, :-2] & inside[1:-1, 2:]
    (true_y, true_x), (guess_y, guess_x) = _central_differences(true), _central_differences(guess)
    gradient_error = mean_of(_length(true_y - guess_y, true_x - guess_x)[whole])
    if math.isnan(rise_per_unit):
        return gradient_error, math.nan
    true_slope = np.arctan(_length(true_y, true_x) * rise_per_unit)
    guess_slope = np.arctan(_length(guess_y, guess_x) * rise_per_unit)
    return gradient_error, math.degrees(mean_of(np.abs(true_slope - guess_slope)[whole]))


def slope_error(true: FloatArray, guess: FloatArray, inside: BoolArray, rise_per_unit: float) -> float:
    """Mean difference of slope angles in degrees, as ``aligned_scores`` takes it.

    Args:
        true: (H, W) heights.
        guess: (H, W) heights in the same unit.
        inside: (H, W) valid pixels.
        rise_per_unit: metres a unit of height over metres a pixel.
    """
    return _gradient_errors(true, guess, inside, rise_per_unit)[1]


def _central_differences(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (dz/dy, dz/dx), each (H-2, W-2), of the inner pixels of an (H, W) map."""
    return (values[2:, 1:-1] - values[:-2, 1:-1]) / 2, (values[1:-1, 2:] - values[1:-1, :-2]) / 2


def _length(down: FloatArray, right: FloatArray) -> FloatArray:
    # Three times as fast as np.hypot, whose guard against overflow no height needs.
    return np.sqrt(down * down + right * right)
