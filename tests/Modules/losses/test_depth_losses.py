"""Losses of depth networks: against scikit-image and hand-made numbers, with masks, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as reference_similarity
from torch import Tensor, nn

from Modules.depth.names import DEPTH_LOSSES
from Modules.losses.depth_losses import (
    GradientLoss,
    OffsetFreeL1Loss,
    SILogLoss,
    SSIMEdgeL1Loss,
    build_depth_loss,
    depth_losses,
)
from Modules.losses.height_losses import L1Loss
from Modules.losses.structural_similarity import structural_similarity

LOSSES: list[Callable[[], nn.Module]] = [SSIMEdgeL1Loss, SILogLoss, OffsetFreeL1Loss, GradientLoss]
each_loss = pytest.mark.parametrize("build", LOSSES, ids=lambda build: build.__name__)


def maps(count: int = 2, height: int = 40, width: int = 56, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 1, height, width, generator=generator) * 0.8 + 0.1
    return (truth + 0.1 * torch.rand(truth.shape, generator=generator)).clamp(0, 1), truth


def reference(first: Tensor, second: Tensor) -> float:
    """scikit-image's SSIM without the border where its window hangs over."""
    _, each = reference_similarity(
        first.double().numpy(),
        second.double().numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(each[5:-5, 5:-5].mean())


def test_similarity_equals_scikit_image() -> None:
    guess, truth = maps()
    found = structural_similarity(guess, truth, torch.ones_like(truth, dtype=torch.bool))
    assert found.tolist() == pytest.approx([reference(g[0], t[0]) for g, t in zip(guess, truth, strict=True)], abs=1e-5)


def test_similarity_with_a_mask_equals_a_direct_formula() -> None:
    guess, truth = maps(1, 16, 17)
    valid = torch.rand(1, 1, 16, 17, generator=torch.Generator().manual_seed(1)) < 0.2
    x, y, m = (v[0, 0].double().numpy() for v in (guess, truth, valid))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(line, line) / np.outer(line, line).sum()
    total = weights = 0.0
    for row in range(6):
        for column in range(7):
            cut = np.s_[row : row + 11, column : column + 11]
            w = window * m[cut]
            share = w.sum()
            mx, my = (w * x[cut]).sum() / share, (w * y[cut]).sum() / share
            vx, vy = ((w * (v[cut] - mean) ** 2).sum() / share for v, mean in ((x, mx), (y, my)))
            covariance = (w * (x[cut] - mx) * (y[cut] - my)).sum() / share
            ssim = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
            total, weights = total + share * ssim, weights + share
    hidden = [torch.where(valid, v, 0) for v in (guess, truth)]
    assert structural_similarity(*hidden, valid).item() == pytest.approx(total / weights, abs=1e-5)


def test_maps_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="11 pixels wide, and the maps are 10 x 20"):
        SSIMEdgeL1Loss()(torch.rand(1, 1, 10, 20), torch.rand(1, 1, 10, 20))


def test_edges_of_a_ramp_by_hand() -> None:
    """A ramp of 3 x 4 that rises by 0.1 down and 0.2 to the right, against 0; surrounded by what is masked."""
    ramp = 0.1 * torch.arange(3.0)[:, None] + 0.2 * torch.arange(4.0)
    guess, valid = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    guess[0, 0, 5:8, 6:10], valid[0, 0, 5:8, 6:10] = ramp, True
    parts = SSIMEdgeL1Loss().parts(guess, torch.zeros_like(guess), valid)
    # 2 of 3 rows differ by 0.1 from the next, 3 of 4 columns by 0.2, in all of 12 pixels.
    assert parts["edge"].item() == pytest.approx((8 * 0.1 + 9 * 0.2) / 12)
    assert parts["l1"].item() == pytest.approx(ramp.mean().item())


def test_the_published_sum() -> None:
    guess, truth = maps()
    error = guess - truth
    down = nn.functional.pad(error.diff(dim=2), (0, 0, 0, 1)).abs()
    right = nn.functional.pad(error.diff(dim=3), (0, 1, 0, 0)).abs()
    structure = np.mean([(1 - reference(g[0], t[0])) / 2 for g, t in zip(guess, truth, strict=True)])
    expected = structure + (down + right).mean().item() + 0.3 * error.abs().mean().item()
    assert SSIMEdgeL1Loss()(guess, truth).item() == pytest.approx(expected, abs=1e-5)


def test_metres_are_compared_as_shares_of_the_largest_depth() -> None:
    guess, truth = maps()
    found = SSIMEdgeL1Loss(data_range=80.0)(80 * guess, 80 * truth)
    torch.testing.assert_close(found, SSIMEdgeL1Loss()(guess, truth), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="data_range"):
        SSIMEdgeL1Loss(data_range=0)


@each_loss
def test_no_error_no_loss(build: Callable[[], nn.Module]) -> None:
    _, truth = maps()
    valid = torch.rand(truth.shape) < 0.5
    for mask in (None, valid):
        guess = truth.clone().requires_grad_()
        loss = build()(guess, truth, mask)
        loss.backward()
        assert loss.item() == 0 and torch.isfinite(guess.grad).all()


