"""Points that are seen in several views, found to a fraction of a pixel though the cameras are off by a few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from torch import Tensor
from torch.nn import functional

from Systems.stereo.dsm.views import Crop

__all__ = ["Matches", "match_points", "textured_points"]

Floats = NDArray[np.float64]

# Pixels from a patch's middle to its sides.
_HALF = 7
# Half pixels searched along the way that a point takes with its height, and pixels beside it, to both sides.
_ALONG, _BESIDE = 16, 12
# Correlation from which a match counts, and by which it must be better than any that lies elsewhere.
_LEAST_SCORE, _LEAST_LEAD = 0.7, 0.05
_LEAST_POWER = 1e-12


@dataclass(frozen=True)
class Matches:
    """Where points of a reference are found in another view, N of them.

    Attributes:
        columns: of the other view (N,).
        rows: likewise.
        good: whether the match is clear.
    """

    columns: Floats
    rows: Floats
    good: NDArray[np.bool_]


def textured_points(pixels: NDArray[np.float32], most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of corners (Shi and Tomasi 1994), spread over an image: the best ones of 16 x 16 pixels.

    Args:
        pixels: (h, w), NaN without data.
        most: how many at most.
    """
    known = np.isfinite(pixels)
    grey = np.where(known, pixels, 0.0)
    down, across = np.gradient(grey)
    xx, yy, xy = (gaussian_filter(product, 2.0) for product in (across * across, down * down, across * down))
    strength = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    far = 2 * _HALF + 2
    whole = -maximum_filter((~known).astype(np.float32), 2 * far + 1) == 0
    whole[:far] = whole[-far:] = whole[:, :far] = whole[:, -far:] = False
    peaks = whole & (strength == maximum_filter(strength, 16)) & (strength > 0)
    rows, columns = np.nonzero(peaks)
    best = np.argsort(-strength[rows, columns], kind="stable")[:most]
    return rows[best], columns[best]


def match_points(
    reference: Crop, other: Crop, rows: NDArray[np.intp], columns: NDArray[np.intp], heights: Floats
) -> Matches:
    """Find points of a reference in another view, along the way that they take with their height and beside it.

    Args:
        reference: a piece of the reference.
        other: a piece of the other view.
        rows: the points' rows in the piece (N,).
        columns: the points' columns.
        heights: about where they lie, in metres.
    """
    middle, along, sides = _local_frame(reference, other, rows, columns, heights)
    here, there = _patches(reference.pixels, rows, columns), torch.from_numpy(other.pixels)
    beside = np.stack([-along[1], along[0]])  # (2, N)
    steps_along = np.linspace(-0.5 * _ALONG, 0.5 * _ALONG, 2 * _ALONG + 1)
    steps_beside = np.linspace(-1.0 * _BESIDE, 1.0 * _BESIDE, 2 * _BESIDE + 1)
    scores = np.stack(
        [_scores(here, there, middle + step * beside, along, sides, steps_along) for step in steps_beside]
    )  # (S, A, N)
    flat = np.nan_to_num(scores, nan=-1.0).reshape(-1, scores.shape[-1])
    best = flat.argmax(axis=0)
    s, a = np.unravel_index(best, scores.shape[:2])
    number = np.arange(scores.shape[-1])
    inside = (s > 0) & (s < len(steps_beside) - 1) & (a > 0) & (a < len(steps_along) - 1)
    s_in, a_in = np.clip(s, 1, len(steps_beside) - 2), np.clip(a, 1, len(steps_along) - 2)
    across = _peak(*(scores[s_in + step, a_in, number] for step in (-1, 0, 1)))
    forth = _peak(*(scores[s_in, a_in + step, number] for step in (-1, 0, 1)))
    place = middle + (steps_beside[s_in] + across) * beside + (steps_along[a_in] + 0.5 * forth) * along
    score = flat[best, number]
    # Scores further away than the peak is wide: two alike places are no match.
    far = np.abs(np.arange(len(steps_beside))[:, None, None] - s) > 3
    far = far | (np.abs(np.arange(len(steps_along))[None, :, None] - a) > 6)
    second = np.where(far, np.nan_to_num(scores, nan=-1.0), -1.0).max(axis=(0, 1))
    good = inside & (score >= _LEAST_SCORE) & (score - second >= _LEAST_LEAD) & np.isfinite(place).all(axis=0)
    return Matches(place[0], place[1], good)


