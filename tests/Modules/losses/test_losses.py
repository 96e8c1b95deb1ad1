"""Losses: published numbers, an independent mask formulation, masks, flat tiles, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.loss import measure_loss
from Modules.losses import normalised_error
from Modules.losses.contexts import Hierarchy
from Modules.losses.height_losses import CombinedLoss, HDNLoss, L1Loss, SSIMAELoss, build_loss, drawing_l1, gradient_l1
from tests.hdn_oracle import oracle_hdn, oracle_normalise
from tests.paths import SHARED

GOLDEN = SHARED / "golden" / "hdn.npz"
FAMILIES = ("dr", "dp", "ds")
# fp32 sums of a few thousand terms in another order
SUM_TOLERANCE = {"rtol": 2e-6, "atol": 1e-8}


# Helpers


@pytest.fixture(params=["runs", "layers"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of working: the CPU's, and the one of other devices, here on the CPU."""
    monkeypatch.setattr(normalised_error, "_slice_contexts", lambda values: request.param == "runs")
    return request.param


both_ways = pytest.mark.usefixtures("way")


def combined() -> CombinedLoss:
    return CombinedLoss([HDNLoss(), L1Loss()])


def for_each(*cases: tuple[str, Callable[[], nn.Module]]) -> Callable[[Any], Any]:
    """A test of losses, each in the ways of working that it has."""
    ids = [f"{way}-{make.__name__}" for way, make in cases]
    each = pytest.mark.parametrize(("way", "make"), cases, ids=ids, indirect=["way"])
    return lambda test: each(both_ways(test))


# HDN is tested whole: it is the mean of its families, each of which is compared with the oracle.  L1 has one way.
LOSSES: list[tuple[str, Callable[[], nn.Module]]] = [
    *((way, make) for make in (HDNLoss, SSIMAELoss) for way in ("runs", "layers")),
    ("runs", L1Loss),
]
each_loss = for_each(*LOSSES)
# A combination hands mask and maps on.
each_loss_and_a_combination = for_each(*LOSSES, ("runs", combined))


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


@both_ways
@pytest.mark.parametrize("case", ["q64", "mask64", "const64"])
def test_golden_values_and_gradients(case: str) -> None:
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
    height, width = target.shape[-2:]
    for family in FAMILIES:
        contexts = Hierarchy((family,), (4, 2, 1), height, width)
        images = zip(target.flatten(1), valid.flatten(1), strict=True)
        runs = [next(contexts.runs(*image)).families[0] for image in images]
        counts = np.array([[max(stop - start, 0) for start, stop in image] for image in runs]).T
        np.testing.assert_array_equal(counts, golden[f"npix_{family}"], err_msg=family)


# Against the oracle


def assert_equals_oracle(prediction: Tensor, target: Tensor, valid: Tensor | None, family: str, level: int = 3) -> None:
    divisions = [2**power for power in reversed(range(level))]
    got = HDNLoss(level, (family,))(prediction, target, valid)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    expected = oracle_hdn(prediction, target, everywhere if valid is None else valid, family, divisions)
    torch.testing.assert_close(got, expected, **SUM_TOLERANCE)
    if expected.requires_grad:
        # a handful of pixels in a context can cancel to a scale near 0, hence the relative part
        torch.testing.assert_close(
            sums_over_equal_values(prediction.detach(), gradient_of(got, prediction)),
            sums_over_equal_values(prediction.detach(), gradient_of(expected, prediction)),
            rtol=1e-4,
            atol=1e-6,
        )


@both_ways
@pytest.mark.parametrize(
    ("shape", "masked"),
    # Halved without a rest, with one, upright, smaller than the grid, a single pixel.
    [((2, 64, 64), False), ((2, 30, 47), True), ((1, 61, 18), False), ((1, 3, 5), True), ((1, 1, 1), False)],
    ids=str,
)
@pytest.mark.parametrize("family", FAMILIES)
def test_hdn_equals_mask_formulation(shape: tuple[int, int, int], masked: bool, family: str) -> None:
    prediction, target = make_maps(shape)
    assert_equals_oracle(prediction, target, make_mask(target) if masked else None, family)


