"""Ranges of hypotheses, computed by hand; estimates from their scores, at once and one after another."""

from __future__ import annotations

import pytest
import torch

from Modules.stereo.hypotheses import (
    StreamedEstimate,
    around,
    double_size,
    estimate,
    fixed_half,
    spread_half,
    whole_range,
)

RANGE = torch.tensor([[500.0, 600.0]])
INTERVAL = torch.tensor([0.1])


def test_the_first_stage_spans_the_range() -> None:
    tried = whole_range(RANGE, 64, (2, 3))
    values = tried.values()
    assert values.shape == (1, 64, 2, 3)
    torch.testing.assert_close(values[0, :, 1, 2], torch.linspace(500, 600, 64))


@pytest.mark.parametrize(("count", "ratio", "half"), [(32, 2.0, 3.2), (8, 1.0, 0.4)])
def test_fixed_ranges_are_the_published_ones(count: int, ratio: float, half: float) -> None:
    """With an interval of 0.1 m: 3.2 m on both sides in the second stage, 0.4 m in the third, both ends included."""
    centre = torch.full((1, 1, 1), 550.0)
    tried = around(centre, fixed_half(count, ratio, INTERVAL, torch.zeros(1, 1, 1)), RANGE, count)
    values = tried.values()[0, :, 0, 0]
    torch.testing.assert_close(values, torch.linspace(550 - half, 550 + half, count), rtol=0, atol=1e-4)
    assert float(tried.step) == pytest.approx(count / (count - 1) * ratio * 0.1, abs=1e-5)


def test_a_fixed_range_reaches_to_the_next_hypotheses_of_the_stage_before() -> None:
    half = fixed_half(8, 1.0, INTERVAL, torch.tensor([[[2.5]]]))
    assert float(half) == 2.5


def test_hypotheses_stay_in_the_range() -> None:
    tried = around(torch.tensor([[[501.0, 599.5]]]), torch.tensor([[[3.2, 3.2]]]), RANGE, 5)
    torch.testing.assert_close(tried.values()[0, :, 0, 0], torch.linspace(500, 504.2, 5))
    torch.testing.assert_close(tried.values()[0, :, 0, 1], torch.linspace(596.3, 600, 5))


def test_ranges_of_ucsnet_follow_the_spread_down_to_a_least_width() -> None:
    """1.5 standard deviations on both sides, and one interval where there is no spread."""
    half = spread_half(torch.tensor([[[2.0, 0.0]]]), 1.5, INTERVAL)
    torch.testing.assert_close(half, torch.tensor([[[3.0, 0.1]]]))
    tried = around(torch.full((1, 1, 2), 550.0), half, RANGE, 3)
    torch.testing.assert_close(tried.values()[0, :, 0], torch.tensor([[547.0, 549.9], [550.0, 550.0], [553.0, 550.1]]))


def test_every_second_pixel_of_a_doubled_map_is_the_map() -> None:
    """Pixel i of stride 2 s is the pixel 2 i of stride s; between two lies their mean, and beyond the last the last."""
    values = torch.tensor([[[0.0, 4.0, 2.0], [8.0, 0.0, 6.0]]])
    twice = double_size(values)
    assert torch.equal(twice[:, ::2, ::2], values)
    torch.testing.assert_close(twice[0, 0], torch.tensor([0.0, 2.0, 4.0, 3.0, 2.0, 2.0]))
    torch.testing.assert_close(twice[0, :, 0], torch.tensor([0.0, 4.0, 8.0, 8.0]))


def test_a_doubled_plane_is_the_plane_at_the_pixels_of_the_next_stage() -> None:
    plane = 3.0 * torch.arange(0, 32, 4.0)[None, :, None] + 5.0 * torch.arange(0, 48, 4.0)[None, None]
    fine = 3.0 * torch.arange(0, 32, 2.0)[None, :, None] + 5.0 * torch.arange(0, 48, 2.0)[None, None]
    torch.testing.assert_close(double_size(plane)[:, :-1, :-1], fine[:, :-1, :-1])


def test_estimates_by_hand() -> None:
    """Probabilities 1/8, 1/8, 1/2, 1/4, 0, 0 of 10 to 15 m: 11.875 m; the bins 0 to 3 around 1.875 sum up to 1."""
    probability = torch.tensor([0.125, 0.125, 0.5, 0.25, 0.0, 0.0])
    scores = (probability + 1e-30).log()[None, :, None, None]
    tried = whole_range(torch.tensor([[10.0, 15.0]]), 6, (1, 1))
    four, peak = estimate(scores, tried, peak=False), estimate(scores, tried, peak=True)
    assert float(four.values) == pytest.approx(11.875)
    assert float(four.confidence) == pytest.approx(1.0) and float(peak.confidence) == pytest.approx(0.5)
    assert float(four.spread) == pytest.approx(
        (0.125 * 1.875**2 + 0.125 * 0.875**2 + 0.5 / 64 + 0.25 * 1.125**2) ** 0.5
    )


def test_confidence_is_of_four_bins_even_at_the_end_of_the_range() -> None:
    scores = torch.zeros(1, 8, 1, 1)
    scores[:, 7] = 100.0
    tried = whole_range(RANGE, 8, (1, 1))
    assert float(estimate(scores, tried, peak=False).confidence) == pytest.approx(1.0)
    assert float(estimate(torch.zeros(1, 8, 1, 1), tried, peak=False).confidence) == pytest.approx(0.5)


def test_scores_one_after_another_give_the_same_estimate() -> None:
    torch.manual_seed(0)
    scores = 5 * torch.randn(2, 40, 3, 4)
    tried = whole_range(torch.tensor([[0.0, 39.0], [100.0, 139.0]]), 40, (3, 4))
    streamed = StreamedEstimate()
    for score in scores.unbind(1):
        streamed.add(score)
    whole, found = estimate(scores, tried, peak=True), streamed.result(tried)
    for name in ("values", "confidence", "spread"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-4)


def test_large_scores_do_not_overflow() -> None:
    """exp(1000) is infinite even in fp64."""
    tried = whole_range(torch.tensor([[0.0, 2.0]]), 3, (1, 1))
    streamed = StreamedEstimate()
    for score in (-1000.0, 1000.0, 1000.0):
        streamed.add(torch.full((1, 1, 1), score))
    found = streamed.result(tried)
    assert float(found.values) == pytest.approx(1.5) and float(found.confidence) == pytest.approx(0.5)
