"""A light VAE taught by a large one: the same latents at a fraction of the cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from Modules.d3rsmde.autoencoders import Autoencoder, decode, encode, latent_stride
from Modules.d3rsmde.names import VaeType
from Modules.losses.height_losses import drawing_l1
from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask, to_draw
from Utils.data.sample import Batch


class DistillationTask(AutoencoderTask):
    """The light VAE learns the teacher's latent space, on images and maps alike.

    Its encoder learns the teacher's scaled latents. Its decoder learns to draw what was encoded, both from the
    teacher's latents and from those of its own encoder. So a refiner that was trained in the teacher's latent space can
    be used with the light VAE. The teacher's decoder is not used: it is most of a large VAE's cost, and a light VAE
    that was also shown the teacher's drawings came no nearer to the truth.

    The light VAE's decoder squeezes large values together (see ``Modules.d3rsmde.autoencoders``), and at the highest
    and lowest places a large VAE's latents of maps reach several times their spread. The scaling factor should
    therefore bring them to where the squeeze is mild, as ``measure_squeezed_scale`` does; with a factor of 1 different
    summits are drawn alike.

    Args:
        vae: the light VAE.
        vae_type: family of the light VAE.
        teacher: the large VAE, which is frozen and has the same latent channels and stride.
        margin: pixels beyond each border, as for ``AutoencoderTask``.
    """

    loss_name = "distillation"

    def __init__(self, vae: Autoencoder, vae_type: VaeType, teacher: Autoencoder, margin: int = 0) -> None:
        super().__init__(vae, vae_type, margin)
        self._teacher = teacher.requires_grad_(False).eval()

    def to(self, device: torch.device) -> None:
        """Move both autoencoders."""
        super().to(device)
        nn.Module.to(self._teacher, device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The mean absolute error of the latents, and ``drawing_l1`` of both drawings; nothing is drawn at random."""
        values, counted = to_draw(batch, latent_stride(self._vae))
        with torch.no_grad():
            # In full precision, as in the training of a refiner in the teacher's latent space.
            with torch.autocast(values.device.type, enabled=False):
                taught = encode(self._teacher, values)
        latents = encode(self._vae, values)
        # Detached, because otherwise the encoder would leave the teacher's latents for some that are easier to draw.
        from_taught, from_own = decode(self._vae, torch.cat([taught, latents.detach()])).chunk(2)
        drawing = drawing_l1(from_taught, values, counted) + drawing_l1(from_own, values, counted)
        return functional.l1_loss(latents, taught) + drawing