def _local_frame(
    reference: Crop, other: Crop, rows: NDArray[np.intp], columns: NDArray[np.intp], heights: Floats
) -> tuple[Floats, Floats, Floats]:
    """How the other view sees the surroundings of points.

    Returns:
        Where the points are expected (2, N); the unit way that they take as they rise (2, N); and how a step across and
        a step down in the reference look there (2, 2, N).
    """

    def seen(down: float, across: float, up: float) -> Floats:
        longitude, latitude = reference.model.locate(columns + across, rows + down, heights + up)
        return np.stack(other.model.project(longitude, latitude, heights + up))

    middle = seen(0, 0, 0)
    rise = seen(0, 0, 0.5) - seen(0, 0, -0.5)
    length = np.hypot(*rise)
    sides = np.stack([(seen(0, 4, 0) - seen(0, -4, 0)) / 8, (seen(4, 0, 0) - seen(-4, 0, 0)) / 8])
    return middle, rise / np.maximum(length, 1e-12), sides


def _scores(
    here: Tensor, pixels: Tensor, start: Floats, along: Floats, sides: Floats, steps: Floats
) -> NDArray[np.float32]:
    """Correlation (A, N) of patches (N, P) with those around places at steps along the way; NaN where one is not whole.

    Args:
        here: the points' patches in the reference, each with mean 0 and length 1.
        pixels: the other view (h, w).
        start: the places before any step (2, N).
        along: unit way (2, N).
        sides: how a step across and a step down in the reference look in the other view (2, 2, N).
        steps: pixels along the way (A,).
    """
    offsets = np.arange(-_HALF, _HALF + 1)
    patch = sides[0][:, :, None, None] * offsets + sides[1][:, :, None, None] * offsets[:, None]  # (2, N, p, p)
    flat = torch.from_numpy(patch.reshape(2, len(here), -1).astype(np.float32))
    middles = torch.from_numpy((start[:, None] + steps[:, None] * along[:, None]).astype(np.float32))  # (2, A, N)
    sizes = torch.tensor([pixels.shape[1] - 1, pixels.shape[0] - 1]).view(2, 1, 1, 1)
    grid = (middles[..., None] + flat[:, None]) * (2.0 / sizes) - 1.0  # (2, A, N, P)
    whole = (grid.abs() <= 1.0).all(dim=0).all(dim=-1)
    places = grid.permute(1, 2, 3, 0).reshape(1, len(steps) * len(here), -1, 2).nan_to_num(2.0)
    there = functional.grid_sample(pixels[None, None], places, align_corners=True).view(len(steps), len(here), -1)
    there = there - there.mean(dim=-1, keepdim=True)
    power = there.square().sum(dim=-1)
    score = (here * there).sum(dim=-1) * power.clamp(min=_LEAST_POWER).rsqrt()
    return torch.where(whole & (power > _LEAST_POWER), score, torch.nan).numpy()  # NaN too beside pixels without data


def _patches(pixels: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Tensor:
    """Patches around pixels, (N, P), each with mean 0 and length 1."""
    offsets = np.arange(-_HALF, _HALF + 1)
    found = pixels[rows[:, None, None] + offsets[:, None], columns[:, None, None] + offsets]
    patches = torch.from_numpy(found.reshape(len(rows), -1))
    patches = patches - patches.mean(dim=-1, keepdim=True)
    return patches / patches.norm(dim=-1, keepdim=True).clamp(min=_LEAST_POWER**0.5)


def _peak(before: Floats, best: Floats, after: Floats) -> Floats:
    """How far beside the middle of three scores a parabola through them has its top, -0.5 to 0.5; NaN for none."""
    bend = before - 2 * best + after
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bend < 0, np.clip(0.5 * (before - after) / bend, -0.5, 0.5), np.nan)
