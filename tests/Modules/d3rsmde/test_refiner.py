"""The U-Net: published shapes of the three families, bad shapes, the walk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import PUBLISHED_REFINERS, RefinerShape, build_refiner, predict_truth, walk
from tests.toys import toy_unet, toy_vae

TOY = RefinerShape((16, 32), 1, (2,), attention_head_dim=16, norm_num_groups=8)
# latent channels, widths, residual blocks, attention at strides, dropout, scale-shift, millions of parameters
PUBLISHED: dict[VaeType, tuple[int, list[int], int, list[int], float, bool, tuple[float, float]]] = {
    "AutoencoderKL": (4, [128, 256, 512, 512], 2, [1, 2, 4, 8], 0.0, False, (100, 125)),
    "VA_VAE": (32, [192, 384, 576, 768], 3, [2, 4, 8], 0.1, True, (260, 290)),
    "DC_AE": (32, [256, 512, 1024], 2, [1, 2, 4], 0.1, False, (240, 275)),
}


@pytest.mark.parametrize("vae_type", list(PUBLISHED))
def test_published_shapes(vae_type: VaeType) -> None:
    channels, widths, blocks, strides, dropout, scale_shift, millions = PUBLISHED[vae_type]
    with torch.device("meta"):
        unet = build_refiner(PUBLISHED_REFINERS[vae_type], channels, 6)
    assert unet.conv_in.weight.shape == (widths[0], 2 * channels, 3, 3)
    assert unet.conv_out.weight.shape == (channels, widths[0], 3, 3)
    assert [block.resnets[-1].out_channels for block in unet.down_blocks] == widths
    assert [len(block.resnets) for block in unet.down_blocks] == [blocks] * len(widths)
    assert [len(block.resnets) for block in unet.up_blocks] == [blocks + 1] * len(widths)
    for path in (unet.down_blocks, list(reversed(unet.up_blocks))):
        attended = [2**level for level, block in enumerate(path) if len(getattr(block, "attentions", ()))]
        assert attended == strides
    heads = {m.heads * 64 == m.to_q.in_features for m in unet.modules() if hasattr(m, "to_q")}
    assert heads == {True}  # 64 channels a head
    assert len(unet.mid_block.attentions) == 1
    assert {m.p for m in unet.mid_block.resnets.modules() if isinstance(m, torch.nn.Dropout)} == {dropout}
    assert {m.p for block in unet.down_blocks for m in block.resnets.modules() if isinstance(m, torch.nn.Dropout)} == {
        dropout
    }
    expected = "scale_shift" if scale_shift else "default"
    assert {m.time_embedding_norm for m in unet.modules() if hasattr(m, "time_embedding_norm")} == {expected}
    assert isinstance(unet.time_proj, torch.nn.Embedding)
    assert unet.time_proj.weight.shape == (6, widths[0])
    total = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    print(f"{vae_type}: {total:.1f} M parameters")
    assert millions[0] < total < millions[1]


def test_dropout_is_published_as_the_config_says_for_autoencoder_kl() -> None:
    unet = build_refiner(replace(TOY, dropout=0.3), 4, 6)
    assert {m.p for m in unet.modules() if isinstance(m, torch.nn.Dropout) and m.p} == {0.3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_strides": (4,)}, r"attention_strides \[4\] do not exist"),
        ({"norm_num_groups": 5}, "norm_num_groups 5"),
        ({"attention_head_dim": 24}, "attention_head_dim"),
    ],
)
def test_shapes_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_refiner(replace(TOY, **change), 4, 6)


def test_every_parameter_learns() -> None:
    vae = toy_vae()
    unet = toy_unet(vae).train()
    latent = torch.rand(6, 4, 8, 12)
    predict_truth(unet, latent, latent, torch.arange(6)).square().mean().backward()
    assert [name for name, parameter in unet.named_parameters() if parameter.grad is None] == []
    table = unet.time_proj.weight.grad
    assert table is not None and (table.abs().sum(dim=1) > 0).all()  # every timestep has its own entry


def test_the_image_comes_first() -> None:
    unet = toy_unet(toy_vae())
    seen: list[torch.Tensor] = []
    unet.conv_in.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image, blended = torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4, 4)
    with torch.no_grad():
        predicted = predict_truth(unet, image, blended, torch.tensor([3]))
    assert predicted.shape == image.shape
    assert torch.equal(seen[0], torch.cat([image, blended], dim=1))


@torch.no_grad()
def test_walk_equals_the_published_loop() -> None:
    unet: UNet2DModel = toy_unet(toy_vae())
    image, coarse = torch.rand(2, 4, 4, 8), torch.rand(2, 4, 4, 8)
    weights = torch.linspace(0.8, 0.0, 6, dtype=torch.float64).tolist()
    latent, expected = coarse, []
    for t in reversed(range(6)):
        prediction = unet(torch.cat([image, latent], dim=1), torch.full((2,), t)).sample
        before = weights[t - 1] if t else 1.0
        latent = before * prediction + (1.0 - before) * coarse
        expected.append(latent)
    trail = walk(unet, PLBRScheduler(), image, coarse)
    assert len(trail) == 6
    for ours, other in zip(trail, expected, strict=True):
        # the last blend, 1·prediction + 0·coarse, rounds where the prediction itself does not
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(trail[-1], coarse, atol=1e-2)


@torch.no_grad()
def test_one_step_is_the_prediction_from_the_coarse_latent() -> None:
    unet = toy_unet(toy_vae())
    image, coarse = torch.rand(2, 4, 4, 4), torch.rand(2, 4, 4, 4)
    (only,) = walk(unet, PLBRScheduler(), image, coarse, steps=1)
    assert torch.equal(only, predict_truth(unet, image, coarse, torch.tensor([5, 5])))
