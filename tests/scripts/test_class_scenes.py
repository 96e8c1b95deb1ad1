"""predict.py and evaluateScene.py with a model of land cover: class rasters, what stands beside them, their scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from torch import Tensor

import evaluateScene
import predict
from Modules.segmentation import SegmentationNetwork
from tests.land_cover_sets import COLOURS, HEIGHTS, tile_classes
from tests.scenes import write_raster
from Utils.core.errors import UserError
from Utils.data.land_cover.class_table import ClassTable
from Utils.scenes.classes.class_model import ClassModel
from Utils.scenes.classes.class_options import ClassOptions
from Utils.scenes.classes.class_run import predict_class_scene

UTM = CRS.from_epsg(32633)
PLACE = Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_400_000.0)
TABLE = ClassTable(
    ("grass", "roof & wall", "road", "water"), ((9, 99, 9), (200, 0, 0), (90, 90, 90), (0, 0, 200)), (4, 1, 7, 2), (0,)
)
COUNT = len(TABLE.names)


@pytest.fixture(scope="module")
def ground() -> NDArray[np.uint8]:
    """(70, 110) classes."""
    return np.concatenate([tile_classes(1, 110), tile_classes(2, 110)])[20:90]


@pytest.fixture(scope="module")
def place(ground: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a void, heights on a coarser grid, and labels of half the pixel size in another CRS."""
    folder = tmp_path_factory.mktemp("place")
    image = np.moveaxis(COLOURS[ground], -1, 0).astype(np.uint8)
    image[:, :5, :7] = 0
    write_raster(folder / "scene.tif", image, PLACE, UTM, nodata=0)
    coarse = HEIGHTS[ground][::2, ::2].astype(np.float32) * 30
    write_raster(folder / "height.tif", coarse, PLACE @ Affine.scale(2), UTM)
    values = np.array(TABLE.values, np.uint8)[ground]
    values[-3:] = 0
    write_raster(folder / "fine.tif", values.repeat(2, 0).repeat(2, 1), PLACE @ Affine.scale(0.5), UTM)
    with rasterio.open(folder / "fine.tif") as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:4326") as view:
        rasterio.shutil.copy(view, folder / "labels.tif", driver="GTiff")
    return folder


def by_colour(images: Tensor, maps: Tensor | None) -> Tensor:
    """The class of each pixel's colour, nearly sure of it: a model that needs no neighbours."""
    colours = torch.tensor(COLOURS / 255.0, dtype=torch.float32)
    distance = (images[:, None] - colours[None, :, :, None, None]).square().sum(dim=2)
    return (-400.0 * distance).softmax(dim=1)


def by_height(images: Tensor, maps: Tensor | None) -> Tensor:
    """Roofs where the map is high, else grass."""
    assert maps is not None
    return torch.cat([1 - maps, maps, 0 * maps, 0 * maps], dim=1)


def options(**changes: object) -> ClassOptions:
    return ClassOptions(tile_size=48, **changes)  # type: ignore[arg-type]


