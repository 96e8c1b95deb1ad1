"""The autoencoder, seen from the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from Modules.common.padding import pad_to_multiple
from Modules.d3rsmde.autoencoders import Autoencoder, latent_stride, reconstruct
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.pipeline import reconstruct_maps, to_vae
from Modules.losses.height_losses import drawing_l1
from Systems.d3rsmde.tasks.common import MONITOR, plain_config
from Utils.data.sample import Batch
from Utils.reports.tile_panels import map_views
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.scores import Scorer
from Utils.training.task import ParameterGroup, View, one_group

# Weight of the KL term, as for Stable Diffusion's VAE: it keeps the latents near the origin and costs no sharpness.
_KL_WEIGHT = 1e-6


def to_draw(batch: Batch, multiple: int) -> tuple[Tensor, Tensor]:
    """The maps and images that an autoencoder learns to draw, and which of their pixels count.

    Args:
        batch: a batch of B tiles.
        multiple: height and width are padded up to a multiple of this many pixels, repeating the border.

    Returns:
        (2B, 3, H, W) in [-1, 1], images before maps, and (2B, 1, H, W) bool: all pixels of images, the valid ones of
        maps, since the border of a void is no edge that a refiner will ever meet.
    """
    values = torch.cat([to_vae(batch["image"]), to_vae(batch["height"])])
    counted = torch.cat([torch.ones_like(batch["valid"]), batch["valid"]]).float()
    return pad_to_multiple(values, multiple), pad_to_multiple(counted, multiple) > 0.5


class AutoencoderTask:
    """The VAE, trained on images and maps alike."""

    name = "vae"
    loss_name = "reconstruction"
    monitor = MONITOR
    scorer: Scorer = HeightScorer()

    def __init__(self, vae: Autoencoder, vae_type: VaeType, margin: int = 0) -> None:
        self._margin = margin
        self.network: nn.Module = vae
        self._vae = vae
        self._vae_type = vae_type

    def architecture(self) -> Mapping[str, Any]:
        """Family and config of the autoencoder."""
        return {"vae_type": self._vae_type, "vae": plain_config(self._vae.config)}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters in one group."""
        return one_group(self.network)

    def to(self, device: torch.device) -> None:
        """Move the autoencoder."""
        nn.Module.to(self._vae, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The reconstruction's error in value and in edges, and a KL term that keeps the latents near the origin."""
        values, counted = to_draw(batch, latent_stride(self._vae))
        reconstruction, divergence = reconstruct(self._vae, values, [*generators, *generators])
        return drawing_l1(reconstruction, values, counted) + _KL_WEIGHT * divergence

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The reconstructed true maps."""
        return reconstruct_maps(self._vae, batch["height"], self._margin)

    def panels(self, batch: Batch) -> Sequence[View]:
        """Image, truth, map and error of each tile."""
        return map_views(batch, self.predict(batch))
