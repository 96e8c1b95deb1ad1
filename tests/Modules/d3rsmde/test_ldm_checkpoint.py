"""`Modules.d3rsmde.ldm_checkpoint` against an independent implementation of the layout, on random weights."""

import io
import logging
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from Modules.d3rsmde.ldm_checkpoint import (
    convert_ldm_state_dict,
    infer_ldm_config,
    ldm_name,
    load_ldm_autoencoder,
    select_ldm_state_dict,
)

# Compared in float64, where sums in another order (1x1 convolution against matrix product, fused against plain
# attention) differ by 1e-14; in float32 both sides are 1e-5 off the truth, which would hide small mistakes.
TOLERANCE = 1e-10


class Block(nn.Module):
    """norm, swish, conv, twice, beside a 1x1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(swish(self.norm1(x)))
        inner = self.conv2(swish(self.norm2(inner)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + inner


class Attention(nn.Module):
    """One head over all pixels, projections as 1x1 convolutions."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (part(normed).flatten(2) for part in (self.q, self.k, self.v))  # (B, C, H·W)
        scores = torch.einsum("bci,bcj->bij", query, key) / math.sqrt(x.shape[1])
        mixed = torch.einsum("bij,bcj->bci", scores.softmax(dim=-1), value)
        return x + self.proj_out(mixed.reshape(x.shape))


