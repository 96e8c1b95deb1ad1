"""Tiles in metres of Mars, tied to a coarse DTM on another sphere, in degrees: level and plane come from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tests.scenes import landscape, write_raster
from Utils.core.predictor import Predictor
from Utils.rasters.geometry import Geometry
from Utils.scenes.fusion.reference import read_reference
from Utils.scenes.options import SceneOptions
from Utils.scenes.scene_run import predict_scene

SIDE, RELIEF, LEVEL, CELL = 224, 60.0, -4450.0, 12
LOCAL = CRS.from_proj4("+proj=eqc +lat_ts=0 +lat_0=0 +lon_0=137 +R=3394839.8 +units=m +no_defs")
MOLA = CRS.from_proj4("+proj=longlat +R=3396190 +no_defs")
PLACE = Affine(1.00966, 0.0, 21_800.0, 0.0, -1.00966, -276_200.0)


def draw(images: Tensor) -> Tensor:
    """Metres below each tile's summit, of images whose brightness is the height."""
    depth = -RELIEF * images.mean(dim=1)
    return depth - depth.amin(dim=(1, 2), keepdim=True)


MODEL = Predictor(draw, "height", "depth", 32, 64, {"name": "bright is high"}, full_range=True)


def coarse(path: Path, heights: np.ndarray, **tags: str) -> Path:
    """Means over cells of ``CELL`` pixels, in degrees on MOLA's sphere."""
    bounds = rasterio.transform.array_bounds(SIDE, SIDE, PLACE)
    fine, columns, rows = calculate_default_transform(LOCAL, MOLA, SIDE, SIDE, *bounds)
    cells = np.full((rows // CELL, columns // CELL), np.nan, np.float32)
    where = fine @ Affine.scale(CELL)
    reproject(
        heights.astype(np.float32),
        cells,
        src_transform=PLACE,
        src_crs=LOCAL,
        dst_transform=where,
        dst_crs=MOLA,
        dst_nodata=np.nan,
        resampling=Resampling.average,
    )
    write_raster(path, cells, where, MOLA, nodata=np.nan)
    with rasterio.open(path, "r+") as target:
        target.update_tags(**tags)
    return path


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    return landscape(SIDE, SIDE)


def predicted(
    folder: Path, ground: np.ndarray, reference: Path | None, tile_size: int = 64, detail: str = "model"
) -> tuple[np.ndarray, dict, dict]:
    folder.mkdir()
    scene = write_raster(folder / "scene.tif", ground.astype(np.float32), PLACE, LOCAL)
    options = SceneOptions(
        tile_size=tile_size,
        stretch=None,
        model_in_metres=True,
        reference=reference,
        detail=detail if reference else "both",
    )
    result = predict_scene(scene, folder / "out.tif", MODEL, options, MODEL.describe())
    with rasterio.open(folder / "out.tif") as output:
        assert output.crs == LOCAL and output.transform == PLACE, "the product's own CRS, local radius and all"
        return output.read(1), output.tags(), json.loads(json.dumps(result.document))


def test_without_a_reference_the_level_is_unknown(tmp_path: Path, ground: np.ndarray) -> None:
    found, tags, document = predicted(tmp_path / "free", ground, None)
    assert tags["D3RSMDE_KIND"] == "offset" and "HEIGHT_REFERENCE" not in tags and "tied" not in document
    assert np.abs(found - RELIEF * (ground - ground.min())).max() < 0.05


def test_a_coarse_dtm_on_another_sphere_gives_level_and_plane(tmp_path: Path, ground: np.ndarray) -> None:
    rows, columns = np.indices(ground.shape)
    # The model knows the relief and not the plane: 20 m down the scene, and -10 m across.
    truth = LEVEL + RELIEF * ground + 20.0 * rows / SIDE - 10.0 * columns / SIDE
    found, tags, document = predicted(
        tmp_path / "tied", ground, coarse(tmp_path / "mola.tif", truth, HEIGHT_REFERENCE="areoid")
    )
    assert tags["D3RSMDE_KIND"] == "metric" and tags["HEIGHT_REFERENCE"] == "areoid"
    inside = slice(CELL, -CELL)
    error = (found - truth)[inside, inside]
    assert np.abs(error).mean() < 1.0 and abs(float(np.median(error))) < 0.5
    (plane,) = document["tied"]
    assert plane["rise_down"] == pytest.approx(20.0, abs=3.0) and plane["rise_across"] == pytest.approx(-10.0, abs=3.0)


def test_a_map_that_does_not_go_with_the_heights_adds_nothing(tmp_path: Path) -> None:
    """Tiles narrower than cells, and a map that knows one octave of the ground, and neither larger nor finer shapes.

    The crossing of octaves alone would add half of its detail, finer octaves included, which are wrong.
    """
    ground, other = landscape(SIDE, SIDE), landscape(SIDE, SIDE, seed=8)
    known = gaussian_filter(ground, CELL / 3) - gaussian_filter(ground, 1.5 * CELL)
    drawn = known + other - gaussian_filter(other, CELL / 4) + 2.0 * gaussian_filter(other, 4 * CELL)
    drawn = (drawn - drawn.min()) / np.ptp(drawn)
    reference = coarse(tmp_path / "dtm.tif", LEVEL + RELIEF * ground)
    found = [
        predicted(tmp_path / detail, drawn, reference, tile_size=32, detail=detail)[0] for detail in ("model", "none")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=0.01)


def test_a_products_label_tells_what_heights_are_counted_from(tmp_path: Path, ground: np.ndarray) -> None:
    reference = coarse(tmp_path / "dtm.tif", LEVEL + RELIEF * ground)
    note = 'PDS_VERSION_ID = PDS3\nNOTE = "Pixel values are elevations above the equipotential surface"\nEND\n'

    def told() -> str:
        place = Geometry(SIDE, SIDE, LOCAL, PLACE)
        return str(read_reference(reference, place).description["height_reference"])

    assert told() == "unknown"
    reference.with_suffix(".LBL").write_text(note)
    assert told() == "areoid"
    reference.with_suffix(".LBL").write_text(note.replace("elevations above the equipotential surface", "radii"))
    # Heights of some hundred metres are no radii, whatever the label says.
    assert told() == "unknown"


def test_radii_are_told_by_their_size(tmp_path: Path, ground: np.ndarray) -> None:
    radii = 3_394_000.0 + RELIEF * ground
    found, tags, _ = predicted(tmp_path / "radius", ground, coarse(tmp_path / "radii.tif", radii))
    assert tags["HEIGHT_REFERENCE"] == "radius"
    assert abs(float(np.median(found - radii))) < 1.0
