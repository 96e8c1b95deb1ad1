"""Relative depth fitted to an estimate: scale, zero and drift are found, and outliers do not bend it."""

from __future__ import annotations

import torch
from torch import Tensor

from Modules.stereo.guidance import Fit, fit_relative_depth, gated, guiding_channels
from Modules.stereo.hypotheses import Estimate, whole_range

SIZE = (64, 96)


def ground() -> Tensor:
    """Depth (1, 64, 96): a slope, and a roof of 10 m."""
    depth = 550 + 0.02 * torch.arange(SIZE[1]).expand(1, *SIZE).clone()
    depth[:, 16:40, 24:56] -= 10
    return depth


def relative_depth(truth: Tensor) -> Tensor:
    """The same without scale and zero, and with a drift across the image."""
    drifting = truth * (1 + 0.00003 * torch.arange(SIZE[0])[:, None])
    return (drifting - drifting.mean()) / drifting.std()


def estimated(truth: Tensor, spread: Tensor | float = 0.3) -> Estimate:
    """An estimate at a quarter of the size."""
    values = truth[:, ::4, ::4]
    width = torch.full_like(values, spread) if isinstance(spread, float) else spread
    return Estimate(values, torch.ones_like(values), width, torch.full_like(values, 0.5), values - 2.0)


def test_the_fit_finds_scale_zero_and_drift_and_draws_edges_of_the_finer_stage() -> None:
    truth = ground()
    fit = fit_relative_depth(relative_depth(truth), estimated(truth), 2)
    error = (fit.values - truth[:, ::2, ::2]).abs()
    assert fit.values.shape == (1, 32, 48)
    assert float(error.median()) < 0.3
    # Doubling the estimate alone draws ramps where the roof ends: 5 m between two pixels.
    assert float(error.max()) < 0.6


def test_maps_upside_down_fit_as_well() -> None:
    """Heights rise where depth falls."""
    truth = ground()
    up, down = (fit_relative_depth(sign * relative_depth(truth), estimated(truth), 2) for sign in (1, -1))
    torch.testing.assert_close(up.values, down.values, rtol=0, atol=1e-3)


def test_unsure_and_odd_pixels_do_not_bend_the_fit() -> None:
    truth, clean = ground(), estimated(ground())
    values, spread = clean.values.clone(), clean.spread.clone()
    values[:, 3:5, 15:17] += 60  # odd, and sure of it
    values[:, 12:, :6] -= 40  # wrong over a whole corner, and unsure
    spread[:, 12:, :6] = 40.0
    fit = fit_relative_depth(
        relative_depth(truth), Estimate(values, clean.confidence, spread, clean.step, clean.low), 2
    )
    error = (fit.values - truth[:, ::2, ::2]).abs()
    assert float(error[:, 6:10, 30:34].max()) < 2.0
    assert float(error[:, 24:, :12].median()) < 2.0


def test_a_constant_map_gives_the_smoothed_estimate_and_says_how_far_that_is_off() -> None:
    truth = ground()
    fit = fit_relative_depth(torch.zeros(1, *SIZE), estimated(truth), 2)
    # Beside the roof of 10 m the means of windows are metres off; far from it they are not.
    assert float(fit.deviation[0, 14, 20]) > 2.0
    assert float(fit.deviation[0, 30, 46]) < 0.5


def test_the_gate_follows_whichever_is_surer() -> None:
    centre, spread = torch.full((1, 1, 3), 100.0), torch.tensor([[[0.01, 1.0, 10.0]]])
    fit = Fit(torch.full((1, 1, 3), 104.0), torch.full((1, 1, 3), 1.0))
    torch.testing.assert_close(gated(centre, spread, fit)[0, 0], torch.tensor([100.0004, 102.0, 104 - 4 / 101]))


def test_channels_are_high_at_the_fit_and_low_where_it_is_not_trusted() -> None:
    tried = whole_range(torch.tensor([[0.0, 4.0]]), 5, (1, 2))
    fit = Fit(torch.full((1, 1, 2), 2.0), torch.tensor([[[0.0, 100.0]]]))
    near, trust = guiding_channels(tried, fit, 0, 5)[0]
    torch.testing.assert_close(near[:, 0, 0], torch.tensor([-2.0, -0.5, 0.0, -0.5, -2.0]).exp())
    assert float(near[:, 0, 1].min()) > 0.999
    torch.testing.assert_close(trust[0, 0], torch.tensor([1.0, 0.01]), rtol=1e-3, atol=0)
