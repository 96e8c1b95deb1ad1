"""Stages that are computed again in the backward pass: the same gradients and statistics, and less that is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from Modules.stereo import CasMVSNet, CasRED, StereoNetwork
from tests.Modules.stereo.test_networks import SMALL, example


def kept_and_gradients(network: StereoNetwork) -> tuple[int, dict[str, Tensor]]:
    """Bytes that wait for the backward pass, and what it gives."""
    images, cameras, values, interval, _ = example(size=(32, 32))
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        stages = network(images, cameras, values, interval)
        loss = torch.stack([stage.values.square().mean() for stage in stages]).sum()
    loss.backward()
    return sum(kept.values()), {
        name: value.grad for name, value in network.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("build", [CasMVSNet, CasRED], ids=lambda build: build.__name__)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(build) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = build(**SMALL)
    again = copy.deepcopy(network)
    again.recompute = True
    whole, gradients = kept_and_gradients(network)
    part, others = kept_and_gradients(again)
    assert gradients.keys() == others.keys()
    for name, value in gradients.items():
        # The same operations in the same order.
        torch.testing.assert_close(others[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name, value in network.named_buffers():
        torch.testing.assert_close(dict(again.named_buffers())[name], value, msg=name)
    assert part < 0.5 * whole
