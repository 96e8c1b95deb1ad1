"""Networks of multi-view stereo: CasMVSNet, UCSNet and CasRED, plain and with relative depth.

All three estimate depth or height in three stages, at a quarter, a half and all of the size, each with fewer and closer
hypotheses than the one before. Gu et al., "Cascade cost volume", CVPR 2020; Cheng et al., "UCS-Net", CVPR 2020; Liu and
Ji, "RED-Net", CVPR 2020; Gao et al., "SatMVS", ICCV 2021; relative depth: RDM-MVS, 10.1109/LGRS.2025.3527550.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from Modules.common.padding import pad_to_multiple
from Modules.stereo.cost_volume import variance_volume
from Modules.stereo.encoders import ImageEncoder
from Modules.stereo.geometry import Geometry
from Modules.stereo.guidance import CHANNELS as GUIDES
from Modules.stereo.guidance import Fit, fit_relative_depth, gated, guiding_channels
from Modules.stereo.hypotheses import (
    Estimate,
    Hypotheses,
    StreamedEstimate,
    around,
    double_size,
    estimate,
    fixed_half,
    spread_half,
    whole_range,
)
from Modules.stereo.names import COUNTINGS, FUSIONS, NETWORKS, NORMS, STRIDES, Counting, Fusion, NetworkName, Norm
from Modules.stereo.recomputing import recomputed
from Modules.stereo.recurrent import RecurrentRegulariser
from Modules.stereo.regularisers import DIVISOR, VolumeUNet
from Modules.stereo.relative_depth import RelativeDepthEncoder

HYPOTHESES = (64, 32, 8)
RATIOS = (4.0, 2.0, 1.0)
_SIDES = STRIDES[0] * DIVISOR  # height and width are padded to multiples of this


class StereoNetwork(ModelMixin, ConfigMixin):
    """Depth or height of a reference image, from it and other views of the same ground.

    Args:
        network: CasMVSNet (3-D U-Nets, ranges of fixed width), UCSNet (3-D U-Nets, ranges after the spread of the stage
            before) or CasRED (recurrent, ranges of fixed width).
        relative_depth: what is done with relative depth maps; see ``Fusion``.
        hypotheses: how many each stage tries; multiples of 8 for the 3-D U-Nets.
        ratios: intervals between two hypotheses of a stage; the first stage always spans the whole range.
        base: channels of the encoder and of the regularisers at the full size.
        counting: which views the variance counts.
        norm: what normalises activations of the encoder and of the 3-D U-Nets.
        spread_factor: UCSNet: standard deviations on each side.
        least_intervals: UCSNet: intervals on each side that are tried at least.
        geometry: kind of the cameras it learnt from; None where nobody has said it. Values are depth in metres with
            ``pinhole``, and height in metres with ``rpc``.
        interval_parallax: pixels by which an interval moved points between the views that it learnt from; None where
            nobody has said it.

    Attributes:
        recompute: whether each stage's volume and regulariser are computed again in the backward pass, instead of being
            kept until then: the same gradients in less memory and more time.

    Raises:
        ValueError: settings that do not exist or do not fit together.
    """

    config_name = "config.json"  # type: ignore[assignment]  # diffusers declares it None

    @register_to_config
    def __init__(
        self,
        network: NetworkName = "CasMVSNet",
        relative_depth: Fusion = "none",
        hypotheses: Sequence[int] = HYPOTHESES,
        ratios: Sequence[float] = RATIOS,
        base: int = 8,
        counting: Counting = "all",
        norm: Norm = "batch",
        spread_factor: float = 1.5,
        least_intervals: float = 1.0,
        geometry: Literal["pinhole", "rpc"] | None = None,
        interval_parallax: float | None = None,
    ) -> None:
        super().__init__()
        self.recompute = False
        _check(network, relative_depth, hypotheses, ratios, counting, norm)
        recurrent = network == "CasRED"
        self.encoder = ImageEncoder("fpn" if network == "CasMVSNet" else "unet", base, norm)
        widths = self.encoder.channels
        self.relative_encoder = RelativeDepthEncoder(widths) if relative_depth == "concatenated" else None
        twice = 2 if relative_depth == "concatenated" else 1
        # The first stage has no estimate that the relative depth could be fitted to.
        guides = (0, GUIDES, GUIDES) if relative_depth == "guided" else (0, 0, 0)
        channels = [twice * width + guide for width, guide in zip(widths, guides, strict=True)]
        self.regularisers = nn.ModuleList(
            RecurrentRegulariser(width, base) if recurrent else VolumeUNet(width, base, norm) for width in channels
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, **kwargs: Any) -> Any:
        """Load from a folder that ``save_pretrained`` wrote; arguments are those of diffusers' method."""
        # timm reads values while it builds, and diffusers' construction without memory has none.
        kwargs.setdefault("low_cpu_mem_usage", False)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @property
    def uses_relative_depth(self) -> bool:
        """Whether relative depth maps are needed."""
        return self.config["relative_depth"] != "none"

    def load_backbone(self, weights: bool | Path) -> None:
        """Give the encoder of relative depth timm's pretrained weights (True), or those of a file in timm's layout.

        Raises:
            ValueError: there is no such encoder, or weights that do not fit.
            OSError: pretrained weights that are neither in the cache nor reachable.
        """
        if self.relative_encoder is None:
            raise ValueError("only the published fusion of relative depth has an encoder with pretrained weights")
        self.relative_encoder.load_backbone(weights)

    def forward(
        self,
        images: Tensor,
        geometry: Geometry,
        value_range: Tensor,
        interval: Tensor,
        relative_depth: Tensor | None = None,
    ) -> list[Estimate]:
        """Estimate the reference's depth or height.

        Without gradients CasRED goes through the hypotheses one by one, in memory that does not grow with their number.

        Args:
            images: (B, V, 3, H, W), each channel of each image standardised; view 0 is the reference.
            geometry: the cameras of the same views.
            value_range: (B, 2), lowest and highest depth or height in metres.
            interval: (B,) metres, the step to which the ratios refer.
            relative_depth: (B, V, 3, H, W), standardised likewise; must be given where the network uses it.

        Returns:
            The estimates of the stages, coarse to fine: (B, ceil(H/s), ceil(W/s)) with s of 4, 2 and 1.

        Raises:
            ValueError: fewer than two views, or no relative depth where it is needed.
        """
        if images.shape[1] < 2:
            raise ValueError(f"stereo needs two views or more, got {images.shape[1]}")
        if self.uses_relative_depth and relative_depth is None:
            raise ValueError("this network uses relative depth, and none is given")
        features = self._features(images, relative_depth)
        interval, value_range = interval.reshape(-1).float(), value_range.float()
        found: list[Estimate] = []
        for number, (stride, of_views) in enumerate(zip(STRIDES, features, strict=True)):
            size = tuple(-(-side // stride) for side in images.shape[-2:])
            stage = _Stage(of_views, geometry, stride, (size[0], size[1]))
            fit = None
            if number == 0:
                tried = whole_range(value_range, self.config["hypotheses"][0], stage.padded)
            else:
                tried, fit = self._narrowed(number, found[-1], value_range, interval, relative_depth, stage)
            found.append(self._estimate(number, stage, tried, fit))
        return [_cut(each, images.shape[-2:], stride) for each, stride in zip(found, STRIDES, strict=True)]

    def _features(self, images: Tensor, relative_depth: Tensor | None) -> list[list[Tensor]]:
        """Features of the views by stage, all views in one pass: (B, C, h, w) each."""
        batch, views = images.shape[:2]
        levels = self.encoder(pad_to_multiple(images.flatten(0, 1), _SIDES))
        if self.relative_encoder is not None:
            assert relative_depth is not None, "forward has checked that"
            others = self.relative_encoder(pad_to_multiple(relative_depth.flatten(0, 1), _SIDES))
            levels = [torch.cat([own, other], dim=1) for own, other in zip(levels, others, strict=True)]
        return [list(level.unflatten(0, (batch, views)).unbind(1)) for level in levels]

    def _narrowed(
        self,
        number: int,
        before: Estimate,
        value_range: Tensor,
        interval: Tensor,
        relative_depth: Tensor | None,
        stage: _Stage,
    ) -> tuple[Hypotheses, Fit | None]:
        """The hypotheses of a later stage, and where relative depth guides it, its fit to the estimate before."""
        config = self.config
        count, ratio = config["hypotheses"][number], config["ratios"][number]
        # CasRED lets the loss of a stage reach the one before through the middle of its range, as published.
        centre = double_size(before.values if config["network"] == "CasRED" else before.values.detach())
        spread, step = double_size(before.spread.detach()), double_size(before.step)
        if config["network"] == "UCSNet":
            half = spread_half(spread, config["spread_factor"], config["least_intervals"] * interval)
        else:
            half = fixed_half(count, ratio, interval, step)
        fit = None
        if config["relative_depth"] == "guided":
            assert relative_depth is not None, "forward has checked that"
            # Only the first of its channels: the others are the same map, blurred.
            reference = pad_to_multiple(relative_depth[:, 0, :1].float(), _SIDES)[:, 0]
            fit = fit_relative_depth(reference, before, stage.stride)
            centre = gated(centre, spread, fit)
        return around(centre, half, value_range, count), fit

    def _estimate(self, number: int, stage: _Stage, tried: Hypotheses, fit: Fit | None) -> Estimate:
        """The estimate of a stage over its hypotheses."""
        regulariser, counting = self.regularisers[number], self.config["counting"]
        recurrent = isinstance(regulariser, RecurrentRegulariser)
        if not (recurrent and not torch.is_grad_enabled()):

            def scores() -> Tensor:
                found: Tensor = regulariser(_guided(stage.volume(tried.values(), counting), tried, fit, 0, tried.count))
                return found

            again = self.recompute and torch.is_grad_enabled()
            return estimate(recomputed(scores, regulariser) if again else scores(), tried, peak=recurrent)
        assert isinstance(regulariser, RecurrentRegulariser)
        states, streamed = None, StreamedEstimate()
        for place in range(tried.count):
            volume = stage.volume(tried.values(place, place + 1), counting)
            cost = _guided(volume, tried, fit, place, place + 1)[:, :, 0]
            score, states = regulariser.slice(cost, states or regulariser.first_states(cost))
            streamed.add(score)
        return streamed.result(tried)


@dataclass(frozen=True)
class _Stage:
    """Features of the views (B, C, h, w) at a stride, the reference's first, and their cameras.

    ``size`` is that of the features without padding.
    """

    features: list[Tensor]
    geometry: Geometry
    stride: int
    size: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the features."""
        return self.features[0].shape[-2], self.features[0].shape[-1]

    def volume(self, values: Tensor, counting: Counting) -> Tensor:
        """The variance over the views at values (B, D, h, w): (B, C, D, h, w)."""
        reference, *sources = self.features
        positions = [
            self.geometry.positions(view, values, self.stride, self.size) for view in range(1, len(sources) + 1)
        ]
        return variance_volume(reference, sources, positions, counting)


def CasMVSNet(relative_depth: bool | Fusion = False, **settings: Any) -> StereoNetwork:
    """CasMVSNet, 934,304 parameters; with ``relative_depth`` the published fusion, 1,874,384, or the one it names."""
    return StereoNetwork("CasMVSNet", _fusion(relative_depth), **settings)


def UCSNet(relative_depth: bool | Fusion = False, **settings: Any) -> StereoNetwork:
    """UCSNet, 938,496 parameters; with ``relative_depth`` the published fusion, 1,878,576, or the one it names."""
    return StereoNetwork("UCSNet", _fusion(relative_depth), **settings)


def CasRED(relative_depth: bool | Fusion = False, **settings: Any) -> StereoNetwork:
    """RED-Net in a cascade, 1,094,523 parameters; with ``relative_depth`` the published fusion, 2,042,667, or one."""
    return StereoNetwork("CasRED", _fusion(relative_depth), **settings)


def _fusion(relative_depth: bool | Fusion) -> Fusion:
    if isinstance(relative_depth, bool):
        return "concatenated" if relative_depth else "none"
    return relative_depth


def _check(
    network: str, relative_depth: str, hypotheses: Sequence[int], ratios: Sequence[float], counting: str, norm: str
) -> None:
    """Refuse settings that do not exist or do not fit together.

    Raises:
        ValueError: such settings.
    """
    for name, value, known in (
        ("network", network, NETWORKS),
        ("relative_depth", relative_depth, FUSIONS),
        ("counting", counting, COUNTINGS),
        ("norm", norm, NORMS),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} '{value}'; known: {', '.join(known)}")
    if len(hypotheses) != len(STRIDES) or len(ratios) != len(STRIDES):
        raise ValueError(f"there are {len(STRIDES)} stages: give as many hypotheses and ratios")
    multiple = 1 if network == "CasRED" else DIVISOR
    if any(count < 2 or count % multiple for count in hypotheses):
        what = "2 or more" if multiple == 1 else f"multiples of {multiple}"
        raise ValueError(f"{network} needs hypotheses that are {what}, got {list(hypotheses)}")
    if any(not 0 < ratio < float("inf") for ratio in ratios):
        raise ValueError(f"ratios must be above 0, got {list(ratios)}")


def _guided(volume: Tensor, tried: Hypotheses, fit: Fit | None, first: int, last: int) -> Tensor:
    """A volume (B, C, D, h, w) of hypotheses ``first`` to ``last``, with the channels that guide, if there are any."""
    if fit is None:
        return volume
    return torch.cat([volume, guiding_channels(tried, fit, first, last).to(volume.dtype)], dim=1)


def _cut(found: Estimate, size: Sequence[int], stride: int) -> Estimate:
    """An estimate without the padding of an image of ``size``."""
    height, width = (-(-side // stride) for side in size)
    maps = {name: value for name, value in vars(found).items() if value is not None}
    return replace(found, **{name: value[..., :height, :width] for name, value in maps.items()})
