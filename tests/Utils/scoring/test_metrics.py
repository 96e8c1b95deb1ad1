"""Scores against the golden numbers, against values worked out by hand, and under masks and affine changes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from tests.paths import SHARED
from Utils.scoring.aligned import ALIGNED, aligned_scores
from Utils.scoring.paper import LPIPS, PAPER, paper_scores, stretch_to_255
from Utils.scoring.scores import paired_change, summarise

GOLDEN = SHARED / "golden" / "metrics.npz"
GOLDEN_NAMES = {"acc1": "delta1", "acc2": "delta2", "acc3": "delta3"}
DELTAS = ("delta1", "delta2", "delta3")
ERRORS = ("abs_rel", "rmse", "mae", "gradient_error", "slope_error_degrees")


def random_pair(seed: int, shape: tuple[int, int] = (16, 19)) -> tuple[np.ndarray, np.ndarray]:
    """A smooth target of about 100..300 and a noisy prediction of it on another scale."""
    rng = np.random.default_rng(seed)
    target = 200 + rng.normal(size=shape).cumsum(0).cumsum(1)
    return target, 0.3 * target - 20 + rng.normal(size=shape)


def holey_mask(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """All valid but a corner block and two lone pixels, so that some SSIM windows stay whole."""
    valid = np.ones(shape, dtype=bool)
    valid[:3, :4] = False
    rng = np.random.default_rng(seed)
    valid[rng.integers(shape[0], size=2), rng.integers(shape[1], size=2)] = False
    return valid


def both(target: np.ndarray, prediction: np.ndarray, valid: np.ndarray | None = None) -> dict[str, float]:
    """The scores of both protocols in one row."""
    paper = paper_scores(target, prediction, valid)
    aligned = aligned_scores(target, prediction, valid, ground_sample_distance=30.0)
    return {f"paper.{key}": value for key, value in paper.items()} | aligned


# The golden numbers were computed in fp32, whose relative rounding is 6e-8 an operation.
@pytest.mark.parametrize("case", ["float01", "zeros", "identical", "rect"])
def test_paper_scores_match_the_golden_numbers(case: str) -> None:
    if not GOLDEN.is_file():
        pytest.skip("golden numbers are not beside this checkout")
    with np.load(GOLDEN) as golden:
        scores = paper_scores(golden[f"{case}.target"], golden[f"{case}.pred"])
        for name in ("mae", "mse", "rmse", "psnr", "ssim", *GOLDEN_NAMES):
            expected = float(golden[f"{case}.{name}"])
            assert scores[GOLDEN_NAMES.get(name, name)] == pytest.approx(expected, rel=5e-7), name


def test_paper_scores_by_hand() -> None:
    # Already 0..255, so the stretch keeps the values. Ratios: 0/0, 100/125 (= 1.25, no hit), 0/1, 255/255.
    target = np.array([[0, 100], [0, 255]], dtype=np.uint8)
    prediction = np.array([[0, 125], [1, 255]], dtype=np.uint8)
    scores = paper_scores(target, prediction)
    assert scores["mae"] == pytest.approx((25 + 1 + 2e-6) / 4, rel=1e-12)
    assert scores["mse"] == pytest.approx((625 + 1 + 2e-12) / 4, rel=1e-12)
    assert scores["rmse"] == pytest.approx(math.sqrt(156.5), rel=1e-9)
    assert scores["psnr"] == pytest.approx(10 * math.log10(65025 / 156.5), rel=1e-9)
    assert [scores[key] for key in DELTAS] == [0.25, 0.5, 0.5]
    assert math.isnan(scores["ssim"])  # no 7x7 window fits


def test_paper_scores_are_bounded_for_identical_maps() -> None:
    target, _ = random_pair(0)
    scores = paper_scores(target, target)
    assert scores["psnr"] == pytest.approx(10 * math.log10(65025e12), rel=1e-12)
    assert scores["ssim"] == pytest.approx(1)
    assert scores["delta1"] < 1  # the lowest pixel is 0/0, a miss


def test_stretch_rounds_and_spans_the_range() -> None:
    stretched = stretch_to_255(np.array([[-5.0, 0.0, 5.0]]))
    assert stretched.dtype == np.float64
    assert stretched.tolist() == [[0, 128, 255]]  # 127.5 rounds to even
    with_mask = stretch_to_255(np.array([[-5, 0, 5, 9000]]), np.array([[True, True, True, False]]))
    assert with_mask.tolist() == [[0, 128, 255, 0]]


@pytest.mark.parametrize("constant", [0.0, 7.3, -1e4, 0.1])
def test_stretch_of_a_flat_map_is_zero(constant: float) -> None:
    assert not stretch_to_255(np.full((8, 9), constant)).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_stretch_has_no_range_with_a_non_finite_value(bad: float) -> None:
    values = np.array([[1.0, bad, 3.0]])
    assert np.isnan(stretch_to_255(values)).all()
    assert stretch_to_255(values, np.isfinite(values)).tolist() == [[0, 0, 255]]


def test_stretch_takes_every_real_type() -> None:
    values = np.array([[0, 3], [4, 8]])
    expected = stretch_to_255(values)
    for dtype in (np.uint8, np.int16, np.uint16, np.float16, np.float32, np.int64):
        np.testing.assert_array_equal(stretch_to_255(values.astype(dtype)), expected)
    # Differences of uint8 and int8 would wrap round in their own type.
    assert stretch_to_255(np.array([[-128, 127]], dtype=np.int8)).tolist() == [[0, 255]]
    assert stretch_to_255(np.array([[False, True]])).tolist() == [[0, 255]]


def test_flat_maps_give_numbers_in_the_paper_protocol() -> None:
    target, _ = random_pair(1)
    flat = np.full(target.shape, 3.7)
    for pair in ((target, flat), (flat, target), (flat, np.zeros_like(flat))):
        scores = paper_scores(*pair)
        assert all(math.isfinite(value) for value in scores.values())
        assert all(scores[key] == 0 for key in DELTAS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["target", "prediction"])
def test_non_finite_values_give_nan_and_never_a_number(bad: float, where: str) -> None:
    target, prediction = random_pair(2)
    (target if where == "target" else prediction)[4, 5] = bad
    assert all(math.isnan(value) for value in both(target, prediction).values())


def test_no_valid_pixel_gives_nan() -> None:
    target, prediction = random_pair(3)
    nothing = both(target, prediction, np.zeros(target.shape, dtype=bool))
    assert nothing.keys() == both(target, prediction).keys()
    assert all(math.isnan(value) for value in nothing.values())
    assert all(math.isnan(value) for value in both(np.zeros((0, 5)), np.zeros((0, 5))).values())


@pytest.mark.parametrize("shape", [(16, 19), (40, 7), (7, 7), (3, 5), (1, 1), (1, 30)])
def test_an_all_valid_mask_changes_nothing(shape: tuple[int, int]) -> None:
    target, prediction = random_pair(4, shape)
    scores = both(target, prediction)
    masked = both(target, prediction, np.ones(shape, dtype=bool))
    assert scores.keys() == masked.keys()
    for key, value in scores.items():
        assert value == masked[key] or (math.isnan(value) and math.isnan(masked[key])), key


@pytest.mark.parametrize("junk", [0.0, math.nan, math.inf, -32768.0, 1e30])
def test_what_lies_under_invalid_pixels_changes_nothing(junk: float) -> None:
    target, prediction = random_pair(5, (24, 17))
    valid = holey_mask(5, target.shape)
    expected = both(target, prediction, valid)
    assert all(math.isfinite(value) for value in expected.values())
    assert both(np.where(valid, target, junk), np.where(valid, prediction, -junk), valid) == expected


def test_a_mask_that_cuts_off_a_border_equals_the_cropped_tile() -> None:
    target, prediction = random_pair(6, (20, 23))
    valid = np.zeros(target.shape, dtype=bool)
    valid[2:17, 3:21] = True
    masked = both(target, prediction, valid)
    cropped = both(target[2:17, 3:21], prediction[2:17, 3:21])
    for key, value in cropped.items():
        assert masked[key] == pytest.approx(value, rel=1e-9), key  # sums in another order


def test_ssim_is_nan_where_no_window_is_whole() -> None:
    target, prediction = random_pair(7, (13, 13))
    valid = np.ones(target.shape, dtype=bool)
    valid[6, 6] = False  # every 7x7 window of a 13x13 tile holds the centre
    scores = both(target, prediction, valid)
    assert math.isnan(scores["ssim"]) and math.isnan(scores["paper.ssim"])
    assert math.isfinite(scores["mae"]) and math.isfinite(scores["paper.mae"])


def test_masked_ssim_averages_the_whole_windows() -> None:
    target, prediction = random_pair(8, (30, 26))
    true, guess = stretch_to_255(target), stretch_to_255(prediction)
    valid = np.ones(target.shape, dtype=bool)
    # Outside both maps' extremes, so that the mask leaves the stretch alone.
    middle = np.abs(true - 127) + np.abs(guess - 127)
    y, x = np.unravel_index(np.argmin(middle), middle.shape)
    valid[y, x] = False
    _, each = structural_similarity(true, guess, data_range=255, full=True)
    whole = [
        each[row, column]
        for row in range(3, 27)
        for column in range(3, 23)
        if valid[row - 3 : row + 4, column - 3 : column + 4].all()
    ]
    # Box filters by running sums carry about 1e-13 of their values along.
    assert paper_scores(target, prediction, valid)["ssim"] == pytest.approx(np.mean(whole), rel=1e-9)


def test_aligned_scores_by_hand() -> None:
    # Fit of p = 0, 1, 2 to t = 1, 2, 6: scale 5/2, shift 3 - 5/2, fitted 0.5, 3, 5.5.
    scores = aligned_scores(np.array([[1, 2, 6]]), np.array([[0, 1, 2]]))
    assert scores["scale"] == pytest.approx(2.5)
    assert scores["shift"] == pytest.approx(0.5)
    assert scores["mae"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert scores["rmse"] == pytest.approx(math.sqrt(1.5 / 3))
    assert scores["abs_rel"] == pytest.approx((0.5 / 1 + 1 / 2 + 0.5 / 6) / 3)
    # Ratios 2, 1.5 and 12/11 against 1.25, 1.5625 and 1.953125.
    assert [scores[key] for key in DELTAS] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert all(math.isnan(scores[key]) for key in ("ssim", "gradient_error", "slope_error_degrees"))  # too small


def test_ratios_leave_out_targets_of_zero_and_below() -> None:
    # Scale 24/10, shift 1 - 2.4 * 2 = -3.8; the only height above zero, 8, is fitted as 5.8, a ratio of 1.38.
    target, prediction = np.array([[-4.0, 0.0, 0.0, 8.0]]), np.array([[0.0, 1.0, 3.0, 4.0]])
    scores = aligned_scores(target, prediction)
    assert scores["abs_rel"] == pytest.approx(2.2 / 8)
    assert [scores[key] for key in DELTAS] == [0, 1, 1]
    below = aligned_scores(-np.abs(target), prediction)
    assert math.isnan(below["abs_rel"]) and math.isnan(below["delta1"]) and math.isfinite(below["mae"])


def test_a_fitted_height_below_zero_is_a_miss() -> None:
    # 21 points on the line 12 p - 20 and one that the line puts at -8.
    prediction = np.append(np.arange(10.0, 31.0), 1.0)[None]
    target = 12 * prediction - 20
    target[0, -1] = 1
    scores = aligned_scores(target, prediction)
    assert scores["scale"] + scores["shift"] < 0
    assert [scores[key] for key in DELTAS] == [21 / 22] * 3


@pytest.mark.parametrize("shape", [(16, 19), (33, 8)])
def test_a_scaled_and_shifted_target_is_perfect(shape: tuple[int, int]) -> None:
    target, _ = random_pair(9, shape)
    scores = aligned_scores(target, 0.01 * target + 3, ground_sample_distance=30)
    assert scores["scale"] == pytest.approx(100)
    assert scores["shift"] == pytest.approx(-300)
    assert all(scores[key] == pytest.approx(0, abs=1e-9) for key in ERRORS)  # rounding of values of about 200
    assert all(scores[key] == pytest.approx(1) for key in (*DELTAS, "ssim"))


def test_an_inverted_map_is_no_better_than_a_flat_one() -> None:
    target, _ = random_pair(10)
    inverted = aligned_scores(target, -target)
    assert inverted["scale"] == 0
    assert inverted["shift"] == pytest.approx(target.mean())
    assert inverted["rmse"] == pytest.approx(target.std())
    assert inverted == pytest.approx(aligned_scores(target, np.full(target.shape, 0.1)), nan_ok=True)


def test_a_flat_target_is_met_exactly_and_has_no_structure() -> None:
    _, prediction = random_pair(11)
    scores = aligned_scores(np.full(prediction.shape, 0.1), prediction, ground_sample_distance=5)
    assert scores["scale"] == 0 and scores["shift"] == 0.1
    assert all(scores[key] == 0 for key in ERRORS)
    assert all(scores[key] == 1 for key in DELTAS)
    assert math.isnan(scores["ssim"])
    zero = aligned_scores(np.zeros(prediction.shape), prediction)
    assert zero["mae"] == 0 and math.isnan(zero["abs_rel"]) and math.isnan(zero["delta1"])


def test_aligned_ssim_is_that_of_skimage() -> None:
    target, prediction = random_pair(12, (31, 22))
    scores = aligned_scores(target, prediction)
    fitted = scores["scale"] * prediction + scores["shift"]
    expected = structural_similarity(target, fitted, data_range=np.ptp(target))
    assert scores["ssim"] == pytest.approx(expected, rel=1e-9)


def test_gradient_and_slope_errors_of_planes() -> None:
    # Perpendicular planes: the fit of x to y over a square grid is scale 0, so the prediction ends up level.
    y, x = np.mgrid[:9, :9].astype(float)
    scores = aligned_scores(3 * y, x, ground_sample_distance=6, metres_per_unit=2)
    assert scores["scale"] == pytest.approx(0, abs=1e-12)
    assert scores["gradient_error"] == pytest.approx(3)
    assert scores["slope_error_degrees"] == pytest.approx(45)  # atan(3 units * 2 m / 6 m)
    assert math.isnan(aligned_scores(3 * y, x)["slope_error_degrees"])


def test_gradient_error_compares_direction_and_slope_error_steepness() -> None:
    y, x = np.mgrid[:9, :9].astype(float)
    # Target x + y, prediction 2x: the fit is scale 1/2, level offset; difference (0, 1) everywhere.
    scores = aligned_scores(x + y, 2 * x, ground_sample_distance=1)
    assert scores["gradient_error"] == pytest.approx(1)
    assert scores["slope_error_degrees"] == pytest.approx(math.degrees(math.atan(math.sqrt(2))) - 45)


def test_gradients_need_all_four_neighbours() -> None:
    target, prediction = random_pair(13, (5, 5))
    valid = np.ones((5, 5), dtype=bool)
    valid[[1, 2, 3, 2], [2, 1, 2, 3]] = False  # a cross around the centre reaches every inner pixel
    scores = aligned_scores(target, prediction, valid, ground_sample_distance=1)
    assert math.isnan(scores["gradient_error"]) and math.isnan(scores["slope_error_degrees"])
    assert math.isfinite(scores["rmse"])
    lone = np.arange(9).reshape(3, 3) != 4  # nor is there a gradient where the pixel itself is invalid
    assert math.isnan(aligned_scores(target[:3, :3], prediction[:3, :3], lone)["gradient_error"])


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    masked=st.booleans(),
    height=st.integers(7, 14),
    width=st.integers(7, 14),
)
def test_aligned_scores_ignore_scale_and_shift_of_the_prediction(
    seed: int, scale: float, shift: float, masked: bool, height: int, width: int
) -> None:
    target, prediction = random_pair(seed, (height, width))
    valid = holey_mask(seed, target.shape) if masked else None
    before = aligned_scores(target, prediction, valid, ground_sample_distance=30)
    after = aligned_scores(target, scale * prediction + shift, valid, ground_sample_distance=30)
    for metric in ALIGNED:
        # The change itself rounds: 1e3 + 1e-3 * p keeps p to about 1e-10.
        expected = pytest.approx(before[metric.key], rel=1e-6, abs=1e-7, nan_ok=True)
        assert after[metric.key] == expected, metric.key


@given(seed=st.integers(0, 2**32 - 1), direction=st.floats(0, 2 * math.pi), step=st.floats(1e-3, 1.0))
def test_no_other_scale_and_shift_fits_better(seed: int, direction: float, step: float) -> None:
    rng = np.random.default_rng(seed)
    target, prediction = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    scores = aligned_scores(target, prediction)
    scale = scores["scale"] + step * math.cos(direction)
    assume(scale >= 0)
    other = scale * prediction + scores["shift"] + step * math.sin(direction)
    assert scores["rmse"] <= math.sqrt(np.mean((target - other) ** 2)) + 1e-12


@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-20, 20))
def test_paper_scores_ignore_the_unit_of_either_map(seed: int, power: int) -> None:
    # A power of two is exact in floats, so no pixel can round to the neighbouring grey level.
    target, prediction = random_pair(seed, (9, 8))
    assert paper_scores(target, prediction * 2.0**power) == paper_scores(target, prediction)
    assert paper_scores(target * 2.0**power, prediction) == paper_scores(target, prediction)


def test_inputs_are_left_as_they_were() -> None:
    target, prediction = random_pair(14)
    copies = target.copy(), prediction.copy()
    both(target, prediction)
    np.testing.assert_array_equal(target, copies[0])
    np.testing.assert_array_equal(prediction, copies[1])


@pytest.mark.parametrize("scores", [paper_scores, aligned_scores])
def test_impossible_input_is_refused(scores: Callable[..., dict[str, float]]) -> None:
    tile = np.zeros((8, 9))
    with pytest.raises(ValueError, match="shape"):
        scores(tile, tile.T)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        scores(tile[None], tile[None])
    with pytest.raises(ValueError, match="real"):
        scores(tile, tile.astype(complex))
    with pytest.raises(ValueError, match="bool"):
        scores(tile, tile, np.ones(tile.shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="mask"):
        scores(tile, tile, np.ones(tile.T.shape, dtype=bool))


@pytest.mark.parametrize("bad", [0.0, -30.0, math.nan, math.inf])
def test_an_impossible_ground_is_refused(bad: float) -> None:
    tile = np.zeros((8, 9))
    with pytest.raises(ValueError, match="ground_sample_distance"):
        aligned_scores(tile, tile, ground_sample_distance=bad)
    with pytest.raises(ValueError, match="metres_per_unit"):
        aligned_scores(tile, tile, metres_per_unit=bad)


def test_the_tables_name_every_score() -> None:
    target, prediction = random_pair(15)
    assert [metric.key for metric in PAPER] == list(paper_scores(target, prediction))
    assert {metric.key for metric in ALIGNED} | {"scale", "shift"} == aligned_scores(target, prediction).keys()
    assert {type(value) for value in both(target, prediction).values()} == {float}


def test_a_metric_formats_its_cells() -> None:
    columns = {metric.key: metric for metric in PAPER}
    assert columns["delta3"].format(0.7214) == "72.1"
    assert columns["mae"].format(21.6) == "21.60"
    assert LPIPS.format(math.nan) == "n/a"


def test_summary_counts_what_it_averaged() -> None:
    rows = [{"a": 1.0, "b": math.nan}, {"a": 2.0, "b": 5.0}, {"a": 6.0, "c": math.nan}]
    summary = summarise(rows)
    assert list(summary) == ["a", "b", "c"]
    assert summary["a"] == pytest.approx({"mean": 3, "standard_error": math.sqrt(7 / 3), "count": 3})
    assert summary["b"]["mean"] == 5 and summary["b"]["count"] == 1 and math.isnan(summary["b"]["standard_error"])
    assert summary["c"]["count"] == 0 and math.isnan(summary["c"]["mean"])
    assert summarise([]) == {}


def test_paired_change_takes_the_tile_out() -> None:
    before = [{"a": 10.0, "b": 1.0}, {"a": 200.0, "b": math.nan}, {"a": 3000.0, "b": 2.0}]
    after = [{"a": 9.0, "b": 3.0}, {"a": 198.0, "b": 1.0}, {"a": 2997.0, "b": math.nan}]
    change = paired_change(before, after)
    assert change["a"] == pytest.approx({"mean": -2, "standard_error": math.sqrt(1 / 3), "count": 3})
    assert change["b"]["mean"] == 2 and change["b"]["count"] == 1
    with pytest.raises(ValueError, match="2 after"):
        paired_change(before, after[:2])
