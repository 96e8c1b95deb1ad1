"""From a bare landscape to one with lakes, reservoirs, filled valley floors and rivers, in metres.

All fields are (size, size) on the torus of `Utils.synthetic.terrain_hydrology`.
"""

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.synthetic.terrain_hydrology import (
    Cells,
    Floats,
    Flow,
    Mask,
    around,
    drained_area,
    fill_upstream,
    neighbour_cells,
    route,
    smooth_noise,
    solve_upstream,
)

# Drained pixels from which a stream is drawn at all.
_STREAM_AREA = 700.0


@dataclass(frozen=True)
class Landscape:
    """Heights with their waters, all (size, size).

    Attributes:
        height: metres; the water surface where there is water.
        water: share of the pixel under water, 0..1.
        gravel: share of the pixel in the bed of a river, its banks and bars included, 0..1.
        fill: thickness of the sediment on the bedrock, metres; large on valley floors, 0 on slopes.
    """

    height: Floats
    water: Floats
    gravel: Floats
    fill: Floats


@dataclass(frozen=True)
class WaterPlan:
    """How wet a scene is.

    Attributes:
        lake_depth: metres by which the terminal lake drowns the valleys around it.
        fill: metres of sediment where 10,000 pixels drain through.
        floor_slope: rise of the valley floors, metres a pixel along the flow.
        river_width: pixels where 10,000 pixels drain through.
        reservoirs: number of dammed valleys.
        dam_height: height of a dam, metres.
    """

    lake_depth: float
    fill: float
    floor_slope: float
    river_width: float
    reservoirs: int
    dam_height: float


@dataclass(frozen=True)
class _Course:
    """Centrelines of the rivers: from each of the (M,) stream cells to the next one downstream.

    ``start`` and ``end`` are (2, M) row and column in pixels (ends may leave the grid: it wraps), the rest (M,).
    """

    start: Floats
    end: Floats
    width: Floats
    level: Floats


def add_water(rng: np.random.Generator, bedrock: Floats, outlets: Mask, plan: WaterPlan) -> Landscape:
    """Fill lakes and valley floors over ``bedrock`` (metres) and run the rivers over them to the ``outlets``."""
    size = bedrock.shape[0]
    rock = np.maximum(bedrock, np.float32(plan.lake_depth)).ravel()
    lake = (bedrock < plan.lake_depth).ravel() | outlets.ravel()
    flow = route(bedrock.ravel(), outlets.ravel(), neighbour_cells(size))
    area = drained_area(flow).astype(np.float32)

    ground, reservoir = _dam_valleys(rng, rock, lake, flow, area, plan)
    lake |= reservoir
    # The fill thickens downstream up to the delta in the lake, and never slopes backwards. A hillside has none; a
    # side valley is drowned by the fill of the main one: that is what makes floors flat and wide.
    rise = np.where(lake, np.float32(0), np.float32(plan.floor_slope) * flow.length)
    to_lake = solve_upstream(flow, (~lake).astype(np.float32), np.ones_like(rock))
    thickness = plan.fill * (np.maximum(area - _STREAM_AREA, 0) / 1e4) ** np.float32(0.4) * np.minimum(to_lake / 180, 1)
    floor = np.where(lake, ground, np.maximum(rock + thickness, ground))
    filled = fill_upstream(flow, floor, rise)
    fill, surface = _settle((filled - rock).reshape(size, size), filled.reshape(size, size), lake.reshape(size, size))

    meander = np.stack([smooth_noise(rng, size, 14.0, 3.0) for _ in range(2)])
    meander *= 1.6 * np.clip(fill / 10, 0, 1)
    course = _courses(flow, area, filled, lake, meander, plan)
    cover, level = _draw(course, size)
    gravel = np.minimum(2.2 * ndimage.gaussian_filter(cover, 1.6, mode="wrap", truncate=3.0), 1)
    lakes = lake.reshape(size, size)
    river = np.where(cover > 0, np.minimum(level, surface), surface)
    height = np.where(lakes, filled.reshape(size, size), surface + cover * (river - surface))
    # Slope the banks towards the water: where its course was smoothed across a hillside, it would run in a trench.
    banks = ndimage.gaussian_filter(height, 1.5, mode="wrap", truncate=3.0)
    height += gravel * (1 - cover) * ~lakes * (banks - height)
    lowest_neighbour = reduce(np.minimum, around(height.ravel())).reshape(size, size)
    height = np.maximum(height, lowest_neighbour)  # no pools of a single pixel
    return Landscape(height.astype(np.float32), np.maximum(cover, lakes), np.maximum(gravel, lakes), fill)


def _settle(fill: Floats, surface: Floats, lake: Mask) -> tuple[Floats, Floats]:
    """Even out the fill where it lies thick: flow paths of different length leave steps in it. Fill and surface."""
    thick = np.clip(ndimage.gaussian_filter(fill, 1.5, mode="wrap") / 4, 0, 1) * ~lake
    even = ndimage.gaussian_filter(surface, 2.5, mode="wrap", truncate=3.0)
    return np.where(lake, 0, fill), surface + thick * (even - surface)


