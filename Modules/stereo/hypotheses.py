"""Hypotheses of depth or height, evenly spaced for each pixel, and what is estimated from their scores.

All values are metres of depth or height; a stage's pixel i of stride s stands at the image's pixel i * s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Bins around the expected one whose probabilities make up the confidence of CasMVSNet and UCSNet.
_BEFORE, _AFTER = 1, 2


@dataclass(frozen=True)
class Hypotheses:
    """Evenly spaced values of each pixel.

    Attributes:
        low: the first value, (B, h, w) metres.
        step: from one to the next, (B, h, w) metres.
        count: how many.
    """

    low: Tensor
    step: Tensor
    count: int

    def values(self, first: int = 0, last: int | None = None) -> Tensor:
        """The values from ``first`` up to, not including, ``last``: (B, D, h, w), without gradient."""
        numbers = torch.arange(first, self.count if last is None else last, device=self.low.device)
        return (self.low[:, None] + self.step[:, None] * numbers[:, None, None]).detach()

    def at(self, place: Tensor) -> Tensor:
        """The value at a fractional place (B, h, w) from 0 to ``count`` - 1; gradients reach ``low`` and ``step``."""
        return self.low + self.step * place


@dataclass(frozen=True)
class Estimate:
    """What a stage says of each of its pixels, all (B, h, w) fp32.

    Attributes:
        values: depth or height in metres.
        confidence: the network's own measure, 0 to 1.
        spread: standard deviation over the hypotheses, in metres.
        step: metres between two hypotheses.
        low: the first hypothesis in metres.
        scores: of the hypotheses (B, D, h, w), the highest is the best; None where they were not kept.
    """

    values: Tensor
    confidence: Tensor
    spread: Tensor
    step: Tensor
    low: Tensor
    scores: Tensor | None = None


def whole_range(value_range: Tensor, count: int, size: tuple[int, int]) -> Hypotheses:
    """The whole range (B, 2), lowest and highest value, for every pixel of a stage of ``size`` (h, w)."""
    low, high = (value_range[:, side, None, None].expand(-1, *size) for side in (0, 1))
    return _between(low, high, count)


def around(centre: Tensor, half: Tensor, value_range: Tensor, count: int) -> Hypotheses:
    """Hypotheses from ``centre - half`` to ``centre + half``, both included, as far as the range goes.

    Args:
        centre: (B, h, w) metres.
        half: (B, h, w), or what expands to it: metres.
        value_range: (B, 2), the lowest and highest value; what lies outside is cut off, which makes the step smaller.
        count: how many.
    """
    lowest, highest = (value_range[:, side, None, None] for side in (0, 1))
    low, high = ((centre + side * half).clamp(lowest, highest) for side in (-1.0, 1.0))
    return _between(low, high, count)


def fixed_half(count: int, ratio: float, interval: Tensor, step_before: Tensor) -> Tensor:
    """Half of the range of CasMVSNet and CasRED: ``count`` / 2 times ``ratio`` intervals.

    It is at least one step of the stage before: else the truth could lie between two of its hypotheses, and outside.

    Args:
        count: number of hypotheses.
        ratio: intervals a hypothesis.
        interval: (B,) metres.
        step_before: (B, h, w) metres between two hypotheses of the stage before.
    """
    return torch.maximum(0.5 * count * ratio * interval[:, None, None], step_before)


def spread_half(spread: Tensor, factor: float, least: Tensor) -> Tensor:
    """Half of the range of UCSNet: ``factor`` standard deviations, and at least ``least`` (B,) metres.

    Args:
        spread: (B, h, w) standard deviation over the hypotheses of the stage before, in metres.
        factor: 1.5 as published.
        least: (B,) metres; with none, as published, a range may collapse to a point, which the next stage cannot leave.
    """
    return torch.maximum(factor * spread, least[:, None, None])


def double_size(values: Tensor) -> Tensor:
    """Maps (B, h, w) of stride 2 s to (B, 2 h, 2 w) of stride s, linearly: the output j takes the input j / 2.

    Pixels of a stage stand at even pixels of the next one; what lies beyond the last repeats it.
    """
    height, width = values.shape[-2:]
    padded = functional.pad(values[:, None], (0, 1, 0, 1), mode="replicate")
    size = (2 * height + 1, 2 * width + 1)
    return functional.interpolate(padded, size, mode="bilinear", align_corners=True)[:, 0, :-1, :-1]


def estimate(scores: Tensor, hypotheses: Hypotheses, peak: bool) -> Estimate:
    """Expected value over the softmax of scores (B, D, h, w).

    Args:
        scores: the highest is the best.
        hypotheses: what they are the scores of.
        peak: whether confidence is the largest probability, as RED's, or the sum of four around the expected one.

    Returns:
        The estimate; it keeps the scores where gradients are wanted, for losses of them.
    """
    probability = scores.float().softmax(dim=1)
    numbers = torch.arange(hypotheses.count, device=scores.device, dtype=torch.float32)[:, None, None]
    place = (probability * numbers).sum(1)
    variance = (probability * (numbers - place[:, None]).square()).sum(1)
    with torch.no_grad():
        confidence = probability.amax(1) if peak else _four_around(probability, place)
    step = hypotheses.step.detach()
    kept = scores if torch.is_grad_enabled() else None
    return Estimate(hypotheses.at(place), confidence, _root(variance) * step, step, hypotheses.low.detach(), kept)


def _four_around(probability: Tensor, place: Tensor) -> Tensor:
    """Sum of the probabilities (B, D, h, w) of bins i - 1 to i + 2, i being the whole part of ``place`` (B, h, w)."""
    padded = functional.pad(probability, (0, 0, 0, 0, _BEFORE, _AFTER))
    sums = sum(padded[:, shift : shift + probability.shape[1]] for shift in range(_BEFORE + _AFTER + 1))
    assert isinstance(sums, Tensor)
    return sums.gather(1, place.long().clamp(0, probability.shape[1] - 1)[:, None])[:, 0]


class StreamedEstimate:
    """The same from scores that come one hypothesis after another, in memory that does not grow with their number.

    Weights are exp(score - highest so far), which cannot overflow, and are scaled down whenever a higher score comes
    (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018); mean and variance are brought up to
    date with each (West, "Updating mean and variance estimates", 1979).
    """

    def __init__(self) -> None:
        self._count = 0
        self._highest = self._sum = self._place = self._squares = torch.zeros(())

    def add(self, score: Tensor) -> None:
        """Add the score (B, h, w) of the next hypothesis."""
        score = score.float()
        highest = score if self._count == 0 else torch.maximum(self._highest, score)
        keep = torch.zeros_like(score) if self._count == 0 else (self._highest - highest).exp()
        weight = (score - highest).exp()
        self._sum = self._sum * keep + weight
        apart = self._count - self._place
        self._place = self._place + apart * weight / self._sum
        self._squares = self._squares * keep + weight * apart * (self._count - self._place)
        self._highest, self._count = highest, self._count + 1

    def result(self, hypotheses: Hypotheses) -> Estimate:
        """The estimate over all hypotheses so far; confidence is the largest probability."""
        assert self._count == hypotheses.count, "every hypothesis has a score"
        spread = _root(self._squares / self._sum) * hypotheses.step
        return Estimate(hypotheses.at(self._place), 1 / self._sum, spread, hypotheses.step, hypotheses.low)


def _between(low: Tensor, high: Tensor, count: int) -> Hypotheses:
    return Hypotheses(low, (high - low) / (count - 1), count)


def _root(variance: Tensor) -> Tensor:
    """A square root whose slope is finite at 0."""
    return (variance + 1e-12).sqrt()
