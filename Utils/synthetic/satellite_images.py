"""Synthetic satellite images as a vendor delivers them: GeoTIFFs with RPCs in their tags, and the true surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.rpc import RPC

from Utils.rasters.coordinates import transformed
from Utils.rasters.rational import RationalModel
from Utils.synthetic.pushbroom_rpc import fit_rational, metres_per_degree
from Utils.synthetic.stereo_cameras import Pushbroom
from Utils.synthetic.stereo_ground import HIGHEST, LOWEST, Floats, Ground
from Utils.synthetic.stereo_scenes import MOST_VIEWS, PIXEL, make_satellite_scene, scene_ground

__all__ = ["TRUTH", "write_satellite_images"]

TRUTH = "truth.tif"
_ORIGIN = 55.7, -21.2  # longitude and latitude of the scene's middle
_ZONE = CRS.from_epsg(32740)


def write_satellite_images(folder: Path, size: tuple[int, int], seed: int) -> list[Path]:
    """Write three images of a town, and the heights of its surface on a UTM grid; gives the images' paths.

    Args:
        folder: an existing folder; ``view_0.tif`` to ``view_2.tif`` and ``truth.tif`` go there.
        size: height and width of an image in pixels of half a metre.
        seed: not negative.
    """
    scene = make_satellite_scene("town", MOST_VIEWS["rpc"], size, seed)
    images = []
    for number, (camera, frame) in enumerate(zip(scene.cameras, scene.frames, strict=True)):
        assert isinstance(camera, Pushbroom)
        model = fit_rational(camera, _ORIGIN, (LOWEST, HIGHEST))
        images.append(folder / f"view_{number}.tif")
        _write_image(images[-1], np.asarray(Image.fromarray(frame.image).convert("L")), model)
    _write_truth(folder / TRUTH, scene_ground("town", size, seed), size)
    return images


def _write_image(path: Path, grey: np.ndarray, model: RationalModel) -> None:
    names = ("line", "samp", "lat", "long", "height")
    values = {f"{name}_off": float(model.direct[place]) for place, name in enumerate(names)}
    values |= {f"{name}_scale": float(model.direct[5 + place]) for place, name in enumerate(names)}
    parts = ("line_num_coeff", "line_den_coeff", "samp_num_coeff", "samp_den_coeff")
    lists = {name: model.direct[10 + 20 * place : 30 + 20 * place].tolist() for place, name in enumerate(parts)}
    profile = {"driver": "GTiff", "height": grey.shape[0], "width": grey.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile) as target:
        target.rpcs = RPC(**values, **lists)
        target.write(grey, 1)


def _write_truth(path: Path, ground: Ground, size: tuple[int, int]) -> None:
    """Heights of what is seen from straight above, in cells as large as the images' pixels."""
    half = 0.5 * max(size) * PIXEL
    (east,), (north,) = transformed(CRS.from_epsg(4326), _ZONE, [_ORIGIN[0]], [_ORIGIN[1]])
    corner = Affine.translation(np.floor(east - half), np.ceil(north + half)) @ Affine.scale(PIXEL, -PIXEL)
    cells = round(2 * half / PIXEL)
    rows, columns = np.mgrid[:cells, :cells] + 0.5
    xs, ys = corner @ (columns.ravel(), rows.ravel())
    degrees = np.stack(transformed(_ZONE, CRS.from_epsg(4326), xs, ys), axis=1) - _ORIGIN
    heights = _from_above(ground, degrees * metres_per_degree(_ORIGIN[1])).reshape(cells, cells)
    profile = {"driver": "GTiff", "height": cells, "width": cells, "count": 1, "dtype": "float32", "crs": _ZONE}
    with rasterio.open(path, "w", transform=corner, compress="deflate", **profile) as target:
        target.write(heights.astype(np.float32), 1)


def _from_above(ground: Ground, places: Floats) -> Floats:
    """Heights (N,) of the highest surface at places (N, 2) in metres."""
    origins = np.concatenate([places, np.full((len(places), 1), HIGHEST + 1.0)], axis=1)
    directions = np.broadcast_to([0.0, 0.0, -1.0], origins.shape).copy()
    heights: Floats = ground.meet(origins, directions).point[:, 2]
    return heights
