"""A surface through a coarse DEM, and on it as much of a model's and of the image's detail as the DEM supports.

    height = surface(DEM) + the sum over maps of gain * (map - surface(the map averaged to the DEM's cells))

The surface is the linear estimate of least error from the cells (see least_error): it keeps their means where the DEM
is clean, smooths where its noise is as large as the relief, and fills voids with a standard error. So shapes that the
cells resolve come from the DEM, and finer ones from the model and from the shading of the image. The gains are found by
crossing one octave (see crossed_gain): a map that knows nothing leaves the surface as it is. In voids the difference to
the model is continued from the rim.

What the crossing judges is what is done to the DEM's own cells: a gain stands for detail alone, and the surface stays
that of the DEM. An earlier version estimated the surface anew from what the model left of the DEM. A blurred map left
ground that looked like noise, and up to 38 % was added to the error (docs/real-ground.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from Utils.rasters.ground import ground_sample_distance
from Utils.scenes.fusion.correction import Correction, values_at
from Utils.scenes.fusion.crossed_gain import crossed_gains, over_window
from Utils.scenes.fusion.learned_relief import DrawDetail
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL, averaged
from Utils.scenes.fusion.octave import Octave
from Utils.scenes.fusion.reference import Cells, CoarseHeights, Geometry, average_onto
from Utils.scenes.fusion.roughness import roughness

__all__ = ["Correction", "Fusion", "fuse"]

# Share of the standard deviation that is the same all over a window: half of the variance.
_LEVEL_SHARE = np.float32(math.sqrt(0.5))
TRUST_AN_OCTAVE = 0.35
"""How far the power of the ground is believed an octave beyond what cells resolve, and again with each further octave.