def test_a_class_raster_holds_values_names_colours_and_what_was_asked_for(
    place: Path, ground: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Each pixel once, whatever the tiles; read back with GDAL's eyes."""
    geopandas = pytest.importorskip("geopandas")
    model = ClassModel(by_colour, TABLE, False, 48, None, {"name": "toy"})
    output = tmp_path / "classes.tif"
    asked = options(probabilities=True, polygons=True, preview=True, report=True)
    document = predict_class_scene(place / "scene.tif", output, model, asked).document
    void = np.zeros(ground.shape, bool)
    void[:5, :7] = True
    expected = np.where(void, 255, np.array(TABLE.values)[ground])
    with rasterio.open(output) as source:
        assert np.array_equal(source.read(1), expected)
        assert (source.dtypes, source.nodata, source.crs, source.transform) == (("uint8",), 255, UTM, PLACE)
        assert source.colormap(1)[1] == (200, 0, 0, 255) and source.overviews(1) == []
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        # GDAL itself reads the names that stand beside the file.
        rasterio.shutil.copy(source, tmp_path / "seen.vrt", driver="VRT")
    seen = (tmp_path / "seen.vrt").read_text()
    assert "<Category>roof &amp; wall</Category>" in seen and "<Category>road</Category>" in seen
    with rasterio.open(tmp_path / "classes_probabilities.tif") as source:
        assert source.descriptions == (*TABLE.names, "entropy")
        shares = source.read(masked=True)
    assert np.array_equal(np.ma.getmaskarray(shares[0]), void)
    assert np.abs(shares[:COUNT].sum(axis=0) - 1).max() < 1e-5
    assert shares[COUNT].min() >= 0 and shares[COUNT].max() < 0.5
    areas = geopandas.read_file(tmp_path / "classes.gpkg", layer="classes")
    assert areas.crs == UTM and set(areas["class"]) == {TABLE.names[number] for number in np.unique(ground)}
    roofs = areas[areas["class"] == "roof & wall"]
    assert roofs["area_m2"].sum() == pytest.approx(4 * ((ground == 1) & ~void).sum())
    assert [one["pixels"] for one in document["classes"]] == [((ground == n) & ~void).sum() for n in range(COUNT)]
    assert (tmp_path / "classes.png").is_file() and "roof &amp; wall" in (tmp_path / "classes.html").read_text()


def test_relative_depth_comes_from_a_raster_on_another_grid(
    place: Path, ground: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = ClassModel(by_height, TABLE, True, 48, None, {})
    given = options(relative_depth=place / "height.tif")
    predict_class_scene(place / "scene.tif", tmp_path / "up.tif", model, given)
    turned = options(relative_depth=place / "height.tif", rises="depth")
    predict_class_scene(place / "scene.tif", tmp_path / "down.tif", model, turned)
    with rasterio.open(tmp_path / "up.tif") as up, rasterio.open(tmp_path / "down.tif") as down:
        known = up.read(1) != 255
        roofs, others = up.read(1) == 1, down.read(1) == 1
    agree = (roofs == (ground == 1))[known].mean()
    assert agree > 0.9  # the coarser grid blurs the edges
    assert (roofs[known] != others[known]).mean() > 0.95
    elsewhere = write_raster(tmp_path / "far.tif", np.ones((9, 9)), PLACE @ Affine.translation(9e4, 0), UTM)
    with pytest.raises(UserError, match="does not overlap"):
        predict_class_scene(place / "scene.tif", tmp_path / "x.tif", model, options(relative_depth=elsewhere))


def test_classes_are_scored_against_labels_on_another_grid(
    place: Path, ground: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shift of one class into another is what the confusion shows; labels of 0 count nowhere."""
    wrong = ground.copy()
    wrong[:, :30][ground[:, :30] == 0] = 2
    image = np.moveaxis(COLOURS[wrong], -1, 0).astype(np.uint8)
    write_raster(tmp_path / "scene.tif", image, PLACE, UTM)
    model = ClassModel(by_colour, TABLE, False, 48, None, {})
    predict_class_scene(tmp_path / "scene.tif", tmp_path / "classes.tif", model, options())
    said = ["--prediction", str(tmp_path / "classes.tif"), "--output", str(tmp_path / "r"), "--truth"]
    assert evaluateScene.main([*said, str(place / "labels.tif")]) == 0
    document = json.loads((tmp_path / "r" / "metrics.json").read_text())
    pixels = np.array(document["confusion"]["pixels"])
    counted = np.zeros(ground.shape, bool)
    counted[:-3] = True
    expected = np.array([[(counted & (ground == t) & (wrong == p)).sum() for p in range(COUNT)] for t in range(COUNT)])
    # Warped twice: a pixel at an edge may get its neighbour's label.
    assert np.abs(pixels - expected).sum() < 0.06 * expected.sum() and pixels[0, 2] > 0
    assert document["summary"]["classes.iou_water"]["mean"] > 0.9
    assert (tmp_path / "r" / "report.html").is_file() and (tmp_path / "r" / "figure.png").is_file()
    for more, what in (
        ([str(place / "fine.tif"), "--coregister"], "--coregister belongs to heights"),
        ([str(place / "scene.tif")], "colours outside of the class table"),
        ([str(place / "height.tif")], "values outside of the class table"),
    ):
        capsys.readouterr()
        assert evaluateScene.main([*said, *more]) == 2
        shown = capsys.readouterr().err
        assert what in shown and "Traceback" not in shown


def test_predict_takes_folders_of_land_cover_models(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mistakes are one line with the remedy; a model of heights draws the relative depth on request."""
    torch.manual_seed(0)
    made = {"classes": TABLE.names, "values": TABLE.values, "colours": TABLE.colours, "ignored": (0,), "tile_size": 48}
    SegmentationNetwork("test_convnext", "test_convnext2", channels=8, **made).save_pretrained(tmp_path / "both")
    SegmentationNetwork("test_convnext", fusion="none", channels=8, **made).save_pretrained(tmp_path / "alone")
    scene, output = str(place / "scene.tif"), tmp_path / "classes.tif"
    said = ["--input", scene, "--output", str(output), "--model"]
    for more, what in (
        ([str(tmp_path / "both")], "--depth-model MODEL, such as"),
        ([str(tmp_path / "alone"), "--relative-depth", scene], "sees no relative depth; leave it out"),
        ([str(tmp_path / "alone"), "--reference", scene], "--reference belongs to heights"),
        ([str(tmp_path / "both"), "--depth-model", str(tmp_path / "alone")], "draws classes, and no heights"),
        ([str(tmp_path / "both"), "--relative-depth", scene], "3 bands"),
        ([str(tmp_path / "both"), "--relative-depth", str(tmp_path)], "has no raster named scene"),
    ):
        capsys.readouterr()
        assert predict.main([*said, *more]) == 2
        shown = capsys.readouterr().err
        assert what in shown and "Traceback" not in shown and not output.exists()
    height = str(place / "height.tif")
    assert predict.main([*said, str(tmp_path / "both"), "--relative-depth", height]) == 0
    with rasterio.open(output) as source:
        assert set(np.unique(source.read(1))) <= {*TABLE.values, 255}
        document = json.loads(source.tags()["D3RSMDE_CLASSES"])
    assert document == TABLE.describe()
