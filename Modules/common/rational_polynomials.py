"""Rational polynomial cameras (RPC) as 170 numbers: from the ground to the image and back, for batches, in float64.

The numbers are, in this order: the offsets of line, sample, latitude, longitude and height, their five scales in the
same order, then twenty coefficients each of the numerator and denominator of line, numerator and denominator of sample
(the direct model, which every vendor gives), and of latitude and longitude (the inverse model, which is fitted). Lines
and samples are pixels, where 0 is the centre of the first; latitude and longitude are degrees; heights are metres.

The terms are those of RPC00B (NIMA STDI-0002, "Rapid positioning capability"), which GDAL uses too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PARAMETERS", "GroundPoints", "ImagePoints", "ground_of", "image_of", "monomials"]

PARAMETERS = 170
"""How many numbers describe a camera."""

_LINE, _SAMPLE, _LATITUDE, _LONGITUDE, _HEIGHT = range(5)
_DIRECT, _INVERSE = slice(10, 90), slice(90, 170)

# Points whose twenty terms are held at once: 10 MB, which stays in a processor's cache, or 170 MB on a GPU.
_POINTS_CPU, _POINTS_GPU = 2**16, 2**20


@dataclass(frozen=True)
class ImagePoints:
    """Places in an image, float64 [B, N]: pixels, where 0 is the centre of the first pixel."""

    line: Tensor
    sample: Tensor


@dataclass(frozen=True)
class GroundPoints:
    """Places on the ground without their heights, float64 [B, N]: degrees."""

    latitude: Tensor
    longitude: Tensor


def monomials(first: Tensor, second: Tensor, height: Tensor) -> Tensor:
    """The twenty terms of a polynomial of degree three.

    Args:
        first: latitude (or sample, for the inverse model) in units of its scale, any shape [...].
        second: longitude (or line) likewise.
        height: height likewise.

    Returns:
        [20, ...]
    """
    p, l, h = first, second, height  # noqa: E741 - the letters of the standard
    lp, lh, ph, l2, p2, h2 = l * p, l * h, p * h, l * l, p * p, h * h
    terms = (
        *(torch.ones_like(l), l, p, h, lp, lh, ph, l2, p2, h2),
        *(lp * h, l2 * l, l * p2, l * h2, l2 * p, p2 * p, p * h2, l2 * h, p2 * h, h2 * h),
    )
    return torch.stack(terms)


def image_of(parameters: Tensor, ground: GroundPoints, height: Tensor) -> ImagePoints:
    """Where points on the ground are seen (the direct model).

    Args:
        parameters: float64 [B, 170].
        ground: latitude and longitude [B, N].
        height: metres, float64 [B, N].

    Returns:
        Line and sample [B, N]; NaN where a denominator vanishes or changes its sign, as it may far from the image.
    """
    given = (ground.latitude, ground.longitude, height)
    line, sample = _evaluated(parameters, given, (_LATITUDE, _LONGITUDE, _HEIGHT), _DIRECT, (_LINE, _SAMPLE))
    return ImagePoints(line, sample)


def ground_of(parameters: Tensor, image: ImagePoints, height: Tensor, corrections: int = 0) -> GroundPoints:
    """Where rays through pixels meet heights (the inverse model).

    A correction asks the direct model where the point is seen and aims as far beside the pixel as that was beside it.
    Each takes the error, in pixels, by orders of magnitude down.

    Args:
        parameters: float64 [B, 170], inverse included.
        image: line and sample [B, N].
        height: metres, float64 [B, N].
        corrections: how often the result is corrected with the direct model.

    Returns:
        Latitude and longitude [B, N].
    """
    aim = image
    for _ in range(corrections):
        seen = image_of(parameters, _inverse(parameters, aim, height), height)
        aim = ImagePoints(aim.line + (image.line - seen.line), aim.sample + (image.sample - seen.sample))
    return _inverse(parameters, aim, height)


def _inverse(parameters: Tensor, image: ImagePoints, height: Tensor) -> GroundPoints:
    given = (image.sample, image.line, height)
    latitude, longitude = _evaluated(parameters, given, (_SAMPLE, _LINE, _HEIGHT), _INVERSE, (_LATITUDE, _LONGITUDE))
    return GroundPoints(latitude, longitude)


def _evaluated(
    parameters: Tensor,
    given: tuple[Tensor, Tensor, Tensor],
    which: tuple[int, int, int],
    coefficients: slice,
    wanted: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Two ratios of polynomials [B, N] at three variables [B, N], in the variables' own units."""
    offsets, scales = parameters[:, :5, None], parameters[:, 5:10, None]
    table = parameters[:, coefficients].reshape(-1, 4, 20)
    most = _POINTS_CPU if table.device.type == "cpu" else _POINTS_GPU
    parts = []
    for chunk in zip(*(values.split(most, dim=1) for values in given), strict=True):
        scaled = [(values - offsets[:, i]) / scales[:, i] for values, i in zip(chunk, which, strict=True)]
        terms = monomials(*scaled).movedim(0, 1)  # [B, 20, n]
        parts.append(torch.bmm(table, terms))
    polynomials = torch.cat(parts, dim=2) if len(parts) != 1 else parts[0]  # [B, 4, N]
    results = []
    for i, part in zip(wanted, (0, 2), strict=True):
        below = polynomials[:, part + 1].clone()
        # The first coefficient is the denominator in the middle of the image. It says which sign is right.
        below[below * table[:, part + 1, :1] <= 0] = torch.nan
        results.append(polynomials[:, part] / below * scales[:, i] + offsets[:, i])
    return results[0], results[1]
