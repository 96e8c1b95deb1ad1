"""The three networks: published sizes, no dead layers, shapes, streaming, padding, and relative depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from Modules.common.components import load_component
from Modules.stereo import CasMVSNet, CasRED, StereoNetwork, UCSNet
from Modules.stereo.geometry import PinholeGeometry
from Modules.stereo.recurrent import RecurrentRegulariser
from tests.Modules.stereo.cameras import row_of_cameras

Build = Callable[..., StereoNetwork]
# Number of parameters of each network: plain, and with the published fusion without the layers that never ran.
SIZES: dict[Build, tuple[int, int]] = {
    CasMVSNet: (934_304, 1_874_384),
    UCSNet: (938_496, 1_878_576),
    CasRED: (1_094_523, 2_042_667),
}
SMALL: dict[str, Any] = {"hypotheses": (16, 8, 8), "base": 4}


def example(
    size: tuple[int, int] = (32, 64), views: int = 3, batch: int = 1
) -> tuple[Tensor, PinholeGeometry, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    images, maps = (torch.randn(batch, views, 3, *size) for _ in range(2))
    cameras = PinholeGeometry(row_of_cameras(views, size, batch=batch))
    return images, cameras, torch.tensor([[40.0, 60.0]] * batch), torch.full((batch, 1), 0.5), maps


def drawn(network: StereoNetwork, **options: Any) -> Tensor:
    """The last stage's values, in evaluation."""
    images, cameras, values, interval, maps = example(**options)
    with torch.no_grad():
        return network.eval()(images, cameras, values, interval, maps)[-1].values


@pytest.mark.parametrize("build", SIZES, ids=lambda build: build.__name__)
def test_sizes_are_the_published_ones_without_dead_layers(build: Build) -> None:
    for relative_depth, size in zip((False, True), SIZES[build], strict=True):
        assert sum(value.numel() for value in build(relative_depth).parameters()) == size


def test_regularisers_have_the_published_sizes() -> None:
    for build, sizes in ((UCSNet, [304_920, 298_008, 294_552]), (CasRED, [363_457, 351_937, 346_177])):
        found = [sum(v.numel() for v in part.parameters()) for part in build(True).regularisers]
        assert found == sizes


@pytest.mark.parametrize("relative_depth", [False, True, "guided"])
@pytest.mark.parametrize("build", SIZES, ids=lambda build: build.__name__)
def test_every_parameter_learns_and_stages_have_their_sizes(build: Build, relative_depth: bool | str) -> None:
    images, cameras, values, interval, maps = example()
    network = build(relative_depth, **SMALL)
    for value in network.parameters():
        if value.dim() == 1:  # timm begins with residual branches that are multiplied by 0
            torch.nn.init.uniform_(value, 0.5, 1.0)
    stages = network(images, cameras, values, interval, maps)
    assert [tuple(stage.values.shape) for stage in stages] == [(1, 8, 16), (1, 16, 32), (1, 32, 64)]
    for stage in stages:
        assert all(map_.shape == stage.values.shape for map_ in (stage.confidence, stage.spread, stage.step))
        assert bool(((stage.values >= 40) & (stage.values <= 60)).all())
        assert bool(((stage.confidence >= 0) & (stage.confidence <= 1.0001)).all())
    torch.stack([stage.values.mean() for stage in stages]).sum().backward()
    dead = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    # These change nothing, and stay because the published networks have them: a bias before a batch norm, and one that
    # all hypotheses share.
    assert [name for name in dead if not name.endswith(("second.bias", "shortcut.bias", "score.bias"))] == []


