"""The peers, built from libraries' own classes at their published sizes, with random weights.

Each is given the same image as ours and gives back a map of that image's size; what its own preprocessing does to the
size is part of its run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.models.sizes import Sizes
from benchmarks.models.subject import Size, Steps, Subject, Switches, sides
from Modules.common.number_formats import compile_networks, set_format

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Marigold's published schedule, that of Stable Diffusion 2 with steps counted from the noisy end.
_DDIM = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}

Build = Callable[[Sizes, Any], Subject]


def build_marigold(sizes: Sizes, size: int) -> Subject:
    """Diffusers' Marigold depth pipeline, a Stable Diffusion 2 that starts from noise, at the image's own size."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    unet = UNet2DConditionModel(**sizes.marigold_unet).eval()
    vae = AutoencoderKL(**sizes.vaes["AutoencoderKL"]).eval()
    # In place of the text encoder stands its answer to the empty prompt, of a start and an end token.
    absent: Any = None
    pipeline: Any = MarigoldDepthPipeline(unet, vae, DDIMScheduler(**_DDIM), absent, absent, prediction_type="depth")
    pipeline.empty_text_embedding = torch.zeros(1, 2, sizes.marigold_text)
    pipeline.set_progress_bar_config(disable=True)

    def run(images: Tensor, steps: Steps) -> Tensor:
        return pipeline(
            images,
            num_inference_steps=steps,
            processing_resolution=0,
            batch_size=len(images),
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).prediction

    def probe() -> Tensor:
        return run(torch.zeros(1, 3, size, size, device=unet.device), 1)

    return Subject(
        label="Marigold",
        networks=[unet, vae],
        run=run,
        parts={"encoder": vae.encoder, "U-Net": unet, "decoder": vae.decoder},
        switch=lambda switches: _switch([vae, unet], [vae.encoder, unet, vae.decoder], probe, switches),
        step_part="U-Net",
        notes=["without its text encoder, whose one answer is kept: its memory and parameters are not counted"],
    )


def build_depth_anything(variant: str, sizes: Sizes, size: Size) -> Subject:
    """Transformers' Depth Anything V2."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    arguments = dict(sizes.depth_anything[variant])
    backbone = Dinov2Config(**arguments.pop("backbone_config"))
    network = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **arguments))
    patch = backbone.patch_size
    assert isinstance(patch, int)
    return _with_patches(_one_pass(f"Depth Anything V2 {variant}", network, patch, size), patch, size)


def build_dinov2_dpt(sizes: Sizes, size: Size) -> Subject:
    """DINOv2-S with the DPT head that its authors published it with for depth, by transformers' classes."""
    from transformers import Dinov2Config, DPTConfig, DPTForDepthEstimation

    arguments = dict(sizes.dinov2_dpt)
    backbone = Dinov2Config(**arguments.pop("backbone_config"))
    network = DPTForDepthEstimation(DPTConfig(backbone_config=backbone, **arguments))
    patch = backbone.patch_size
    assert isinstance(patch, int)
    return _with_patches(_one_pass("DINOv2-S with a DPT head", network, patch, size), patch, size)


def _with_patches(subject: Subject, patch: int, size: Size) -> Subject:
    """The subject, with a note on what its patches do to the image's size."""
    given, fed = (" x ".join(str(side) for side in dict.fromkeys(pair)) for pair in (sides(size), _fed(size, patch)))
    subject.notes.append(f"its patches are {patch} pixels: an image of {given} is resized to {fed}, the map back")
    return subject


def build_dpt_hybrid(sizes: Sizes, size: int) -> Subject:
    """Transformers' DPT-hybrid; its position table is built for the image's size, as the class takes no other."""
    from transformers import DPTConfig, DPTForDepthEstimation

    network = DPTForDepthEstimation(DPTConfig(image_size=_nearest_multiple(size, 32), **sizes.dpt_hybrid))
    return _one_pass("DPT-hybrid", network, 32, size)


def build_glpn(sizes: Sizes, size: Size) -> Subject:
    """Transformers' GLPN."""
    from transformers import GLPNConfig, GLPNForDepthEstimation

    return _one_pass("GLPN", GLPNForDepthEstimation(GLPNConfig(**sizes.glpn)), 32, size)


def _one_pass(label: str, network: nn.Module, multiple: int, size: Size) -> Subject:
    """A transformers model for depth: normalise, resize to what it takes, one pass, resize back."""
    network.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_STD))

    def run(images: Tensor, steps: Steps) -> Tensor:
        height, width = images.shape[-2:]
        fed = (images - mean.to(images.device)) / std.to(images.device)
        target = _fed((height, width), multiple)
        if target != (height, width):
            fed = functional.interpolate(fed, target, mode="bilinear")
        fed = fed.to(next(network.parameters()).dtype)
        depth = network(fed).predicted_depth[:, None].float()
        if depth.shape[-2:] == (height, width):
            return depth
        return functional.interpolate(depth, (height, width), mode="bilinear")

    def probe() -> Tensor:
        return run(torch.zeros(1, 3, *sides(size), device=next(network.parameters()).device), None)

    return Subject(
        label=label,
        networks=[network],
        run=run,
        parts={"network": network},
        switch=lambda switches: _switch([network], [network], probe, switches),
    )


def _switch(
    networks: list[nn.Module], compiled: list[nn.Module], probe: Callable[[], object], switches: Switches
) -> None:
    """What ``D3RSMDE.optimise`` does to ours."""
    for network in networks:
        set_format(network, switches.precision, switches.channels_last)
    if switches.compile:
        compile_networks(compiled, torch.no_grad()(probe))


def _fed(size: Size, multiple: int) -> tuple[int, int]:
    """Height and width of what a network that takes multiples sees of an image."""
    height, width = sides(size)
    return _nearest_multiple(height, multiple), _nearest_multiple(width, multiple)


def _nearest_multiple(value: int, multiple: int) -> int:
    return max(round(value / multiple), 1) * multiple


PEERS: dict[str, Build] = {
    "marigold": build_marigold,
    "depth-anything-small": lambda *given: build_depth_anything("small", *given),
    "depth-anything-base": lambda *given: build_depth_anything("base", *given),
    "depth-anything-large": lambda *given: build_depth_anything("large", *given),
    "dpt-hybrid": build_dpt_hybrid,
    "glpn": build_glpn,
}
