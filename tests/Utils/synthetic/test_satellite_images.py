"""Images with RPCs and their true surface: the truth is where the cameras see it."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.crs import CRS

from tests.stereo_views import agreement
from Utils.rasters.coordinates import transformed
from Utils.rasters.rational import read_rational
from Utils.synthetic.satellite_images import TRUTH, write_satellite_images


def test_the_images_agree_at_the_true_surface(tmp_path) -> None:
    images = write_satellite_images(tmp_path, (96, 96), seed=3)
    assert [path.name for path in images] == ["view_0.tif", "view_1.tif", "view_2.tif"]
    with rasterio.open(tmp_path / TRUTH) as source:
        truth, crs = source.read(1).astype(float), source.crs
        rows, columns = np.mgrid[: source.height, : source.width] + 0.5
        xs, ys = source.transform @ (columns.ravel(), rows.ravel())
    assert truth.shape == (96, 96) and np.ptp(truth) > 5.0
    longitude, latitude = transformed(crs, CRS.from_epsg(4326), xs, ys)
    seen = []
    for path in images:
        with rasterio.open(path) as source:
            image = source.read(1).astype(float)
        model = read_rational(path)
        told = []
        for off in (0.0, 4.0):
            places = np.stack(model.project(longitude, latitude, truth.ravel() + off), axis=-1).reshape(96, 96, 2)
            told.append(places)
        seen.append((image, told))
    # The middle view is nearly from above: its own image is taken as that of the ground.
    from scipy import ndimage

    above, places = seen[1][0], seen[1][1]
    ortho = [ndimage.map_coordinates(above, [each[..., 1], each[..., 0]], order=1) for each in places]
    for image, told in (seen[0], seen[2]):
        right, wrong = agreement(ortho[0], image, told[0]), agreement(ortho[1], image, told[1])
        assert right > 0.35 and right - wrong > 0.2