class Down(nn.Module):
    """Half the size, with one row and column of zeros at the lower right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Twice the size, each pixel repeated, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class Level(nn.Module):
    """Residual blocks, each followed by attention where the level has it, then a change of size."""

    def __init__(self, inputs: int, outputs: int, blocks: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(inputs if i == 0 else outputs, outputs, groups) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs, groups) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        for resize in ("downsample", "upsample"):
            x = getattr(self, resize)(x) if hasattr(self, resize) else x
        return x


class Middle(nn.Module):
    """Block, attention (if any), block."""

    def __init__(self, width: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.block_1 = Block(width, width, groups)
        self.attn_1 = Attention(width, groups) if attention else nn.Identity()
        self.block_2 = Block(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Coder(nn.Module):
    """The encoder (levels finest first) or the decoder (stored finest first, run coarsest first)."""

    def __init__(
        self, widths: list[int], blocks: int, channels: tuple[int, int], groups: int, attention: set[int],
        middle: bool, up: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        last = len(widths) - 1
        levels = nn.ModuleList()
        for index, width in enumerate(widths):
            inputs = widths[min(index + 1, last)] if up else widths[max(index - 1, 0)]
            level = Level(inputs, width, blocks + up, groups, index in attention)
            if up and index > 0:
                level.upsample = Up(width)
            if not up and index < last:
                level.downsample = Down(width)
            levels.append(level)
        self.conv_in = nn.Conv2d(channels[0], widths[-1 if up else 0], 3, padding=1)
        self.mid = Middle(widths[-1], groups, middle)
        setattr(self, "up" if up else "down", levels)
        self.norm_out = nn.GroupNorm(groups, widths[0 if up else -1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0 if up else -1], channels[1], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        steps = [self.mid, *reversed(self.up)] if hasattr(self, "up") else [*self.down, self.mid]
        x = self.conv_in(x)
        for step in steps:
            x = step(x)
        return self.conv_out(swish(self.norm_out(x)))


class Reference(nn.Module):
    """The whole autoencoder; its state_dict has the layout's names."""

    def __init__(
        self, widths: list[int], blocks: int, latent: int, groups: int, attention: set[int],
        middle: bool = True, quant: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = Coder(widths, blocks, (3, 2 * latent), groups, attention, middle, up=False)
        self.decoder = Coder(widths, blocks, (latent, 3), groups, attention, middle, up=True)
        if quant:
            self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
            self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def moments(self, images: Tensor) -> Tensor:
        moments = self.encoder(images)
        return self.quant_conv(moments) if hasattr(self, "quant_conv") else moments

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents) if hasattr(self, "post_quant_conv") else latents)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def randomised(reference: Reference, seed: int = 7) -> Reference:
    """Every tensor its own random values, norms included, and attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                gain = 2.0 if name.endswith((".q.weight", ".k.weight")) else 1.0
                parameter.copy_(noise * gain / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(noise * 0.2 + (1.0 if name.endswith("weight") else 0.0))
    return reference.eval()


LAYOUTS: dict[str, dict[str, Any]] = {
    # as VA-VAE f16d32: five levels, attention at the last
    "va_vae": {"widths": [32, 32, 64, 64, 128], "blocks": 2, "latent": 32, "groups": 32, "attention": {4}},
    # as Stable Diffusion's: four levels, attention in the middle only
    "stable_diffusion": {"widths": [32, 64, 128, 128], "blocks": 2, "latent": 4, "groups": 32, "attention": set()},
    "attention_inside": {"widths": [16, 32, 48], "blocks": 1, "latent": 3, "groups": 8, "attention": {1, 2}},
    "no_quantisers": {"widths": [16, 32], "blocks": 3, "latent": 5, "groups": 4, "attention": {0}, "quant": False},
    "no_middle_attention": {
        "widths": [8, 16],
        "blocks": 1,
        "latent": 2,
        "groups": 2,
        "attention": {1},
        "middle": False,
    },
}


def small_state_dict() -> dict[str, Tensor]:
    return randomised(Reference([8, 16], 1, 2, 4, {1})).state_dict()


def load_small(path: Path, content: Any) -> AutoencoderKL:
    torch.save(content, path)
    return load_ldm_autoencoder(path, norm_num_groups=4)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_outputs_equal_an_independent_implementation(tmp_path: Path, layout: dict[str, Any]) -> None:
    reference = randomised(Reference(**layout))
    path = tmp_path / "published.pt"
    extra = {"loss.logvar": torch.zeros(()), "linear_proj.weight": torch.zeros(2, 2)}
    torch.save({"state_dict": reference.state_dict() | extra, "global_step": 3}, path)

    loaded = load_ldm_autoencoder(path, scaling_factor=0.5, norm_num_groups=layout["groups"])

    assert loaded.config.scaling_factor == 0.5
    assert not loaded.training
    reference, loaded = reference.double(), loaded.double()
    stride = 2 ** (len(layout["widths"]) - 1)
    generator = torch.Generator().manual_seed(11)
    shape = (2, 3, 4 * stride, 5 * stride)  # not square, so that a transposition shows
    images = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        mean, log_variance = reference.moments(images).chunk(2, dim=1)
        posterior = loaded.encode(images).latent_dist
        assert mean.shape == (2, layout["latent"], 4, 5)
        torch.testing.assert_close(posterior.mean, mean, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(posterior.logvar, log_variance.clamp(-30, 20), atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(loaded.decode(mean).sample, reference.decode(mean), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D", "UNetMidBlock2D"])
def test_attention_has_one_head_and_the_layouts_epsilon(tmp_path: Path, name: str) -> None:
    loaded = load_small(tmp_path / "a.pt", small_state_dict())
    attentions = [
        attention
        for block in loaded.modules()
        if type(block).__name__ == name
        for attention in block.get_submodule("attentions").children()
    ]
    assert attentions
    for attention in attentions:
        assert attention.heads == 1
        assert attention.group_norm is not None
        assert attention.group_norm.eps == 1e-6
        assert attention.rescale_output_factor == 1


def va_vae_state_dict() -> dict[str, Tensor]:
    with torch.device("meta"):
        return Reference([128, 128, 256, 256, 512], 2, 32, 32, {4}).state_dict()


def test_the_published_va_vae_is_recognised() -> None:
    state_dict = va_vae_state_dict()
    assert {"encoder.down.4.attn.1.q.weight", "decoder.up.4.attn.2.proj_out.bias"} <= state_dict.keys()
    assert state_dict["encoder.conv_out.weight"].shape[0] == 64

    config = infer_ldm_config(state_dict)

    assert config["block_out_channels"] == (128, 128, 256, 256, 512)
    assert config["layers_per_block"] == 2
    assert config["latent_channels"] == 32
    assert config["down_block_types"] == ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",)
    assert config["up_block_types"] == ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4
    assert config["use_quant_conv"] and config["use_post_quant_conv"] and config["mid_block_add_attention"]
    assert len(convert_ldm_state_dict(state_dict, config)) == len(state_dict)


def test_stable_diffusions_vae_is_recognised() -> None:
    with torch.device("meta"):
        state_dict = Reference([128, 256, 512, 512], 2, 4, 32, set()).state_dict()
    config = infer_ldm_config(state_dict)
    assert config["block_out_channels"] == (128, 256, 512, 512)
    assert config["latent_channels"] == 4
    assert config["down_block_types"] == ("DownEncoderBlock2D",) * 4
    assert config["up_block_types"] == ("UpDecoderBlock2D",) * 4


def test_names_map_one_to_one() -> None:
    state_dict = va_vae_state_dict()
    with torch.device("meta"):
        names = AutoencoderKL(**infer_ldm_config(state_dict)).state_dict().keys()
    assert sorted(ldm_name(name, 5) for name in names) == sorted(state_dict)
    assert ldm_name("decoder.up_blocks.0.attentions.2.to_out.0.bias", 5) == "decoder.up.4.attn.2.proj_out.bias"
    assert ldm_name("encoder.mid_block.resnets.1.norm2.weight", 5) == "encoder.mid.block_2.norm2.weight"


@pytest.mark.parametrize(
    ("nests", "prefix"),
    [
        ((), ""),
        (("state_dict",), "first_stage_model."),
        (("model",), "module."),
        (("ema",), "vae."),
        (("state_dict", "model"), "module.vae."),
    ],
)
def test_nesting_and_prefixes(tmp_path: Path, nests: tuple[str, ...], prefix: str) -> None:
    content: dict[str, Any] = {prefix + name: value for name, value in small_state_dict().items()}
    for nest in reversed(nests):
        content = {"epoch": 1, nest: content}
    bias = load_small(tmp_path / "a.pt", content).get_parameter("quant_conv.bias")
    assert torch.equal(bias, small_state_dict()["quant_conv.bias"])


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    averaged = small_state_dict()
    raw = {name: value + 1 for name, value in averaged.items()}
    loaded = load_small(tmp_path / "a.pt", {"model": raw, "ema": averaged})
    assert torch.equal(loaded.get_parameter("quant_conv.bias"), averaged["quant_conv.bias"])


def test_ignored_keys_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = {name: torch.zeros(1) for name in ("loss.d.weight", "foundation_model.model.x", "linear_proj.weight")}
    with caplog.at_level(logging.INFO, logger="Modules.d3rsmde.ldm_checkpoint"):
        load_small(tmp_path / "a.pt", {"state_dict": small_state_dict() | extra})
    assert "ignored keys of 'foundation_model', 'linear_proj', 'loss'" in caplog.text


def test_file_formats_agree(tmp_path: Path) -> None:
    state_dict = small_state_dict()
    expected = load_small(tmp_path / "a.ckpt", state_dict).state_dict()
    save_file(state_dict, tmp_path / "a.safetensors")
    torch.save(state_dict, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "old.pth"):
        found = load_ldm_autoencoder(tmp_path / name, norm_num_groups=4).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_half_precision_file_gives_float32_and_the_file_may_go(tmp_path: Path) -> None:
    halves = {name: value.half() for name, value in small_state_dict().items()}
    loaded = load_small(tmp_path / "a.pt", halves)
    (tmp_path / "a.pt").write_bytes(b"")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.get_parameter("encoder.conv_in.weight"), halves["encoder.conv_in.weight"].float())


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state_dict = small_state_dict()
    before = torch.get_rng_state()
    load_small(tmp_path / "a.pt", state_dict)
    assert torch.equal(before, torch.get_rng_state())


def test_saved_folder_loads_again(tmp_path: Path) -> None:
    loaded = load_small(tmp_path / "a.pt", small_state_dict())
    loaded.save_pretrained(tmp_path / "folder")
    again = AutoencoderKL.from_pretrained(tmp_path / "folder")
    images = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.encode(images).latent_dist.mean, loaded.encode(images).latent_dist.mean)


@pytest.mark.parametrize(
    "missing",
    [
        "encoder.conv_in.weight",
        "encoder.conv_in.bias",
        "encoder.conv_out.weight",
        "encoder.down.1.attn.0.k.bias",
        "encoder.down.0.downsample.conv.weight",
        "encoder.down.1.block.0.nin_shortcut.weight",
        "decoder.up.1.upsample.conv.bias",
        "decoder.mid.attn_1.norm.weight",
        "decoder.norm_out.bias",
        "quant_conv.bias",
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    state_dict = small_state_dict()
    del state_dict[missing]
    with pytest.raises(ValueError, match=rf"a\.pt: .*'{missing}'") as caught:
        load_small(tmp_path / "a.pt", state_dict)
    assert "\n" not in str(caught.value)


def test_a_missing_level_is_named() -> None:
    state_dict = va_vae_state_dict()
    gap = {name: value for name, value in state_dict.items() if not name.startswith("encoder.down.2.")}
    with pytest.raises(ValueError, match=r"missing key 'encoder\.down\.2\.block\.0\.conv1\.weight'"):
        infer_ldm_config(gap)


def test_leftover_and_misshapen_tensors_are_refused(tmp_path: Path) -> None:
    state_dict = small_state_dict()
    with pytest.raises(ValueError, match=r"encoder\.surprise\.weight"):
        load_small(tmp_path / "a.pt", state_dict | {"encoder.surprise.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'decoder\.mid\.block_1\.conv1\.weight' is of shape"):
        load_small(tmp_path / "a.pt", state_dict | {"decoder.mid.block_1.conv1.weight": torch.zeros(16, 8, 3, 3)})
    with pytest.raises(ValueError, match=r"a convolution's is \(out, in, height, width\)"):
        load_small(tmp_path / "a.pt", state_dict | {"decoder.conv_in.weight": torch.zeros(16)})
    with pytest.raises(ValueError, match="mean and a log variance"):
        load_small(tmp_path / "a.pt", state_dict | {"encoder.conv_out.weight": torch.zeros(2, 16, 3, 3)})


def test_group_count_must_divide_the_widths(tmp_path: Path) -> None:
    torch.save(small_state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"norm_num_groups is 32, which must divide the widths \[8, 16\]"):
        load_ldm_autoencoder(tmp_path / "a.pt")


def test_several_autoencoders_are_refused() -> None:
    state_dict = small_state_dict()
    with pytest.raises(ValueError, match="several autoencoders"):
        select_ldm_state_dict(state_dict | {f"vae.{name}": value for name, value in state_dict.items()})


def test_other_contents_are_refused(tmp_path: Path) -> None:
    other = {"state_dict": {"blocks.0.attn.qkv.weight": torch.zeros(1)}}
    with pytest.raises(ValueError, match=r"no key 'encoder\.conv_in\.weight'; found keys of 'blocks', 'state_dict'"):
        load_small(tmp_path / "a.pt", other)
    with pytest.raises(ValueError, match="holds a Tensor"):
        load_small(tmp_path / "a.pt", torch.zeros(1))
    own = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).state_dict()
    with pytest.raises(ValueError, match="diffusers' own layout"):
        load_small(tmp_path / "a.pt", own)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_file_cut_short_is_refused(tmp_path: Path, zipped: bool, share: float) -> None:
    buffer = io.BytesIO()
    torch.save(small_state_dict(), buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "cut.pt"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(ValueError, match=r"cut\.pt: damaged, cut short") as caught:
        load_ldm_autoencoder(path)
    assert "\n" not in str(caught.value)


def test_a_safetensors_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(small_state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.safetensors: damaged"):
        load_ldm_autoencoder(path)


class Trap:
    """Writes a file when unpickled by a careless reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, trapped = tmp_path / "code.ckpt", tmp_path / "trapped"
    content = {"state_dict": small_state_dict(), "callbacks": Trap(trapped)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"callbacks": Trap(trapped)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"code\.ckpt: .*holds pickled code.*never run") as caught:
        load_ldm_autoencoder(path)
    assert "\n" not in str(caught.value)
    assert not trapped.exists()


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load_ldm_autoencoder(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="is a folder"):
        load_ldm_autoencoder(tmp_path)
    (tmp_path / "weights.txt").write_text("no")
    with pytest.raises(ValueError, match=r"unknown suffix '\.txt'"):
        load_ldm_autoencoder(tmp_path / "weights.txt")