@both_ways
@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_hdn_of_other_levels(level: int, family: str) -> None:
    prediction, target = make_maps((2, 37, 50))
    assert_equals_oracle(prediction, target, make_mask(target), family, level)


@both_ways
@pytest.mark.parametrize("family", FAMILIES)
def test_hdn_of_maps_of_few_values(family: str) -> None:
    prediction, target = make_maps((2, 40, 40))
    target = (target * 3).round() / 3  # edges fall on values, and 0 is one of them
    prediction = ((prediction * 7).round() / 7).detach().requires_grad_()  # many a pixel is the median
    assert_equals_oracle(prediction, target, make_mask(target), family)


@both_ways
@pytest.mark.parametrize("family", FAMILIES)
def test_hdn_of_a_batch_with_flat_and_unknown_tiles(family: str) -> None:
    prediction, target = make_maps((4, 24, 20))
    target[0], target[1] = 0.0, 3.5
    valid = make_mask(target)
    valid[2] = False
    assert_equals_oracle(prediction, target, valid, family)


@both_ways
@pytest.mark.parametrize("family", FAMILIES)
def test_full_size_tile_against_fp64(family: str) -> None:
    prediction, target = make_maps((1, 512, 512))
    valid = make_mask(target, share=0.9)
    got = HDNLoss(families=(family,))(prediction, target, valid)
    expected = oracle_hdn(prediction, target, valid, family, dtype=torch.float64)
    # fp32 sums of 262144 terms, pairwise
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    exact = gradient_of(expected, prediction)
    apart = (gradient_of(got, prediction) - exact).abs()
    # where prediction^ and target^ agree to fp32's last digit, the sign of their difference is left to rounding
    assert (apart > 1e-5 * exact.abs().max()).sum() <= 3


@both_ways
@pytest.mark.parametrize("family", FAMILIES)
def test_fp64_maps_are_compared_in_fp64(family: str) -> None:
    prediction, target = make_maps((2, 48, 40), dtype=torch.float64)
    valid = make_mask(target)
    got = HDNLoss(families=(family,))(prediction, target, valid)
    expected = oracle_hdn(prediction, target, valid, family)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient_of(got, prediction), gradient_of(expected, prediction), rtol=1e-9, atol=1e-14)


@both_ways
def test_a_pixel_at_an_edge_of_zero_is_in_both_bins() -> None:
    target = torch.tensor([-1.0, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    (layout,) = Hierarchy(("dr",), (2, 1), 2, 2).runs(target.flatten(), torch.ones(4, dtype=torch.bool))
    assert layout.families == [[(0, 2), (1, 3), (0, 3)]]  # 1e-30 above the edge 0 takes the zero into the lower bin too
    prediction, _ = make_maps((1, 2, 2))
    assert_equals_oracle(prediction, target, None, "dr")


@both_ways
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


@each_loss
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_gradcheck(make: Callable[[], nn.Module], masked: bool) -> None:
    prediction, target = make_maps((2, 5, 5), dtype=torch.float64)
    valid = make_mask(target, share=0.8) if masked else None
    loss = make()
    assert torch.autograd.gradcheck(lambda values: loss(values, target, valid), (prediction,), eps=1e-7, atol=1e-5)


# Properties


@each_loss_and_a_combination
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


@each_loss_and_a_combination
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


@each_loss
def test_flat_tiles_stay_finite(make: Callable[[], nn.Module]) -> None:
    varied, target = make_maps((2, 16, 16))
    for level in (0.0, 0.3, -7.0):
        flat = torch.full_like(target, level)
        for values, truth in (
            (varied, flat),
            (flat.clone().requires_grad_(), target),
            (flat.clone().requires_grad_(), flat),
        ):
            loss = make()(values, truth)
            assert loss.isfinite()
            assert gradient_of(loss, values).isfinite().all()


@each_loss_and_a_combination
def test_a_diverged_prediction_is_seen(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 16, 16))
    for odd in (torch.inf, -torch.inf, torch.nan):
        diverged = prediction.detach().clone()
        diverged[1, 0, target[1, 0] == target[1].median()] = odd
        loss = make()(diverged.requires_grad_(), target)
        assert not loss.isfinite()


@both_ways
@pytest.mark.parametrize("make", [HDNLoss, SSIMAELoss])
def test_huge_predictions_of_a_flat_target_stay_finite(make: Callable[[], nn.Module]) -> None:
    prediction, _ = make_maps((1, 16, 16))
    loss = make()(1e33 * prediction, torch.zeros_like(prediction))
    assert loss.isfinite()
    assert gradient_of(loss, prediction).isfinite().all()


@each_loss_and_a_combination
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


@both_ways
@pytest.mark.parametrize("make", [HDNLoss, SSIMAELoss])
def test_scale_and_shift_of_the_prediction_do_not_matter(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 24, 24), dtype=torch.float64)
    valid = make_mask(target)
    # up to the 1e-6 beside the scale
    torch.testing.assert_close(
        make()(5 * prediction + 40, target, valid), make()(prediction, target, valid), rtol=1e-4, atol=0
    )
    assert make()(3 * target - 2, target, valid) < 1e-4


