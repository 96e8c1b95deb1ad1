"""Stage 1: shapes, ranges, batches, gradients to every parameter, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.dpt import DPTDecoder, Fusion, ResidualUnit
from tests.toys import SMALL_VIT, toy_coarse

BACKBONES: list[tuple[str, dict[str, Any]]] = [
    ("test_vit", SMALL_VIT),
    ("vit_small_patch14_reg4_dinov2", SMALL_VIT | {"img_size": 56}),
    ("vit_medium_patch16_reg4_gap_256", SMALL_VIT),
    ("vit_base_patch16_siglip_224", SMALL_VIT),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT),
    ("vitb_rn50_384", {"embed_dim": 32, "num_heads": 2}),
]


@pytest.mark.parametrize("size", [(32, 32), (37, 53), (64, 96), (1, 40), (100, 20)])
def test_any_size_in_the_same_size_out(size: tuple[int, int]) -> None:
    with torch.no_grad():
        height = toy_coarse()(torch.rand(2, 3, *size))
    assert height.shape == (2, 1, *size)
    # Each tile is stretched over the pixels that were asked for, not over the padding.
    assert height.amin(dim=(1, 2, 3)).tolist() == [0.0, 0.0]
    assert height.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0]


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    network = toy_coarse()
    images = torch.rand(3, 3, 37, 53)
    images[1] *= 0.1
    with torch.no_grad():
        batch = network(images)
        for i in range(3):
            # Matrix products of another size sum in another order; the stretch divides by the span of a random
            # network's map, about 0.1, which enlarges that tenfold.
            torch.testing.assert_close(batch[i : i + 1], network(images[i : i + 1]), rtol=0, atol=1e-4)


def test_a_constant_image_gives_finite_values() -> None:
    network = toy_coarse().train()
    height = network(torch.full((2, 3, 64, 64), 0.5))
    height.mean().backward()
    assert torch.isfinite(height).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


# The hybrid takes its time, and the plain ones show the other readouts.
BACKBONES_AND_READOUTS = [
    pytest.param(name, options, readout, id=f"{name}-{readout}")
    for name, options in BACKBONES
    for readout in (("project",) if name == "vitb_rn50_384" else ("project", "add", "ignore"))
]


@pytest.mark.parametrize(("backbone", "options", "readout"), BACKBONES_AND_READOUTS)
def test_gradients_reach_every_parameter(backbone: str, options: dict[str, Any], readout: Any) -> None:
    torch.manual_seed(0)
    network = CoarseNet(backbone, options=options, features=8, readout=readout)
    weights = torch.rand(1, 1, 64, 64)
    (network(torch.rand(1, 3, 64, 64)) * weights).sum().backward()
    dead = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert dead == []


def test_images_are_normalised_for_the_backbone() -> None:
    own = CoarseNet("deit_tiny_distilled_patch16_224", options=SMALL_VIT, features=8)
    assert own.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert own.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    given = CoarseNet("test_vit", options=SMALL_VIT, features=8, image_mean=(0.1, 0.2, 0.3), image_std=(1, 2, 4))
    seen: list[torch.Tensor] = []
    given.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    given(torch.full((1, 3, 32, 32), 0.5))
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([0.4, 0.15, 0.05])
    assert given.config["image_mean"] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("backbone", ["test_vit", "vit_medium_patch16_reg4_gap_256"])
def test_saving_and_loading(backbone: str, tmp_path: Path) -> None:
    network = toy_coarse(backbone)
    network.save_pretrained(tmp_path)
    loaded = CoarseNet.from_pretrained(tmp_path, local_files_only=True)
    assert not loaded.training
    assert not list(tmp_path.glob("*.bin"))
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(loaded(image), network(image))
    assert set(loaded.state_dict()) == {name for name, _ in network.named_parameters()}


def test_load_backbone_replaces_the_encoder_alone(tmp_path: Path) -> None:
    network = toy_coarse()
    decoder = {name: value.clone() for name, value in network.decoder.state_dict().items()}
    torch.manual_seed(7)
    reference = timm.create_model("test_vit", num_classes=0, **SMALL_VIT)
    save_file(reference.state_dict(), tmp_path / "w.safetensors")
    network.load_backbone(tmp_path / "w.safetensors")
    assert torch.equal(network.encoder.vit.blocks[3].mlp.fc1.weight, reference.blocks[3].mlp.fc1.weight)
    assert all(torch.equal(value, decoder[name]) for name, value in network.decoder.state_dict().items())


def test_decoder_has_the_published_layers() -> None:
    with torch.device("meta"):
        network = CoarseNet("vitb16_384")
    head = network.decoder
    shapes = [tuple(layer.weight.shape) for layer in (head.widen, head.head[0], head.head[2])]
    assert shapes == [(128, 256, 3, 3), (32, 128, 3, 3), (1, 32, 1, 1)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in head.modules())
    total = sum(parameter.numel() for parameter in network.parameters())
    assert 100e6 < total < 125e6  # DPT-Large with ViT-B widths; 256 decoder features


def test_fusion_by_hand() -> None:
    fusion = Fusion(2, joins=True)
    with torch.no_grad():
        for unit in (fusion.lateral, fusion.refine):
            assert isinstance(unit, ResidualUnit)
            for parameter in unit.parameters():
                parameter.zero_()
        fusion.project.weight.copy_(torch.eye(2)[:, :, None, None])
        fusion.project.bias.zero_()
        level, below = torch.rand(1, 2, 4, 6), torch.rand(1, 2, 4, 6)
        drawn = fusion(level, below)
    doubled = nn.functional.interpolate(level + below, scale_factor=2, mode="bilinear", align_corners=False)
    # 1x1 convolution before instead of after the resampling: the same sums, rounded otherwise.
    torch.testing.assert_close(drawn, doubled, rtol=1e-6, atol=1e-6)


def test_the_decoder_takes_four_taps() -> None:
    with pytest.raises(ValueError, match="4 taps, not 3"):
        DPTDecoder(toy_coarse().encoder.taps[:3])


def test_autocast_leaves_no_terraces() -> None:
    """A map of bf16 numbers has few values, and the stretch of each tile would show them as steps."""
    net = toy_coarse()
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        drawn = net(pixels)
    assert drawn.dtype == torch.float32
    assert drawn.unique().numel() > 0.9 * drawn.numel()