def _dam_valleys(
    rng: np.random.Generator, rock: Floats, lake: Mask, flow: Flow, area: Floats, plan: WaterPlan
) -> tuple[Floats, Mask]:
    """Raise the ground behind a few dams to the level of their reservoirs; gives ground (N,) and reservoirs (N,)."""
    ground = rock.copy()
    sites = np.flatnonzero((area > 2500) & (area < 30000) & ~lake)
    sites = rng.choice(sites, size=min(plan.reservoirs, sites.size), replace=False)
    dam = np.zeros(rock.size, dtype=np.float32)
    dam[sites] = np.arange(1, sites.size + 1)
    first_dam = fill_upstream(flow, dam, np.zeros_like(dam)).astype(np.intp)  # 0 where the water meets no dam
    levels = rock[sites] + (plan.dam_height * rng.uniform(0.5, 1.5, sites.size)).astype(np.float32)
    level = np.append(np.float32(-np.inf), levels)[first_dam]
    drowned = rock < level
    # A valley that takes too much water is too wide to dam, and a puddle is not worth a dam.
    pixels = np.bincount(first_dam[drowned], minlength=sites.size + 1)
    drowned &= ((pixels > 60) & (pixels < 0.012 * rock.size))[first_dam]
    ground[drowned] = level[drowned]
    return ground, drowned


def _courses(flow: Flow, area: Floats, level: Floats, lake: Mask, meander: Floats, plan: WaterPlan) -> _Course:
    """Trace the streams' centrelines, smoothed so that the grid's eight directions cannot be seen in them."""
    size = meander.shape[1]
    streams = np.flatnonzero((area > _STREAM_AREA) & ~lake)
    number = np.full(flow.receiver.size + 1, -1)
    number[streams] = np.arange(streams.size)
    after = flow.receiver[streams]
    next_stream = number[after]
    is_last = next_stream < 0  # runs into a lake
    place = np.stack(np.divmod(streams, size)).astype(np.float32)
    step = _wrapped(np.stack(np.divmod(np.where(after == flow.receiver.size, streams, after), size)) - place, size)
    following = np.where(is_last, np.arange(streams.size), next_stream)
    before = np.arange(streams.size)
    by_area = np.argsort(area[streams], kind="stable")
    by_area = by_area[~is_last[by_area]]
    before[following[by_area]] = by_area  # the largest is written last: it is the main stem

    shift = meander.reshape(2, -1)[:, streams]
    for _ in range(4):
        position = place + shift
        ahead = np.where(is_last, 0, _wrapped(position[:, following] - position, size))
        behind = _wrapped(position[:, before] - position, size)
        shift = shift + 0.25 * (ahead + behind)
    position = place + shift
    ahead = np.where(is_last, step, _wrapped(position[:, following] - position, size))
    width = plan.river_width * (area[streams] / 1e4) ** 0.45
    return _Course(position, position + ahead, width.astype(np.float32), level[streams])


def _wrapped(offset: NDArray[np.floating], size: int) -> Floats:
    """Shortest way around the torus for row and column offsets in pixels."""
    return np.asarray((offset + size / 2) % size - size / 2, dtype=np.float32)


def _draw(course: _Course, size: int) -> tuple[Floats, Floats]:
    """Paint the courses with soft edges.

    Returns the share of each pixel that they cover, and their water level there in metres (0 where there is none).
    """
    covered = np.zeros(size * size, dtype=np.float32)
    weighted = np.zeros(size * size)
    weight = np.zeros(size * size)
    for is_narrow in (True, False):
        chosen = np.flatnonzero((course.width < 1.5) == is_narrow)
        if not chosen.size:
            continue
        width = course.width[chosen]
        radius = math.ceil(width.max() / 2 + 0.5)
        for part in (0.0, 1 / 3, 2 / 3):
            centre = course.start[:, chosen] + part * (course.end - course.start)[:, chosen]
            _stamp(centre, width, course.level[chosen], radius, size, covered, weighted, weight)
    level = np.divide(weighted, weight, out=np.zeros_like(weighted), where=weight > 0).astype(np.float32)
    return covered.reshape(size, size), level.reshape(size, size)


def _stamp(
    centre: Floats,
    width: Floats,
    level: Floats,
    radius: int,
    size: int,
    covered: Floats,
    weighted: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Add round dabs at ``centre`` (2, M) to the running maximum of cover and the running mean of the level."""
    nearest = np.rint(centre).astype(np.intp)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            # A dab reaches half its width and half a pixel from its centre, which is within 0.71 of the nearest pixel.
            near = np.flatnonzero(width / 2 + 0.5 > math.hypot(dy, dx) - 0.75)
            place, middle, across = nearest[:, near], centre[:, near], width[near]
            distance = np.hypot(place[0] + dy - middle[0], place[1] + dx - middle[1])
            share = np.clip(across / 2 + 0.5 - distance, 0, np.minimum(across, 1)).astype(np.float32)
            hit = np.flatnonzero(share > 0)
            cells: Cells = (place[0, hit] + dy) % size * size + (place[1, hit] + dx) % size
            np.maximum.at(covered, cells, share[hit])
            # As wide as what they are added to: numpy is several times as fast then.
            np.add.at(weighted, cells, (share[hit] * level[near[hit]]).astype(np.float64))
            np.add.at(weight, cells, share[hit].astype(np.float64))
