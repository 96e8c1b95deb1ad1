"""Depth networks: the published one and its decoder on other encoders; sizes, ranges, gradients, saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from Modules.common.components import load_component
from Modules.depth import EncDec, EncDecIRv2
from Modules.depth.decoder import Decoder, DecoderBlock
from Modules.depth.names import TARGETS, ChannelOrder, Scaling, Taps
from Modules.losses.depth_losses import SSIMEdgeL1Loss


def toy(**changes: Any) -> EncDec:
    torch.manual_seed(0)
    return EncDec(**{"backbone": "test_resnet", "widths": (16, 8)} | changes)


@pytest.fixture(scope="module")
def published() -> EncDec:
    torch.manual_seed(0)
    return EncDecIRv2()


def test_the_published_network_has_the_published_size(published: EncDec) -> None:
    assert sum(part.numel() for part in published.parameters() if part.requires_grad) == 31_138_753
    decoder = sum(part.numel() for part in published.decoder.parameters())
    assert decoder == 3_324_193 - 2 * 2 * (256 + 128 + 64 + 32), "the published count has the running statistics too"


@pytest.mark.parametrize("size", [(96, 128), (240, 320), (256, 256), (100, 131), (16, 33)])
def test_any_size_in_the_same_size_out(published: EncDec, size: tuple[int, int]) -> None:
    with torch.no_grad():
        depth = published.eval()(torch.rand(1, 3, *size))
    assert depth.shape == (1, 1, *size) and depth.dtype == torch.float32
    assert 0 < depth.min() < depth.max() < 1


def test_gradients_reach_every_parameter(published: EncDec) -> None:
    published.train().zero_grad()
    (published(torch.rand(2, 3, 64, 96)) * torch.rand(2, 1, 64, 96)).sum().backward()
    dead = [name for name, part in published.named_parameters() if part.grad is None or not part.grad.abs().sum()]
    assert dead == []


def test_the_smallest_batch_trains(published: EncDec) -> None:
    """A last batch of one tile of the smallest size has more than one value a channel in every batch norm."""
    published.train()
    assert published(torch.rand(1, 3, 20, 20)).shape == (1, 1, 20, 20)


def test_blocks_are_the_published_ones(published: EncDec) -> None:
    shapes = [
        [tuple(part.weight.shape[:2]) for part in block.children() if isinstance(part, nn.Conv2d)]
        for block in published.decoder.blocks
    ]
    assert shapes == [
        [(256, 288), (256, 512), (256, 256)],
        [(128, 256), (128, 208), (128, 128)],
        [(64, 128), (64, 96), (64, 64)],
        [(32, 64), (32, 35), (32, 32)],
    ]
    norms = [part for part in published.decoder.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {(part.eps, part.momentum) for part in norms} == {(1e-3, 0.01)} and len(norms) == 8


def test_a_block_by_hand() -> None:
    torch.manual_seed(0)
    block = DecoderBlock(4, 2, 3, norm_momentum=0.1).eval()
    for part in (block.first_norm, block.second_norm):
        nn.init.uniform_(part.running_mean), nn.init.uniform_(part.running_var, 0.5, 2.0)
    feature, skip = torch.randn(1, 4, 3, 5), torch.randn(1, 2, 6, 10)
    act, up = nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2, mode="bilinear")
    with torch.no_grad():
        joined = torch.cat([act(block.reduce(up(feature))), skip], dim=1)
        expected = block.second_norm(act(block.second(block.first_norm(act(block.first(joined))))))
        assert torch.equal(block(feature, skip), expected)


def test_the_published_network_sees_blue_first_and_each_image_stretched(published: EncDec) -> None:
    image = torch.rand(2, 3, 8, 8) * 0.5 + 0.2
    seen = published.prepare(image)
    assert seen.amin(dim=(1, 2, 3)).tolist() == [0, 0] and seen.amax(dim=(1, 2, 3)).tolist() == [1, 1]
    low, high = image[0].min(), image[0].max()
    torch.testing.assert_close(seen[0, 0], (image[0, 2] - low) / (high - low))
    assert torch.equal(published.prepare(torch.full((1, 3, 8, 8), 0.3)), torch.zeros(1, 3, 8, 8))


def test_other_encoders_see_images_normalised() -> None:
    network = toy(backbone="resnet18")
    seen = network.prepare(torch.full((1, 3, 4, 4), 0.5))
    assert seen[0, :, 0, 0].tolist() == pytest.approx([0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225], rel=1e-4)
    swapped = toy(backbone="resnet18", channel_order="BGR").prepare(torch.full((1, 3, 4, 4), 0.5))
    assert torch.equal(swapped, seen.flip(1))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("size", [(37, 53), (64, 96), (1, 40)])
def test_any_encoder_takes_any_size(backbone: str, size: tuple[int, int]) -> None:
    network = toy(backbone=backbone).eval()
    with torch.no_grad():
        depth = network(torch.rand(2, 3, *size))
    assert depth.shape == (2, 1, *size) and 0 < depth.min() <= depth.max() < 1


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit"])
def test_gradients_reach_the_encoder_and_every_block(backbone: str) -> None:
    network = toy(backbone=backbone).train()
    (network(torch.rand(2, 3, 64, 64)) * torch.rand(2, 1, 64, 64)).sum().backward()
    dead = [name for name, part in network.decoder.named_parameters() if part.grad is None]
    assert dead == []
    first = next(iter(network.encoder.parameters()))
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    network, images = toy().eval(), torch.rand(3, 3, 40, 56)
    with torch.no_grad():
        batch = network(images)
        for place in range(3):
            # Convolutions of another batch size sum in another order.
            torch.testing.assert_close(batch[place : place + 1], network(images[place : place + 1]), rtol=0, atol=1e-6)


def test_a_constant_image_gives_finite_values() -> None:
    network = toy(scaling="min_max").train()
    depth = network(torch.full((2, 3, 64, 64), 0.5))
    depth.mean().backward()
    assert torch.isfinite(depth).all()
    assert all(torch.isfinite(part.grad).all() for part in network.parameters() if part.grad is not None)


@pytest.mark.parametrize("target", ["metres", "summit"])
def test_metres_go_up_to_the_largest_depth(target: Any) -> None:
    network = toy(target=target, max_depth=80.0).eval()
    relative = toy().eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), 80.0 * relative(image))
    assert (network.units, relative.units) == ("m", "")


def test_a_decoder_begins_with_zero_biases_and_widths_run_out_to_the_first() -> None:
    decoder = Decoder((4, 8, 16, 32), (24, 32, 48, 64), (20, 10))
    assert all(not part.bias.any() for part in decoder.modules() if isinstance(part, nn.Conv2d))
    assert [block.second.out_channels for block in decoder.blocks] == [20, 20, 20, 20, 10]
    # Stride 2 has no skip connection here, stride 1 has the image.
    assert [block.first.in_channels - block.reduce.out_channels for block in decoder.blocks] == [48, 32, 24, 0, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "feet"}, "unknown target 'feet'; known: relative, metres, summit"),
        ({"target": "metres"}, "needs max_depth"),
        ({"target": "summit", "max_depth": -1.0}, "needs max_depth"),
        ({"max_depth": 10.0}, "relative depth has no unit"),
        ({"taps": "published"}, "not of test_resnet"),
        ({"taps": "published", "backbone": "inception_resnet_v2", "options": {"a": 1}}, "take no options"),
        ({"taps": "all"}, "unknown taps"),
        ({"scaling": "log"}, "unknown scaling"),
        ({"widths": ()}, "decoder widths"),
        ({"backbone": "resnet81"}, "nearest: resnet18"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        toy(**changes)


def test_saving_and_loading(tmp_path: Path) -> None:
    network = toy(target="metres", max_depth=10.0).train()
    network(torch.rand(2, 3, 64, 64))  # moves the running statistics, which are saved as well
    network.eval().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        for loaded in (load_component(EncDec, tmp_path), EncDec.from_pretrained(tmp_path, local_files_only=True)):
            assert not loaded.training
            assert torch.equal(loaded(image), network(image))


def test_a_strangers_folder_reads_no_other_file(tmp_path: Path) -> None:
    toy().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, words in (
        ({"options": {"checkpoint_path": "/etc/passwd"}}, "no such option"),
        ({"options": {"pretrained": True}}, "no such option"),
        ({"backbone": "hf-hub:somebody/model"}, "unknown backbone"),
        ({"widths": [60000, 60000]}, "describes a network of"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ValueError, match=words):
            load_component(EncDec, tmp_path)


def test_load_backbone_replaces_the_encoder_alone(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    network = toy()
    decoder = {name: value.clone() for name, value in network.decoder.state_dict().items()}
    reference = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file(reference, tmp_path / "w.safetensors")
    network.load_backbone(tmp_path / "w.safetensors")
    assert torch.equal(network.state_dict()["encoder.features.conv1.0.weight"], reference["conv1.0.weight"])
    assert all(torch.equal(value, decoder[name]) for name, value in network.decoder.state_dict().items())


def test_half_precision_leaves_no_terraces() -> None:
    """A map of bf16 numbers has few values."""
    network, image = toy().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            drawn = network(image)
        fast = network.optimise("bf16")(image)
    for depth in (drawn, fast):
        assert depth.dtype == torch.float32 and depth.unique().numel() > 0.9 * depth.numel()
        torch.testing.assert_close(depth, exact, rtol=0, atol=0.05)


def test_names_for_configs_are_those_that_the_network_knows() -> None:
    for name, kind in (("taps", Taps), ("scaling", Scaling), ("channel_order", ChannelOrder)):
        for value in get_args(kind):
            if value != "published":
                toy(**{name: value})
    assert TARGETS == ("relative", "metres", "summit")


@pytest.mark.slow
def test_five_steps_of_the_published_network_fall(published: EncDec) -> None:
    """Batch 2 at 96 x 128, the published loss and optimiser."""
    torch.manual_seed(0)
    down = torch.linspace(0, 1, 96)[:, None].expand(96, 128)
    image = torch.stack([down, 1 - down, down**2]).expand(2, 3, 96, 128)
    truth = down.expand(2, 1, 96, 128)
    optimiser = torch.optim.Adam(published.train().parameters(), lr=1e-4, amsgrad=True)
    loss, found = SSIMEdgeL1Loss(), []
    for _ in range(5):
        optimiser.zero_grad()
        error = loss(published(image), truth)
        error.backward()
        optimiser.step()
        found.append(error.item())
    assert found == sorted(found, reverse=True) and found[-1] < found[0]


@pytest.mark.parametrize("size", [(128, 160), (70, 97), (20, 200)])
def test_an_encoder_of_windows_draws_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": (32, 32, 32, 32), "stem_width": 16}
    network = EncDec("maxvit_rmlp_pico_rw_256", options=options, widths=(8,)).eval()
    assert network.encoder.multiple == 64
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        drawn = network(image)
        # What is padded by hand is padded no more.
        rows, columns = -size[0] % 64, -size[1] % 64
        whole = network(torch.nn.functional.pad(image, (0, columns, 0, rows), mode="replicate"))
    assert drawn.shape == (1, 1, *size)
    torch.testing.assert_close(drawn, whole[..., : size[0], : size[1]])
