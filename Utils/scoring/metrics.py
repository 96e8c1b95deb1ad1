"""Scores of one predicted height map against its target, and their summary over tiles.

Two protocols. `paper_scores` is the one of the published tables: both maps are stretched to 0..255 by their own minimum
and maximum and rounded. `aligned_scores` keeps floats and target units, after a least-squares scale and shift.
Every function takes an optional mask of valid pixels; what lies under an invalid pixel, NaN included, changes nothing.
A score that does not exist is NaN, never 0, and `summarise` leaves it out and says how many tiles it counted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import minimum_filter
from skimage.metrics import structural_similarity

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# skimage's default window; stated because the mask has to be eroded by the same one.
_SSIM_WINDOW = 7
# The published protocol counts a zero error of a pixel as this, which bounds PSNR at 168.13 dB.
_ZERO_ERROR = 1e-6


@dataclass(frozen=True)
class Metric:
    """How one score is shown: `key` in a row of scores, column `heading`, direction, and digits after the point.

    A `percent` score is a share in 0..1 that tables show as per cent.
    """

    key: str
    heading: str
    higher_is_better: bool
    digits: int
    percent: bool = False

    def format(self, value: float) -> str:
        """Return `value` as a table cell without its unit; a score that does not exist reads `n/a`."""
        if math.isnan(value):
            return "n/a"
        return f"{value * 100 if self.percent else value:.{self.digits}f}"


_DELTAS = tuple(
    Metric(f"delta{power}", f"delta{power} (%)", higher_is_better=True, digits=1, percent=True) for power in (1, 2, 3)
)

PAPER: tuple[Metric, ...] = (
    Metric("mae", "MAE", higher_is_better=False, digits=2),
    Metric("mse", "MSE", higher_is_better=False, digits=1),
    Metric("rmse", "RMSE", higher_is_better=False, digits=2),
    Metric("psnr", "PSNR (dB)", higher_is_better=True, digits=2),
    Metric("ssim", "SSIM", higher_is_better=True, digits=4),
    *_DELTAS,
)
"""The scores of `paper_scores`, in the order of its table."""

LPIPS = Metric("lpips", "LPIPS", higher_is_better=False, digits=4)
"""The learned distance of the same protocol, which needs weights that may be absent (`Utils.scoring.perceptual`)."""

ALIGNED: tuple[Metric, ...] = (
    Metric("abs_rel", "AbsRel", higher_is_better=False, digits=4),
    Metric("rmse", "RMSE", higher_is_better=False, digits=3),
    Metric("mae", "MAE", higher_is_better=False, digits=3),
    *_DELTAS,
    Metric("ssim", "SSIM", higher_is_better=True, digits=4),
    Metric("gradient_error", "Gradient error", higher_is_better=False, digits=4),
    Metric("slope_error_degrees", "Slope error (deg)", higher_is_better=False, digits=2),
)
"""The scores of `aligned_scores`; its `scale` and `shift` have no better direction, so no table ranks them."""


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
    values = _as_map(values, "values")
    inside = _as_mask(valid, values.shape)
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
    target, prediction, inside = _as_pair(target, prediction, valid)
    true, guess = target[inside], prediction[inside]
    if not _comparable(true, guess):
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
        "ssim": _ssim(_fill(true, inside), _fill(guess, inside), inside, data_range=255.0),
        **_deltas(true, guess),
    }


def aligned_scores(
    target: ArrayLike,
    prediction: ArrayLike,
    valid: BoolArray | None = None,
    ground_sample_distance: float | None = None,
    metres_per_unit: float = 1.0,
) -> dict[str, float]:
    """Score a relative prediction in the target's own units, after the best scale and shift of this tile.

    The prediction p is replaced by scale p + shift, the least-squares fit to the target over the valid pixels with
    scale >= 0 (Ranftl et al., TPAMI 2022, section 5, plus the bound: hills for valleys must not score as perfect; a
    prediction that runs against the target gets the best it can, scale 0). A flat prediction gets scale 0 and the
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
        _check_positive(ground_sample_distance, "ground_sample_distance")
    _check_positive(metres_per_unit, "metres_per_unit")
    target, prediction, inside = _as_pair(target, prediction, valid)
    true, guess = target[inside], prediction[inside]
    if not _comparable(true, guess):
        return {key: math.nan for key in ("scale", "shift", *(metric.key for metric in ALIGNED))}

    scale, shift, guess = _fit(true, guess)
    error = np.abs(true - guess)
    # Ratios to a height of zero or below mean nothing.
    positive = true > 0
    true_map, guess_map = _fill(true, inside), _fill(guess, inside)
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
        "abs_rel": _mean(error[positive] / true[positive]),
        "rmse": math.sqrt(float(np.mean(error**2))),
        "mae": float(np.mean(error)),
        **_deltas(true[positive], guess[positive]),
        "ssim": _ssim(true_map, guess_map, inside, value_range) if value_range > 0 else math.nan,
        "gradient_error": gradient_error,
        "slope_error_degrees": slope_error,
    }


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Average the scores of tiles, one row a tile.

    Returns:
        For every key found in any row: `mean`; `standard_error` of that mean, the sample standard deviation over
        sqrt(count), NaN below two tiles; and `count`, the tiles behind them. A tile whose score is NaN or absent is
        left out, and the count shows it; with none left the mean is NaN.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: _summary([row.get(key, math.nan) for row in rows]) for key in keys}


