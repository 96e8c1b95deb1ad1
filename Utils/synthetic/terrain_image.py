"""The view from above: land cover, fields and towns, sunlight with cast shadows, haze, the sensor.

All fields are (size, size) on a torus; colours are reflectances 0..1 in the order red, green, blue.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from Utils.synthetic.terrain_hydrology import Floats, smooth_noise
from Utils.synthetic.terrain_water import Landscape


@dataclass(frozen=True)
class Palette:
    """Reflectances of a region in a season."""

    conifers: tuple[float, float, float]
    broadleaves: tuple[float, float, float]
    grass: tuple[float, float, float]
    rock: tuple[float, float, float]
    gravel: tuple[float, float, float]
    water: tuple[float, float, float]
    crops: tuple[tuple[float, float, float], ...]


_TEMPERATE_CROPS = ((0.27, 0.34, 0.15), (0.38, 0.37, 0.22), (0.47, 0.42, 0.29), (0.20, 0.28, 0.12), (0.36, 0.29, 0.21))
_DRY_CROPS = ((0.50, 0.40, 0.28), (0.58, 0.49, 0.35), (0.42, 0.33, 0.23), (0.31, 0.31, 0.17), (0.55, 0.43, 0.30))

PALETTES = {
    "summer": Palette(
        (0.050, 0.095, 0.052), (0.105, 0.155, 0.072), (0.27, 0.29, 0.16), (0.42, 0.39, 0.35), (0.62, 0.59, 0.53),
        (0.035, 0.085, 0.105), _TEMPERATE_CROPS,
    ),
    "autumn": Palette(
        (0.070, 0.105, 0.050), (0.290, 0.165, 0.080), (0.38, 0.30, 0.18), (0.43, 0.38, 0.34), (0.66, 0.60, 0.53),
        (0.030, 0.075, 0.110), (*_TEMPERATE_CROPS[1:3], *_DRY_CROPS[:3]),
    ),
    "winter": Palette(
        (0.055, 0.085, 0.052), (0.190, 0.135, 0.115), (0.37, 0.31, 0.24), (0.44, 0.39, 0.37), (0.66, 0.62, 0.58),
        (0.025, 0.060, 0.100), (*_TEMPERATE_CROPS[2:4], *_DRY_CROPS[:3]),
    ),
    "dry": Palette(
        (0.130, 0.140, 0.075), (0.230, 0.205, 0.115), (0.50, 0.40, 0.27), (0.52, 0.41, 0.32), (0.70, 0.62, 0.50),
        (0.060, 0.130, 0.140), _DRY_CROPS,
    ),
    "alpine": Palette(
        (0.040, 0.085, 0.050), (0.080, 0.140, 0.060), (0.26, 0.31, 0.14), (0.40, 0.385, 0.37), (0.60, 0.60, 0.58),
        (0.050, 0.150, 0.170), (_TEMPERATE_CROPS[0], (0.30, 0.38, 0.17), _TEMPERATE_CROPS[3]),
    ),
}  # fmt: skip
_SNOW = (0.86, 0.88, 0.92)
_TOWN = (0.50, 0.48, 0.46)


@dataclass(frozen=True)
class View:
    """How a scene looks on the day of the picture.

    Attributes:
        palette: key of `PALETTES`.
        forest: bias towards trees, -1 (steppe) .. 1 (woods).
        tree_line: height above which no trees grow, metres.
        snow_line: height above which there is snow, metres.
        sun_azimuth: degrees clockwise from north (up).
        sun_elevation: degrees above the horizon.
        haze: share of the light from haze over the lowest ground, 0..1.
        noise: deviation of the sensor noise, in units of the 8-bit image.
        rock: slope, metres a metre, from which bare rock shows.
        patches: how far land cover departs from what slope and height ask for, 1 as much as half a class.
        texture: log-deviation of the ground's brightness within a class, at all scales alike.
        towns: share of the level ground that is built on, roughly, 0..1.
        gamma: exponent of the stretch to 8 bits; above 1 the picture is dark with bright spots.
        black: quantile of the reflectances that becomes black.
        white: quantile of the reflectances that becomes white.
    """

    palette: str
    forest: float
    tree_line: float
    snow_line: float
    sun_azimuth: float
    sun_elevation: float
    haze: float
    noise: float
    rock: float = 0.66
    patches: float = 1.0
    texture: float = 0.0
    towns: float = 0.0
    gamma: float = 0.8
    black: float = 0.01
    white: float = 0.985


def slopes(height: Floats, ground_sample_distance: float) -> tuple[Floats, Floats]:
    """Rise to the east and to the north of ``height``, metres a metre, by central differences on the torus."""
    east = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / (2 * ground_sample_distance)
    north = (np.roll(height, 1, 0) - np.roll(height, -1, 0)) / (2 * ground_sample_distance)
    return east, north


def illumination(height: Floats, ground_sample_distance: float, azimuth: float, elevation: float) -> Floats:
    """Direct sunlight on the ground, 1 on a level plain, 0 in the shade; angles in degrees as in `View`."""
    east, north = slopes(height, ground_sample_distance)
    to_east, to_north = math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))
    climb = math.tan(math.radians(elevation))
    # Lambert's law, with the sun's vector scaled so that level ground has 1.
    facing = (1 - (east * to_east + north * to_north) / climb) / np.sqrt(1 + east**2 + north**2)
    shade = np.zeros_like(height)
    for distance in range(2, 26, 2):
        shift = (round(distance * to_north), -round(distance * to_east))
        length = math.hypot(*shift) * ground_sample_distance
        above = (np.roll(height, shift, (0, 1)) - height) / length - climb
        np.maximum(shade, above, out=shade)
    return np.clip(facing, 0, None) * (1 - np.clip(shade * 8, 0, 1))


def render(rng: np.random.Generator, land: Landscape, ground_sample_distance: float, view: View) -> NDArray[np.uint8]:
    """Photograph ``land``: an image (size, size, 3), stretched as the published tiles are."""
    size = land.height.shape[0]
    colour = _land_cover(rng, land, ground_sample_distance, view)
    colour *= np.exp(0.05 * smooth_noise(rng, size, 5.0, 1.2) + view.texture * smooth_noise(rng, size, 200.0, 1.1))[
        ..., None
    ]

    sun = illumination(land.height, ground_sample_distance, view.sun_azimuth, view.sun_elevation)
    # Hollows see less of the sky.
    relief = (land.height - ndimage.gaussian_filter(land.height, 8, mode="wrap")) / ground_sample_distance
    sky = np.clip(1 + relief * 0.05, 0.6, 1.2)
    blue = np.array((0.10, 0.12, 0.155), dtype=np.float32) * rng.uniform(0.5, 1.0)
    light = 0.95 * sun[..., None] + sky[..., None] * blue

    light = np.where(land.water[..., None] > 0.5, 1.0, light)
    colour = _mix(colour, _water(rng, land, view), land.water) * light
    low, high = np.quantile(land.height, (0.02, 0.98))
    air = view.haze * np.exp(-1.2 * (land.height - low) / max(high - low, 1.0))
    air *= 1 + 0.25 * smooth_noise(rng, size, 150.0, 3.0)
    colour = _mix(colour, (0.36, 0.42, 0.50), np.clip(air, 0, 1))
    return _expose(rng, colour, view)


def _water(rng: np.random.Generator, land: Landscape, view: View) -> Floats:
    """Colour (size, size, 3) of the water: rivers carry mud into the shallows, far from land it is dark and even."""
    size = land.height.shape[0]
    deep = np.array(PALETTES[view.palette].water, dtype=np.float32) * rng.uniform(0.7, 1.3)
    ashore = ndimage.gaussian_filter((land.water < 0.5).astype(np.float32), rng.uniform(6, 14), mode="wrap")
    muddy = rng.uniform(0.1, 0.7) * ashore * np.exp(0.4 * smooth_noise(rng, size, 60.0, 2.5))
    swell = np.exp(0.06 * smooth_noise(rng, size, 150.0, 1.5))[..., None]
    return _mix(deep * swell, (0.14, 0.20, 0.19), np.clip(muddy, 0, 1))


def _expose(rng: np.random.Generator, colour: Floats, view: View) -> NDArray[np.uint8]:
    """Blur by the optics, stretch to 8 bits, add sensor noise."""
    blurred = ndimage.gaussian_filter(colour, (0.45, 0.45, 0), mode="wrap", truncate=3.0)
    sample = blurred[::4, ::4].reshape(-1, 3)
    low, middle, high = np.quantile(sample, (view.black, 0.5, view.white), axis=0)
    high = np.minimum(high, 4.2 * middle.max())  # let snow be overexposed instead of darkening everything else
    # Mostly one stretch for all bands: a stretch for each band would remove the colour cast of the season.
    low, high = 0.5 * low + 0.5 * low.mean(), 0.25 * high + 0.75 * high.max()
    stretched = np.clip((blurred - low) / (high - low), 0, 1.2) ** np.float32(view.gamma) * 245
    stretched += view.noise * rng.standard_normal(stretched.shape, dtype=np.float32)
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


def expose_tile(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw how bright, contrasty and tinted the tile ``image`` (H, W, 3) is: the published tiles were stretched singly.

    Without this a network meets as many brightnesses as there are scenes, some dozens, and takes a darker real image
    for another kind of land.
    """
    value = image / np.float32(255)
    low, high = rng.uniform(-0.06, 0.08), rng.uniform(0.8, 1.1)
    tint = rng.uniform(0.93, 1.07, 3)
    value = np.clip((value - low) / (high - low) * tint, 0, 1) ** rng.uniform(0.8, 1.25)
    return np.rint(255 * value).astype(np.uint8)


