"""Backbones: features against unmodified timm models, names, options, weights from files and from an absent hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from Modules.backbones import pretrained
from Modules.backbones import vit as backbone
from Modules.backbones.vit import PUBLISHED_BACKBONES, ViTBackbone
from Modules.common import hub
from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.dpt import Reassemble

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2}
# name, class token, patch, mean
PLAIN = [
    ("test_vit", True, 16, 0.5),
    ("vit_tiny_patch16_224", True, 16, 0.5),
    ("vit_small_patch14_reg4_dinov2", True, 14, 0.485),  # a class token and four registers
    ("vit_medium_patch16_reg4_gap_256", False, 16, 0.5),  # registers alone: they are no readout
    ("vit_base_patch16_siglip_224", False, 16, 0.5),
    ("deit_tiny_distilled_patch16_224", True, 16, 0.485),  # a class and a distillation token
    ("deit3_small_patch16_224", True, 16, 0.485),
    ("vit_base_patch16_clip_224", True, 16, 0.48145466),
]


def unmodified(name: str, options: dict[str, Any]) -> Any:
    """timm's own model at the image size it was made for, with weights that tell tokens and positions apart."""
    model = timm.create_model(name, num_classes=0, **options).eval()
    randomise(model)
    return model


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "token" in name or "pos_embed" in name or "gamma" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def saved(model: nn.Module, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(("name", "has_class_token", "patch", "mean"), PLAIN)
def test_plain_vits_equal_timm(name: str, has_class_token: bool, patch: int, mean: float, tmp_path: Path) -> None:
    options = SMALL | ({"img_size": 56} if patch == 14 else {"img_size": 64})
    reference = unmodified(name, options)
    ours = ViTBackbone(name, options=options, weights=saved(reference, tmp_path / "weights.safetensors")).eval()
    image = torch.rand(2, 3, options["img_size"], options["img_size"])
    with torch.no_grad():
        pyramid = ours(image)
        tokens = reference.norm_pre(reference.patch_drop(reference._pos_embed(reference.patch_embed(image))))
        prefix = reference.num_prefix_tokens
        for block, (feature, token) in zip(reference.blocks, pyramid, strict=True):
            tokens = block(tokens)
            torch.testing.assert_close(feature.flatten(2).transpose(1, 2), tokens[:, prefix:], rtol=0, atol=0)
            if has_class_token:
                torch.testing.assert_close(token, tokens[:, 0], rtol=0, atol=0)
            else:
                assert token is None
    assert len(pyramid) == 4
    assert ours.stride == patch
    assert ours.mean[0] == mean
    assert all(tap.has_class_token == has_class_token and tap.channels == 32 for tap in ours.taps)


def test_published_hybrid_equals_timm(tmp_path: Path) -> None:
    # The published model without its width: the ResNet is whole, the transformer 64 wide instead of 768.
    options = {"embed_dim": 64, "num_heads": 2}
    reference = unmodified("vit_base_r50_s16_384", options)
    path = saved(reference, tmp_path / "weights.safetensors")
    ours = ViTBackbone("vitb_rn50_384", options=options, weights=path).eval()
    assert ours.block_indices == [8, 11]
    assert [(tap.channels, tap.is_tokens) for tap in ours.taps] == [(256, False), (512, False), (64, True), (64, True)]
    image = torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        pyramid = ours(image)
        stem = reference.patch_embed.backbone
        first = stem.stages[0](stem.stem(image))
        second = stem.stages[1](first)
        after_norm = reference.forward_features(image)
        last, token = pyramid[3]
        assert token is not None
        tokens = torch.cat([token[:, None], last.flatten(2).transpose(1, 2)], dim=1)
        tokens = reference.norm(tokens)
    assert torch.equal(pyramid[0][0], first)
    assert torch.equal(pyramid[1][0], second)
    assert [384 // feature.shape[-1] for feature, _ in pyramid] == [4, 8, 16, 16]
    # The stem's projection in another memory layout: sums in another order, through twelve blocks.
    torch.testing.assert_close(tokens, after_norm, rtol=1e-4, atol=1e-5)


def test_published_names_at_full_width() -> None:
    with torch.device("meta"):
        # A hybrid looks at its feature size while it is built, which the meta device shows it as well.
        sizes = {name: ViTBackbone(name) for name in PUBLISHED_BACKBONES}
    assert {name: [i + 1 for i in net.block_indices] for name, net in sizes.items()} == {
        "vitb_rn50_384": [9, 12],
        "vitb16_384": [3, 6, 9, 12],
        "vitl16_384": [6, 12, 18, 24],
    }
    assert [tap.channels for tap in sizes["vitb_rn50_384"].taps] == [256, 512, 768, 768]
    assert [tap.channels for tap in sizes["vitl16_384"].taps] == [1024] * 4


def test_any_size_and_padding() -> None:
    net = ViTBackbone("test_vit", options=SMALL).eval()
    image = torch.rand(1, 3, 37, 53)
    padded = pad_to_multiple(image, 32)
    assert padded.shape == (1, 3, 64, 64)
    assert torch.equal(padded[..., :37, :53], image)
    assert torch.equal(padded[..., 37:, :53], image[..., -1:, :].expand(-1, -1, 27, -1))
    assert pad_to_multiple(padded, 32) is padded
    assert [feature.shape[-2:] for feature, _ in net(torch.rand(1, 3, 32, 96))] == [(2, 6)] * 4


def test_later_blocks_are_removed_and_names_are_stable() -> None:
    net = ViTBackbone("test_vit", taps=(1, 2, 3, 4), options={"embed_dim": 32, "depth": 6, "num_heads": 2})
    names = {name for name, _ in net.named_parameters()}
    assert {"vit.cls_token", "vit.pos_embed", "vit.patch_embed.proj.weight", "vit.blocks.3.mlp.fc2.bias"} <= names
    assert not any(name.startswith(("vit.blocks.4", "vit.norm", "vit.head")) for name in names)


@pytest.mark.parametrize(
    ("name", "taps", "options", "words"),
    [
        ("vit_bose_patch16_384", (), {}, "vit_base_patch16_384"),
        ("vitb16_348", (), {}, "vitb16_384"),
        ("resnet50", (), {}, "Vision Transformer"),
        ("swin_tiny_patch4_window7_224", (), {}, "SwinTransformer"),
        ("vit_small_r26_s32_224", (), {}, "stride 16"),
        ("test_vit", (), {"depht": 4}, "depht"),
        ("test_vit", (), {"class_token": False}, "class token"),
        ("test_vit.nope", (), {}, "nope"),
        ("test_vit", (1, 2, 3), {}, "4 different blocks"),
        ("test_vit", (1, 2, 2, 3), {}, "4 different blocks"),
        ("test_vit", (4, 3, 2, 1), {}, "ascending"),
        ("test_vit", (0, 1, 2, 3), {}, "from 1 to 6"),
        ("test_vit", (3, 4, 5, 7), {}, "from 1 to 6"),
    ],
)
def test_what_does_not_fit_is_named(name: str, taps: tuple[int, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        ViTBackbone(name, taps, options)
    assert name in str(raised.value)


def test_weights_from_files_in_timms_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = timm.create_model("test_vit", num_classes=7, img_size=64, **SMALL)  # with a classifier
    saved(reference, tmp_path / "a.safetensors")
    torch.save(reference.state_dict(), tmp_path / "a.pth")
    torch.save({"model": reference.state_dict(), "epoch": 3}, tmp_path / "nested.pth")
    for name in ("a.safetensors", "a.pth", "nested.pth"):
        ours = ViTBackbone("test_vit", options=SMALL | {"img_size": 64}, weights=tmp_path / name)
        for key, value in ours.vit.state_dict().items():
            assert torch.equal(value, reference.state_dict()[key]), key


def test_position_table_of_another_size_is_resampled(tmp_path: Path) -> None:
    reference = unmodified("test_vit", SMALL | {"img_size": 64})
    path = saved(reference, tmp_path / "a.safetensors")
    ours = ViTBackbone("test_vit", options=SMALL | {"img_size": 128}, weights=path)
    table = ours.vit.pos_embed
    assert table is not None and table.shape == (1, 1 + 8 * 8, 32)
    assert torch.equal(table[:, 0], reference.pos_embed[:, 0])


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    options = SMALL | {"img_size": 64}
    reference = timm.create_model("test_vit", num_classes=0, **options).state_dict()
    without = {name: value for name, value in reference.items() if name != "blocks.2.attn.qkv.weight"}
    cases = {
        "resnet.safetensors": ({"layer1.0.conv1.weight": torch.zeros(3)}, "cls_token"),
        "missing.safetensors": (without, "blocks.2.attn.qkv.weight"),
        "deeper.safetensors": (reference | {"blocks.9.norm1.weight": torch.zeros(32)}, "blocks.9.norm1.weight"),
        "wider.safetensors": (reference | {"cls_token": torch.zeros(1, 1, 48)}, "cls_token"),
    }
    for name, (tensors, words) in cases.items():
        save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / name)
        with pytest.raises(ValueError, match=words) as raised:
            ViTBackbone("test_vit", options=options, weights=tmp_path / name)
        assert name in str(raised.value) and "\n" not in str(raised.value)
    for name in ("junk.safetensors", "junk.pth"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(ValueError, match=name):
            ViTBackbone("test_vit", options=options, weights=tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        ViTBackbone("test_vit", options=options, weights=tmp_path / "absent.pth")


class Opener:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"cls_token": Opener(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth"):
        ViTBackbone("test_vit", options=SMALL, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_pretrained_without_a_network_fails_at_once(no_network: None, waits: list[float]) -> None:
    with pytest.raises(OSError, match="Name or service not known") as raised:
        ViTBackbone("vitb16_384", options=SMALL, weights=True)
    # The hub's own retries wait three quarters of a minute.
    assert sum(waits) < 5.0
    assert "pretrained_model_path" in str(raised.value) and "vitb16_384" in str(raised.value)
    with pytest.raises(OSError, match="no name of a hub repository"):
        hub.hub_file("a//b", "config.json")


def test_pretrained_takes_the_cached_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference = timm.create_model("test_vit", num_classes=1000, **SMALL)
    asked: list[tuple[str, str]] = []

    def cached(repository: str, filename: str) -> Path:
        asked.append((repository, filename))
        return saved(reference, tmp_path / "model.safetensors")

    monkeypatch.setattr(pretrained, "hub_file", cached)
    ours = ViTBackbone("test_vit", options=SMALL, weights=True)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    assert torch.equal(ours.vit.patch_embed.proj.weight, reference.patch_embed.proj.weight)


@pytest.mark.parametrize(("level", "scale"), [(0, 4.0), (1, 2.0), (2, 1.0), (3, 0.5)])
def test_reassembled_sizes(level: int, scale: float) -> None:
    tap = backbone.Tap(8, is_tokens=True, has_class_token=True)
    stage = Reassemble(tap, level, 5, "project")
    out: Tensor = stage(torch.rand(2, 8, 4, 6), torch.rand(2, 8))
    assert out.shape == (2, 5, int(4 * scale), int(6 * scale))
    stem = Reassemble(backbone.Tap(8, is_tokens=False, has_class_token=False), level, 5, "project")
    assert stem(torch.rand(2, 8, 4, 6), None).shape == (2, 5, 4, 6)


def test_readouts_by_hand() -> None:
    tap = backbone.Tap(2, is_tokens=True, has_class_token=True)
    feature, token = torch.rand(1, 2, 2, 3), torch.tensor([[1.0, -2.0]])
    for readout in ("ignore", "add", "project"):
        stage = Reassemble(tap, 2, 2, readout)
        with torch.no_grad():
            stage.narrow.weight.zero_()
            stage.narrow.weight[[0, 1], [0, 1], 1, 1] = 1.0  # the last convolution as identity
            drawn = stage(feature, token)
        if readout == "ignore":
            expected = feature
        elif readout == "add":
            expected = feature + token[:, :, None, None]
        else:
            assert stage.project is not None
            linear = stage.project[0]
            both = torch.cat([feature, token[:, :, None, None].expand(1, 2, 2, 3)], dim=1)
            mixed = torch.einsum("oc,bchw->bohw", linear.weight, both) + linear.bias[None, :, None, None]
            expected = nn.functional.gelu(mixed)
        torch.testing.assert_close(drawn, expected)
