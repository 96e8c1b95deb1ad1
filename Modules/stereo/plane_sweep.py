"""Depth or height without learning: the plane at which windows of the views resemble one another most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from Modules.stereo.positions import Geometry
from Modules.stereo.window_sums import window_sums

__all__ = ["Sweep", "plane_sweep"]

# Share of a window's pixels that both images must have.
_LEAST_COVER = 0.6

# A window whose variance is below this share of the whole image's shows nothing that could be found again.
_LEAST_VARIANCE = 1e-4

# Pixels from one exact position to the next, at most, and by how much positions between them may be off.
_WIDEST_NODES, _POSITION_ERROR = 32, 0.02

# Planes whose positions are held at once.
_PLANES = 32


class Sweep(NamedTuple):
    """What a sweep found.

    Attributes:
        values: depth or height in metres, float32 [B, H, W]; NaN where no plane could be scored.
        score: normalised cross-correlation there, -1 to 1, the mean over the sources; NaN likewise.
    """

    values: Tensor
    score: Tensor


@torch.no_grad()
def plane_sweep(images: Tensor, geometry: Geometry, values: Tensor, window: int = 9) -> Sweep:
    """Sweep planes through the scene; the best correlated one gives each pixel's depth or height.

    Each pixel of the reference takes the plane at which its window and those of the sources correlate best; a parabola
    through the scores of that plane and its neighbours places it between planes. Sources that do not see a point do
    not count. Planes are met one after another: memory does not grow with their number.

    Args:
        images: grey, [B, V, 1, H, W], view 0 is the reference; NaN where a view has no data.
        geometry: the cameras.
        values: depths or heights of the planes in metres, [B, D], rising or falling; D is 3 or more.
        window: pixels along a window's side, odd.

    Raises:
        ValueError: fewer than three planes, or an even window.
    """
    if values.shape[1] < 3:
        raise ValueError(f"{values.shape[1]} planes; three or more are needed")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window of {window} pixels; give an odd number")
    images = _standardised(images.to(torch.float32))
    best = _BestPlane(images[:, 0, 0])
    reference = _Windows(images[:, 0], window)
    for scores in _scores(reference, images[:, 1:], geometry, values.to(images.device), window):
        best.meet(scores)
    return Sweep(*best.found(values.to(images.device)))


def _scores(reference: _Windows, sources: Tensor, geometry: Geometry, values: Tensor, window: int) -> Iterator[Tensor]:
    """The score of each plane in turn, [B, H, W]: the mean over the sources that see a pixel; NaN where none does."""
    size = (sources.shape[-2], sources.shape[-1])
    views = [_PlanePositions(geometry, view + 1, values, size) for view in range(sources.shape[1])]
    for plane in range(values.shape[1]):
        total = count = torch.zeros((), device=sources.device)
        for view, positions in enumerate(views):
            score = reference.correlation(_warped(sources[:, view], *positions.at(plane)))
            seen = ~score.isnan()
            total = total + torch.where(seen, score, 0.0)
            count = count + seen
        yield torch.where(count > 0, total / count.clamp(min=1), torch.nan)


class _PlanePositions:
    """Where the reference's pixels are seen by a source, plane by plane.

    Positions on one plane hardly bend from pixel to pixel. They are exact at nodes, which lie as close as the cameras
    at hand need, and linear between.
    """

    def __init__(self, geometry: Geometry, source: int, values: Tensor, size: tuple[int, int]) -> None:
        self._geometry, self._source, self._values, self._size = geometry, source, values, size
        self._spacing = self._widest_spacing()
        self._held: tuple[int, Tensor, Tensor] | None = None

    def at(self, plane: int) -> tuple[Tensor, Tensor]:
        """Columns and rows [B, H, W], float32; NaN where a point has no place."""
        first = plane - plane % _PLANES
        if self._held is None or self._held[0] != first:
            self._held = (first, *self._nodes(self._values[:, first : first + _PLANES], self._spacing))
        x, y = (axis[:, plane - first] for axis in self._held[1:])
        return self._between(x, self._spacing), self._between(y, self._spacing)

    def _nodes(self, values: Tensor, spacing: int) -> tuple[Tensor, Tensor]:
        """Positions [B, D, h, w] of nodes that span the image."""
        height, width = ((length - 2) // spacing + 2 if spacing > 1 else length for length in self._size)
        grid = values[..., None, None].expand(-1, -1, height, width)
        found = self._geometry.positions(self._source, grid, stride=spacing, size=self._size)
        x, y = (torch.where(found.placed, axis * spacing, torch.nan) for axis in (found.x, found.y))
        return x, y

    def _between(self, nodes: Tensor, spacing: int) -> Tensor:
        if spacing == 1:
            return nodes
        height, width = ((length - 1) * spacing + 1 for length in nodes.shape[-2:])
        whole = functional.interpolate(nodes[:, None], (height, width), mode="bilinear", align_corners=True)[:, 0]
        return whole[:, : self._size[0], : self._size[1]]

    def _widest_spacing(self) -> int:
        ends = self._values[:, [0, -1]]
        exact = self._nodes(ends, 1)
        spacing = _WIDEST_NODES
        while spacing > 1:
            rough = [self._nodes(ends, spacing)]
            off = [
                (self._between(axis[:, end], spacing) - truth[:, end]).abs().nan_to_num(0.0).max()
                for axis, truth in zip(rough[0], exact, strict=True)
                for end in (0, 1)
            ]
            if float(torch.stack(off).max()) <= _POSITION_ERROR:
                break
            spacing //= 2
        return spacing


class _Windows:
    """The windows of the reference, and how others correlate with them."""

    def __init__(self, image: Tensor, window: int) -> None:
        self._window, self._area = window, window * window
        self._seen = torch.isfinite(image)
        self._image = image.nan_to_num(0.0)  # [B, 1, H, W]
        self._whole = bool(self._seen.all())
        maps = torch.cat([self._seen.float(), self._image, self._image.square()], dim=1)
        self._sums = window_sums(maps, window)

    def correlation(self, other: Tensor) -> Tensor:
        """Normalised cross-correlation [B, H, W] with another image [B, 1, H, W], which is NaN where it has no data.

        Only pixels that both have count. NaN where these are too few, or show nothing in one image.
        """
        seen = torch.isfinite(other) & self._seen
        there = torch.where(seen, other, 0.0)
        maps = [there, there.square(), there * self._image]
        count, a, aa = self._sums.unbind(1)
        if not torch.equal(seen, self._seen):
            here = self._image * seen
            maps += [seen.float(), here, here.square()]
        b, bb, ab, *rest = window_sums(torch.cat(maps, dim=1), self._window).unbind(1)
        if rest:
            count, a, aa = rest
        number = count.clamp(min=1.0)
        covariance = ab - a * b / number
        variances = [(squares - sums.square() / number) / number for sums, squares in ((a, aa), (b, bb))]
        clear = (variances[0] > _LEAST_VARIANCE) & (variances[1] > _LEAST_VARIANCE)
        enough = (count >= _LEAST_COVER * self._area) & self._seen[:, 0]
        ratio = covariance / number * (variances[0] * variances[1]).clamp(min=_LEAST_VARIANCE**2).rsqrt()
        return torch.where(clear & enough, ratio.clamp(-1.0, 1.0), torch.nan)


class _BestPlane:
    """The best plane so far of each pixel, with the scores beside it."""

    def __init__(self, like: Tensor) -> None:
        self._met = 0
        self._last = torch.full_like(like, torch.nan)
        self._score = torch.full_like(like, -torch.inf)
        self._before, self._after = self._last.clone(), self._last.clone()
        self._plane = torch.zeros(like.shape, dtype=torch.int64, device=like.device)

    def meet(self, scores: Tensor) -> None:
        """Take the next plane's scores [B, H, W] into account; NaN where there is none."""
        if self._met:
            self._after = torch.where(self._plane == self._met - 1, scores, self._after)
        better = scores > self._score  # False for NaN
        self._before = torch.where(better, self._last, self._before)
        self._after.masked_fill_(better, torch.nan)
        self._plane.masked_fill_(better, self._met)
        self._score = torch.where(better, scores, self._score)
        self._last, self._met = scores, self._met + 1

    def found(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The value [B, H, W] between planes of values [B, D], and the score; NaN where no plane had one."""
        bend = self._before - 2 * self._score + self._after
        offset = (0.5 * (self._before - self._after) / bend).clamp(-0.5, 0.5)
        offset = torch.where(bend < 0, offset, 0.0)  # also where a neighbour has no score
        planes = values.shape[1]
        towards = (self._plane + torch.where(offset < 0, -1, 1)).clamp(0, planes - 1)
        flat = self._plane.flatten(1), towards.flatten(1)
        here, there = (torch.gather(values.double(), 1, index).view_as(self._plane) for index in flat)
        found = (here + offset.abs() * (there - here)).to(torch.float32)
        met = torch.isfinite(self._score)
        return torch.where(met, found, torch.nan), torch.where(met, self._score, torch.nan)


def _standardised(images: Tensor) -> Tensor:
    """Images with mean 0 and variance 1 each, so that windows' sums keep their digits."""
    seen = torch.isfinite(images)
    count = seen.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    mean = torch.where(seen, images, 0.0).sum(dim=(-2, -1), keepdim=True) / count
    centred = images - mean
    variance = torch.where(seen, centred.square(), 0.0).sum(dim=(-2, -1), keepdim=True) / count
    return centred / variance.sqrt().clamp(min=1e-12)


def _warped(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """An image [B, 1, H, W] at columns and rows [B, h, w], bilinear; NaN outside, and beside pixels without data."""
    rows, columns = image.shape[-2:]
    across, down = x * (2.0 / max(columns - 1, 1)) - 1.0, y * (2.0 / max(rows - 1, 1)) - 1.0
    inside = (across.abs() <= 1.0) & (down.abs() <= 1.0)  # False for NaN
    grid = torch.stack([torch.where(inside, axis, 2.0) for axis in (across, down)], dim=-1)
    found = functional.grid_sample(image, grid, align_corners=True)
    return torch.where(inside[:, None], found, torch.nan)
