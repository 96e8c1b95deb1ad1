"""Our fusion of relative depth: the reference's map, fitted to the estimate of the stage before, guides the next one.

A relative depth map knows shapes and edges, but neither its scale nor its zero, and both drift across the image. So it
is fitted to the stage's own estimate by a line in every window, as in the guided filter (He et al., "Guided image
filtering", TPAMI 2013), with weights: sure pixels count more, and pixels that disagree with the line less. The fit is a
second opinion in metres, with a residual that says how far it can be trusted. Nothing in it is learnt, so it needs
neither an encoder nor maps of the other views; what a network makes of it is learnt by the regulariser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from Modules.stereo.hypotheses import Estimate, Hypotheses, double_size

CHANNELS = 2
"""Channels that guide a regulariser, beside those of its volume."""

# Radius of a window in pixels of the stage before: 60 image pixels across at a quarter of the size.
_RADIUS = 7
# Rounds of fitting; after each, pixels with large residuals count less.
_ROUNDS = 3
# Variance of the map, whose own is 1, below which a window's slope is held back: about 8 levels of 8 bits.
_FLAT = 1e-3


@dataclass(frozen=True)
class Fit:
    """Relative depth in metres, (B, h, w) each.

    Attributes:
        values: depth or height as the map has it.
        deviation: standard deviation of what it was fitted to, in metres.
    """

    values: Tensor
    deviation: Tensor


@torch.no_grad()
def fit_relative_depth(relative_depth: Tensor, before: Estimate, stride: int) -> Fit:
    """Fit a relative depth map to an estimate, and draw it at twice the estimate's size.

    Args:
        relative_depth: (B, H, W), of any scale and sign, with variance 1.
        before: an estimate of stride 2 ``stride``, (B, H / 2 stride, W / 2 stride).
        stride: that of the result, whose pixel i stands at the map's pixel i * stride.
    """
    coarse, fine = (relative_depth[:, ::each, ::each] for each in (2 * stride, stride))
    truth, sure = before.values.float(), before.spread.float().square() + (0.5 * before.step.float()).square()
    # Metres may be thousands with a spread of decimetres: squares of such numbers have no digits left in fp32.
    level = truth.mean(dim=(1, 2), keepdim=True)
    truth = truth - level
    weight = 1 / sure
    for _ in range(_ROUNDS):
        slope, shift, residual = _lines(coarse, truth, weight)
        error = (truth - slope * coarse - shift).square()
        # Cauchy's weights: a roof that the line misses does not bend it.
        weight = 1 / (sure * (1 + error / (residual + sure)))
    # All sure pixels of a window say how good its line is, those that the last round made light of too.
    error = _box((truth - slope * coarse - shift).square() / sure) / _box(1 / sure)
    values = double_size(slope) * fine + double_size(shift) + level
    return Fit(values, double_size(error.sqrt()))


def gated(centre: Tensor, spread: Tensor, fit: Fit) -> Tensor:
    """The mean of estimate (B, h, w) and fit, each weighted by the inverse of its variance (``spread`` squared)."""
    own, other = spread.square(), fit.deviation.square()
    share = own / (own + other).clamp(min=1e-12)
    return centre + share * (fit.values - centre)


def guiding_channels(hypotheses: Hypotheses, fit: Fit, first: int, last: int) -> Tensor:
    """What a regulariser is told of hypotheses ``first`` to ``last``: (B, 2, D, h, w), both from 0 to 1.

    The first is how near each is to the fit, exp(-t^2 / 2) of their distance in standard deviations, to which the step
    adds; the second how small the fit's deviation is beside the step.
    """
    width = (fit.deviation.square() + hypotheses.step.detach().square()).sqrt().clamp(min=1e-6)[:, None]
    distance = (hypotheses.values(first, last) - fit.values[:, None]) / width
    trust = (hypotheses.step.detach()[:, None] / width).expand_as(distance)
    return torch.stack([(-0.5 * distance.square()).exp(), trust], dim=1)


def _lines(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted lines y = slope x + shift in the window around each pixel, averaged over the windows that hold it.

    Returns:
        Slope, shift and the weighted mean of squared residuals, (B, h, w) each.
    """
    total = _box(weight)
    mean_x, mean_y, xx, xy, yy = (_box(weight * part) / total for part in (x, y, x.square(), x * y, y.square()))
    variance, covariance = (xx - mean_x.square()).clamp(min=0), xy - mean_x * mean_y
    slope = covariance / (variance + _FLAT)
    shift = mean_y - slope * mean_x
    residual = ((yy - mean_y.square()) - 2 * slope * covariance + slope.square() * variance).clamp(min=0)
    slope, shift, residual = (_box(part) / _box(torch.ones_like(part)) for part in (slope, shift, residual))
    return slope, shift, residual


def _box(values: Tensor) -> Tensor:
    """Sums over square windows of maps (B, h, w); there is nothing beyond the border."""
    return functional.avg_pool2d(values[:, None], 2 * _RADIUS + 1, 1, _RADIUS, divisor_override=1)[:, 0]
