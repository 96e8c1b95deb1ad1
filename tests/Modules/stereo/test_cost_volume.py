"""Cost volumes in place, against the same written out with torch's own operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from Modules.stereo.cost_volume import variance_volume
from Modules.stereo.geometry import Positions
from Modules.stereo.names import Counting
from tests.direct_volume import direct_volume
from tests.Modules.stereo.cameras import geometry

SIZE = (12, 20)


def inputs(
    views: int = 3, channels: int = 4, depth: int = 6, base: float = 4.0
) -> tuple[list[Tensor], list[Positions]]:
    torch.manual_seed(0)
    features = [torch.randn(1, channels, *SIZE, requires_grad=True) for _ in range(views)]
    values = torch.linspace(20, 60, depth).view(1, -1, 1, 1).expand(1, depth, *SIZE)
    cameras = geometry(views=views, size=SIZE, base=base)
    return features, [cameras.positions(view, values, 1, SIZE) for view in range(1, views)]


@pytest.mark.parametrize("counting", ["all", "visible"])
@pytest.mark.parametrize("block", [1, 2500, 2**22])
def test_volume_and_gradients_equal_the_direct_ones(counting: Counting, block: int) -> None:
    features, positions = inputs()
    weights = torch.randn(1, 4, 6, *SIZE)
    expected = direct_volume(features[0], features[1:], positions, counting)
    wanted = torch.autograd.grad((expected * weights).sum(), features)
    found = variance_volume(features[0], features[1:], positions, counting, block)
    got = torch.autograd.grad((found * weights).sum(), features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_published_variance_by_hand() -> None:
    """Three views with features 1, 2 and 6 that all lie on top of each other: mean 3, variance (4 + 1 + 9) / 3."""
    features = [torch.full((1, 1, 4, 4), value) for value in (1.0, 2.0, 6.0)]
    cameras = geometry(size=(4, 4), base=0.0)
    values = torch.full((1, 1, 4, 4), 10.0)
    positions = [cameras.positions(view, values, 1, (4, 4)) for view in (1, 2)]
    volume = variance_volume(features[0], features[1:], positions)
    torch.testing.assert_close(volume, torch.full((1, 1, 1, 4, 4), 14 / 3))


def test_views_that_do_not_see_a_point_count_as_zeros_or_not_at_all() -> None:
    """Of features 2, 2 and 2 the second source sees nothing: (4 + 4 + 0) / 3 - (4 / 3)^2, or no variance."""
    features = [torch.full((1, 1, 2, 2), 2.0) for _ in range(3)]
    here = torch.zeros(1, 1, 2, 2)
    seen, unseen = torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    positions = [Positions(here, here, seen), Positions(here - 10, here - 10, unseen)]
    published = variance_volume(features[0], features[1:], positions)
    visible = variance_volume(features[0], features[1:], positions, "visible")
    torch.testing.assert_close(published, torch.full((1, 1, 1, 2, 2), 8 / 3 - 16 / 9))
    torch.testing.assert_close(visible, torch.zeros(1, 1, 1, 2, 2))


def test_what_no_source_sees_is_no_perfect_match() -> None:
    features = [torch.full((1, 1, 2, 2), 2.0) for _ in range(2)]
    away = torch.full((1, 1, 2, 2), -10.0)
    positions = [Positions(away, away, torch.zeros(1, 1, 2, 2, dtype=torch.bool))]
    for counting in ("all", "visible"):
        volume = variance_volume(features[0], features[1:], positions, counting)  # type: ignore[arg-type]
        torch.testing.assert_close(volume, torch.full((1, 1, 1, 2, 2), 4 / 2 - 1.0))


def test_half_precision_gives_a_volume_of_half_the_size_that_was_summed_in_fp32() -> None:
    features, positions = inputs()
    halves = [value.detach().bfloat16().requires_grad_() for value in features]
    volume = variance_volume(halves[0], halves[1:], positions)
    exact = variance_volume(halves[0].float(), [value.float() for value in halves[1:]], positions)
    assert volume.dtype == torch.bfloat16
    assert torch.equal(volume, exact.bfloat16())
    volume.float().sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.bfloat16 for value in halves)


def test_memory_kept_for_the_backward_pass_is_less_than_a_third_of_the_direct_one() -> None:
    """Tensors that autograd keeps, volume included: positions and features here, several volumes a source there."""
    features, positions = inputs(views=5, channels=16, depth=16)

    def kept(volume: object) -> int:
        sizes: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            made = volume(features[0], features[1:], positions)  # type: ignore[operator]
        return sum(sizes.values()) + made.nbytes

    assert 3 * kept(variance_volume) < kept(direct_volume)
