"""The inverse of a rational polynomial camera, fitted to its direct model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Modules.common.rational_polynomials import PARAMETERS, GroundPoints, ImagePoints, ground_of, image_of, monomials

__all__ = ["fitted_inverse", "fitted_ratio", "inverse_error"]

Floats = NDArray[np.float64]

# Nodes along line, sample and height, and steps of Newton's method to their places on the ground.
_NODES = (15, 15, 11)
_STEPS = 12
# Pixels that a fit may miss the direct model by before it is fitted anew with a ridge.
_WELL_FITTED, _RIDGE = 0.01, 1e-6
# Pixels within which Newton's method has to hit a node.
_HIT = 1e-6

# Singular values below this share of the largest carry nothing but rounding.
_LEAST_SINGULAR_VALUE = 1e-13


def fitted_inverse(direct: Floats) -> Floats:
    """Fit latitude and longitude as ratios of polynomials of sample, line and height.

    Nodes fill the box of lines, samples and heights that the model names, most densely at its sides (Chebyshev's,
    which keep the largest error small). Newton's method finds the ground under each. Then latitude * (1 + sum of
    b_i t_i) = sum of a_i t_i is linear in 39 coefficients, and so for longitude.

    Args:
        direct: offsets, scales and coefficients of the direct model (90,).

    Returns:
        80 coefficients: numerator and denominator of latitude, numerator and denominator of longitude.

    Raises:
        ValueError: there are pixels and heights for which the direct model has no ground.
    """
    nodes = np.meshgrid(*(np.cos(np.linspace(0, np.pi, count)) for count in _NODES), indexing="ij")
    line, sample, height = (torch.from_numpy(values.reshape(1, -1)) for values in nodes)
    latitude, longitude = _ground_under(direct, line, sample, height)
    terms = monomials(sample[0], line[0], height[0]).numpy().T
    inverse = np.concatenate([fitted_ratio(terms, values) for values in (latitude, longitude)])
    if inverse_error(direct, inverse) < _WELL_FITTED:
        return inverse
    # A simple camera, as that of a frame: its ratio was multiplied by a polynomial that vanishes between the nodes.
    return np.concatenate([fitted_ratio(terms, values, _RIDGE) for values in (latitude, longitude)])


def inverse_error(direct: Floats, inverse: Floats) -> float:
    """Largest distance, in pixels, between pixels and where the direct model sees what the inverse finds for them."""
    nodes = np.meshgrid(*[np.linspace(-1, 1, 7)] * 3, indexing="ij")
    line, sample, height = (
        torch.from_numpy(values.reshape(1, -1) * direct[5 + i] + direct[i])
        for values, i in zip(nodes, (0, 1, 4), strict=True)
    )
    parameters = torch.from_numpy(np.concatenate([direct, inverse]))[None]
    seen = image_of(parameters, ground_of(parameters, ImagePoints(line, sample), height), height)
    worst = float(torch.hypot(seen.line - line, seen.sample - sample).max())
    return worst if np.isfinite(worst) else np.inf


def _ground_under(direct: Floats, line: Tensor, sample: Tensor, height: Tensor) -> tuple[Floats, Floats]:
    """Latitude and longitude (N,), in units of their scales, seen at pixels [1, N] in units of theirs."""
    model = direct.copy()
    model[:5], model[5:10] = 0.0, 1.0  # everything in units of the scales
    parameters = torch.from_numpy(np.pad(model, (0, PARAMETERS - len(model))))[None]

    def seen(ground: Tensor) -> Tensor:
        found = image_of(parameters, GroundPoints(ground[0], ground[1]), height)
        return torch.stack([found.line, found.sample])  # [2, 1, N]

    aim = torch.stack([line, sample])
    ground = torch.zeros_like(aim)
    small = 1e-5
    for _ in range(_STEPS):
        missed = aim - seen(ground)
        sides = [torch.tensor(side, dtype=torch.float64).view(2, 1, 1) * small for side in ((1.0, 0.0), (0.0, 1.0))]
        slopes = torch.stack([(seen(ground + side) - seen(ground - side)) / (2 * small) for side in sides], dim=1)
        step, _ = torch.linalg.solve_ex(slopes.permute(2, 3, 0, 1), missed.permute(1, 2, 0)[..., None])
        # Half a box at most, so that a bad first step does not leave what the polynomials describe.
        ground = ground + step[..., 0].permute(2, 0, 1).clamp(-0.5, 0.5)
    missed = (aim - seen(ground)) * torch.from_numpy(direct[5:7]).view(2, 1, 1)
    if not bool((missed.abs() < _HIT).all()):
        share = float((~(missed.abs() < _HIT).all(dim=0)).double().mean())
        raise ValueError(
            f"for {share:.0%} of its pixels and heights the model has no place on the ground (are line and sample, or "
            "latitude and longitude, swapped?)"
        )
    return ground[0, 0].numpy(), ground[1, 0].numpy()


def fitted_ratio(terms: Floats, values: Floats, ridge: float = 0.0) -> Floats:
    """The 40 coefficients of a ratio of polynomials with the terms (N, 20) that gives the values (N,).

    Args:
        terms: of each point.
        values: at each point.
        ridge: pulls the coefficients towards 0. A simple camera is a ratio of many polynomials: above and below, it may
            be multiplied by any other one, also by one that vanishes between the points. 1e-6 keeps those away.
    """
    weights = np.ones_like(values)
    for _ in range(2):
        # In the second pass the equations are divided by the denominator: what is least are errors of the ratio.
        system = np.concatenate([terms, -values[:, None] * terms[:, 1:]], axis=1) * weights[:, None]
        # Columns of one size: the share of the largest singular value then means the same for each.
        sizes = np.linalg.norm(system, axis=0)
        sizes[sizes == 0] = 1.0
        system, wanted = system / sizes, values * weights
        if ridge:
            system = np.concatenate([system, ridge * np.eye(len(sizes))])
            wanted = np.concatenate([wanted, np.zeros(len(sizes))])
        solution = np.linalg.lstsq(system, wanted, rcond=_LEAST_SINGULAR_VALUE)[0] / sizes
        below = 1.0 + terms[:, 1:] @ solution[20:]
        weights = 1.0 / np.where(np.abs(below) > 0.1, below, 1.0)
    return np.concatenate([solution[:20], [1.0], solution[20:]])
