"""Autoencoders: the families at toy size, loading from folders, files and an absent hub, scales."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    AutoencoderShape,
    build_autoencoder,
    check_family,
    decode,
    encode,
    family,
    latent_channels,
    latent_stride,
    load_autoencoder,
    load_folder,
    measure_latent_scale,
    measure_squeezed_scale,
    reconstruct,
)
from Modules.d3rsmde.ldm_checkpoint import ldm_name
from Modules.d3rsmde.names import VaeType
from tests.toys import VAE_TYPES, generators, toy_unet, toy_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


def as_ldm_file(vae: Autoencoder, path: Path) -> Path:
    """The weights of a diffusers AutoencoderKL under latent-diffusion's names."""
    levels = len(vae.config["block_out_channels"])
    tensors: dict[str, Tensor] = {}
    for name, value in vae.state_dict().items():
        is_projection = any(f".{part}." in name for part in ("to_q", "to_k", "to_v", "to_out.0"))
        value = value[:, :, None, None] if is_projection and name.endswith("weight") else value
        tensors[ldm_name(name, levels)] = value.contiguous()
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("vae_type", VAE_TYPES)
@pytest.mark.parametrize("widths", [(16, 32), (16, 16, 32, 32)])
def test_built_shapes(vae_type: VaeType, widths: tuple[int, ...]) -> None:
    if vae_type == "AutoencoderTiny":
        widths = widths[:1] * len(widths)
    vae = build_autoencoder(vae_type, AutoencoderShape(widths, 1, 4, 8)).eval()
    stride = 2 ** (len(widths) - 1)
    values = torch.rand(2, 3, 4 * stride, 6 * stride) * 2 - 1
    with torch.no_grad():
        latents = encode(vae, values)
        decoded = decode(vae, latents)
    assert latents.shape == (2, 4, 4, 6)
    assert decoded.shape == values.shape
    assert (latent_stride(vae), latent_channels(vae), family(vae)) == (stride, 4, vae_type)


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_a_batch_encodes_as_its_tiles_do(vae_type: VaeType) -> None:
    vae = toy_vae(vae_type)
    values = torch.rand(3, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        both = decode(vae, encode(vae, values))
        for i in range(3):
            # convolutions of another batch size sum in another order
            torch.testing.assert_close(
                both[i : i + 1], decode(vae, encode(vae, values[i : i + 1])), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_saving_and_loading(vae_type: VaeType, tmp_path: Path) -> None:
    vae = toy_vae(vae_type)
    vae.register_to_config(scaling_factor=0.37)
    vae.save_pretrained(tmp_path)
    loaded = load_autoencoder(vae_type, str(tmp_path))
    assert type(loaded) is type(vae)
    values = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(encode(loaded, values), encode(vae, values))
    assert loaded.config["scaling_factor"] == 0.37


@pytest.mark.parametrize("held", VAE_TYPES)
@pytest.mark.parametrize("asked", VAE_TYPES)
def test_another_familys_folder_is_refused(held: VaeType, asked: VaeType, tmp_path: Path) -> None:
    toy_vae(held).save_pretrained(tmp_path)
    if held == asked:
        assert family(load_autoencoder(asked, str(tmp_path))) == held
        return
    with pytest.raises(ValueError, match=str(tmp_path)) as raised:
        load_autoencoder(asked, str(tmp_path))
    assert asked in str(raised.value)
    with pytest.raises(ValueError, match=f"of type {held}, but the config says vae_type {asked}"):
        check_family(toy_vae(held), asked, "here")


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_a_folder_loads_whatever_its_family(vae_type: VaeType, tmp_path: Path) -> None:
    toy_vae(vae_type).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path)
    assert family(loaded) == vae_type
    assert all(torch.equal(value, toy_vae(vae_type).state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    toy_unet(toy_vae()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a UNet2DModel, and an autoencoder is one of AutoencoderKL, "):
        load_folder(tmp_path)


@pytest.mark.parametrize(("vae_type", "scale"), [("VA_VAE", 1.0), ("AutoencoderKL", 0.18215)])
def test_single_files_in_ldm_layout(vae_type: VaeType, scale: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_autoencoder(vae_type, AutoencoderShape((32, 64), 1, 4, 32)).eval()
    path = as_ldm_file(vae, tmp_path / "vae.safetensors")
    loaded = load_autoencoder(vae_type, str(path))
    assert loaded.config["scaling_factor"] == scale
    values = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(encode(loaded, values), encode(vae, values) * scale)
    other: VaeType = "AutoencoderKL" if vae_type == "VA_VAE" else "VA_VAE"
    with pytest.raises(ValueError, match=f"of type {vae_type}"):
        load_autoencoder(other, str(path))
    for without_files in ("DC_AE", "AutoencoderTiny"):
        with pytest.raises(ValueError, match=f"single file; {without_files} comes as"):
            load_autoencoder(without_files, str(path))  # type: ignore[arg-type]


def test_scale_and_shift_are_read_from_the_config() -> None:
    vae = toy_vae()
    values = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(values).latent_dist.mean
        assert torch.equal(encode(vae, values), mean)
        for scale, shift in ((0.18215, None), (0.3611, 0.1159)):
            vae.register_to_config(scaling_factor=scale, shift_factor=shift)
            scaled = encode(vae, values)
            torch.testing.assert_close(scaled, (mean - (shift or 0.0)) * scale)
            # dividing and multiplying by the scale again rounds once each
            torch.testing.assert_close(decode(vae, scaled), vae.decode(mean).sample, rtol=1e-4, atol=1e-5)


def test_the_light_vaes_scale_lies_outside_of_its_decoders_squeeze() -> None:
    """Latents of unit variance round-trip, however far the unscaled ones reach."""
    vae = toy_vae("AutoencoderTiny")
    values = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        # As drawn at random, the last layer gives latents near 0.
        vae.encoder.layers[-1].weight.mul_(20.0)
        raw = vae.encode(values).latents
        assert 3.0 < raw.abs().max()
        drawn = vae.decode(raw).sample
        for scale in (1.0, 0.1, 5.0):
            vae.register_to_config(scaling_factor=scale)
            torch.testing.assert_close(encode(vae, values), raw * scale)
            # dividing and multiplying by the scale again rounds once each
            torch.testing.assert_close(decode(vae, encode(vae, values)), drawn, rtol=1e-4, atol=1e-5)


def test_the_scale_under_which_a_light_vae_can_tell_latents_apart() -> None:
    # 10,000 magnitudes from 0 to 10, all but ten of them at most 9.99, in two tensors and with both signs.
    rising = torch.linspace(0.0, 10.0, 10_000)
    scale = measure_squeezed_scale([-rising[:5_000].reshape(1, 2, 50, 50), rising[5_000:].reshape(1, 2, 50, 50)])
    assert scale == 5.0
    assert measure_squeezed_scale([rising * 0.123456]) == 0.62  # two digits: the same on every device
    slope = 1.0 / np.cosh(2.0 / 3.0) ** 2  # of 3 tanh(z / 3) at z = 2
    assert slope == pytest.approx(0.66, abs=0.005)


def test_the_size_of_taesd() -> None:
    with torch.device("meta"):
        vae = build_autoencoder("AutoencoderTiny", AutoencoderShape((64, 64, 64, 64), 3, 4, 8))
        published = AutoencoderTiny()
        image, latent = torch.zeros(1, 3, 512, 512), torch.zeros(1, 4, 64, 64)
    shapes = {name: value.shape for name, value in vae.state_dict().items()}
    assert shapes == {name: value.shape for name, value in published.state_dict().items()}
    assert (latent_stride(vae), latent_channels(vae)) == (8, 4)
    costs = []
    for work in (lambda: encode(vae, image), lambda: decode(vae, latent)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        costs.append(counter.get_total_flops() / 1e12)
    assert costs == pytest.approx([0.122, 0.141], abs=0.001)  # a tenth and an eighteenth of Stable Diffusion's VAE


def test_stable_diffusions_scale_survives_its_config_file(tmp_path: Path) -> None:
    toy_vae().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.18215}))
    assert load_autoencoder("AutoencoderKL", str(tmp_path)).config["scaling_factor"] == 0.18215


def test_folders_of_older_diffusers(tmp_path: Path) -> None:
    """Stable Diffusion's published folders call the projections of the middle attention query, key and so on."""
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, latent_channels=4).eval()
    vae.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    loaded = load_autoencoder("AutoencoderKL", str(tmp_path))
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_damaged_folders(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    toy_vae().save_pretrained(whole)

    def copy(name: str) -> Path:
        shutil.copytree(whole, tmp_path / name)
        return tmp_path / name

    cut = copy("cut")
    (cut / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes()[:1000])
    lacking = copy("lacking")
    tensors = load_file(whole / WEIGHTS)
    dropped = tensors.pop("encoder.conv_in.bias")
    save_file(tensors, lacking / WEIGHTS, metadata={"format": "pt"})
    crowded = copy("crowded")
    save_file(load_file(whole / WEIGHTS) | {"stranger": dropped}, crowded / WEIGHTS, metadata={"format": "pt"})
    wider = copy("wider")
    config = json.loads((whole / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps(config | {"block_out_channels": [16, 64]}))
    pickled = copy("pickled")
    (pickled / WEIGHTS).unlink()
    torch.save(toy_vae().state_dict(), pickled / "diffusion_pytorch_model.bin")
    for name, words in (("cut", "cut"), ("lacking", "encoder.conv_in.bias"), ("crowded", "stranger"),
                        ("wider", "wider"), ("pickled", "safetensors")):  # fmt: skip
        with pytest.raises(ValueError, match=words) as raised:
            load_autoencoder("AutoencoderKL", str(tmp_path / name))
        assert "\n" not in str(raised.value) and name in str(raised.value)
    (whole / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_autoencoder("AutoencoderKL", str(whole))
    (whole / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="damaged"):
        load_autoencoder("AutoencoderKL", str(whole))
    (whole / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_autoencoder("AutoencoderKL", str(whole))


@pytest.mark.parametrize("source", ["/nowhere/vae", "nowhere", "./some/vae", "a/b/c"])
def test_a_missing_path_is_said_to_be_missing(source: str) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_autoencoder("AutoencoderKL", source)


def test_a_hub_name_without_a_network_fails_at_once(no_network: None, waits: list[float]) -> None:
    with pytest.raises(OSError, match="Name or service not known") as raised:
        load_autoencoder("AutoencoderKL", "stabilityai/sd-vae-ft-mse")
    # The hub's own retries wait three quarters of a minute.
    assert sum(waits) < 5.0
    assert "stabilityai/sd-vae-ft-mse" in str(raised.value)


def test_a_hub_name_loads_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy_vae().save_pretrained(tmp_path)
    monkeypatch.setattr("Modules.d3rsmde.autoencoders.hub_file", lambda name, filename: tmp_path / filename)
    loaded = load_autoencoder("AutoencoderKL", "owner/vae")
    assert torch.equal(loaded.encoder.conv_in.weight, toy_vae().encoder.conv_in.weight)


@pytest.mark.parametrize(
    ("vae_type", "shape", "words"),
    [
        ("AutoencoderKL", AutoencoderShape((16, 30), 1, 4, 8), "norm_num_groups 8"),
        ("VA_VAE", AutoencoderShape((10, 16), 1, 4, 8), "norm_num_groups 8"),
        ("DC_AE", AutoencoderShape((16, 30), 1, 4, 8), "latent channels"),
        ("DC_AE", AutoencoderShape((16,), 1, 4, 8), "two resolutions"),
        ("DC_AE", AutoencoderShape((16, 24), 1, 4, 8), "divide one another"),
        ("AutoencoderTiny", AutoencoderShape((32, 64, 128, 128), 1, 4, 8), "must all be the same.* TAESD's size is"),
    ],
)
def test_widths_that_a_family_cannot_take(vae_type: VaeType, shape: AutoencoderShape, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_autoencoder(vae_type, shape)


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_reconstruction_teaches_every_parameter(vae_type: VaeType) -> None:
    vae = toy_vae(vae_type).train()
    values = torch.rand(2, 3, 16, 16) * 2 - 1
    drawn, divergence = reconstruct(vae, values, generators({"values": values}))
    assert drawn.shape == values.shape and divergence.shape == ()
    ((drawn - values).abs().mean() + divergence).backward()
    assert [name for name, parameter in vae.named_parameters() if parameter.grad is None] == []
    assert (divergence.item() == 0.0) == (vae_type in ("DC_AE", "AutoencoderTiny"))


def test_the_generator_alone_decides_the_posterior_sample() -> None:
    vae = toy_vae()
    values = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        first, second, third = (reconstruct(vae, values, generators({"values": values}, s))[0] for s in (1, 1, 2))
        mean, divergence = reconstruct(vae, values, None)
        posterior = vae.encode(values).latent_dist
        assert torch.equal(mean, vae.decode(posterior.mean).sample)
    assert torch.equal(first, second) and not torch.equal(first, third)
    variance = posterior.logvar.exp()
    by_hand = 0.5 * (posterior.mean**2 + variance - 1.0 - posterior.logvar)
    torch.testing.assert_close(divergence, by_hand.mean())  # per latent value


def test_measured_scale_gives_unit_variance() -> None:
    latents = [torch.randn(4, 4, 8, 8) * 3.0 + 1.0, torch.randn(2, 4, 8, 8) * 3.0 + 1.0]
    scale = measure_latent_scale(latents)
    assert torch.cat(latents).std().item() * scale == pytest.approx(1.0, rel=1e-5)
    assert measure_latent_scale([torch.zeros(1, 4, 2, 2)]) == 1e6
