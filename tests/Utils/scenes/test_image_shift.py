"""A coarse DEM that is shifted against the scene's image: said, and mended where it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from scipy.ndimage import gaussian_filter

from tests.scenes import ORIGIN, landscape, write_raster
from Utils.core.errors import UserError
from Utils.rasters.source.scene_source import open_scene
from Utils.scenes.fusion.image_shift import check_registration, find_image_shift
from Utils.scenes.fusion.known_heights import scene_geometry
from Utils.scenes.fusion.reference import read_reference

SIDE, CELL = 256, 4


def files(folder: Path, columns: float, rows: float, shaded: bool = True) -> tuple[Path, Path]:
    """An image that is lit from the north-west, and a DEM whose file says so many cells too far right and down."""
    ground = gaussian_filter(landscape(SIDE, SIDE, 5), 1.0) * 900.0
    south, east = np.gradient(ground, 30.0)
    cover = landscape(SIDE, SIDE, 9)
    bright = cover + (1.5 * (east + south) if shaded else 0.0)
    bright = (255 * (bright - bright.min()) / np.ptp(bright)).astype(np.uint8)
    image = write_raster(folder / "image.tif", np.stack([bright] * 3))
    means = ground.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3)).astype(np.float32)
    place = ORIGIN @ Affine.scale(CELL) @ Affine.translation(columns, rows)
    return image, write_raster(folder / "dem.tif", means, place)


def looked_at(folder: Path, columns: float, rows: float, shaded: bool = True, register: bool | None = None):
    image, dem = files(folder, columns, rows, shaded)
    with open_scene(image, None, None, (2.0, 98.0)) as source:
        scene = scene_geometry(source)
        reference = read_reference(dem, scene)
        if register is None:
            return find_image_shift(source, scene, reference)
        return reference, check_registration(source, scene, reference, register)


@pytest.mark.parametrize(("columns", "rows"), [(0.0, 0.0), (1.3, -0.7), (-2.0, 1.0)])
def test_the_shift_is_found(columns: float, rows: float, tmp_path: Path) -> None:
    found = looked_at(tmp_path, columns, rows)
    assert (found.columns, found.rows) == pytest.approx((-columns, -rows), abs=0.3)
    assert found.matters == (columns != 0.0)


def test_an_image_without_shading_tells_no_shift(tmp_path: Path) -> None:
    assert not looked_at(tmp_path, 1.3, -0.7, shaded=False).matters


def test_it_is_said_or_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before, after = looked_at(tmp_path, 1.3, -0.7, register=False)
    assert after is before
    assert "are shifted against each other" in caplog.text and "--register" in caplog.text
    with caplog.at_level(logging.INFO):
        before, after = looked_at(tmp_path, 1.3, -0.7, register=True)
    column, row = ~before.geometry.transform @ (after.geometry.transform.c, after.geometry.transform.f)
    assert (column, row) == pytest.approx((-1.3, 0.7), abs=0.3)
    assert after.description["registered"]["contrast"] > 1.5
    caplog.clear()
    looked_at(tmp_path, 0.0, 0.0, register=False)
    assert not caplog.text


def test_where_the_image_tells_nothing_register_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--register: the image does not tell"):
        looked_at(tmp_path, 1.3, -0.7, shaded=False, register=True)
