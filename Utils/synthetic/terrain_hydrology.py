"""Landscape evolution on a torus: uplift, rivers that cut, slopes that creep, valley floors that fill.

The stream-power law dh/dt = U - K A^m |grad h| is solved implicitly down the drainage tree (Braun & Willett 2013);
closed depressions drain over their lowest saddles (after Cordonnier et al. 2019). Every walk along the tree is done
by pointer doubling, so a step costs a few dozen array operations and no Python loop over cells.

The grid wraps around at its edges: no cell is a border cell, so the border leaves no mark on the landscape.
Flat cell indices are row-major, and the index ``size * size`` is the sink into which the outlets drain.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

Floats = NDArray[np.float32]
Cells = NDArray[np.intp]
Mask = NDArray[np.bool_]
Number = TypeVar("Number", bound=np.number[Any])

# Row and column steps to the eight neighbours; entry k + 4 is the opposite of entry k.
_STEPS = np.array([(0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1)])
_STEP_LENGTHS = np.hypot(_STEPS[:, 0], _STEPS[:, 1]).astype(np.float32)
# Area, relative to the creep, below which water runs off as a sheet and cuts nothing; otherwise every slope has rills.
_CHANNEL_HEAD = 4.0
# Uplift of a plain, as a share of the mountains' own: its rivers fall by some metres a kilometre.
_LOWLAND_UPLIFT = 0.02
# Width of the mountain front in units of the field whose level lines are the shores: some ten pixels.
_FRONT = 0.12
# Cells that are computed at once where a field is passed over many times: so they stay in the processor's cache.
_STRIP = 2**15


@dataclass(frozen=True)
class Flow:
    """Where each cell drains: ``receiver`` (N,) flat indices, N for outlets; ``length`` (N,) in cells."""

    receiver: Cells
    length: Floats


def smooth_noise(rng: np.random.Generator, size: int, wavelength: float, falloff: float = 3.0) -> Floats:
    """Draw a periodic Gaussian field (size, size), mean 0, deviation 1, flat in power beyond ``wavelength`` pixels.

    ``falloff`` is how fast amplitudes drop with frequency below that wavelength: 1.5 is rough, 4 is smooth.
    """
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    spectrum *= _gain(size, wavelength, falloff)
    field = fft.irfft2(spectrum, s=(size, size))
    return np.asarray(field / field.std(), dtype=np.float32)


@lru_cache(maxsize=24)
def _gain(size: int, wavelength: float, falloff: float) -> Floats:
    """Amplitudes (size, size // 2 + 1) that `smooth_noise` gives the frequencies; do not write to it."""
    rows = fft.fftfreq(size).astype(np.float32)[:, None]
    columns = fft.rfftfreq(size).astype(np.float32)[None, :]
    gain = (1.0 + (rows**2 + columns**2) * np.float32(min(wavelength, size) ** 2)) ** np.float32(-falloff / 2)
    gain[0, 0] = 0.0
    return gain


@lru_cache(maxsize=6)
def neighbour_cells(size: int) -> Cells:
    """Flat indices (8, size * size) of each cell's neighbours on the torus, in the order of the step table.

    Do not write to it: it is shared.
    """
    line = np.arange(size)
    cells = np.empty((8, size, size), dtype=np.intp)
    for k, (dy, dx) in enumerate(_STEPS):
        np.add(((line + dy) % size * size)[:, None], (line + dx) % size, out=cells[k])
    return cells.reshape(8, size * size)


def around(field: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Values (N,) of ``field`` (N,) at each cell's eight neighbours, in the order of the step table.

    The same as field[neighbour_cells(size)[k]] for k in 0..7, by slices, which are several times as fast.
    """
    size = math.isqrt(field.size)
    padded = np.pad(field.reshape(size, size), 1, mode="wrap")
    for dy, dx in _STEPS:
        yield padded[1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size].ravel()


def _at(values: NDArray[Number], cells: NDArray[np.integer[Any]]) -> NDArray[Number]:
    """``values[cells]`` for cells known to be in range, which is three times as fast."""
    return np.take(values, cells, mode="clip")


def _roots(receiver: Cells) -> Cells:
    """Follow ``receiver`` (N,), in which roots point to themselves, to the root of every cell."""
    while True:
        further = _at(receiver, receiver)
        if np.array_equal(further, receiver):
            return receiver
        receiver = further


def route(height: Floats, outlets: Mask, neighbours: Cells, preference: Floats | None = None) -> Flow:
    """Drain every cell of ``height`` (N,) to its steepest lower neighbour, and closed basins over their saddles.

    ``preference`` (8, N) multiplies the slopes that the cells compare: some scatter in it keeps the channels from
    lining up with the eight directions of the grid.
    """
    cells = np.arange(height.size)
    best, direction = _steepest(height, preference)
    drains = (best > 0) & ~outlets
    receiver = np.where(drains, _at(neighbours.ravel(), direction * np.intp(height.size) + cells), cells)
    length = _at(_STEP_LENGTHS, direction)
    _open_basins(receiver, length, height, outlets, neighbours)
    receiver[outlets] = height.size
    return Flow(receiver, length)


def _steepest(height: Floats, preference: Floats | None) -> tuple[Floats, NDArray[np.int8]]:
    """The steepest way down from each cell of ``height`` (N,): slope, 0 where there is none, and number of the step."""
    size = math.isqrt(height.size)
    padded = np.pad(height.reshape(size, size), 1, mode="wrap")
    best, direction = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.int8)
    rows = _STRIP // size + 1
    for strip in (slice(top, top + rows) for top in range(0, size, rows)):
        here = padded[1:-1, 1:-1][strip]
        for k, (dy, dx) in enumerate(_STEPS):
            slope = here - padded[1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size][strip]
            slope /= _STEP_LENGTHS[k]
            if preference is not None:
                slope *= preference[k].reshape(size, size)[strip]
            np.copyto(direction[strip], k, where=slope > best[strip])
            np.maximum(best[strip], slope, out=best[strip])
    return best.ravel(), direction.ravel()


def _open_basins(receiver: Cells, length: Floats, height: Floats, outlets: Mask, neighbours: Cells) -> None:
    """Turn ``receiver`` and ``length`` around, in place, so that every closed basin spills over its lowest way out.

    The basins' lowest passes form a minimum spanning tree; walked from the outlets it tells each basin's next one.
    """
    pits = np.flatnonzero((receiver == np.arange(receiver.size)) & ~outlets)
    if not pits.size:
        return
    number = np.zeros(receiver.size, dtype=np.int32)  # basin 0 holds all that drains to an outlet
    number[pits] = np.arange(1, pits.size + 1)
    basin = _at(number, _roots(receiver))

    crossings = [np.flatnonzero(basin != neighbour) for neighbour in islice(around(basin), 4)]
    one = np.concatenate(crossings)
    other = np.concatenate([neighbours[k][cells] for k, cells in enumerate(crossings)])
    span = np.repeat(_STEP_LENGTHS[:4], [cells.size for cells in crossings])
    # Keep the lowest pass of each pair of basins; its rank is its weight, so no weight is 0 and none ties.
    order = np.argsort(np.maximum(height[one], height[other]))
    low, high = np.minimum(basin[one], basin[other])[order], np.maximum(basin[one], basin[other])[order]
    count = pits.size + 1
    _, first = np.unique(low * np.intp(count) + high, return_index=True)
    first.sort()
    passes = coo_array((np.arange(1.0, first.size + 1), (low[first], high[first])), shape=(count, count))
    tree = minimum_spanning_tree(passes.tocsr())
    _, parent = breadth_first_order(tree, 0, directed=False, return_predecessors=True)

    kept = order[first[tree.tocoo().data.astype(np.intp) - 1]]
    one, other, span = one[kept], other[kept], span[kept]
    inward = parent[basin[one]] != basin[other]  # the pass was found from the next basin's side
    here, there = np.where(inward, other, one), np.where(inward, one, other)
    while here.size:
        onward, step = receiver[here], length[here]
        receiver[here], length[here] = there, span
        going = onward != here
        here, there, span = onward[going], here[going], step[going]


def drained_area(flow: Flow) -> NDArray[np.float64]:
    """Number of cells (N,) whose water passes through each cell, itself included."""
    size = flow.receiver.size
    target = np.append(flow.receiver, size)
    total = np.ones(size + 1)
    while target.min() < size:
        total += np.bincount(target, weights=total, minlength=size + 1)
        total[size] = 0.0
        target = _at(target, target)
    return total[:size]


def solve_upstream(flow: Flow, constant: Floats, factor: Floats) -> Floats:
    """Solve v = constant + factor * v[receiver] for v (N,); outlets take v = constant."""
    # A walk ends where the factor is 0. That leaves the cells where it is not 0, and those directly below them.
    walked = np.append(factor != 0, False)
    walked[_at(flow.receiver, np.flatnonzero(walked))] = True
    walked[-1] = False
    cells = np.flatnonzero(walked)
    number = np.full(walked.size, cells.size)
    number[cells] = np.arange(cells.size)
    target = np.append(_at(number, _at(flow.receiver, cells)), cells.size)
    value = np.append(_at(constant, cells), np.float32(0))
    weight = np.append(_at(factor, cells), np.float32(0))
    while target.min() < cells.size:
        value += weight * _at(value, target)
        weight *= _at(weight, target)
        target = _at(target, target)
    solved = constant.copy()
    solved[cells] = value[:-1]
    return solved


def fill_upstream(flow: Flow, floor: Floats, rise: Floats) -> Floats:
    """Solve v = max(floor, v[receiver] + rise) for v (N,); outlets take v = floor."""
    size = flow.receiver.size
    target = np.append(flow.receiver, size)
    value = np.append(floor, np.float32(-np.inf))
    climb = np.append(rise, np.float32(0))
    while target.min() < size:
        np.maximum(value, _at(value, target) + climb, out=value)
        climb += _at(climb, target)
        target = _at(target, target)
    return value[:size]


@dataclass(frozen=True)
class Climate:
    """What shapes a landscape, in pixels of the finest grid and in units of the uplift rate.

    Mountains that rise from wide plains or from the sea are as common on Earth as mountains alone; of the real tiles
    that this terrain was compared with, eleven of thirteen show them.
    """

    creep: float  # hillslope diffusivity over erodibility, pixels squared: longer smooth slopes as it grows
    range_wavelength: float  # distance between mountain ranges, pixels
    range_contrast: float  # log-deviation of the uplift rate
    rock_contrast: float  # log-deviation of the erodibility
    coast: float = 0.15  # how ragged shores and mountain fronts are: share of the deviation that is of 60 pixels
    lowland: float = 0.0  # share of the ground that hardly rises, so that rivers keep it a plain; the sea is part of it
    sea: float = 0.0  # share of the ground under the sea; a bay or lake of 1 % is there always, for the rivers' end
    gullies: float = 1.0  # creep in the latest times, as a share of that before: below 1, gullies cut into long slopes
    roughness: float = 0.0  # unevenness that no river made, in steps of the ground's own median rise a pixel


def evolve(rng: np.random.Generator, size: int, climate: Climate) -> tuple[Floats, Mask]:
    """Grow a landscape (size, size); ``size`` divides by 8. Returns heights in free units and the outlet mask.

    Coarse grids settle the main valleys, finer ones the branches. Between grids a smooth warp bends
    the network, so that reaches along the eight grid directions do not survive.
    """
    fields = {
        "uplift": smooth_noise(rng, size, climate.range_wavelength, 3.0),
        "rock": climate.rock_contrast * smooth_noise(rng, size, 40.0, 1.6),
        "low": smooth_noise(rng, size, climate.range_wavelength, 3.5),
    }
    # Ranges rise away from the low ground, so that the waters that end there gather on the way.
    fields["uplift"] = climate.range_contrast * (0.7 * fields["uplift"] + 0.7 * fields["low"])
    # The lowest of the low ground is base level: a lake, a bay or the sea, where the rivers end.
    shore = fields["low"] + climate.coast * smooth_noise(rng, size, 60.0, 3.0)
    outlets = shore < np.quantile(shore, max(0.012, climate.sea))
    rising = _rising(shore, climate.lowland)
    warp = np.stack([smooth_noise(rng, size, 45.0, 3.0) for _ in range(2)])

    previous = 8
    height = 2.0 * smooth_noise(rng, size // previous, 12.0, 2.0) + 1.5 * fields["low"][::previous, ::previous]
    height *= rising[::previous, ::previous]
    schedule = ((8, 16, 0.6), (4, 18, 1.0), (2, 9, 0.7), (1, 1, 0.6))  # pixels a cell, steps, time a step
    for cell, steps, time in schedule:
        if cell != previous:
            height = _refine(height, previous // cell, 0.75 * previous / cell * warp[:, ::cell, ::cell])
            previous = cell
        uplift, rock = (np.exp(fields[name][::cell, ::cell]).ravel() for name in ("uplift", "rock"))
        uplift *= rising[::cell, ::cell].ravel()
        creep = climate.creep * (climate.gullies if cell == 1 else 1)
        height = _erode(rng, height, outlets[::cell, ::cell], uplift, rock, creep, cell, steps, time)
    # A channel on the grid is a slit of one pixel; a little blur makes it a valley.
    height = ndimage.gaussian_filter(height, 0.8, mode="wrap", truncate=3.0)
    step = np.median(np.abs(np.diff(height, axis=0)))
    height += climate.roughness * step * rising * smooth_noise(rng, size, 6.0, 1.2)
    return np.maximum(height, 0), outlets


def _rising(shore: Floats, lowland: float) -> Floats:
    """Share of the full uplift (size, size): 1 in the mountains, next to none in the lowland, a front between."""
    if lowland <= 0:
        return np.ones_like(shore)
    edge = np.quantile(shore, lowland)
    front = np.clip((shore - edge) / np.float32(_FRONT) + 0.5, 0, 1)
    return np.asarray(_LOWLAND_UPLIFT + (1 - _LOWLAND_UPLIFT) * front, dtype=np.float32)


def _refine(height: Floats, factor: int, warp: Floats) -> Floats:
    """Resample ``height`` to ``factor`` times the cells a side, displaced by ``warp`` (2, rows, columns) fine cells."""
    size = height.shape[0] * factor
    rows, columns = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32), indexing="ij")
    where = np.stack([rows + warp[0], columns + warp[1]]) / np.float32(factor)
    return ndimage.map_coordinates(height, where, order=3, mode="grid-wrap", output=np.float32)


def _erode(
    rng: np.random.Generator,
    height: Floats,
    outlets: Mask,
    uplift: Floats,
    rock: Floats,
    creep: float,
    cell: int,
    steps: int,
    time: float,
) -> Floats:
    """Run ``steps`` steps of uplift, creep and river incision on a grid whose cells are ``cell`` pixels wide."""
    size = height.shape[0]
    neighbours = neighbour_cells(size)
    preference = rng.standard_normal((8, size * size), dtype=np.float32)
    preference *= 0.2
    np.exp(preference, out=preference)
    base = outlets.ravel()
    sigma = (2.0 * creep * time) ** 0.5 / cell
    for _ in range(steps):
        # Route before the slopes creep: channels that were just cut have hardly any pits, blurred channels have many.
        flow = route(np.where(base, np.float32(0), height.ravel()), base, neighbours, preference)
        area = (drained_area(flow) * cell**2).astype(np.float32)
        power = time * rock * np.sqrt(np.maximum(area - _CHANNEL_HEAD * creep, 0))
        cut = np.where(base, np.float32(0), power / (flow.length * cell))
        crept = ndimage.gaussian_filter(height, sigma, mode="wrap", truncate=3.0).ravel()
        lifted = np.where(base, np.float32(0), crept + time * uplift)
        height = solve_upstream(flow, lifted / (1 + cut), cut / (1 + cut)).reshape(size, size)
    return height
