"""What a camera above sees of made-up ground of Mars: shading after Lambert or Hapke, cast shadows, albedo, noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Utils.synthetic.mars_ground import fractal

__all__ = ["SHADINGS", "hapke", "lambert", "render_image"]

Floats = NDArray[np.float64]

SHADINGS = ("lambert", "hapke")

# The skylight of a dusty sky, as a share of the sun's light on flat ground.
_SKY = 0.06


def render_image(
    heights: Floats,
    metres: float,
    azimuth: float,
    elevation: float,
    shading: str,
    generator: np.random.Generator,
    albedo_contrast: float = 0.1,
) -> NDArray[np.uint8]:
    """Render an image (H, W) of ground seen from straight above, from 3 to 254.

    0 (null), 1 and 255 (saturation) are left free, as in HiRISE products.

    Args:
        heights: (H, W) metres.
        metres: side of a pixel.
        azimuth: direction to the sun in degrees, clockwise from up.
        elevation: of the sun, degrees above the horizon, above 0.
        shading: one of ``SHADINGS``.
        generator: from which albedo and noise are drawn.
        albedo_contrast: standard deviation of the albedo, as a share of its mean.
    """
    down, across = np.gradient(heights, metres)
    length = np.sqrt(1.0 + down**2 + across**2)
    east, north, up = _to_sun(azimuth, elevation)
    incidence = np.clip((-across * east + down * north + up) / length, 0.0, None)  # cosine
    emission = 1.0 / length  # cosine of the angle between the ground's normal and the camera
    albedo = np.clip(1.0 + fractal(heights.shape, generator, 3.0, albedo_contrast), 0.4, 1.8)
    if shading == "hapke":
        flat = hapke(np.array(up), np.array(1.0), math.radians(90.0 - elevation))
        light = hapke(incidence, emission, math.radians(90.0 - elevation)) / flat
    else:
        light = lambert(incidence) / up
    light = np.where(_in_shadow(heights, metres, azimuth, elevation), 0.0, light) + _SKY
    seen = ndimage.gaussian_filter(albedo * light, 0.6) * (1.0 + 0.01 * generator.standard_normal(heights.shape))
    low, high = np.quantile(seen, (0.002, 0.998))
    return np.clip(3.0 + 251.0 * (seen - low) / max(high - low, 1e-9), 3.0, 254.0).astype(np.uint8)


def lambert(incidence: Floats) -> Floats:
    """The brightness of a surface that scatters light evenly, from the cosine of the incidence angle."""
    return incidence


def hapke(incidence: Floats, emission: Floats, phase: float, scattering: float = 0.85) -> Floats:
    """The bidirectional reflectance of a powder (Hapke 1981, equation 16), with a surge at opposition.

    Args:
        incidence: cosine of the incidence angle.
        emission: cosine of the emission angle.
        phase: angle between sun and camera in radians.
        scattering: single-scattering albedo; 0.85 is near that of Mars' dust in red light.
    """
    asymmetry = -0.25  # Henyey-Greenstein, backwards
    single = (1.0 - asymmetry**2) / (1.0 + 2.0 * asymmetry * math.cos(phase) + asymmetry**2) ** 1.5
    surge = 1.0 / (1.0 + math.tan(phase / 2.0) / 0.05)

    def multiple(cosine: Floats) -> Floats:
        return (1.0 + 2.0 * cosine) / (1.0 + 2.0 * cosine * math.sqrt(1.0 - scattering))

    share = incidence / np.maximum(incidence + emission, 1e-9)
    return scattering / 4.0 * share * ((1.0 + surge) * single + multiple(incidence) * multiple(emission) - 1.0)


def _to_sun(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """East, north and up components of the direction to the sun."""
    around, above = math.radians(azimuth), math.radians(elevation)
    return math.sin(around) * math.cos(above), math.cos(around) * math.cos(above), math.sin(above)


def _in_shadow(heights: Floats, metres: float, azimuth: float, elevation: float) -> NDArray[np.bool_]:
    """(H, W) where ground towards the sun hides it, looked for up to 60 pixels away."""
    east, north, up = _to_sun(azimuth, elevation)
    flat = math.hypot(east, north)
    rise = metres * up / max(flat, 1e-9)
    highest = float(heights.max() - heights.min())
    shadow = np.zeros(heights.shape, bool)
    for step in range(1, min(60, math.ceil(highest / rise)) + 1):
        shift = (north / flat * step, -east / flat * step)  # ground that lies towards the sun, moved here
        beyond = ndimage.shift(heights, shift, order=1, mode="nearest")
        shadow |= beyond > heights + step * rise
    return shadow
