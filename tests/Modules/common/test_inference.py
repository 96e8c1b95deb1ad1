from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from Modules.common.number_formats import compile_networks, set_format
from Modules.d3rsmde.autoencoders import vae_precision
from Modules.d3rsmde.refiner import walk
from tests.toys import VAE_TYPES, toy_coarse, toy_model, toy_unet, toy_vae

# A bf16 number is right to 2^-9 of its size, an fp16 one to 2^-12; some dozens of layers of random weights add to that.
BF16_TOLERANCE, FP16_TOLERANCE = 0.02, 0.004


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", BF16_TOLERANCE), ("fp16", FP16_TOLERANCE)])
@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_half_precision_gives_the_same_maps_nearly(vae_type, precision, tolerance) -> None:
    prior = torch.rand(2, 1, 48, 40, generator=torch.Generator().manual_seed(1))
    expected = toy_model(vae_type).refine(image(), prior).height
    model = toy_model(vae_type).optimise(precision)
    found = model.refine(image(), prior).height
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)  # it did run in another format
    assert (found - expected).abs().mean() < tolerance


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_maps_are_drawn_in_fp32(precision) -> None:
    """Half precision's few values would show as terraces."""
    model = toy_model().optimise(precision)
    coarse = model.predict_coarse(image())
    refined = model.refine(image(), coarse).height
    for drawn in (coarse, refined):
        assert drawn.dtype == torch.float32
        same_in_half = drawn.to(torch.bfloat16 if precision == "bf16" else torch.float16).float() == drawn
        assert same_in_half.float().mean() < 0.5


def test_only_one_layer_a_network_and_the_image_statistics_stay_in_fp32() -> None:
    model = toy_model().optimise("bf16")
    for network in (model.coarse.decoder, model.vae.decoder):
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        assert sum(part.weight.dtype == torch.float32 for part in convolutions) == 1
    assert {value.dtype for value in model.unet.parameters()} == {torch.bfloat16}
    assert model.coarse.mean.dtype == model.coarse.std.dtype == torch.float32


def test_fp16_spares_an_autoencoder_that_would_overflow() -> None:
    assert vae_precision(toy_vae("AutoencoderKL"), "fp16") == "fp32"
    assert vae_precision(toy_vae("AutoencoderTiny"), "fp16") == "fp16"
    assert vae_precision(toy_vae("AutoencoderKL"), "bf16") == "bf16"


def is_channels_last(network: nn.Module) -> bool:
    wide = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide if min(weight.shape[:2]) > 1)


def test_the_layout_is_the_one_asked_for() -> None:
    vae = toy_vae("AutoencoderKL")
    set_format(vae, "fp32", channels_last=False)
    assert not is_channels_last(vae)
    set_format(vae, "bf16")
    assert is_channels_last(vae)


def test_layout_changes_nothing_but_rounding() -> None:
    expected = toy_model()(image())
    found = toy_model().optimise("fp32")(image())
    # Sums in another order, which the stretch of the coarse map and six steps magnify.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0.0)


def compile_with(monkeypatch: pytest.MonkeyPatch, backend: object) -> None:
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: original(self, backend=backend, **options))


# Graphs are traced as always, but no C++ is compiled of them, which would take minutes.  The first case leaves out
# stage 1, and what autograd's part of a backend does to a graph: the others take a minute.
@pytest.mark.parametrize(
    ("coarse", "backend"), [(False, "eager"), pytest.param(True, "aot_eager", marks=pytest.mark.slow)]
)
def test_a_compiled_model_draws_the_same_at_any_size(coarse: bool, backend: str, monkeypatch) -> None:
    compile_with(monkeypatch, backend)
    plain, compiled = toy_model(coarse=coarse), toy_model(coarse=coarse).optimise(compile=True)
    assert compiled.unet._compiled_call_impl is not None, "it is not compiled, so this compares nothing"
    # The size that was tried when it was compiled, and one that was not.
    for batch, side in ((1, 2 * plain.size_multiple), (2, 40)):
        pixels = image()[:batch, :, :side, :side]
        prior = None if coarse else pixels[:, 0]
        torch.testing.assert_close(compiled(pixels, prior), plain(pixels, prior), atol=1e-3, rtol=0.0)


def test_where_compiling_fails_a_line_says_so_and_the_model_runs(caplog, monkeypatch) -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no compiler on this machine")

    network = nn.Conv2d(3, 3, 3)
    pixels = image()
    expected = network(pixels)
    compile_with(monkeypatch, broken)
    with caplog.at_level(logging.WARNING):
        assert not compile_networks([network], lambda: network(pixels))
    assert "torch.compile does not work here" in caplog.text and "no compiler" in caplog.text
    assert torch.equal(network(pixels), expected)


def test_an_optimised_model_needs_no_stage_one() -> None:
    model = toy_model(coarse=False).optimise("bf16", compile=False)
    assert model(image(), prior=torch.zeros(2, 48, 40)).shape == (2, 48, 40)


def test_attention_takes_the_fused_kernels(monkeypatch) -> None:
    """They want a head's channels side by side; else torch silently goes a way that is slow and large."""
    seen: list[torch.Tensor] = []
    fused = nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: object) -> torch.Tensor:
        seen.extend((query, key, value))
        return fused(query, key, value, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    vae = toy_vae("VA_VAE")
    unet = toy_unet(vae)
    unet(torch.zeros(1, 8, 8, 8), torch.zeros(1, dtype=torch.int64))
    in_unet = len(seen)
    vae.encode(torch.zeros(1, 3, 16, 16))
    in_vae = len(seen)
    toy_coarse()(image())
    assert 0 < in_unet < in_vae < len(seen), "a network has attention of its own making"
    assert all(values.stride(-1) == 1 for values in seen)


def test_image_and_prior_are_encoded_in_one_pass(monkeypatch) -> None:
    model = toy_model()
    batches: list[int] = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda values: batches.append(len(values)) or encode(values))
    model(image())
    assert batches == [4]


def test_walk_in_half_precision_blends_in_fp32() -> None:
    model = toy_model().optimise("bf16")
    latent = torch.zeros(1, 4, 8, 8)
    assert {step.dtype for step in walk(model.unet, model.scheduler, latent, latent)} == {torch.float32}
