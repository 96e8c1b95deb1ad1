"""A trained D³-RSMDE: a folder that ``D3RSMDE.from_pretrained`` loads, an image in, a height map out.

model = D3RSMDE.from_pretrained("output/Diffusion/J_K/model")
height = model(image)                       # (H, W, 3) uint8 in, (H, W) float32 in [0, 1] out
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from Modules.autoencoders import Autoencoder, decode, encode, latent_stride
from Modules.backbone import pad_to_multiple
from Modules.coarse import CoarseNet
from Modules.plbr import PLBRScheduler
from Modules.refiner import walk


@dataclass(frozen=True)
class Refinement:
    """What ``D3RSMDE.refine`` returns.

    Attributes:
        height: the refined map (B, 1, H, W) in [0, 1].
        steps: the maps after each step, the last being ``height``; empty unless asked for.
    """

    height: Tensor
    steps: list[Tensor]


class D3RSMDE(DiffusionPipeline):
    """Both stages, or stage 1 alone (a model without U-Net draws the coarse map).

    Args:
        coarse: stage 1; None for a refiner that is always given its priors.
        vae: the frozen autoencoder.
        unet: the refiner.
        scheduler: its blending schedule.
        vae_type: published family of the autoencoder.
        steps: blending steps at inference; None takes all T.
        normalisation: how truth and prior were normalised in training; ``per_tile_min_max`` is the only one.
    """

    model_cpu_offload_seq = "coarse->vae->unet"  # type: ignore[assignment]  # diffusers declares it None
    _optional_components = ["coarse", "vae", "unet", "scheduler"]  # noqa: RUF012 - diffusers reads it off the class

    def __init__(
        self,
        coarse: CoarseNet | None = None,
        vae: AutoencoderKL | AutoencoderDC | None = None,
        unet: UNet2DModel | None = None,
        scheduler: PLBRScheduler | None = None,
        vae_type: str | None = None,
        steps: int | None = None,
        normalisation: str = "per_tile_min_max",
    ) -> None:
        super().__init__()
        if normalisation != "per_tile_min_max":
            raise ValueError(f"unknown normalisation '{normalisation}'; this version knows per_tile_min_max")
        self.register_modules(coarse=coarse, vae=vae, unet=unet, scheduler=scheduler)
        self.register_to_config(vae_type=vae_type, steps=steps, normalisation=normalisation)
        self.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> D3RSMDE:
        """Load a model folder, offline.

        Raises:
            FileNotFoundError: no model lies there.
            ValueError: the folder holds something else, or weights that do not fit.
        """
        folder = Path(pretrained_model_name_or_path)
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError(f"'{folder}' is no model folder (it has no model_index.json)")
        # timm looks at sizes while it builds, which diffusers' weightless construction does not give it.
        kwargs.setdefault("low_cpu_mem_usage", False)
        model = super().from_pretrained(str(folder), local_files_only=True, **kwargs)
        model.eval()
        return model

    def eval(self) -> D3RSMDE:
        """Put all networks into evaluation mode."""
        for network in (self.coarse, self.vae, self.unet):
            if network is not None:
                network.eval()
        return self

    @property
    def refines(self) -> bool:
        """Whether this model has a second stage."""
        return self.unet is not None

    @torch.no_grad()
    def predict_coarse(self, images: Tensor) -> Tensor:
        """Stage 1: (B, 3, H, W) in [0, 1] to (B, 1, H, W) in [0, 1]."""
        if self.coarse is None:
            raise ValueError("this model holds no stage 1; give a prior, or train with coarse_checkpoint_path set")
        return self.coarse(images)

    @torch.no_grad()
    def refine(
        self, images: Tensor, priors: Tensor, steps: int | None = None, keep_steps: bool = False
    ) -> Refinement:
        """Stage 2.

        Args:
            images: (B, 3, H, W) in [0, 1].
            priors: coarse maps (B, 1, H, W) in [0, 1].
            steps: blending steps; None takes the model's own.
            keep_steps: also decode the maps after each step.

        Returns:
            The refined maps, any H and W: padding to the networks' strides happens inside.
        """
        if self.unet is None or self.vae is None or self.scheduler is None:
            raise ValueError("this model holds no stage 2; it is the folder of a ViT run")
        height, width = images.shape[-2:]
        multiple = latent_stride(self.vae) * 2 ** (len(self.unet.config["block_out_channels"]) - 1)
        both = torch.cat([to_vae(images), to_vae(priors)])  # one pass of the encoder for image and prior
        image_latent, coarse_latent = encode(self.vae, pad_to_multiple(both, multiple)).chunk(2)
        trail = walk(self.unet, self.scheduler, image_latent, coarse_latent, steps or self.config["steps"])
        wanted = trail if keep_steps else trail[-1:]
        maps = [from_vae(decode(self.vae, latent))[..., :height, :width] for latent in wanted]
        return Refinement(maps[-1], maps if keep_steps else [])

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | NDArray[Any] | Any,
        prior: Tensor | NDArray[Any] | None = None,
        steps: int | None = None,
    ) -> Tensor | NDArray[np.float32]:
        """Height from an image.

        Args:
            image: a tensor (3, H, W) or (B, 3, H, W), or an array or PIL image (H, W, 3) or (B, H, W, 3);
                8-bit 0..255, 16-bit 0..65535, or float in [0, 1].
            prior: a coarse map in [0, 1], (H, W) or (B, H, W), to refine instead of stage 1's.
            steps: blending steps; None takes the model's own.

        Returns:
            The relative height in [0, 1], (H, W) or (B, H, W): a tensor for a tensor, else an array.

        Raises:
            ValueError: an input of another shape, type or range.
        """
        images, single, as_tensor = _images(image, self.device)
        if prior is None:
            height = self.predict_coarse(images)
        else:
            height = torch.as_tensor(prior, dtype=torch.float32, device=images.device)
            if height.shape[-2:] != images.shape[-2:] or height.numel() != images[:, 0].numel():
                raise ValueError(f"a prior of shape {tuple(height.shape)} does not fit images {tuple(images.shape)}")
            height = height.reshape(len(images), 1, *images.shape[-2:])
        if self.refines:
            height = self.refine(images, height, steps).height
        height = height[:, 0]
        height = height[0] if single else height
        return height if as_tensor else height.cpu().numpy()


def to_vae(values: Tensor) -> Tensor:
    """Images (B, 3, H, W) or maps (B, 1, H, W) in [0, 1] to (B, 3, H, W) in [-1, 1]; maps are repeated."""
    return values.expand(-1, 3, -1, -1) * 2.0 - 1.0


def from_vae(decoded: Tensor) -> Tensor:
    """Decoded (B, 3, H, W) in [-1, 1] to maps (B, 1, H, W) in [0, 1]: the mean over channels."""
    return (decoded.mean(dim=1, keepdim=True) * 0.5 + 0.5).clamp(0.0, 1.0)


def reconstruct_maps(vae: Autoencoder, maps: Tensor) -> Tensor:
    """Maps (B, 1, H, W) in [0, 1] through the autoencoder and back: the ceiling of what stage 2 can reach."""
    height, width = maps.shape[-2:]
    padded = pad_to_multiple(to_vae(maps), latent_stride(vae))
    return from_vae(decode(vae, encode(vae, padded)))[..., :height, :width]


def _images(image: Tensor | NDArray[Any] | Any, device: torch.device) -> tuple[Tensor, bool, bool]:
    """To (B, 3, H, W) float32 in [0, 1], with whether it was single and whether it was a tensor."""
    as_tensor = isinstance(image, Tensor)
    values: Tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
    if values.ndim not in (3, 4) or values.shape[-3 if as_tensor else -1] != 3:
        wanted = "(3, H, W) or (B, 3, H, W)" if as_tensor else "(H, W, 3) or (B, H, W, 3)"
        raise ValueError(f"an image of shape {tuple(values.shape)} is not {wanted}")
    single = values.ndim == 3
    values = values[None] if single else values
    values = values if as_tensor else values.permute(0, 3, 1, 2)
    full_scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(values.dtype, 1.0)
    values = values.to(device=device, dtype=torch.float32) / full_scale
    if not torch.isfinite(values).all() or values.min() < 0.0 or values.max() > 1.0:
        raise ValueError("an image must be finite, 8-bit, 16-bit or float in [0, 1]")
    return values, single, as_tensor