def test_red_streams_as_it_trains() -> None:
    """One slice after another, against all at once: equal to 1e-4, for a regulariser and for the whole network."""
    torch.manual_seed(0)
    regulariser, volume = RecurrentRegulariser(8, 4), torch.rand(1, 8, 12, 16, 24)
    whole = regulariser(volume)
    states = regulariser.first_states(volume[:, :, 0])
    for place in range(12):
        score, states = regulariser.slice(volume[:, :, place], states)
        torch.testing.assert_close(score, whole[:, place], rtol=0, atol=1e-4)
    images, cameras, values, interval, maps = example()
    network = CasRED(True, **SMALL).eval()
    at_once = network(images, cameras, values, interval, maps)
    with torch.no_grad():
        streamed = network(images, cameras, values, interval, maps)
    for own, other in zip(streamed, at_once, strict=True):
        # Of depths from 40 to 60 m: 1e-4 of 20 m.
        torch.testing.assert_close(own.values, other.values, rtol=0, atol=2e-3)


def test_memory_of_streaming_does_not_grow_with_the_hypotheses(monkeypatch: pytest.MonkeyPatch) -> None:
    from Modules.stereo import networks

    largest = []

    def watched(*arguments: Any, **options: Any) -> Tensor:
        volume = original(*arguments, **options)
        largest.append(volume.shape[2])
        return volume

    original = networks.variance_volume
    monkeypatch.setattr(networks, "variance_volume", watched)
    drawn(CasRED(**SMALL | {"hypotheses": (48, 8, 8)}))
    assert len(largest) == 64 and set(largest) == {1}


@pytest.mark.parametrize("build", SIZES, ids=lambda build: build.__name__)
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch(build: Build) -> None:
    network = build("guided", **SMALL).eval()
    images, cameras, values, interval, maps = example(batch=2)
    alone = PinholeGeometry(row_of_cameras(3, (32, 64)))
    with torch.no_grad():
        both = network(images, cameras, values, interval, maps)[-1].values
        one = network(images[1:], alone, values[1:], interval[1:], maps[1:])[-1].values
    torch.testing.assert_close(both[1:], one, rtol=0, atol=1e-3)


@pytest.mark.parametrize("relative_depth", ["none", "guided"])
def test_any_size_is_padded_and_cut(relative_depth: str) -> None:
    images, cameras, values, interval, maps = example((41, 70))
    with torch.no_grad():
        stages = UCSNet(relative_depth, **SMALL).eval()(images, cameras, values, interval, maps)
    assert [tuple(stage.values.shape[1:]) for stage in stages] == [(11, 18), (21, 35), (41, 70)]


def test_views_may_be_two_or_many_and_one_is_refused() -> None:
    network = CasMVSNet(**SMALL)
    assert drawn(network, views=2).shape == drawn(network, views=6).shape
    with pytest.raises(ValueError, match="two views or more, got 1"):
        drawn(network, views=1)


def test_relative_depth_that_is_missing_is_refused() -> None:
    images, cameras, values, interval, _ = example()
    with pytest.raises(ValueError, match="uses relative depth"):
        CasMVSNet("guided", **SMALL)(images, cameras, values, interval)


@pytest.mark.parametrize("relative_depth", ["concatenated", "guided"])
def test_relative_depth_changes_the_estimate(relative_depth: str) -> None:
    torch.manual_seed(0)
    network = CasMVSNet(relative_depth, **SMALL).eval()
    images, cameras, values, interval, maps = example()
    with torch.no_grad():
        own, other = (network(images, cameras, values, interval, each)[-1].values for each in (maps, maps.flip(-1)))
    assert float((own - other).abs().max()) > 1e-3


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings, said in (
        ({"network": "MVSNet"}, "unknown network 'MVSNet'"),
        ({"relative_depth": "fused"}, "unknown relative_depth 'fused'"),
        ({"hypotheses": (60, 32, 8)}, "multiples of 8"),
        ({"hypotheses": (64, 32)}, "3 stages"),
        ({"network": "CasRED", "hypotheses": (1, 32, 8)}, "2 or more"),
        ({"ratios": (4, 0, 1)}, "above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            StereoNetwork(**settings)  # type: ignore[arg-type]


def test_networks_are_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UCSNet(True, counting="visible", norm="group", geometry="pinhole", **SMALL)
    network.save_pretrained(tmp_path)
    loaded = load_component(StereoNetwork, tmp_path)
    assert loaded.config["geometry"] == "pinhole"
    assert torch.equal(drawn(loaded), drawn(network))
