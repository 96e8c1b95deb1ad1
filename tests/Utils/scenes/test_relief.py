"""Surfaces of height rasters: true to scale, with their holes, within a bound of triangles, and a flight over them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
import trimesh
from affine import Affine
from rasterio.crs import CRS

from tests.scenes import ORIGIN, landscape, write_raster
from Utils.core.errors import UserError
from Utils.scenes.relief.flight import plan_flight
from Utils.scenes.relief.glb_file import surface_of, write_glb
from Utils.scenes.relief.relief_grid import read_relief_grid
from Utils.scenes.relief.relief_item import relief_item

IMAGE = np.stack([np.linspace(0, 1, 12)[None, :].repeat(9, 0)] * 3)


def raster(path: Path, heights: np.ndarray, unit: str = "metre", **where) -> Path:
    write_raster(path, heights.astype(np.float32), nodata=-9999.0, **where)
    with rasterio.open(path, "r+") as target:
        target.units = (unit,)
    return path


def read_back(glb: bytes) -> trimesh.Scene:
    return trimesh.load(io.BytesIO(glb), file_type="glb")


def test_a_surface_is_true_to_scale_and_faces_up(tmp_path: Path) -> None:
    """In metres, x to the east, y up, z to the south; pixels of 30 m."""
    heights = 500.0 + 100.0 * landscape(40, 60)
    grid = read_relief_grid(raster(tmp_path / "h.tif", heights), 10_000)
    scene = read_back(write_glb(grid, IMAGE, exaggeration=2.0))
    relief = scene.geometry["relief"]
    np.testing.assert_allclose(np.ptp(relief.vertices, axis=0), [59 * 30, 200, 39 * 30], rtol=1e-4)
    assert (relief.face_normals[:, 1] > 0).all() and len(relief.faces) == 2 * 39 * 59
    # The highest place of the raster is the highest of the surface.
    row, column = np.unravel_index(heights.argmax(), heights.shape)
    top = relief.vertices[relief.vertices[:, 1].argmax()]
    np.testing.assert_allclose(top[[0, 2]], [(column + 0.5 - 30) * 30, (row + 0.5 - 20) * 30], atol=0.01)
    assert scene.metadata["height of y = 0"] == pytest.approx(500.0) and scene.metadata["vertical exaggeration"] == 2.0
    assert scene.metadata["unit"] == "metre" and "scale bar 200 m" in scene.graph.nodes
    arrow = scene.geometry["north"].vertices
    assert arrow[arrow[:, 2].argmin(), 0] == pytest.approx(np.median(arrow[:, 0]))  # its tip points to -z, north
    # The image is darkest in the west and brightest in the east.
    assert relief.visual.uv[relief.vertices[:, 0].argmin(), 0] < 0.05
    assert relief.visual.material.baseColorTexture.size == (12, 9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_ground_of_turned_and_mirrored_rasters_stays_where_it_is(tmp_path: Path, mirrored: bool) -> None:
    grid_to_map = ORIGIN @ Affine.rotation(30.0) @ Affine.scale(-1.0 if mirrored else 1.0, 1.0)
    heights = np.zeros((20, 30))
    heights[4, 7] = 50.0
    grid = read_relief_grid(raster(tmp_path / "h.tif", heights, transform=grid_to_map), 10_000)
    surface = surface_of(grid)
    east, north = np.array(grid_to_map @ (7.5, 4.5)) - np.array(grid_to_map @ (15.0, 10.0))
    np.testing.assert_allclose(surface.places[surface.places[:, 1].argmax()], [east, 50.0, -north], atol=0.01)
    corners = surface.places[surface.triangles]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 1] > 0).all()


def test_holes_stay_holes_and_the_bound_holds(tmp_path: Path) -> None:
    heights = 100.0 * landscape(300, 400)
    heights[100:160, 200:280] = -9999.0
    path = raster(tmp_path / "h.tif", heights, crs=CRS.from_epsg(4326), transform=Affine(1e-4, 0, 10, 0, -1e-4, 60))
    for bound in (10, 5_000, 300_000):
        grid = read_relief_grid(path, bound)
        assert 2 * (grid.heights.shape[0] - 1) * (grid.heights.shape[1] - 1) <= bound
    grid = read_relief_grid(path, 5_000)
    assert np.isnan(grid.heights).mean() == pytest.approx(60 * 80 / (300 * 400), rel=0.15)
    surface = surface_of(grid)
    east, south = (surface.places[:, axis] for axis in (0, 2))
    # Degrees at 60 north are half as wide as they are high.
    assert np.ptp(east) / np.ptp(south) == pytest.approx(400 / 300 / 2, rel=0.02)
    row, column = (130 - 150) * 1e-4 * 111_400, (240 - 200) * 1e-4 * 55_800
    inside = np.hypot(east - column, south - row) < 100.0
    assert not inside.any() and len(surface.triangles) < 5_000


def test_a_long_raster_keeps_the_bound(tmp_path: Path) -> None:
    grid = read_relief_grid(raster(tmp_path / "h.tif", np.random.rand(4, 3000)), 500)
    assert 2 * (grid.heights.shape[0] - 1) * (grid.heights.shape[1] - 1) <= 500
    with pytest.raises(UserError, match="no valid height"):
        read_relief_grid(raster(tmp_path / "void.tif", np.full((5, 5), -9999.0)), 500)


def test_a_flight_stays_above_the_ground(tmp_path: Path) -> None:
    heights = 2_000.0 * landscape(100, 140, seed=4)
    heights[:30, 60:90] = -9999.0
    grid = read_relief_grid(raster(tmp_path / "h.tif", heights), 50_000)
    flight = plan_flight(grid)
    column = ((flight.eyes[:, 0] - grid.east[0, 0]) / 30.0).round().astype(int)
    row = ((grid.north[0, 0] + flight.eyes[:, 2]) / 30.0).round().astype(int)
    ground = grid.heights[row, column]
    assert np.nanmin(flight.eyes[:, 1] - ground) > 0.05 * grid.side
    step = np.linalg.norm(np.roll(flight.eyes, -1, axis=0) - flight.eyes, axis=1)
    assert step.max() < 0.03 * grid.side  # closed, and no jump on the way


def test_relative_heights_say_that_they_have_no_unit(tmp_path: Path) -> None:
    path = raster(tmp_path / "h.tif", landscape(30, 50), unit="", crs=None, transform=None)
    item = relief_item(path, IMAGE)
    assert not item.true_scale and item.label.startswith("49 x 29 pixels, heights without a unit")
    extents = np.ptp(read_back(item.glb).geometry["relief"].vertices, axis=0)
    np.testing.assert_allclose(extents, [49, 4.9, 29], rtol=1e-4)
