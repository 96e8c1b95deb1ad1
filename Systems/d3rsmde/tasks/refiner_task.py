"""Stage 2, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional

from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.autoencoders import Autoencoder, decode, encode, latent_stride
from Modules.d3rsmde.pipeline import D3RSMDE, from_vae, to_vae
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import predict_truth
from Modules.losses.height_losses import build_loss
from Systems.d3rsmde.tasks.common import MONITOR, plain_config
from Utils.data.sample import Batch
from Utils.reports.tile_panels import map_views
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.scores import Scorer
from Utils.training.task import ParameterGroup, View, one_group

LATENT_LOSS = "L1Loss"
LATENTS = ("image_latent", "coarse_latent", "truth_latent")
# Entry beside the latents: which of their cells lie only on valid pixels.
WHOLE = "whole"
# Cells of a latent along a large shape.
_LARGE = 4


class RefinerTask:
    """Stage 2: it learns to predict the truth's latent from a blend of truth and prior.

    Args:
        model: VAE (frozen), U-Net and schedule; the priors come with the batches.
        loss_types: ``L1Loss`` is the mean absolute error of the latent; every other loss acts on the decoded map.
        own_prediction_share: share of the draws in which the U-Net's own first prediction replaces the truth in the
            blend, as at inference. 0 is the published training.
        one_step: whether only the first step of the walk is trained, which is then the only one: from the coarse latent
            to the truth's. The decoded map is compared as well as the latent (by L1, if ``loss_types`` names no other
            loss of maps).
        better_prior_share: share of the draws whose prior gets part of the large shapes that it misses, a part drawn
            between 0 and 1. Other ground may be easier for stage 1 than the training ground, and a U-Net that has only
            seen poor priors replaces good ones as well. 0 is the published training.
    """

    name = "unet"
    monitor = MONITOR
    scorer: Scorer = HeightScorer()

    def __init__(
        self,
        model: D3RSMDE,
        loss_types: Sequence[str],
        own_prediction_share: float = 0.0,
        one_step: bool = False,
        better_prior_share: float = 0.0,
    ) -> None:
        self._model = model
        self._better_prior_share = better_prior_share
        self._own_prediction_share = own_prediction_share
        self._one_step = one_step
        self._vae: Autoencoder = model.vae
        self._unet: UNet2DModel = model.unet
        self._schedule: PLBRScheduler = model.scheduler
        self.network: nn.Module = model.unet
        self._vae.requires_grad_(False)
        latent_losses = [name for name in loss_types if name == LATENT_LOSS]
        map_losses = [name for name in loss_types if name != LATENT_LOSS]
        if one_step and not map_losses:
            map_losses = ["L1Loss"]
        self._in_latent_space = bool(latent_losses)
        self._map_loss = build_loss(map_losses) if map_losses else None
        self._map_share = len(map_losses) / (len(latent_losses) + len(map_losses))
        self.loss_name = "+".join(["latent_l1" for _ in latent_losses] + [f"map_{name}" for name in map_losses])

    def architecture(self) -> Mapping[str, Any]:
        """Configs of U-Net and schedule, and the family of the autoencoder."""
        return {
            "vae_type": self._model.vae_type,
            "margin": self._model.config["margin"],
            "steps": self._model.config["steps"],
            "unet": plain_config(self._unet.config),
            "scheduler": plain_config(self._schedule.config),
        }

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move autoencoder and U-Net."""
        nn.Module.to(self._vae, device)
        nn.Module.to(self._unet, device)

    @property
    def needs_maps(self) -> bool:
        """Whether the loss compares maps as well, so that ``height`` and ``valid`` must come beside latents."""
        return self._map_loss is not None

    @torch.no_grad()
    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The frozen autoencoder's latents of image, prior and truth, each (B, C, h, w), of padded tiles.

        Beside them it gives ``whole`` (B, 1, h, w) bool, the cells whose pixels are all valid; padding is not valid.
        The precision is always that of the autoencoder's weights, so that kept latents equal those that a step would
        compute.
        """
        # At invalid pixels there is no truth; the prior takes its place, so that the latent gets no edge there.
        filled = torch.where(batch["valid"], batch["height"], batch["prior"])
        kinds = dict(zip(LATENTS, (batch["image"], batch["prior"], filled), strict=True))
        with torch.autocast(filled.device.type, enabled=False):
            # Encoded one after another: in one batch they would take three times the memory, and on a CPU more time.
            latents = {
                name: encode(self._vae, pad_to_multiple(to_vae(values), self._model.size_multiple))
                for name, values in kinds.items()
            }
        whole = _whole_cells(batch["valid"], latents[LATENTS[0]].shape[-2:], latent_stride(self._vae))
        return latents | {WHOLE: whole}

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """Blend, predict, compare; latents that come with the batch are not computed again."""
        latents = batch if LATENTS[0] in batch else self.encode(batch)
        image_latent, coarse_latent, truth_latent = (latents[name] for name in LATENTS)
        if self._better_prior_share:
            coarse_latent = self._improved(coarse_latent, truth_latent, generators)
        if self._one_step:
            timestep = torch.full((len(coarse_latent),), len(self._schedule.weights) - 1, device=coarse_latent.device)
            blended = coarse_latent
        else:
            count = len(self._schedule.weights)
            draws = torch.stack([torch.randint(count, (), generator=generator) for generator in generators])
            blended = self._blend(image_latent, coarse_latent, truth_latent, draws, generators)
            timestep = draws.to(truth_latent.device)
        prediction = predict_truth(self._unet, image_latent, blended, timestep)
        loss = prediction.new_zeros(())
        if self._in_latent_space:
            loss = loss + (1.0 - self._map_share) * _latent_l1(prediction, truth_latent, latents[WHOLE])
        if self._map_loss is not None:
            height, valid = batch["height"], batch["valid"]
            with _without_fp16(prediction.device):
                decoded = from_vae(decode(self._vae, prediction))[..., : height.shape[-2], : height.shape[-1]]
            loss = loss + self._map_share * self._map_loss(decoded, height, valid)
        return loss

    def _blend(
        self, image: Tensor, coarse: Tensor, truth: Tensor, draws: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """The U-Net's input: coarse latents blended with the truth's or, for a share of the tiles, with a prediction.

        Blended with the truth, the input shows fine detail that can be trusted. At inference it shows the U-Net's own
        guess instead, and a U-Net that has never seen one in training sharpens its errors with every step. ``draws``,
        the timesteps, are on the CPU, because reading them from the device would wait for it.
        """
        shares = torch.stack([torch.rand((), generator=generator) for generator in generators])
        first = len(self._schedule.weights) - 1
        is_own = (shares < self._own_prediction_share) & (draws < first)  # the first step sees no truth
        if is_own.any():
            own = is_own.nonzero()[:, 0].to(coarse.device)
            with torch.no_grad():
                guess = predict_truth(self._unet, image[own], coarse[own], torch.full_like(own, first))
            truth = truth.index_copy(0, own, guess.to(truth.dtype))
        return self._schedule.blend(truth, coarse, draws.to(coarse.device))

    def _improved(self, coarse: Tensor, truth: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The coarse latents, a share of them nearer to the truth's in large shapes."""
        shares, weights = (
            torch.stack([torch.rand((), generator=generator) for generator in generators]) for _ in range(2)
        )
        weights = torch.where(shares < self._better_prior_share, weights, 0.0).to(coarse).view(-1, 1, 1, 1)
        missing = functional.avg_pool2d(truth - coarse, _LARGE, ceil_mode=True)
        return coarse + weights * functional.interpolate(missing, coarse.shape[-2:], mode="bilinear")

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Maps that are refined from the priors by the whole walk, as at inference."""
        return self._model.refine(batch["image"], batch["prior"]).height

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, truth, map and error of each tile."""
        return map_views(batch, self.predict(batch))


def _without_fp16(device: torch.device) -> torch.autocast:
    """Mixed precision as configured, except fp16, in which a large autoencoder's activations overflow."""
    dtype = torch.get_autocast_dtype(device.type)
    enabled = torch.is_autocast_enabled(device.type) and dtype != torch.float16
    return torch.autocast(device.type, dtype, enabled=enabled)


def _whole_cells(valid: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """The latent cells (B, 1, h, w) whose pixels in ``valid`` (B, 1, H, W) are all set; ``size`` is (h, w)."""
    right, bottom = (size[d] * stride - valid.shape[d] for d in (-1, -2))
    invalid = functional.pad((~valid).float(), (0, right, 0, bottom), value=1.0)  # padding is not valid
    return functional.max_pool2d(invalid, stride) == 0.0


def _latent_l1(prediction: Tensor, truth: Tensor, whole: Tensor) -> Tensor:
    """Mean |prediction - truth|, both (B, C, h, w), over the cells (B, 1, h, w) that are whole; 0 where none is."""
    error = (prediction - truth).abs().mean(dim=1, keepdim=True)
    per_tile = (error * whole).sum(dim=(1, 2, 3)) / whole.sum(dim=(1, 2, 3)).clamp_min(1)
    return per_tile.mean()
