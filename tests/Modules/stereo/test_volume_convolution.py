"""Convolutions of volumes: torch's own results, without its slow routine for one small volume."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from Modules.stereo.regularisers import VolumeUNet
from Modules.stereo.volume_convolution import VolumeConvolution


@pytest.mark.parametrize(("stride", "shape"), [(1, (8, 6, 10)), (2, (8, 6, 10)), (2, (5, 7, 3)), (1, (1, 4, 4))])
def test_results_and_gradients_are_those_of_torch(stride: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    volume = torch.randn(1, 4, *shape, requires_grad=True)
    layer = VolumeConvolution(4, 3, stride, bias=True)
    found = layer(volume)
    truth = functional.conv3d(volume, layer.weight, layer.bias, stride, 1)
    own, right = (torch.autograd.grad(out.square().sum(), [volume, *layer.parameters()]) for out in (found, truth))
    # Sums of some hundred numbers in another order, in fp32.
    for one, other in zip((found, *own), (truth, *right), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_one_small_volume_does_not_take_the_slow_way() -> None:
    volume = torch.randn(1, 8, 8, 16, 16)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        VolumeUNet(8, 4)(volume).sum().backward()
    assert not [event.key for event in seen.key_averages() if "slow_conv3d" in event.key]
