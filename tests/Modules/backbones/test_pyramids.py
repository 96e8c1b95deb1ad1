"""Pyramids of encoders: the published taps of Inception-ResNet-v2, and timm's features, against unmodified models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from Modules.backbones import pretrained
from Modules.backbones.inception_resnet_v2 import InceptionResNetV2Pyramid
from Modules.backbones.pyramid import TimmPyramid


def saved(model: nn.Module, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def whole() -> Any:
    """timm's Inception-ResNet-v2 as it is, classifier included."""
    torch.manual_seed(0)
    return timm.create_model("inception_resnet_v2", pretrained=False).eval()


@pytest.fixture(scope="module")
def tapped(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> InceptionResNetV2Pyramid:
    """Ours with the same weights, from a file."""
    path = saved(whole, tmp_path_factory.mktemp("inception") / "whole.safetensors")
    return InceptionResNetV2Pyramid(path, norm_momentum=0.01).eval()


def test_the_published_taps_equal_timms_modules(whole: Any, tapped: InceptionResNetV2Pyramid) -> None:
    seen: list[Tensor] = []
    modules = [whole.conv2d_1a, whole.conv2d_3b, whole.mixed_6a.branch1[1], whole.mixed_7a.branch2[1]]
    hooks = [part.register_forward_hook(lambda _, __, found: seen.append(found.clone())) for part in modules]
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        whole.forward_features(image)
        levels = tapped(image)
    for hook in hooks:
        hook.remove()
    # Top, bottom, left, right: the zeros that the published network adds to each tap.
    for level, tap, (top, bottom, left, right) in zip(
        levels, seen, [(1, 0, 1, 0), (1, 1, 1, 1), (2, 1, 2, 1), (1, 1, 1, 1)], strict=True
    ):
        height, width = level.shape[-2:]
        assert torch.equal(level[..., top : height - bottom, left : width - right], tap)
        assert level.sum() == pytest.approx(tap.sum().item(), rel=1e-5), "what was added is zero"
    assert [tuple(level.shape[1:]) for level in levels] == [(32, 48, 64), (80, 24, 32), (256, 12, 16), (288, 6, 8)]


@pytest.mark.parametrize("size", [(48, 48), (240, 320), (256, 256), (480, 640), (112, 400)])
def test_the_published_taps_are_exact_fractions(tapped: InceptionResNetV2Pyramid, size: tuple[int, int]) -> None:
    shapes = {name: value.to("meta") for name, value in tapped.state_dict().items()}
    levels = torch.func.functional_call(tapped, shapes, (torch.zeros(1, 3, *size, device="meta"),))
    assert [tuple(level.shape[-2:]) for level in levels] == [(size[0] // s, size[1] // s) for s in (2, 4, 8, 16)]


def test_what_lies_behind_the_last_tap_does_not_exist(tapped: InceptionResNetV2Pyramid) -> None:
    names = set(tapped.state_dict())
    assert "mixed_7a.branch2.1.conv.weight" in names and "mixed_6a.branch0.conv.weight" in names
    absent = (
        "mixed_7a.branch0",
        "mixed_7a.branch1",
        "mixed_7a.branch2.2",
        "repeat_2",
        "block8",
        "conv2d_7b",
        "classif",
    )
    assert not [name for name in names if name.startswith(absent)]
    assert {part.momentum for part in tapped.modules() if isinstance(part, nn.BatchNorm2d)} == {0.01}


def test_other_weights_are_refused(whole: Any, tmp_path: Path) -> None:
    without = {name: value for name, value in whole.state_dict().items() if name != "repeat.3.conv2d.bias"}
    save_file(without, tmp_path / "less.safetensors")
    save_file(whole.state_dict() | {"layer1.weight": torch.zeros(3)}, tmp_path / "more.safetensors")
    for name, words in (("less", "lacks 'repeat.3.conv2d.bias'"), ("more", "holds 'layer1.weight'")):
        with pytest.raises(ValueError, match=words):
            InceptionResNetV2Pyramid(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("build", [lambda: InceptionResNetV2Pyramid(True), lambda: TimmPyramid("resnet18", None, True)])
def test_pretrained_without_a_network_fails_with_the_remedy(build: Any, no_network: None) -> None:
    with pytest.raises(OSError, match=r"Name or service not known.*pretrained_model_path"):
        build()


def test_pretrained_takes_the_file_that_timm_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference = timm.create_model("test_resnet", pretrained=False)
    asked: list[tuple[str, str]] = []

    def cached(repository: str, filename: str) -> Path:
        asked.append((repository, filename))
        return saved(reference, tmp_path / "model.safetensors")

    monkeypatch.setattr(pretrained, "hub_file", cached)
    ours = TimmPyramid("test_resnet", None, True)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    assert torch.equal(ours.state_dict()["features.conv1.0.weight"], reference.state_dict()["conv1.0.weight"])


ENCODERS = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"]


@pytest.mark.parametrize("name", ENCODERS)
def test_features_equal_timms(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"img_size": 64} if name == "test_vit" else {}
    whole = timm.create_model(name, pretrained=False, **options).eval()
    ours = TimmPyramid(name, options, saved(whole, tmp_path / "w.safetensors")).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        levels = ours(image)
        intermediates = whole.forward_intermediates(image, intermediates_only=True)
    deepest = {64 // found.shape[-1]: found for found in intermediates}
    assert list(ours.strides) == sorted(ours.strides) and ours.channels == tuple(level.shape[1] for level in levels)
    for stride, level in zip(ours.strides, levels, strict=True):
        if stride in deepest:
            torch.testing.assert_close(level, deepest[stride])
    assert ours.strides[-1] in deepest


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("size", [(64, 64), (70, 97)])
def test_every_level_has_its_fraction_of_the_size(name: str, size: tuple[int, int]) -> None:
    ours = TimmPyramid(name).eval()
    with torch.no_grad():
        levels = ours(torch.rand(1, 3, *size))
    for stride, level in zip(ours.strides, levels, strict=True):
        assert level.shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride))


def test_features_without_padding_get_zeros_all_round() -> None:
    with torch.device("meta"):
        ours = TimmPyramid("inception_resnet_v2")
        assert ours.smallest == 128
        bare = ours.features(torch.zeros(1, 3, 480, 640))
        levels = ours(torch.zeros(1, 3, 480, 640))
    assert [tuple(level.shape[-2:]) for level in bare] == [(237, 317), (116, 156), (57, 77), (28, 38), (13, 18)]
    assert [tuple(level.shape[-2:]) for level in levels] == [(240, 320), (120, 160), (60, 80), (30, 40), (15, 20)]


@pytest.mark.parametrize(("options", "multiple"), [({}, 224), ({"img_size": 64}, 64), ({"img_size": (64, 128)}, 128)])
def test_encoders_of_windows_take_whole_windows(options: dict[str, Any], multiple: int) -> None:
    with torch.device("meta"):
        ours = TimmPyramid("maxvit_tiny_tf_224", options | {"depths": (1, 1, 1, 1)})
        assert (ours.multiple, ours.smallest) == (multiple, multiple)
        levels = ours(torch.zeros(1, 3, multiple, 2 * multiple))
    expected = [(multiple // stride, 2 * multiple // stride) for stride in ours.strides]
    assert [tuple(level.shape[-2:]) for level in levels] == expected


def test_other_encoders_take_multiples_of_their_deepest_stride() -> None:
    with torch.device("meta"):
        assert TimmPyramid("swin_tiny_patch4_window7_224").multiple == 32
        assert TimmPyramid("inception_resnet_v2").multiple == 32
    assert InceptionResNetV2Pyramid.multiple == 16


def test_flattened_names_do_not_hide_missing_weights(tmp_path: Path) -> None:
    weights = timm.create_model("test_convnext", pretrained=False).state_dict()
    gone = next(name for name in weights if name.startswith("stages.2"))
    save_file({name: value for name, value in weights.items() if name != gone}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"lacks '{gone}'"):
        TimmPyramid("test_convnext", None, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet81", {}, "resnet18"),
        ("resnet18", {"checkpoint_path": "x.pth"}, "no such option: checkpoint_path"),
        ("resnet18", {"pretrained": True}, "no such option: pretrained"),
        ("resnet18", {"pretrained_cfg_overlay": {"file": "x"}}, "no such option"),
        ("resnet18", {"colour": 3}, "colour"),
        ("mixer_b16_224", {}, "one size of images alone"),
        ("vit_small_patch14_dinov2", {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 56}, "powers of two"),
    ],
)
def test_what_does_not_fit_is_named(name: str, options: dict[str, Any], words: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=words) as raised:
        TimmPyramid(name, options)
    assert name in str(raised.value)


def test_sizes_are_tried_once_for_each_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    first = TimmPyramid("test_resnet", {"act_layer": "gelu"})
    tried: list[str] = []
    monkeypatch.setattr("Modules.backbones.pyramid._sizes", lambda name, *_: tried.append(name) or (7, 14))
    again = TimmPyramid("test_resnet", {"act_layer": "gelu"})
    assert (again.multiple, again.smallest) == (first.multiple, first.smallest) and not tried
    other = TimmPyramid("test_resnet", {"act_layer": "elu"})
    assert (other.multiple, other.smallest) == (7, 14) and tried == ["test_resnet"]


def test_layers_behind_the_last_level_that_is_asked_for_are_not_built(tmp_path: Path) -> None:
    """ResNet-18 up to its second group, with the weights of the whole network's file."""
    torch.manual_seed(0)
    whole = timm.create_model("resnet18", pretrained=False)
    file = tmp_path / "resnet18.safetensors"
    save_file(whole.state_dict(), file)
    half = TimmPyramid("resnet18", weights=file, levels=(2,))
    assert half.strides == (8,) and half.channels == (128,)
    assert sum(value.numel() for value in half.parameters()) == 683_072
    image = torch.randn(1, 3, 64, 64)
    expected = whole.eval().forward_intermediates(image, indices=[2], intermediates_only=True)[0]
    torch.testing.assert_close(half.eval()(image)[0], expected)
