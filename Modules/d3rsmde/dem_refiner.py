"""A U-Net that refines the ground as a coarse DEM shows it: the prior is the DEM itself, and the result is in metres.

It sees four things at the same samples: the surface that is estimated from the DEM's cells, the standard error of that
estimate, the relief that the image's shading suggests, and the image. It draws what is left: heights about the surface.
All heights are divided by the standard error first, and the surface's wide shapes are taken away, so that neither the
level nor the relief of the ground matters, nor the size of its cells. There is no latent space: what is missing is
finer than an autoencoder's stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor
from torch.nn import functional

from Modules.common.number_formats import compile_networks, draw_in_fp32, set_format
from Modules.common.padding import pad_to_multiple
from Modules.common.precision import Precision

# Standard deviations of Gaussians, in samples: shapes wider than these say nothing of what is missing.
_WIDE_GROUND, _WIDE_BRIGHTNESS, _NEAR = 8.0, 16.0, 4.0
_LEAST_ERROR = 1e-3  # metres
_BRIGHTEST = 5.0  # standard deviations
# surface, its roughness, relief from shading, three bands, whether there is an image
_INPUTS = 7
# So many samples along each side become channels: the U-Net works at half the resolution, at a quarter of the cost.
_PATCH = 2
# Convolutions see so many samples beyond the border, repeated from it.
_MARGIN = 8


class DemRefiner(ModelMixin, ConfigMixin):
    """The network; it takes maps of any height and width.

    Args:
        block_out_channels: channels at each resolution, finest first.
        layers_per_block: residual blocks at each resolution.
        norm_num_groups: groups of the group norms.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers declares it None

    @register_to_config
    def __init__(
        self, block_out_channels: Sequence[int] = (48, 64, 96), layers_per_block: int = 1, norm_num_groups: int = 8
    ) -> None:
        super().__init__()
        levels = len(block_out_channels)
        self.unet = UNet2DModel(
            in_channels=_INPUTS * _PATCH**2,
            out_channels=_PATCH**2,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            add_attention=False,
        )
        # At first it draws the relief from shading as it is.
        torch.nn.init.zeros_(self.unet.conv_out.weight)
        torch.nn.init.zeros_(self.unet.conv_out.bias)
        self._multiple = _PATCH * 2 ** (levels - 1)

    def optimise(self, precision: Precision = "fp32", channels_last: bool = True, compile: bool = False) -> DemRefiner:
        """Make the network fast, in place, for prediction; call it once, after moving it to its device.

        Args:
            precision: number format of the weights; the layer that draws the map stays in fp32.
            channels_last: memory layout of the convolutions.
            compile: whether to use torch.compile; where it does not work, a line says so and it runs uncompiled.
        """
        set_format(self.unet, precision, channels_last)
        draw_in_fp32(self.unet)
        if compile:
            probe = torch.zeros(1, 1, 128, 128, device=self.device)
            with torch.no_grad():
                compile_networks([self.unet], lambda: self(probe, probe, probe, probe.expand(-1, 3, -1, -1)))
        return self

    def forward(self, surface: Tensor, error: Tensor, relief: Tensor, image: Tensor) -> Tensor:
        """Draw the heights about the surface.

        Args:
            surface: (B, 1, H, W) the ground as the DEM shows it, in metres.
            error: (B, 1, H, W) its standard error in metres.
            relief: (B, 1, H, W) heights about the surface that the image's shading suggests, in metres; not looked at
                where a sample has no image.
            image: (B, 3, H, W) brightness in any unit, NaN where unknown. A sample without any known pixel, or whose
                image shows nothing, has no image.

        Returns:
            (B, 1, H, W) in metres.
        """
        unit = error_unit(error)
        shown, there = _bands(image)
        relief = torch.where(there, relief / unit, torch.zeros_like(relief))
        ground = (surface - blur(surface, _WIDE_GROUND)) / unit
        rough = blur((surface - blur(surface, _NEAR)) ** 2, _WIDE_GROUND).clamp_min(0.0).sqrt() / unit
        flag = there.to(surface.dtype).expand_as(surface)
        # Rough ground under a clean DEM is thousands of standard errors high: its logarithm is looked at.
        given = torch.cat([ground.asinh(), (rough + _LEAST_ERROR).log(), relief.asinh(), shown, flag], dim=1)
        padded = pad_to_multiple(given.to(self.unet.conv_in.weight.dtype), self._multiple, _MARGIN)
        timestep = torch.zeros(len(padded), dtype=torch.long, device=padded.device)
        drawn = self.unet(functional.pixel_unshuffle(padded, _PATCH), timestep).sample
        drawn = functional.pixel_shuffle(drawn, _PATCH).to(surface.dtype)
        height, width = surface.shape[-2:]
        return (relief + drawn[..., _MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width]) * unit


def error_unit(error: Tensor) -> Tensor:
    """The unit of heights (B, 1, H, W) in metres: the standard error, smoothed so that it draws nothing by itself."""
    return blur(error, _WIDE_GROUND).clamp_min(_LEAST_ERROR)


def blur(values: Tensor, deviation: float) -> Tensor:
    """Blur (B, C, H, W) by a Gaussian of a standard deviation in samples; the border is repeated."""
    reach = math.ceil(3 * deviation)
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (steps / deviation) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1)
    for _ in range(2):
        # The last axis is blurred, and the axes change places.
        rows = values.transpose(-1, -2).reshape(-1, 1, values.shape[-2])
        rows = functional.conv1d(functional.pad(rows, (reach, reach), mode="replicate"), weights)
        values = rows.reshape(*values.shape[:-2], values.shape[-1], values.shape[-2])
    return values


def _bands(image: Tensor) -> tuple[Tensor, Tensor]:
    """An image's bands about their local means in standard deviations, and whether it shows anything (B, 1, 1, 1)."""
    known = torch.isfinite(image).all(dim=1, keepdim=True)
    share = blur(known.to(image.dtype), _WIDE_BRIGHTNESS).clamp_min(1e-3)
    filled = torch.where(known, image, torch.zeros_like(image))
    bands = torch.where(known, filled - blur(filled, _WIDE_BRIGHTNESS) / share, torch.zeros_like(image))
    count = 3 * known.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    deviation = ((bands**2).sum(dim=(1, 2, 3), keepdim=True) / count).sqrt()
    there = deviation > 1e-6
    return (bands / deviation.clamp_min(1e-6)).clamp(-_BRIGHTEST, _BRIGHTEST), there
