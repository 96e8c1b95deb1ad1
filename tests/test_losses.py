"""Losses: published numbers, an independent mask formulation, masks, flat tiles, batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from Modules import losses
from Modules.losses import CombinedLoss, HDNLoss, L1Loss, SSIMAELoss, build_loss

GOLDEN = Path(__file__).resolve().parents[1].parent / "shared" / "golden" / "hdn.npz"
FAMILIES = ("dr", "dp", "ds")
ALL_LOSSES: list[Callable[[], nn.Module]] = [
    HDNLoss,
    *(lambda family=family: HDNLoss(families=(family,)) for family in FAMILIES),
    SSIMAELoss,
    L1Loss,
    lambda: CombinedLoss([HDNLoss(), L1Loss()]),
]
IDS = ["HDN", *FAMILIES, "SSIMAE", "L1", "combined"]
# fp32 sums of a few thousand terms in another order
SUM_TOLERANCE = {"rtol": 2e-6, "atol": 1e-8}


# The oracle: every context a full-size mask, the median by nanmedian, gradients by autograd.


def oracle_masks(target: Tensor, valid: Tensor, family: str) -> list[Tensor]:
    """Masks (H, W) of one image's contexts, straight from the definition."""
    known = target[valid]
    masks = []
    for parts in (4, 2, 1):
        if family == "ds":
            height, width = target.shape
            for i in range(parts):
                for j in range(parts):
                    cell = torch.zeros_like(valid)
                    rows = slice(i * height // parts, (i + 1) * height // parts)
                    cell[rows, j * width // parts : (j + 1) * width // parts] = True
                    masks.append(cell & valid)
        elif known.numel():
            for i in range(parts):
                if family == "dr":
                    low, span = known.min(), known.max() - known.min()
                    lower = low + span * i * (1 / parts)
                    upper = low + span * (i + 1) * (1 / parts) + 1e-30
                else:
                    lower, upper = (torch.quantile(known, edge / parts) for edge in (i, i + 1))
                masks.append((target >= lower) & (target < upper) & valid)
    return masks


def oracle_normalise(values: Tensor, mask: Tensor) -> Tensor:
    """Values (H, W) less their median over the mask, over their scale there; 0 elsewhere."""
    median = values.masked_fill(~mask, torch.nan).flatten().nanmedian()
    shifted = torch.where(mask, values - median, 0)
    return shifted / (shifted.abs().sum() / (mask.sum() + 1) + 1e-6)


def oracle_sums(prediction: Tensor, target: Tensor, valid: Tensor, family: str) -> Tensor:
    """Sum over one image's pixels (H, W) of the mean over the contexts that hold them."""
    total, held = torch.zeros_like(prediction), torch.zeros_like(prediction)
    for mask in oracle_masks(target, valid, family):
        if mask.any():
            total = total + (oracle_normalise(prediction, mask) - oracle_normalise(target, mask)).abs()
            held = held + mask
    return (total / held.clamp(min=1)).sum()


def oracle_hdn(prediction: Tensor, target: Tensor, valid: Tensor, family: str) -> Tensor:
    """HDN of one family, (B, 1, H, W) in, by masks."""
    images = zip(prediction[:, 0], target[:, 0], valid[:, 0], strict=True)
    return torch.stack([oracle_sums(*image, family) for image in images]).sum() / prediction.numel()


# Helpers


def make_maps(shape: tuple[int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Prediction and target (B, 1, H, W) of distinct values, the prediction a leaf that asks for its gradient."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    target = torch.randn(batch, 1, height, width, generator=generator, dtype=dtype)
    prediction = 0.5 * target + torch.rand(target.shape, generator=generator, dtype=dtype)
    return prediction.requires_grad_(), target


def make_mask(like: Tensor, share: float = 0.7, seed: int = 1) -> Tensor:
    """A random mask that keeps the given share."""
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) < share


def gradient_of(loss: Tensor, leaf: Tensor) -> Tensor:
    """The gradient, without touching ``leaf.grad``."""
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def sums_over_equal_values(values: Tensor, gradient: Tensor) -> Tensor:
    """Gradient summed over equal-valued pixels of each image: a shared median puts it on any one of them."""
    sums = []
    for image, share in zip(values.flatten(1), gradient.flatten(1), strict=True):
        groups, member = image.unique(return_inverse=True)
        sums.append(torch.zeros(len(groups)).index_add_(0, member, share))
    return torch.cat(sums)


def load_golden(case: str) -> tuple[Tensor, Tensor, Tensor | None, dict[str, np.ndarray]]:
    if not GOLDEN.exists():
        pytest.skip("golden numbers are not in this checkout")
    with np.load(GOLDEN) as archive:
        arrays = {key.removeprefix(f"{case}."): archive[key] for key in archive.files if key.startswith(f"{case}.")}
    mask = torch.from_numpy(arrays["mask"]) if "mask" in arrays else None
    return torch.from_numpy(arrays["pred"]).requires_grad_(), torch.from_numpy(arrays["gt"]), mask, arrays


# Published numbers


@pytest.mark.parametrize("case", ["q64", "mask64", "const64"])
@pytest.mark.parametrize("numpy_path", [True, False], ids=["cpu_path", "device_path"])
def test_golden_values_and_gradients(case: str, numpy_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_use_numpy", lambda values: numpy_path)
    prediction, target, mask, golden = load_golden(case)
    per_family = HDNLoss().per_family(prediction, target, mask)
    total = HDNLoss()(prediction, target, mask)
    assert total.item() == pytest.approx(float(golden["total"]), rel=1e-6)
    for family in FAMILIES:
        assert per_family[family].item() == pytest.approx(float(golden[family]), rel=1e-6), family
    for value, key in [(total, "grad"), *((per_family[family], f"grad_{family}") for family in FAMILIES)]:
        got = sums_over_equal_values(prediction.detach(), gradient_of(value, prediction))
        expected = sums_over_equal_values(prediction.detach(), torch.from_numpy(golden[key]))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", ["q64", "mask64", "const64"])
def test_golden_pixel_counts(case: str) -> None:
    _, target, mask, golden = load_golden(case)
    valid = torch.ones_like(target, dtype=torch.bool) if mask is None else mask
    contexts = HDNLoss()._contexts(target.flatten(1), valid.flatten(1), *target.shape[-2:])
    for family in FAMILIES:
        counts = np.array([[max(stop - start, 0) for start, stop in runs] for runs in contexts[family].runs]).T
        np.testing.assert_array_equal(counts, golden[f"npix_{family}"], err_msg=family)


# Against the oracle


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 30, 47), (1, 61, 18), (1, 3, 5), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("numpy_path", [True, False], ids=["cpu_path", "device_path"])
def test_hdn_equals_mask_formulation(
    shape: tuple[int, int, int], masked: bool, family: str, numpy_path: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_use_numpy", lambda values: numpy_path)
    prediction, target = make_maps(shape)
    valid = make_mask(target, share=0.7 if masked else 2.0)
    got = HDNLoss(families=(family,))(prediction, target, valid if masked else None)
    expected = oracle_hdn(prediction, target, valid, family)
    torch.testing.assert_close(got, expected, **SUM_TOLERANCE)
    if expected.requires_grad:
        expected_gradient = gradient_of(expected, prediction)
        # a handful of pixels in a context can cancel to a scale near 0, hence the relative part
        torch.testing.assert_close(gradient_of(got, prediction), expected_gradient, rtol=1e-4, atol=1e-6)


def test_hdn_equals_mask_formulation_for_a_target_of_few_levels() -> None:
    prediction, target = make_maps((2, 40, 40))
    target = (target * 3).round() / 3  # edges fall on values, and 0 is one of them
    for family in FAMILIES:
        got = HDNLoss(families=(family,))(prediction, target)
        expected = oracle_hdn(prediction, target, torch.ones_like(target, dtype=torch.bool), family)
        torch.testing.assert_close(got, expected, **SUM_TOLERANCE)
        torch.testing.assert_close(
            gradient_of(got, prediction), gradient_of(expected, prediction), rtol=1e-4, atol=1e-6
        )


def test_a_pixel_at_an_edge_of_zero_is_in_both_bins() -> None:
    target = torch.tensor([-1.0, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    runs = HDNLoss(level=2)._contexts(target.flatten(1), everywhere, 2, 2)["dr"].runs
    assert runs == [[(0, 2), (1, 3), (0, 3)]]  # 1e-30 above the edge 0 takes the zero into the lower bin too
    prediction, _ = make_maps((1, 2, 2))
    everything = torch.ones_like(target, dtype=torch.bool)
    torch.testing.assert_close(
        HDNLoss(families=("dr",))(prediction, target), oracle_hdn(prediction, target, everything, "dr")
    )


def test_ssimae_equals_one_global_mask() -> None:
    prediction, target = make_maps((3, 21, 34))
    valid = make_mask(target)
    valid[1] = False
    got = SSIMAELoss()(prediction, target, valid)
    parts = []
    for image in (0, 2):
        mask = valid[image, 0]
        error = oracle_normalise(prediction[image, 0], mask) - oracle_normalise(target[image, 0], mask)
        parts.append(error.abs().sum() / mask.sum())
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(got, expected, **SUM_TOLERANCE)
    torch.testing.assert_close(gradient_of(got, prediction), gradient_of(expected, prediction), rtol=1e-4, atol=1e-6)


def test_l1_is_the_mean_over_valid_pixels_then_images() -> None:
    prediction, target = make_maps((3, 8, 9))
    valid = make_mask(target)
    valid[2] = False
    expected = torch.stack([(prediction - target)[i][valid[i]].abs().mean() for i in (0, 1)]).mean()
    torch.testing.assert_close(L1Loss()(prediction, target, valid), expected)
    torch.testing.assert_close(L1Loss()(prediction, target), (prediction - target).abs().mean())


@pytest.mark.parametrize("make", ALL_LOSSES[1:-1], ids=IDS[1:-1])
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_gradcheck(make: Callable[[], nn.Module], masked: bool) -> None:
    prediction, target = make_maps((2, 5, 5), dtype=torch.float64)
    valid = make_mask(target, share=0.8) if masked else None
    loss = make()
    assert torch.autograd.gradcheck(lambda values: loss(values, target, valid), (prediction,), eps=1e-7, atol=1e-5)


# Properties


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
def test_masked_pixels_change_nothing(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 22, 19))
    valid = make_mask(target)
    expected = make()(prediction, target, valid)
    expected_gradient = gradient_of(expected, prediction)
    assert (expected_gradient[~valid] == 0).all()
    for junk in (1e9, torch.nan, torch.inf, -torch.inf):
        dirty = prediction.detach().masked_fill(~valid, junk).requires_grad_()
        for dirty_target in (target, target.masked_fill(~valid, junk)):
            got = make()(dirty, dirty_target, valid)
            assert torch.equal(got, expected)
            assert torch.equal(gradient_of(got, dirty), expected_gradient)


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_batch_is_the_mean_of_its_images(make: Callable[[], nn.Module], masked: bool) -> None:
    prediction, target = make_maps((4, 20, 26))
    target[1] = 3.5
    valid = make_mask(target, share=0.6) if masked else None
    loss = make()
    single = [
        loss(prediction[i : i + 1], target[i : i + 1], None if valid is None else valid[i : i + 1]) for i in range(4)
    ]
    expected = torch.stack(single).mean()
    got = loss(prediction, target, valid)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient_of(got, prediction), gradient_of(expected, prediction), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
@pytest.mark.parametrize("level", [0.0, 0.3, -7.0])
def test_flat_tiles_stay_finite(make: Callable[[], nn.Module], level: float) -> None:
    varied, target = make_maps((2, 16, 16))
    flat = torch.full_like(target, level)
    for values, truth in (
        (varied, flat),
        (flat.clone().requires_grad_(), target),
        (flat.clone().requires_grad_(), flat),
    ):
        loss = make()(values, truth)
        assert loss.isfinite()
        assert gradient_of(loss, values).isfinite().all()


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
def test_images_without_valid_pixels_add_nothing(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 16, 12))
    target[1] = torch.nan
    nothing = torch.zeros_like(target, dtype=torch.bool)
    loss = make()(prediction, target, nothing)
    assert loss.item() == 0
    assert (gradient_of(loss, prediction) == 0).all()

    half = nothing.clone()
    half[0] = True
    loss = make()(prediction, target, half)
    assert loss.isfinite() and loss > 0
    assert (gradient_of(loss, prediction)[1] == 0).all()


@pytest.mark.parametrize("make", [HDNLoss, SSIMAELoss])
def test_scale_and_shift_of_the_prediction_do_not_matter(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 24, 24), dtype=torch.float64)
    valid = make_mask(target)
    # up to the 1e-6 beside the scale
    torch.testing.assert_close(
        make()(5 * prediction + 40, target, valid), make()(prediction, target, valid), rtol=1e-4, atol=0
    )
    assert make()(3 * target - 2, target, valid) < 1e-4


def test_weighted_families_give_weighted_gradients() -> None:
    prediction, target = make_maps((2, 16, 16))
    parts = HDNLoss().per_family(prediction, target)
    both = gradient_of(2 * parts["dr"] + 0.5 * parts["ds"], prediction)
    apart = 2 * gradient_of(parts["dr"], prediction) + 0.5 * gradient_of(parts["ds"], prediction)
    torch.testing.assert_close(both, apart)


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
def test_half_precision_is_compared_in_fp32(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((1, 32, 32))
    half = prediction.detach().to(torch.bfloat16).requires_grad_()
    loss = make()(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(half.detach().float(), target))
    assert gradient_of(loss, half).dtype == torch.bfloat16


@pytest.mark.parametrize("make", ALL_LOSSES, ids=IDS)
def test_value_is_the_same_without_gradients(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 17, 23))
    with torch.no_grad():
        bare = make()(prediction, target)
    torch.testing.assert_close(bare, make()(prediction, target).detach(), **SUM_TOLERANCE)


# Building


def test_build_loss_by_name() -> None:
    prediction, target = make_maps((2, 16, 16))
    assert isinstance(build_loss(["HDNLoss"]), HDNLoss)
    combined = build_loss(["HDNLoss", "L1Loss", "SSIMAELoss"])(prediction, target)
    single = [build_loss([name])(prediction, target) for name in ("HDNLoss", "L1Loss", "SSIMAELoss")]
    torch.testing.assert_close(combined, torch.stack(single).mean())


def test_unknown_loss_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'HDLoss'.*'HDNLoss', 'L1Loss', 'SSIMAELoss'.*did you mean 'HDNLoss'"):
        build_loss(["L1Loss", "HDLoss"])
    with pytest.raises(ValueError, match="non-empty list"):
        build_loss([])
    with pytest.raises(ValueError, match="non-empty list"):
        build_loss("HDNLoss")
    with pytest.raises(ValueError, match="at least one"):
        CombinedLoss([])


def test_wrong_arguments_are_refused() -> None:
    prediction, target = make_maps((2, 8, 8))
    with pytest.raises(ValueError, match="one shape"):
        L1Loss()(prediction, target[:1])
    with pytest.raises(ValueError, match="one shape"):
        HDNLoss()(prediction[:, 0], target[:, 0])
    with pytest.raises(ValueError, match="bool mask"):
        SSIMAELoss()(prediction, target, torch.ones_like(target))
    with pytest.raises(ValueError, match="families"):
        HDNLoss(families=("dr", "dq"))
    with pytest.raises(ValueError, match="level"):
        HDNLoss(level=0)