It was derived on tiles and synthetic ground that judge nothing: docs/real-ground.md.
"""

# A Wiener filter, and a network, give all that is likely: more than that one octave up says nothing of the finest.
_HIGHEST_OF_RELIEF = np.float32(1.0)
# Detail may vary within cells so many times as much as the ground is likely to, in variance.
_MOST_ROUGH = 1.25
# With fewer cells along a side there is no octave to cross.
_FEWEST_CELLS = 8
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Fusion:
    """The correction of a scene, and how it came about.

    Attributes:
        correction: turns the mosaic into heights.
        facts: for the results: the DEM's noise in metres, the mean gain of each map, and the share of what cells twice
            as wide leave open that the maps explain.
    """

    correction: Correction
    facts: dict[str, object] = field(default_factory=dict)


def fuse(
    reference: CoarseHeights,
    scene: Geometry,
    mosaic: Path | None = None,
    image: NDArray[np.float32] | None = None,
    with_spread: bool = False,
    folder: Path | None = None,
    trust: float = TRUST_AN_OCTAVE,
    refine: DrawDetail | None = None,
    shading: bool = True,
) -> Fusion:
    """Turn a DEM, and maps of the same ground that know more than it, into heights.

    Args:
        reference: the DEM.
        scene: where the scene's pixels lie.
        mosaic: the model's blended map, in metres as accurate as the fits of its tiles; NaN where invalid. None to do
            without.
        image: (bands, h * SAMPLES_A_CELL, w * SAMPLES_A_CELL) brightness at samples of the DEM's (h, w) cells, NaN
            where unknown; its shading then counts. None to do without.
        with_spread: whether the mosaic's second band is its spread, whose level is then set by the reference.
        folder: where large maps are kept, for the caller to remove; None to keep them in memory.
        trust: how far the power of the ground is believed an octave beyond what cells resolve, as for the shading.
        refine: a network that draws the heights about the surface, in the place of a mosaic; it sees the image.
        shading: whether the image's shading may take the network's place where it explains more.
    """
    heights, geometry = reference.heights, reference.geometry
    known = np.isfinite(heights)
    model = own = None
    if mosaic is not None:
        with rasterio.open(mosaic) as source:
            _, model = reference.beside(rasterio.band(source, 1), scene)
            own = average_onto(geometry, rasterio.band(source, 2), scene) if with_spread else np.zeros_like(model)
        if not (known & np.isfinite(model)).any():
            return Fusion(_flat(reference), {"noise": 0.0, "gain": {}, "explained": 0.0})
    aspect = _aspect(geometry)
    octave = Octave(heights, aspect, folder)
    reliefs = {} if image is None else _reliefs(octave, image, trust, refine, shading)
    crossed = _crossed(heights, aspect, model, image, trust, refine, shading)
    gain = crossed.gains["model"] if mosaic is not None else np.zeros(heights.shape, np.float32)
    if mosaic is not None and gain.any():
        rough = roughness(mosaic, geometry, scene)
        gain *= _bound(octave, gain * rough)
    shown = octave.seen(octave.continued(model), "model_seen") if model is not None and gain.any() else None
    offset = octave.surface
    for name, relief in reliefs.items():
        if refine is not None and name == "model":
            crossed.gains[name][:] *= _bound(octave, crossed.gains[name] * _within_cells(relief))
        if crossed.gains[name].any():
            _add(offset, relief, octave.seen(averaged(relief, SAMPLES_A_CELL), f"{name}_seen"), crossed.gains[name])
    factor, error = np.ones(heights.shape, np.float32), octave.error * np.sqrt(crossed.left)
    if own is not None:
        factor = _factor(own, error, np.where(known, np.float32(0.0), gain))
    spread = _LEVEL_SHARE * error if own is not None else error
    correction = Correction(gain, offset, factor, spread, known, geometry, geometry.finer(SAMPLES_A_CELL), shown)
    facts = {
        "noise": round(octave.estimate.noise, 3),
        "gain": {name: round(float(found.mean()), 3) for name, found in crossed.gains.items()},
        "explained": round(crossed.explained, 3),
    }
    return Fusion(correction, facts)


def _reliefs(
    octave: Octave, image: NDArray[np.float32], trust: float, refine: DrawDetail | None, shading: bool
) -> dict[str, NDArray[np.float32]]:
    """Heights about the surface that the image suggests: by shading, or by a network that sees this relief too."""
    relief = octave.shading(image, trust)
    found = {} if refine is None else {"model": octave.learned(refine, image, relief)}
    return found | ({"shading": relief} if shading or refine is None else {})


@dataclass(frozen=True)
class _Crossed:
    """What crossing an octave tells.

    Attributes:
        gains: share (h, w) of each map's detail that is kept.
        explained: share of the variance that all of them explain of what the wider cells leave open.
        left: (h, w) share of the variance that they leave.
    """

    gains: dict[str, Cells]
    explained: float
    left: Cells


def _crossed(
    heights: Cells,
    aspect: float,
    model: Cells | None,
    image: NDArray[np.float32] | None,
    trust: float,
    refine: DrawDetail | None,
    shading: bool,
) -> _Crossed:
    """Cross one octave: judge the maps where cells twice as wide leave open what the DEM's own cells show."""
    nothing = np.zeros(heights.shape, np.float32)
    counted = {
        "model": model is not None or refine is not None,
        "shading": image is not None and (shading or refine is None),
    }
    gains = {name: nothing.copy() for name, counts in counted.items() if counts}
    if not gains or min(heights.shape) < _FEWEST_CELLS:
        return _Crossed(gains, 0.0, nothing + 1)
    rows, columns = (side // 2 * 2 for side in heights.shape)
    heights = heights[:rows, :columns]
    wide = Octave(averaged(heights), aspect)
    added, reliefs = {}, {}
    if model is not None:
        joined = averaged(model[:rows, :columns])
        shown = averaged(wide.seen(wide.continued(joined), "model"))
        # Beside the map's border what it shows of a wide cell is a guess.
        shown[np.kron(np.isnan(joined), np.ones((2, 2), bool))] = np.nan
        added["model"] = model[:rows, :columns] - shown
    if image is not None:
        samples = averaged(image[:, : rows * SAMPLES_A_CELL, : columns * SAMPLES_A_CELL])
        reliefs = _reliefs(wide, samples, trust, refine, shading)
    left_open = heights - averaged(wide.surface)
    shown_by = {
        name: averaged(relief - wide.seen(averaged(relief, SAMPLES_A_CELL), "relief"))
        for name, relief in reliefs.items()
    }
    added |= _better(left_open, shown_by)
    crossed = crossed_gains(left_open, list(added.values()))
    for name, gain in zip(added, crossed.gains, strict=True):
        gains[name][:rows, :columns] = np.minimum(gain, _HIGHEST_OF_RELIEF) if name in shown_by else gain
    left = nothing + 1
    left[:rows, :columns] -= crossed.explained
    return _Crossed(gains, crossed.explained_of_all, left)


def _better(left_open: Cells, reliefs: dict[str, Cells]) -> dict[str, Cells]:
    """The relief that explains most of what is left open; nothing where there is none.

    What a network draws holds the relief from shading. Two maps that are so alike must not be weighed together: the
    regression would set one against the other, with gains that mean nothing an octave further.
    """
    if len(reliefs) < 2:
        return reliefs
    best = max(reliefs, key=lambda name: crossed_gains(left_open, [reliefs[name]]).explained_of_all)
    return {best: reliefs[best]}


def _bound(octave: Octave, rough: Cells) -> Cells:
    """A factor (h, w) on detail that varies within cells far more than the ground can: it would be seen as grain.

    Args:
        octave: the ground from the DEM's cells.
        rough: (h, w) deviation of the detail within each cell in metres, NaN where unknown.
    """
    known = np.isfinite(rough)
    share = np.maximum(over_window(known), 1e-9)
    there = over_window(np.where(known, rough, 0.0).astype(np.float64) ** 2) / share
    likely = over_window(_within_cells(octave.surface) ** 2 + octave.error**2)
    usual = np.maximum(over_window(np.ones_like(known)), 1e-9)
    return np.minimum(1.0, _MOST_ROUGH * likely / usual / np.maximum(there, 1e-12)).astype(np.float32) ** 2


def _within_cells(heights: NDArray[np.float32]) -> Cells:
    """Deviation (h, w) of heights at samples within each cell; in strips, since all samples may not fit in memory."""
    found = np.empty(tuple(side // SAMPLES_A_CELL for side in heights.shape), np.float32)
    for first in range(0, len(found), _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, len(found)))
        part = np.asarray(heights[rows.start * SAMPLES_A_CELL : rows.stop * SAMPLES_A_CELL], np.float64)
        means = np.kron(averaged(part, SAMPLES_A_CELL), np.ones((SAMPLES_A_CELL, SAMPLES_A_CELL)))
        found[rows] = np.sqrt(averaged((part - means) ** 2, SAMPLES_A_CELL))
    return found


def _add(surface: NDArray[np.float32], relief: NDArray[np.float32], seen: NDArray[np.float32], gain: Cells) -> None:
    """Add what a relief shows beyond what the cells show of it, times a gain (h, w)."""
    columns = (np.arange(surface.shape[1]) + 0.5) / SAMPLES_A_CELL - 0.5
    for first in range(0, len(surface), _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, len(surface)))
        down = (np.arange(rows.start, rows.stop) + 0.5) / SAMPLES_A_CELL - 0.5
        at = np.stack(np.meshgrid(down, columns, indexing="ij"))
        surface[rows] += values_at(gain, at, order=1) * (relief[rows] - seen[rows])


def _aspect(geometry: Geometry) -> float:
    """Height of a cell divided by its width, on the ground."""
    sides = ground_sample_distance(geometry.crs, geometry.transform, geometry.height, geometry.width)
    return 1.0 if sides is None else sides[0] / sides[1]


def _factor(own: Cells, error: Cells, least: Cells) -> Cells:
    """Find the factor on the spread of the mosaic.

    Most of the spread concerns large shapes, in which the result follows the reference and not the model. The size of
    the rest is the standard error of the surface, less what the maps explain. Where that error lies is read from the
    spread, which exaggerates its differences; half of the variance is therefore taken to be the same all over a window.
    In voids, where nothing fixes the large shapes, the spread counts in full.

    Args:
        own: (h, w) the spread averaged to cells, NaN where unknown.
        error: (h, w) standard error of the surface in metres.
        least: (h, w) the smallest factor.
    """
    known = np.isfinite(own)
    share = np.maximum(over_window(known), 1e-9)
    usual = np.sqrt(over_window(np.where(known, own, 0.0).astype(np.float64) ** 2) / share)
    return np.maximum(_LEVEL_SHARE * error / np.maximum(usual, 1e-6), least).astype(np.float32)


def _flat(reference: CoarseHeights) -> Correction:
    """The correction for a scene so small that no cell lies wholly inside: it leaves the fitted tiles unchanged."""
    shape = reference.heights.shape
    zeros = np.zeros(shape, np.float32)
    known = np.isfinite(reference.heights)
    return Correction(zeros + 1.0, zeros, zeros + 1.0, zeros, known, reference.geometry, reference.geometry)
