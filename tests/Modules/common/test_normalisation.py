"""Per-tile stretch: values, masks, flat and empty tiles, inverse, gradients."""

from __future__ import annotations

import pytest
import torch

from Modules.common.normalisation import MinMaxNormalisation

STRETCH = MinMaxNormalisation()


def test_each_tile_by_its_own_extremes() -> None:
    height = torch.tensor([[[[2.0, 4.0], [6.0, 3.0]]], [[[-1.0, 0.0], [9.0, 4.0]]]])
    stretched, found = STRETCH.forward(height)
    assert stretched.flatten().tolist() == pytest.approx([0.0, 0.5, 1.0, 0.25, 0.0, 0.1, 1.0, 0.5])
    assert found.low.flatten().tolist() == [2.0, -1.0]
    assert found.span.flatten().tolist() == [4.0, 10.0]


def test_inverse_takes_it_back() -> None:
    height = torch.rand(3, 1, 7, 5) * 4000.0 - 500.0
    stretched, found = STRETCH.forward(height)
    # float32 keeps seven digits of 4000
    torch.testing.assert_close(STRETCH.inverse(stretched, found), height, rtol=0, atol=2e-3)


def test_only_valid_pixels_count() -> None:
    height = torch.tensor([[[[5.0, -9999.0], [7.0, float("nan")]]], [[[1.0, 2.0], [3.0, 5.0]]]])
    valid = torch.tensor([[[[True, False], [True, False]]], [[[True, True], [True, True]]]])
    stretched, found = STRETCH.forward(height, valid)
    assert stretched.flatten().tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.25, 0.5, 1.0]
    assert found.low.flatten().tolist() == [5.0, 1.0]
    assert torch.equal(STRETCH.forward(height[1:])[0], stretched[1:])


def test_flat_and_empty_tiles_are_zero() -> None:
    for level in (0.0, 5.0, -3.0e4, 1.0e-30):
        flat = torch.full((1, 1, 3, 3), level)
        stretched, found = STRETCH.forward(flat)
        assert stretched.abs().max() == 0.0
        assert found.span.item() == 1.0
        torch.testing.assert_close(STRETCH.inverse(stretched, found), flat)
    empty = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    stretched, found = STRETCH.forward(torch.full((1, 1, 3, 3), float("nan")), empty)
    assert stretched.abs().max() == 0.0
    assert (found.low.item(), found.span.item()) == (0.0, 1.0)


def test_small_relief_on_high_ground_is_no_flat_tile() -> None:
    stretched, _ = STRETCH.forward(torch.tensor([[[[4000.0, 4000.5, 4001.0]]]]))
    assert stretched.flatten().tolist() == pytest.approx([0.0, 0.5, 1.0])
    rounding = torch.tensor([[[[4000.0, 4000.0002, 4000.0]]]])  # one unit in the last place
    assert STRETCH.forward(rounding)[0].abs().max() == 0.0


def test_gradients_pass_the_extremes_too() -> None:
    # A grid of values, shuffled: near ties between extremes would break the numerical derivative.
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    height = (order.double() * 0.1).view(2, 1, 4, 4).requires_grad_()
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[:, :, 0] = False
    assert torch.autograd.gradcheck(lambda x: STRETCH.forward(x)[0], height)
    assert torch.autograd.gradcheck(lambda x: STRETCH.forward(x, valid)[0], height)


def test_gradients_of_flat_and_masked_pixels_are_finite_and_zero() -> None:
    height = torch.tensor([[[[2.0, 2.0]]], [[[float("nan"), 1.0]]]], requires_grad=True)
    valid = torch.tensor([[[[True, True]]], [[[False, True]]]])
    STRETCH.forward(height, valid)[0].sum().backward()
    assert height.grad is not None
    assert height.grad.tolist() == [[[[0.0, 0.0]]], [[[0.0, 0.0]]]]