def paired_change(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Average the change of each score, after - before, over the same tiles in the same order.

    Pairing takes the difficulty of a tile out of the standard error, which two separate summaries keep.

    Returns:
        As `summarise`; a tile counts where both of its scores exist.
    """
    if len(before) != len(after):
        raise ValueError(
            f"paired_change got {len(before)} tiles before and {len(after)} after; it needs the same tiles in the "
            "same order in both."
        )
    changes = [
        {key: new.get(key, math.nan) - old.get(key, math.nan) for key in {**old, **new}}
        for old, new in zip(before, after, strict=True)
    ]
    return summarise(changes)


def _as_map(values: ArrayLike, name: str) -> FloatArray:
    """Return (H, W) `values` as float64, or say why it is no map."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; a height map is (H, W).")
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype.kind in "iub"):
        raise ValueError(f"{name} has dtype {array.dtype}; a height map holds real numbers.")
    return array.astype(np.float64, copy=False)


def _as_mask(valid: BoolArray | None, shape: tuple[int, ...]) -> BoolArray:
    if valid is None:
        return np.ones(shape, dtype=np.bool_)
    mask = np.asarray(valid)
    # A mask of 0 and 1 (or 255) would silently index pixels instead of selecting them.
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"valid is {mask.dtype} of shape {mask.shape}; a mask for this map is bool of shape {shape}.")
    return mask


def _as_pair(
    target: ArrayLike, prediction: ArrayLike, valid: BoolArray | None
) -> tuple[FloatArray, FloatArray, BoolArray]:
    target, prediction = _as_map(target, "target"), _as_map(prediction, "prediction")
    if target.shape != prediction.shape:
        raise ValueError(f"target {target.shape} and prediction {prediction.shape} differ in shape.")
    return target, prediction, _as_mask(valid, target.shape)


