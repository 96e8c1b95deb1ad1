"""What a camera sees of boxes: textures in metres, light, haze and the sensor's noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.synthetic.box_camera import Box, Camera, Floats, Hits, cast

Pattern = Literal["plain", "tiles", "bricks", "planks", "windows", "speckles"]
Colour = tuple[float, float, float]

# A texture fades into its mean where one of its cells covers fewer pixels than this, as through a lens.
_PIXELS_A_CELL = 3.0
_BLUR = 0.45  # pixels, of the lens


@dataclass(frozen=True)
class Solid:
    """A box with a surface.

    Attributes:
        box: where it is.
        colour: reflectance of red, green and blue in 0..1.
        pattern: what is drawn on it.
        cell: size of the pattern's cells in metres.
        contrast: how far the pattern darkens the colour, in 0..1.
        seed: of the pattern's cells.
    """

    box: Box
    colour: Colour
    pattern: Pattern = "plain"
    cell: float = 0.3
    contrast: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Light:
    """The light of a scene.

    Attributes:
        direction: where it comes from, of any length; for a lamp, its place in metres.
        lamp: whether it is a lamp in the room, which is the weaker the farther it is, or the sun.
        ambient: share of the light that comes from everywhere.
        sky: colour where nothing is met.
        haze: share of a colour that a metre of air replaces by the sky's.
        gain: exposure of the camera.
        noise: standard deviation of the sensor's noise, in grey levels of 255.
    """

    direction: tuple[float, float, float]
    lamp: bool = False
    ambient: float = 0.4
    sky: Colour = (0.7, 0.8, 0.95)
    haze: float = 0.0
    gain: float = 1.0
    noise: float = 2.0


@dataclass(frozen=True)
class Frame:
    """A picture: ``image`` (H, W, 3) uint8, red, green, blue; ``depth`` (H, W) float32 in metres, 0 for sky."""

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]


def take_frame(solids: Sequence[Solid], light: Light, camera: Camera, rng: np.random.Generator) -> Frame:
    """Take a picture; ``rng`` draws the noise of the sensor."""
    hits = cast(camera, [solid.box for solid in solids])
    met = hits.box >= 0
    colour = np.array([solid.colour for solid in solids])[hits.box]
    colour *= (_textures(solids, hits, camera.focal_length) * _shading(light, camera, hits))[:, None]
    air = np.exp(-light.haze * np.where(met, hits.depth, np.inf))[:, None] if light.haze else met[:, None]
    seen = colour * air + np.array(light.sky) * (1.0 - air)
    image = seen.reshape(*camera.size, 3) * light.gain
    image = ndimage.gaussian_filter(image, (_BLUR, _BLUR, 0.0))
    # The gamma of ordinary photographs.
    levels = 255.0 * np.clip(image, 0.0, 1.0) ** (1.0 / 2.2) + rng.normal(0.0, light.noise, image.shape)
    depth = np.where(met, hits.depth, 0.0).reshape(camera.size).astype(np.float32)
    return Frame(np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8), depth)


def _shading(light: Light, camera: Camera, hits: Hits) -> Floats:
    """The light (N,) that a surface reflects towards the camera (Lambert); 0 where nothing is met."""
    met = hits.box >= 0
    towards = np.broadcast_to(np.array(light.direction), hits.normal.shape)
    weaker = np.ones(len(met))
    if light.lamp:
        places = np.array(camera.place) + np.where(met, hits.depth, 0.0)[:, None] * camera.rays()
        towards = towards - places
        # Half as strong at 4 m: a lamp and what its room reflects.
        weaker = 1.0 / (1.0 + (towards**2).sum(axis=1) / 16.0)
    lengths = np.linalg.norm(towards, axis=1)
    cosine = np.clip((hits.normal * towards).sum(axis=1) / np.maximum(lengths, 1e-9), 0.0, 1.0)
    return np.where(met, light.ambient + (1.0 - light.ambient) * cosine * weaker, 0.0)


def _textures(solids: Sequence[Solid], hits: Hits, focal_length: float) -> Floats:
    """Factors (N,) on the colours of what is met."""
    factors = np.ones(len(hits.box))
    for number, solid in enumerate(solids):
        own = hits.box == number
        if solid.pattern == "plain" or not own.any():
            continue
        # Along the face: the two axes of the box that do not cross it, the upright one last.
        first = np.where(hits.face[own] == 0, 1, 0)
        second = np.where(hits.face[own] == 2, 1, 2)
        rows = np.arange(int(own.sum()))
        point = hits.point[own]
        dark = _pattern(solid, point[rows, first], point[rows, second])
        pixels = solid.cell * focal_length / hits.depth[own]
        sharp = np.clip(pixels / _PIXELS_A_CELL, 0.0, 1.0)
        factors[own] = 1.0 - solid.contrast * (sharp * dark + (1.0 - sharp) * dark.mean())
    return factors


def _pattern(solid: Solid, across: Floats, along: Floats) -> Floats:
    """How dark a pattern is, 0 to 1, at places (N,) in metres on a face."""
    x, y = across / solid.cell, along / solid.cell
    if solid.pattern == "tiles":
        joint = (np.mod(x, 1.0) < 0.08) | (np.mod(y, 1.0) < 0.08)
        return np.where(joint, 1.0, 0.5 * _noise(x, y, solid.seed))
    if solid.pattern == "bricks":
        row = np.floor(2.0 * y)
        x = x + 0.5 * np.mod(row, 2.0)
        joint = (np.mod(x, 1.0) < 0.08) | (np.mod(2.0 * y, 1.0) < 0.14)
        return np.where(joint, 1.0, 0.6 * _noise(x, row, solid.seed))
    if solid.pattern == "planks":
        joint = np.mod(x, 1.0) < 0.06
        return np.where(joint, 1.0, 0.7 * _noise(x, y / 8.0 + 0.37 * np.floor(x), solid.seed))
    if solid.pattern == "windows":
        glass = (np.abs(np.mod(x, 1.0) - 0.5) < 0.28) & (np.abs(np.mod(y, 1.0) - 0.5) < 0.3)
        return np.where(glass, 0.7 + 0.3 * _noise(x, y, solid.seed), 0.0)
    return 0.6 * _noise(x, y, solid.seed) + 0.4 * _noise(4.0 * x, 4.0 * y, solid.seed + 1)


def _noise(x: Floats, y: Floats, seed: int) -> Floats:
    """A number in 0..1 for each whole cell; whole numbers alone, so that every machine draws the same."""
    column, row = (np.floor(v).astype(np.int64).astype(np.uint64) for v in (x, y))
    mixed = column * np.uint64(73856093) ^ row * np.uint64(19349663) ^ np.uint64(seed * 83492791 + 1)
    mixed = (mixed ^ (mixed >> np.uint64(13))) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(0xFFFF)).astype(np.float64) / 65535.0