def _land_cover(rng: np.random.Generator, land: Landscape, ground_sample_distance: float, view: View) -> Floats:
    """Reflectance (size, size, 3) of the dry ground: what grows or lies where, by slope, height, aspect and chance."""
    palette = PALETTES[view.palette]
    size = land.height.shape[0]
    height = ndimage.gaussian_filter(land.height, 1.0, mode="wrap", truncate=3.0)
    east, north = slopes(height, ground_sample_distance)
    slope = np.hypot(east, north)
    broad, patchy, fine = (smooth_noise(rng, size, *shape) for shape in ((70.0, 2.0), (16.0, 1.6), (5.0, 1.5)))

    # Trees keep to slopes too steep to plough and, where it is dry, to the side away from the noon sun.
    moist = north * (1.6 if view.palette == "dry" else 0.6)
    scatter = 0.45 * broad + 0.40 * patchy + 0.25 * fine
    wooded = 3.0 * (slope - 0.20) + view.forest + moist + view.patches * scatter
    line = np.float32(view.tree_line) + 60 * patchy + 90 * broad - 150 * north
    forest = _rise(wooded, -0.15, 0.25) * _rise(line - height, -60, 80)
    conifer = _rise((height - 0.55 * view.tree_line) / 250 + 0.7 * patchy + 0.8 * north, -0.8, 0.8)
    rock = _rise(
        slope + 0.07 * patchy + 0.05 * fine + 0.15 * _rise(height - line, -50, 250), view.rock, view.rock + 0.3
    )
    snow = _rise(height - view.snow_line + 70 * broad + 40 * patchy + 160 * north - 150 * (slope - 0.5), -60, 60)
    # Farmed is what a river has filled, and what is level for a hundred metres and more.
    even = 1 - ndimage.gaussian_filter(slope, 3.0, mode="wrap", truncate=3.0) / 0.07
    flat = _rise(np.maximum(land.fill / 6, even) + 0.3 * view.patches * patchy - slope / 0.10, -0.6, 0.4)
    flat *= _rise(view.tree_line - height, -50, 150)
    town = _rise(flat * (1.1 * broad + 0.9 * patchy + fine + 3.2 * view.towns), 2.0, 2.9)

    grass = np.array(palette.grass, dtype=np.float32) * np.exp(0.16 * broad + 0.14 * patchy)[..., None]
    colour = _mix(grass, np.array(palette.rock) * 0.85, 0.55 * _rise(height - line, 0, 350))
    colour = _mix(colour, _fields(rng, size, broad, palette.crops), flat)
    trees = _mix(np.array(palette.broadleaves, dtype=np.float32), palette.conifers, conifer)
    trees *= np.exp(0.06 * fine)[..., None]
    colour = _mix(colour, trees, forest * (1 - 0.85 * flat))
    colour = _mix(colour, np.array(palette.rock) * np.exp(0.2 * fine - 0.1 * broad)[..., None] * 0.8, 0.85 * rock)
    houses = np.exp(0.45 * rng.standard_normal((size, size), dtype=np.float32))
    colour = _mix(colour, np.array(_TOWN) * houses[..., None], 0.85 * town)
    bars = land.gravel * _rise(0.7 * patchy + 0.6 * fine + land.gravel, 0.2, 1.4)
    colour = _mix(colour, palette.gravel, bars * np.clip(land.fill / 3, 0.25, 1))
    return _mix(colour, _SNOW, snow)