def _check_positive(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be a positive finite number.")


def _comparable(true: FloatArray, guess: FloatArray) -> bool:
    return true.size > 0 and bool(np.isfinite(true).all() and np.isfinite(guess).all())


def _mean(values: FloatArray) -> float:
    """Return the mean, NaN of nothing (without numpy's warning)."""
    return float(np.mean(values)) if values.size else math.nan


def _stretch(values: FloatArray) -> FloatArray:
    """Stretch (N,) values to whole numbers 0..255; see `stretch_to_255`."""
    if not np.isfinite(values).all():
        return np.full(values.shape, np.nan)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    if low == high:
        return np.zeros(values.shape)
    return np.rint((values - low) / (high - low) * 255)


def _fill(values: FloatArray, inside: BoolArray) -> FloatArray:
    """Lay (N,) valid values back into their (H, W) map.

    The rest gets the mean: no window or neighbourhood that is averaged holds such a pixel, but the running sums of the
    box filter pass over them, and a value of the same size costs them no digits.
    """
    if values.size == inside.size:
        return values.reshape(inside.shape)
    filled = np.full(inside.shape, values.mean())
    filled[inside] = values
    return filled


def _deltas(true: FloatArray, guess: FloatArray) -> dict[str, float]:
    """Shares of pixels with max(t/p, p/t) < 1.25^k for t >= 0, written without a division.

    Multiplied out, 0 < 0 and x < 0 are false, so 0/0, x/0 and a negative guess are misses by themselves.
    """
    low, high = np.minimum(true, guess), np.maximum(true, guess)
    if not true.size:
        return {f"delta{power}": math.nan for power in (1, 2, 3)}
    return {f"delta{power}": float(np.mean(high < 1.25**power * low)) for power in (1, 2, 3)}


def _ssim(true: FloatArray, guess: FloatArray, inside: BoolArray, data_range: float) -> float:
    """Mean structural similarity of (H, W) maps over pixels whose whole window is in the image and valid."""
    if min(true.shape) < _SSIM_WINDOW:
        return math.nan
    mean, each = structural_similarity(true, guess, win_size=_SSIM_WINDOW, data_range=data_range, full=True)
    if inside.all():
        return float(mean)
    whole = minimum_filter(inside, size=_SSIM_WINDOW, mode="constant", cval=False)
    return _mean(each[whole])


def _fit(true: FloatArray, guess: FloatArray) -> tuple[float, float, FloatArray]:
    """Fit (N,) guess onto true by least squares with scale >= 0; return scale, shift and the fitted guess."""
    span = float(np.ptp(guess))
    if true.min() == true.max() or span == 0:
        # The exact value of a flat target: its mean would carry a rounding error.
        shift = float(true[0]) if true.min() == true.max() else float(true.mean())
        return 0.0, shift, np.full(guess.shape, shift)
    true_mean, guess_mean = float(true.mean()), float(guess.mean())
    # Unit span keeps the squares within floats for predictions of any size.
    centred = (guess - guess_mean) / span
    # Products of arrays, not dot products: BLAS wakes its threads for those, slower here, and sums in no fixed order.
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
    gradient_error = _mean(_length(true_y - guess_y, true_x - guess_x)[whole])
    if math.isnan(rise_per_unit):
        return gradient_error, math.nan
    true_slope = np.arctan(_length(true_y, true_x) * rise_per_unit)
    guess_slope = np.arctan(_length(guess_y, guess_x) * rise_per_unit)
    return gradient_error, math.degrees(_mean(np.abs(true_slope - guess_slope)[whole]))


def _central_differences(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (dz/dy, dz/dx), each (H-2, W-2), of the inner pixels of an (H, W) map."""
    return (values[2:, 1:-1] - values[:-2, 1:-1]) / 2, (values[1:-1, 2:] - values[1:-1, :-2]) / 2


def _length(down: FloatArray, right: FloatArray) -> FloatArray:
    # Three times as fast as np.hypot, whose guard against overflow no height needs.
    return np.sqrt(down * down + right * right)


def _summary(scores: Sequence[float]) -> dict[str, float]:
    known = np.array([score for score in scores if not math.isnan(score)], dtype=np.float64)
    error = math.nan
    if known.size > 1:
        error = float(np.std(known, ddof=1)) / math.sqrt(known.size)
    return {"mean": _mean(known), "standard_error": error, "count": known.size}
