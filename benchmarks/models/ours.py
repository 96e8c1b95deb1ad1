"""This project's models at their published sizes, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn

from benchmarks.models.sizes import Arguments, Sizes
from benchmarks.models.subject import Steps, Subject
from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.autoencoders import Autoencoder, decode, encode, latent_channels
from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.pipeline import D3RSMDE, from_vae, to_vae
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import RefinerShape, build_refiner, walk

VAE_CLASSES: Mapping[VaeType, type[Autoencoder]] = {
    "AutoencoderKL": AutoencoderKL,
    "VA_VAE": AutoencoderKL,
    "DC_AE": AutoencoderDC,
    "AutoencoderTiny": AutoencoderTiny,
}
VIT, ENCODER, UNET, DECODER = "ViT", "encoder", "U-Net", "decoder"


def build_model(
    vae_type: VaeType, sizes: Sizes, coarse: Arguments | None, refiner: RefinerShape | None = None
) -> D3RSMDE:
    """The whole model; ``coarse`` None leaves stage 1 away, ``refiner`` None takes the family's U-Net."""
    vae = VAE_CLASSES[vae_type](**sizes.vaes[vae_type])
    schedule = PLBRScheduler()
    unet = build_refiner(refiner or sizes.refiners[vae_type], latent_channels(vae), len(schedule.weights))
    return D3RSMDE(None if coarse is None else CoarseNet(**coarse), vae, unet, schedule)


def build_vit(sizes: Sizes, size: int) -> Subject:
    """Stage 1 alone."""
    model = D3RSMDE(CoarseNet(**sizes.coarse))
    return Subject(
        label="ours: ViT alone",
        networks=[model.coarse],
        run=lambda images, steps: model.predict_coarse(images),
        parts={VIT: model.coarse},
        switch=lambda switches: model.optimise(**vars(switches)),
    )


def build_refined(vae_type: VaeType, sizes: Sizes, size: int) -> Subject:
    """Both stages."""
    model = build_model(vae_type, sizes, sizes.coarse)
    return _refined(f"ours: {vae_type}", model)


def build_fast(sizes: Sizes, size: int) -> Subject:
    """The fast preset: a small ViT, the light VAE and a U-Net without attention over many cells; one step."""
    model = build_model("AutoencoderTiny", sizes, sizes.fast_coarse, sizes.fast_refiner)
    return _refined("ours: fast preset", model)


def _refined(label: str, model: D3RSMDE) -> Subject:
    def run(images: Tensor, steps: Steps) -> Tensor:
        return model.refine(images, model.predict_coarse(images), steps).height

    return Subject(
        label=label,
        networks=[model.coarse, model.vae, model.unet],
        run=run,
        parts={VIT: model.coarse} | _stage_2_parts(model),
        switch=lambda switches: model.optimise(**vars(switches)),
        step_part=UNET,
    )


def build_plain_stage_2(vae_type: VaeType, sizes: Sizes, size: int) -> Subject:
    """Stage 2 without any of the project's switches: the baseline that they are compared with.

    Image and prior pass the encoder one after the other; the image's mean over its channels stands in for the prior.
    """
    model = build_model(vae_type, sizes, None)

    @torch.no_grad()
    def run(images: Tensor, steps: Steps) -> Tensor:
        priors = images.mean(dim=1, keepdim=True)
        image, coarse = (
            encode(model.vae, pad_to_multiple(to_vae(values), model.size_multiple)) for values in (images, priors)
        )
        refined = from_vae(decode(model.vae, walk(model.unet, model.scheduler, image, coarse, steps)[-1]))
        return refined[..., : images.shape[-2], : images.shape[-1]]

    return Subject(
        label=f"ours: stage 2 alone, plain, {vae_type}",
        networks=[model.vae, model.unet],
        run=run,
        parts=_stage_2_parts(model),
        switch=lambda switches: None,
        step_part=UNET,
        notes=["stage 2 alone, as constructed: the baseline of the project's own switches"],
    )


def _stage_2_parts(model: D3RSMDE) -> dict[str, nn.Module]:
    return {ENCODER: model.vae.encoder, UNET: model.unet, DECODER: model.vae.decoder}


OURS: dict[str, Callable[[Sizes, int], Subject]] = {
    "ours-vit": build_vit,
    "ours-AutoencoderKL": lambda *given: build_refined("AutoencoderKL", *given),
    "ours-VA_VAE": lambda *given: build_refined("VA_VAE", *given),
    "ours-DC_AE": lambda *given: build_refined("DC_AE", *given),
    "ours-AutoencoderTiny": lambda *given: build_refined("AutoencoderTiny", *given),
    "ours-fast": build_fast,
    "ours-plain-AutoencoderKL": lambda *given: build_plain_stage_2("AutoencoderKL", *given),
    "ours-plain-AutoencoderTiny": lambda *given: build_plain_stage_2("AutoencoderTiny", *given),
}
