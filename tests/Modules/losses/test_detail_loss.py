"""The loss of detail, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from Modules.losses.detail_loss import DetailLoss


def test_heights_and_slopes_by_hand() -> None:
    truth = torch.zeros(1, 1, 2, 2)
    drawn = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    # One of four heights is off by 1, and one of two differences along each axis.
    assert float(DetailLoss()(drawn, truth, torch.ones_like(truth, dtype=torch.bool))) == 0.25 + 2 * (0.5 + 0.5)


def test_what_is_not_valid_does_not_count_not_even_as_nan() -> None:
    truth, valid = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[:, :, 0] = False
    drawn = torch.zeros(2, 1, 4, 4, requires_grad=True)
    truth[:, :, 0] = math.nan
    loss = DetailLoss()(drawn + 0.5, truth, valid)
    assert float(loss) == pytest.approx(0.25)
    loss.backward()
    assert drawn.grad is not None and torch.isfinite(drawn.grad).all()
    assert float(DetailLoss()(drawn, truth, torch.zeros_like(valid))) == 0.0


def test_blunders_count_as_if_they_were_bounded() -> None:
    truth, valid = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    cliffs = [DetailLoss()(truth + height, truth, valid) for height in (10.0, 1e6)]
    assert cliffs[0] == cliffs[1]