def _fields(rng: np.random.Generator, size: int, region: Floats, crops: tuple[tuple[float, ...], ...]) -> Floats:
    """Patchwork (size, size, 3) of ploughed strips; their direction changes from one area to the next."""
    rows, columns = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32), indexing="ij")
    district = np.floor(region * 1.5).astype(np.intp) % 8
    angle = rng.uniform(0, np.pi, 8).astype(np.float32)[district]
    wide, long = (rng.uniform(*bounds, 8).astype(np.float32)[district] for bounds in ((2.0, 4.5), (4.0, 9.0)))
    bend = 1.5 * smooth_noise(rng, size, 20.0, 3.0)
    across = np.floor((columns * np.cos(angle) + rows * np.sin(angle) + bend) / wide).astype(np.intp)
    along = np.floor((rows * np.cos(angle) - columns * np.sin(angle) + bend) / long + 0.37 * across).astype(np.intp)
    parcel = (across * 7919 + along * 104729 + district * 31337) % 4096
    kinds = np.array(crops, dtype=np.float32)[rng.integers(len(crops), size=4096)]
    kinds *= np.exp(0.2 * rng.standard_normal((4096, 1), dtype=np.float32))
    return kinds[parcel]


def _rise(value: NDArray[np.floating], low: float, high: float) -> Floats:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    share = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _mix(under: Floats, over: ArrayLike, share: Floats) -> Floats:
    """Lay the colour ``over`` on ``under`` with a share (size, size)."""
    return under + share[..., None].astype(np.float32) * (np.asarray(over, dtype=np.float32) - under)