@both_ways
def test_weighted_families_give_weighted_gradients() -> None:
    prediction, target = make_maps((2, 16, 16))
    parts = HDNLoss().per_family(prediction, target)
    both = gradient_of(2 * parts["dr"] + 0.5 * parts["ds"], prediction)
    apart = 2 * gradient_of(parts["dr"], prediction) + 0.5 * gradient_of(parts["ds"], prediction)
    torch.testing.assert_close(both, apart)


@both_ways
def test_hdn_is_the_mean_of_its_families() -> None:
    prediction, target = make_maps((2, 26, 31))
    valid = make_mask(target)
    loss = HDNLoss()(prediction, target, valid)
    mean = torch.stack(list(HDNLoss().per_family(prediction, target, valid).values())).mean()
    torch.testing.assert_close(loss, mean, **SUM_TOLERANCE)
    torch.testing.assert_close(gradient_of(loss, prediction), gradient_of(mean, prediction), rtol=1e-5, atol=1e-9)


@each_loss
def test_each_run_gives_the_same_bits(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 33, 40))
    target = (target * 5).round() / 5
    prediction = ((prediction * 5).round() / 5).detach().requires_grad_()
    valid = make_mask(target)
    results = []
    for _ in range(3):
        loss = make()(prediction, target, valid)
        results.append((loss.detach(), gradient_of(loss, prediction)))
    for value, gradient in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])


