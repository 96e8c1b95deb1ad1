"""The rational polynomial camera (RPC) of a simulated line sensor, as a vendor would fit it."""

from __future__ import annotations

import numpy as np
import torch
from rasterio.crs import CRS

from Modules.common.rational_polynomials import monomials
from Utils.rasters.ground import metres_per_unit
from Utils.rasters.rational import RationalModel
from Utils.rasters.rational.inverse_fit import fitted_ratio
from Utils.synthetic.stereo_cameras import Pushbroom
from Utils.synthetic.stereo_ground import Floats

_NODES = (12, 12, 7)  # along latitude, longitude and height
_RIDGE = 1e-7
_MARGIN = 1.1  # of the fitted box over what the image shows


def metres_per_degree(latitude: float) -> tuple[float, float]:
    """Metres of a degree of longitude and of one of latitude, on the ellipsoid of WGS 84."""
    found = metres_per_unit(CRS.from_epsg(4326), [0.0], [latitude])
    assert found is not None, "longitude and latitude have a size on the ground"
    return float(found[0][0]), float(found[1][0])


def fit_rational(camera: Pushbroom, origin: tuple[float, float], heights: tuple[float, float]) -> RationalModel:
    """Fit a model to a camera over the ground that its image shows.

    Args:
        camera: the line sensor.
        origin: longitude and latitude in degrees of the scene's middle. Around it degrees are taken for metres by
            constant factors, so that the scene is what the model says it is.
        heights: lowest and highest height in metres.
    """
    scales = np.array(metres_per_degree(origin[1]))
    middle, half = _shown(camera, heights)
    nodes = np.meshgrid(*(np.cos(np.linspace(0.0, np.pi, count)) for count in _NODES), indexing="ij")
    north, east, up = (values.ravel() for values in nodes)
    points = middle + half * np.stack([east, north, up], axis=1)
    pixels = camera.project(points)  # columns and rows
    centre = (np.array(camera.size[::-1]) - 1.0) / 2.0
    reach = np.abs(pixels - centre).max(axis=0)
    terms = monomials(*(torch.from_numpy(values) for values in (north, east, up))).numpy().T
    column, row = ((pixels - centre) / reach).T
    longitude, latitude = np.array(origin) + middle[:2] / scales
    offsets = [centre[1], centre[0], latitude, longitude, middle[2]]
    sizes = [reach[1], reach[0], half[1] / scales[1], half[0] / scales[0], half[2]]
    return RationalModel(
        np.concatenate([offsets, sizes, fitted_ratio(terms, row, _RIDGE), fitted_ratio(terms, column, _RIDGE)])
    )


def _shown(camera: Pushbroom, heights: tuple[float, float]) -> tuple[Floats, Floats]:
    """Middle and half size (3,) of the box of ground, in metres, that an image shows between two heights."""
    origins, directions = camera.rays()
    corners = [origins + (origins[:, 2:] - height) * directions for height in heights]
    low, high = np.min(corners, axis=(0, 1)), np.max(corners, axis=(0, 1))
    half = (high - low) / 2.0
    half[:2] *= _MARGIN
    return (high + low) / 2.0, half
