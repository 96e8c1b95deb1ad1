"""What a camera records of synthetic ground: an image with noise, exact depth or height, a simulated relative map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.synthetic.stereo_cameras import Pinhole, Pushbroom
from Utils.synthetic.stereo_ground import Ground

_BLUR = 0.45  # pixels, of the lens
_RELATIVE_BLUR = 1.0  # pixels: edges of a monocular model's maps are softer than those of depth
_DISTORTION = 0.15  # of a relative map's range, low-frequency
_DISTORTION_POINTS = 4  # random numbers along each side, between which the distortion is smooth


@dataclass(frozen=True)
class Frame:
    """One view of a scene.

    Attributes:
        image: (H, W, 3) uint8.
        depth: (H, W) float64, metres along the optical axis; of a pushbroom the height in metres.
        relative: (H, W) uint8, what a monocular model might say: near is dark, without scale or shift.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float64]
    relative: NDArray[np.uint8]


def take_frame(ground: Ground, camera: Pinhole | Pushbroom, rng: np.random.Generator, noise: float = 0.05) -> Frame:
    """Take a picture with a gain and an offset of its own.

    Args:
        ground: what is seen.
        camera: where from.
        rng: draws gain, offset, noise, and the errors of the relative map.
        noise: standard deviation of the sensor's noise, where 1 is white.
    """
    hits = ground.meet(*camera.rays())
    depth = hits.distance if isinstance(camera, Pinhole) else hits.point[:, 2]
    colours = ground.colours(hits).reshape(*camera.size, 3)
    sharp = ndimage.gaussian_filter(colours, (_BLUR, _BLUR, 0.0), mode="nearest")
    gain, offset = rng.uniform(0.8, 1.15), rng.uniform(-0.05, 0.05)
    recorded = gain * sharp + offset + noise * rng.standard_normal(sharp.shape)
    image = np.rint(255.0 * np.clip(recorded, 0.0, 1.0)).astype(np.uint8)
    depth = depth.reshape(camera.size)
    away = depth if isinstance(camera, Pinhole) else -depth
    return Frame(image, depth, _relative(away, rng))


def _relative(away: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A map whose scale and shift are unknown, with a slow error over the image, soft edges, and 8 bits.

    It is made from the truth, so its edges are better than those of any monocular model.

    Args:
        away: (H, W), distance from the camera in metres, up to a shift.
        rng: draws the error, and how the ends of the range are cut.
    """
    soft = ndimage.gaussian_filter(away, _RELATIVE_BLUR, mode="nearest")
    low, high = soft.min(), soft.max()
    stretched = (soft - low) / max(high - low, 1e-9)
    points = rng.standard_normal((_DISTORTION_POINTS, _DISTORTION_POINTS))
    places = np.meshgrid(*(np.linspace(0.0, _DISTORTION_POINTS - 1.0, side) for side in away.shape), indexing="ij")
    slow = ndimage.map_coordinates(points, places, order=3, mode="nearest")
    bent = stretched ** rng.uniform(0.8, 1.25) + _DISTORTION * slow
    low, high = np.quantile(bent, [rng.uniform(0.0, 0.02), 1.0 - rng.uniform(0.0, 0.02)])
    return np.rint(255.0 * np.clip((bent - low) / max(high - low, 1e-9), 0.0, 1.0)).astype(np.uint8)