@each_loss
def test_mixed_precision_changes_nothing(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((2, 24, 24))
    expected = make()(prediction, target)
    with torch.autocast("cpu", torch.bfloat16):
        got = make()(prediction, target)
    assert torch.equal(got, expected)
    assert torch.equal(gradient_of(got, prediction), gradient_of(expected, prediction))


# Memory, speed and other devices


@both_ways
@pytest.mark.parametrize("make", [HDNLoss, SSIMAELoss])
def test_one_gradient_is_all_that_waits_for_the_backward_pass(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((3, 32, 32))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        make()(prediction, target)
    assert sum(tensor.numel() for tensor in kept if tensor.numel() > len(prediction)) == prediction.numel()


@pytest.mark.parametrize("make", [HDNLoss, SSIMAELoss])
def test_other_devices_are_never_waited_for(make: Callable[[], nn.Module]) -> None:
    # a tensor of the meta device has no values: whatever reads one back to the host raises
    prediction = torch.empty(2, 1, 30, 41, device="meta", requires_grad=True)
    loss = make()(prediction, torch.empty_like(prediction), torch.ones_like(prediction, dtype=torch.bool))
    assert gradient_of(loss, prediction).shape == prediction.shape


class CountOperations(TorchDispatchMode):
    """The number of torch's operations, which a GPU launches one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_layers_are_as_many_for_any_batch() -> None:
    numbers = []
    for batch in (2, 5):
        maps = torch.empty(batch, 1, 24, 24, device="meta", requires_grad=True)
        with CountOperations() as operations:
            HDNLoss()(maps, torch.empty_like(maps))
        numbers.append(operations.number)
    assert numbers[0] == numbers[1]


def test_loss_is_faster_and_smaller_than_the_masks(forks_for_spawns: None) -> None:
    found = measure_loss(size=256, batch=4, repeats=2)
    # At this size about 15 times faster; noise of a busy machine meets both alike. Peaks do not depend on it.
    assert found["times_faster"] > 4
    assert found["times_smaller"] > 20


@each_loss
def test_half_precision_is_compared_in_fp32(make: Callable[[], nn.Module]) -> None:
    prediction, target = make_maps((1, 32, 32))
    half = prediction.detach().to(torch.bfloat16).requires_grad_()
    loss = make()(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(half.detach().float(), target))
    assert gradient_of(loss, half).dtype == torch.bfloat16


@each_loss
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


def all_of(maps: Tensor) -> Tensor:
    return torch.ones_like(maps[:, :1], dtype=torch.bool)


def test_the_gradient_term_by_hand() -> None:
    first = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])[None, None]
    second = torch.zeros(1, 1, 2, 3)
    along_rows, along_columns = (1 + 2 + 0 + 0) / 4, (2 + 1 + 1) / 3
    assert gradient_l1(first, second, all_of(first)).item() == pytest.approx(along_rows + along_columns)
    assert gradient_l1(first + 5.0, first, all_of(first)).item() == 0.0


def test_the_gradient_term_prefers_a_sharp_edge() -> None:
    edge = torch.zeros(1, 1, 8, 16)
    edge[..., 8:] = 1.0
    smeared = torch.linspace(-1.0, 2.0, 16).clamp(0.0, 1.0).expand(1, 1, 8, 16)
    raised = edge + (smeared - edge).abs().mean()  # as sharp as the truth, and as wrong in the mean
    assert (raised - edge).abs().mean() == pytest.approx((smeared - edge).abs().mean().item())
    assert gradient_l1(raised, edge, all_of(edge)) < 0.01 * gradient_l1(smeared, edge, all_of(edge))


def test_what_an_autoencoder_draws_in_a_void_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn, truth = torch.rand(2, 3, 3, 4, 5, generator=generator)
    valid = torch.ones(3, 1, 4, 5, dtype=torch.bool)
    valid[0, :, 1:3, 2:] = False
    valid[2] = False  # a map without any height
    loss = drawing_l1(drawn, truth, valid)
    expected = 0.0
    for image in (0, 1):
        error = drawn[image] - truth[image]
        known = valid[image, 0]
        pixels = [(c, r, k) for c in range(3) for r in range(4) for k in range(5) if known[r, k]]
        rows = [(c, r, k) for c, r, k in pixels if k < 4 and known[r, k + 1]]
        columns = [(c, r, k) for c, r, k in pixels if r < 3 and known[r + 1, k]]
        value = sum(abs(error[place].item()) for place in pixels) / len(pixels)
        along_rows = sum(abs((error[c, r, k + 1] - error[c, r, k]).item()) for c, r, k in rows) / len(rows)
        along_columns = sum(abs((error[c, r + 1, k] - error[c, r, k]).item()) for c, r, k in columns) / len(columns)
        expected += (value + 0.5 * (along_rows + along_columns)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)

    spoilt = truth.masked_fill(~valid, float("nan"))
    drawn.requires_grad_(True)
    drawing_l1(drawn, spoilt, valid).backward()
    assert drawn.grad is not None and drawing_l1(drawn, spoilt, valid).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(drawn.grad != 0.0, valid.expand_as(drawn))
