"""The loss of multi-view stereo, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from Modules.losses.stereo_losses import STEREO, StageScores, StereoLoss
from Modules.stereo.names import STEREO_LOSSES


def test_configs_know_the_losses_that_there_are() -> None:
    assert set(STEREO_LOSSES) == STEREO.keys()


def test_stages_are_compared_with_every_fourth_second_and_each_pixel() -> None:
    """Errors 0.5, 3 and 0 m: 0.5 * 0.125 + 1 * 2.5 + 2 * 0."""
    target = torch.arange(64.0).view(1, 1, 8, 8)
    stages = [target[:, 0, ::4, ::4] + 0.5, target[:, 0, ::2, ::2] - 3.0, target[:, 0]]
    valid = torch.ones_like(target, dtype=torch.bool)
    assert float(StereoLoss()(stages, target, valid)) == pytest.approx(0.5 * 0.125 + 2.5)
    assert float(StereoLoss(["L1Loss"], (1.0, 0.0, 1.0))(stages, target, valid)) == pytest.approx(0.5)


def test_images_of_odd_size_have_stages_that_are_rounded_up() -> None:
    target = torch.arange(35.0).view(1, 1, 5, 7)
    stages = [target[:, 0, ::stride, ::stride] for stride in (4, 2, 1)]
    assert float(StereoLoss()(stages, target, torch.ones_like(target, dtype=torch.bool))) == 0.0


def test_masked_pixels_change_nothing_and_an_empty_mask_gives_no_nan() -> None:
    target = torch.full((2, 1, 8, 8), 100.0)
    valid = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    stages = [torch.full((2, 8 // s, 8 // s), 98.0, requires_grad=True) for s in (4, 2, 1)]
    loss = StereoLoss()(stages, torch.full_like(target, float("nan")), valid)
    loss.backward()
    assert float(loss.detach()) == 0.0 and all(float(stage.grad.abs().sum()) == 0.0 for stage in stages)  # type: ignore[union-attr]
    # One image knows one pixel of each stage: its own error alone counts.
    valid[1, 0, 0, 0] = True
    target[1, 0, 1:] = float("nan")
    assert float(StereoLoss()([stage.detach() for stage in stages], target, valid)) == pytest.approx(3.5 * 1.5)


def test_cross_entropy_shares_the_truth_out_between_its_two_neighbours() -> None:
    """Hypotheses at 10, 12, 14 and 16 m with probabilities 0.1, 0.2, 0.3 and 0.4; truth at 12.5, 18 and 17 m."""
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().view(1, 4, 1, 1).expand(1, 4, 1, 3) + 7.0
    stage = StageScores(scores, torch.full((1, 1, 3), 10.0), torch.full((1, 1, 3), 2.0))
    target, valid = torch.tensor([12.5, 18.0, 16.9]).view(1, 1, 1, 3), torch.ones(1, 1, 1, 3, dtype=torch.bool)
    # 18 m is a step away from the last and does not count; 16.9 m counts as the last.
    by_hand = (-0.75 * math.log(0.2) - 0.25 * math.log(0.3) - math.log(0.4)) / 2
    loss = StereoLoss(["CrossEntropyLoss"], (1.0,))
    assert float(loss([target[:, 0]], target, valid, [stage])) == pytest.approx(by_hand, abs=1e-6)
    both = StereoLoss(["L1Loss", "CrossEntropyLoss"], (2.0,))
    assert float(both([target[:, 0] + 3.0], target, valid, [stage])) == pytest.approx(3.0 + by_hand, abs=1e-6)
    nothing = torch.full_like(target, float("nan"))
    assert float(loss([target[:, 0]], nothing, ~valid, [stage])) == 0.0