@each_loss
def test_masked_pixels_change_nothing(build: Callable[[], nn.Module]) -> None:
    guess, truth = maps()
    valid = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    plain = guess.clone().requires_grad_()
    expected = build()(plain, truth, valid)
    expected.backward()
    for planted in (math.nan, math.inf, -1e30):
        spoilt = torch.where(valid, guess, planted).requires_grad_()
        found = build()(spoilt, torch.where(valid, truth, planted), valid)
        found.backward()
        assert torch.equal(found, expected) and torch.equal(spoilt.grad, plain.grad)
        assert not spoilt.grad[~valid].any()


@each_loss
def test_an_image_without_valid_pixels_adds_nothing(build: Callable[[], nn.Module]) -> None:
    guess, truth = maps(1)
    nothing = build()(guess, truth, torch.zeros_like(truth, dtype=torch.bool))
    assert nothing.item() == 0


@pytest.mark.parametrize("build", [SSIMEdgeL1Loss, SILogLoss], ids=lambda build: build.__name__)
def test_a_batch_is_the_mean_of_its_images_whatever_their_masks(build: Callable[[], nn.Module]) -> None:
    guess, truth = maps(3)
    valid = torch.rand(truth.shape) < torch.tensor([0.1, 0.5, 1.1]).view(3, 1, 1, 1)
    alone = [build()(guess[i : i + 1], truth[i : i + 1], valid[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(build()(guess, truth, valid), torch.stack(alone).mean())


def test_silog_by_hand() -> None:
    truth = torch.tensor([1.0, 2.0, 4.0, 0.0]).view(1, 1, 2, 2)
    guess = torch.tensor([2.0, 2.0, 2.0, 9.0]).view(1, 1, 2, 2)  # a target of 0 has no logarithm
    d = math.log(2)
    expected = math.sqrt(2 * d**2 / 3 + 1e-6) - 1e-3
    assert SILogLoss()(guess, truth).item() == pytest.approx(expected, rel=1e-5)
    scaled = SILogLoss()(1.3 * truth, truth).item()
    assert scaled == pytest.approx(math.sqrt(0.15 * math.log(1.3) ** 2 + 1e-6) - 1e-3, rel=1e-4)


def test_silog_survives_a_prediction_of_zero() -> None:
    guess = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = SILogLoss()(guess, torch.ones(1, 1, 4, 4))
    loss.backward()
    assert torch.isfinite(loss) and guess.grad is not None and torch.isfinite(guess.grad).all()


def test_gradients_at_four_scales_by_hand() -> None:
    """A ramp of 0.01 a column against 0: at a step of s pixels the difference is s times as large."""
    guess = 0.01 * torch.arange(32.0).expand(1, 1, 16, 32)
    assert GradientLoss()(guess, torch.zeros_like(guess)).item() == pytest.approx(0.01 * (1 + 2 + 4 + 8) / 4)
    assert GradientLoss()(guess + 5, guess).item() == pytest.approx(0, abs=1e-6)


def test_losses_by_name() -> None:
    assert set(DEPTH_LOSSES) == set(depth_losses())
    guess, truth = maps()
    both = build_depth_loss(["SSIMEdgeL1Loss", "L1Loss"], data_range=1.0)(guess, truth)
    alone = [build_depth_loss([name])(guess, truth) for name in ("SSIMEdgeL1Loss", "L1Loss")]
    torch.testing.assert_close(both, torch.stack(alone).mean())
    with pytest.raises(ValueError, match="did you mean 'SILogLoss'"):
        build_depth_loss(["SiLogLos"])


@each_loss
def test_mixed_precision_is_compared_in_fp32(build: Callable[[], nn.Module]) -> None:
    guess, truth = maps()
    half = guess.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = build()(half, truth)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, build()(half.float(), truth), rtol=1e-5, atol=1e-6)


def test_half_of_the_squared_mean_is_forgiven_as_glpn_does() -> None:
    truth = torch.rand(2, 1, 8, 9) * 50 + 1
    truth[:, :, 0] = 0  # summits have no logarithm
    found = SILogLoss(0.5)(truth / 2, truth)
    # ln 2 times the root of a half; the epsilon under the root takes away a thousandth.
    assert found.item() == pytest.approx(math.log(2) * math.sqrt(0.5), abs=2e-3)
    with pytest.raises(ValueError, match="forgiveness"):
        SILogLoss(1.5)


def test_offsets_cost_nothing_where_they_are_free() -> None:
    guess, truth = maps()
    shifted = guess + torch.tensor([3.0, -700.0])[:, None, None, None]
    loss = OffsetFreeL1Loss()
    assert loss(shifted, truth).item() == pytest.approx(loss(guess, truth).item(), abs=1e-4)
    assert loss(truth + 5, truth).item() == pytest.approx(0, abs=1e-5) and loss(2 * truth, truth).item() > 0.1


def test_losses_are_weighted_before_they_are_averaged() -> None:
    guess, truth = maps()
    one, two = L1Loss()(guess, truth), GradientLoss()(guess, truth)
    found = build_depth_loss(["L1Loss", "GradientLoss"], weights=[0.5, 4.0])(guess, truth)
    assert found.item() == pytest.approx((0.5 * one + 4.0 * two).item() / 2)
    assert build_depth_loss(["L1Loss"], weights=[3.0])(guess, truth).item() == pytest.approx(3 * one.item())
