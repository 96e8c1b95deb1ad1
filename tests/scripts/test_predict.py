"""predict.py: a scene in, a height raster out, by its command line."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

import predict
from tests.launching import start, until
from tests.scenes import ORIGIN, UTM, brightness, landscape, without_affine, write_raster
from Utils.core.errors import UserError
from Utils.core.predictor import Direction, Predictor
from Utils.scenes.fusion.correction import Correction
from Utils.scenes.fusion.points import PointCorrection
from Utils.scenes.fusion.reference import Geometry
from Utils.scenes.options import SceneOptions
from Utils.scenes.scene_run import predict_scene, summary
from Utils.scenes.tiles.tile_store import working_folder

HEIGHT, WIDTH, TILE = 180, 230, 64
MODEL = {"name": "brightness", "weights": "none"}


@pytest.fixture
def truth() -> NDArray[np.float64]:
    return landscape(HEIGHT, WIDTH, seed=3)


@pytest.fixture
def scene(tmp_path: Path, truth: NDArray[np.float64]) -> Path:
    """An image whose brightness is its height."""
    grey = np.rint(20 + 200 * truth).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", np.stack([grey] * 3))


def options(**changes) -> SceneOptions:
    return SceneOptions(**{"tile_size": TILE, "stretch": None} | changes)


def read(path: Path, band: int = 1) -> NDArray[np.float64]:
    with rasterio.open(path) as source:
        return source.read(band, masked=True).astype(np.float64).filled(np.nan)


def test_a_relative_scene_is_seamless_and_lies_between_0_and_1(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64]
) -> None:
    result = predict_scene(scene, tmp_path / "height.tif", brightness, options(), MODEL)
    found = read(result.output)
    assert found.min() == pytest.approx(0.0, abs=1e-6) and found.max() == pytest.approx(1.0, abs=1e-6)
    # The image has 200 grey levels: half of one is 0.25 % of the range.
    assert np.abs(without_affine(found, truth)).max() < 0.02
    with rasterio.open(result.output) as source:
        assert source.crs == UTM and source.transform == ORIGIN
        assert source.tags()["D3RSMDE_KIND"] == "relative" and source.tags()["D3RSMDE_MODEL"] == "brightness"
        assert source.overviews(1) or max(source.shape) <= 512
    document = json.loads((tmp_path / "height.json").read_text())
    assert document["kind"] == "relative" and len(document["tiles"]) == len(result.document["tiles"]) > 9
    assert document["stretch"] and document["scene"]["width"] == WIDTH
    assert not working_folder(tmp_path / "height.tif").exists()


def test_holes_stay_holes(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    grey = np.rint(20 + 200 * truth).astype(np.uint8)
    grey[50:90, 100:140] = 0
    scene = write_raster(tmp_path / "scene.tif", np.stack([grey] * 3), nodata=0)
    found = read(predict_scene(scene, tmp_path / "height.tif", brightness, options(), MODEL).output)
    np.testing.assert_array_equal(np.isnan(found), grey == 0)


def test_a_scene_smaller_than_a_tile_and_without_georeference(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    grey = np.rint(255 * truth[:40, :50]).astype(np.uint8)
    scene = write_raster(tmp_path / "scene.tif", grey, None, None)
    found = read(predict_scene(scene, tmp_path / "height.tif", brightness, options(), MODEL).output)
    assert found.shape == (40, 50)
    assert np.abs(without_affine(found, truth[:40, :50])).max() < 0.02


def coarse_reference(tmp_path: Path, truth: NDArray[np.float64], noise: float = 2.0) -> Path:
    """Cells of 8 pixels over a wider area than the scene, 1000 to 1500 m."""
    padded = np.pad(1000 + 500 * truth, ((40, 52), (40, 50)), mode="reflect")
    rows, columns = padded.shape[0] // 8, padded.shape[1] // 8
    cells = padded[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).mean(axis=(1, 3))
    cells += np.random.default_rng(0).normal(0, noise, cells.shape)
    where = ORIGIN @ Affine.translation(-40, -40) @ Affine.scale(8)
    return write_raster(tmp_path / "dem.tif", cells.astype(np.float32), where, nodata=-9999)


def test_with_a_reference_the_result_is_in_metres(tmp_path: Path, scene: Path, truth: NDArray[np.float64]) -> None:
    reference = coarse_reference(tmp_path, truth)
    result = predict_scene(scene, tmp_path / "height.tif", brightness, options(reference=reference), MODEL)
    error = read(result.output) - (1000 + 500 * truth)
    assert np.sqrt(np.mean(error**2)) < 6.0
    agreement = result.document["reference"]["agreement"]
    assert agreement["rmse"] < 3.0 and agreement["count"] > 300
    assert all(tile["supported"] for tile in result.document["tiles"])
    with rasterio.open(result.output) as source:
        assert source.descriptions == ("height", "flag") and source.units[0] == "metre"
        assert (source.read(2) == 0).all()
        assert source.tags()["D3RSMDE_KIND"] == "metric"


def test_the_json_names_the_reference_as_seen_from_its_folder(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64]
) -> None:
    reference = coarse_reference(tmp_path, truth)
    (tmp_path / "results").mkdir()
    given = options(reference=reference, detail="none")
    result = predict_scene(scene, tmp_path / "results" / "height.tif", None, given, MODEL)
    described = json.loads((tmp_path / "results" / "height.json").read_text(encoding="utf-8"))["reference"]
    assert described["file"] == "dem.tif" and described["place"] == "../dem.tif"
    assert result.document["options"]["reference"] == "dem.tif"


@pytest.mark.parametrize("detail", ["none", "shading", "model"])
def test_the_report_says_what_was_added_to_the_dem(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64], detail: str
) -> None:
    """Also where no model, and so no tile, had a part in it."""
    given = options(reference=coarse_reference(tmp_path, truth), detail=detail, report=True)
    model = brightness if detail == "model" else None
    result = predict_scene(scene, tmp_path / "height.tif", model, given, MODEL)
    said = {
        "none": "the DEM alone, its noise estimated as",
        "shading": "% of the detail from shading; on cells twice as wide, where the DEM is the truth, this explains",
        "model": "% of the model's detail; on cells twice as wide, where the DEM is the truth, this explains",
    }[detail]
    line = next(line for line in summary(result).splitlines() if said in line)
    page = html.unescape((tmp_path / "height.html").read_text(encoding="utf-8"))
    assert line in page
    assert ("How to read the table" in page) == (detail == "model")


def in_metres(images: torch.Tensor) -> torch.Tensor:
    """Metres above each tile's darkest pixel: the scale is known, the level is not."""
    heights = 500 * (255 * images.mean(dim=1) - 20) / 200
    return heights - heights.amin(dim=(1, 2), keepdim=True)


def test_metres_without_a_reference_stay_metres(tmp_path: Path, scene: Path, truth: NDArray[np.float64]) -> None:
    result = predict_scene(scene, tmp_path / "height.tif", in_metres, options(model_in_metres=True), MODEL)
    found = read(result.output)
    # Tiles are shifted to one another, and not scaled: the relief is the true one, from 0 at the lowest place.
    np.testing.assert_allclose(found, 500 * (truth - truth.min()), atol=4.0)
    assert {tile["scale"] for tile in result.document["tiles"]} == {1.0} and result.document["kind"] == "offset"
    with rasterio.open(result.output) as source:
        assert source.units[0] == "metre" and source.tags()["D3RSMDE_KIND"] == "offset"
    assert "level unknown" in summary(result)


def test_metres_with_a_reference_get_a_shift_alone(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    given = options(reference=coarse_reference(tmp_path, truth), model_in_metres=True)
    result = predict_scene(scene, tmp_path / "a.tif", in_metres, given, MODEL)
    assert {tile["scale"] for tile in result.document["tiles"]} == {1.0} and result.document["kind"] == "metric"
    assert np.sqrt(np.mean((read(result.output) - (1000 + 500 * truth)) ** 2)) < 6.0
    assert "a metre of the model" not in caplog.text
    predict_scene(scene, tmp_path / "b.tif", lambda images: in_metres(images) / 4, given, MODEL)
    assert "a metre of the model is 4 m of the known heights" in caplog.text


def test_a_rotated_scene_meets_its_reference(tmp_path: Path) -> None:
    """The scene's rows run at 25 degrees to the reference's."""
    land = landscape(512, 512, seed=4)
    turned = ORIGIN @ Affine.translation(230, 90) @ Affine.rotation(25)
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    xs, ys = ~ORIGIN @ (turned @ (columns.ravel(), rows.ravel()))
    truth = map_coordinates(land, [ys - 0.5, xs - 0.5], order=1).reshape(HEIGHT, WIDTH)
    scene = write_raster(tmp_path / "scene.tif", np.rint(20 + 200 * truth).astype(np.uint8), turned)
    cells = (1000 + 500 * land).reshape(64, 8, 64, 8).mean(axis=(1, 3)).astype(np.float32)
    reference = write_raster(tmp_path / "dem.tif", cells, ORIGIN @ Affine.scale(8))
    result = predict_scene(scene, tmp_path / "height.tif", brightness, options(reference=reference), MODEL)
    error = read(result.output) - (1000 + 500 * truth)
    assert np.sqrt(np.mean(error**2)) < 6.0
    with rasterio.open(result.output) as source:
        assert source.transform.almost_equals(turned)


def test_tiles_without_support_are_flagged(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    """The left part of the reference is void: its tiles follow their neighbours, and the flag band says so."""
    grey = np.rint(20 + 200 * truth).astype(np.uint8)
    scene = write_raster(tmp_path / "scene.tif", np.stack([grey] * 3))
    reference = coarse_reference(tmp_path, truth)
    with rasterio.open(reference, "r+") as target:
        cells = target.read(1)
        cells[:, :15] = -9999
        target.write(cells, 1)
    result = predict_scene(scene, tmp_path / "height.tif", brightness, options(reference=reference), MODEL)
    flags = read(result.output, band=2)
    assert set(np.unique(flags)) >= {0.0, 3.0}
    assert (flags[:, :48] == 3).all() and (flags[:, 150:] == 0).all()
    error = read(result.output) - (1000 + 500 * truth)
    assert np.sqrt(np.mean(error[:, :60] ** 2)) < 60.0  # carried by neighbours: metres, not kilometres


def coarse_points(tmp_path: Path, truth: NDArray[np.float64]) -> Path:
    """500 heights on the scene, 1000 to 1500 m."""
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, HEIGHT, 500), rng.integers(0, WIDTH, 500)
    xs, ys = ORIGIN @ (columns + 0.5, rows + 0.5)
    lines = [
        f"{x},{y},{1000 + 500 * truth[row, column]:.2f}"
        for x, y, row, column in zip(xs, ys, rows, columns, strict=True)
    ]
    (tmp_path / "points.csv").write_text("x,y,height\n" + "\n".join(lines))
    return tmp_path / "points.csv"


def test_points_in_place_of_a_reference(tmp_path: Path, scene: Path, truth: NDArray[np.float64]) -> None:
    with coarse_points(tmp_path, truth).open("a") as table:
        table.write("\nnan,nan,1200\nx,y,height\n")
    given = options(points=tmp_path / "points.csv", points_crs="EPSG:32643")
    result = predict_scene(scene, tmp_path / "height.tif", brightness, given, MODEL)
    error = read(result.output) - (1000 + 500 * truth)
    assert np.sqrt(np.mean(error**2)) < 6.0
    assert result.document["points"]["left_out"]["unusable"] == 2
    assert result.document["points"]["after"]["rmse"] < result.document["points"]["before"]["rmse"] + 1.0


def lit_from_the_left(images: Tensor) -> Tensor:
    """A model that is wrong in a way that turning the tile shows."""
    return (brightness(images) + torch.linspace(0, 0.3, images.shape[-1])).clamp(0, 1.3) / 1.3


def test_uncertainty_is_large_where_turned_tiles_disagree(tmp_path: Path, scene: Path) -> None:
    sure = predict_scene(scene, tmp_path / "a.tif", brightness, options(orientations=8), MODEL)
    unsure = predict_scene(scene, tmp_path / "b.tif", lit_from_the_left, options(orientations=8), MODEL)
    assert np.nanmax(read(sure.output, band=2)) < 0.02
    assert np.nanmedian(read(unsure.output, band=2)) > 0.03
    plain = predict_scene(scene, tmp_path / "c.tif", lit_from_the_left, options(), MODEL)
    np.testing.assert_allclose(read(unsure.output), read(plain.output), atol=1e-5)  # the height itself is the same


class Interrupted(Exception):
    pass


def test_an_interrupted_scene_is_resumed_and_ends_the_same(tmp_path: Path, scene: Path) -> None:
    whole = predict_scene(scene, tmp_path / "whole.tif", brightness, options(batch_size=2), MODEL)
    calls = 0

    def fails_after_three(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Interrupted
        return brightness(images)

    output = tmp_path / "height.tif"
    with pytest.raises(Interrupted):
        predict_scene(scene, output, fails_after_three, options(batch_size=2), MODEL)
    assert not output.exists() and working_folder(output).exists()

    with pytest.raises(UserError, match="--resume"):
        predict_scene(scene, output, brightness, options(batch_size=2), MODEL)
    with pytest.raises(UserError, match="weights was"):
        predict_scene(scene, output, brightness, options(resume=True), MODEL | {"weights": "others"})

    seen = 0

    def counts(images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        return brightness(images)

    resumed = predict_scene(scene, output, counts, options(batch_size=2, resume=True), MODEL)
    assert seen == len(resumed.document["tiles"]) - 6  # three batches of two were there
    np.testing.assert_array_equal(read(resumed.output), read(whole.output))
    assert not working_folder(output).exists()


_SLOW_RUN = """
import sys, time
from pathlib import Path
from tests.scenes import brightness
from tests.scripts.test_predict import MODEL, options
from Utils.scenes.scene_run import predict_scene, summary

def slowly(images):
    time.sleep(0.2)
    return brightness(images)

predict_scene(Path(sys.argv[1]), Path(sys.argv[2]), slowly, options(batch_size=1), MODEL)
"""


def test_a_killed_run_is_resumed(tmp_path: Path, scene: Path) -> None:
    whole = predict_scene(scene, tmp_path / "whole.tif", brightness, options(batch_size=1), MODEL)
    output = tmp_path / "height.tif"
    process = start(["-c", _SLOW_RUN, scene, output], tmp_path / "log")
    until(lambda: len(list(working_folder(output).glob("tile_*.npy"))) >= 4, process)
    process.kill()  # SIGKILL: nothing can be tidied up
    process.wait()
    assert not output.exists()
    resumed = predict_scene(scene, output, brightness, options(batch_size=1, resume=True), MODEL)
    np.testing.assert_array_equal(read(resumed.output), read(whole.output))


def test_an_output_is_replaced_only_on_request(tmp_path: Path, scene: Path) -> None:
    output = tmp_path / "height.tif"
    predict_scene(scene, output, brightness, options(), MODEL)
    before = output.read_bytes()
    with pytest.raises(UserError, match="overwrite"):
        predict_scene(scene, output, brightness, options(), MODEL)
    assert output.read_bytes() == before
    predict_scene(scene, output, brightness, options(overwrite=True), MODEL)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tile_size": 4}, "--tile-size 4"),
        ({"overlap": 64}, "--overlap 64"),
        ({"reference": Path("absent.tif")}, "absent.tif"),
        ({"reference": Path("a.tif"), "hold_out": 0.2}, "belong to --points"),
        ({"bands": (7,)}, "band"),
    ],
)
def test_mistakes_are_found_before_the_work(tmp_path: Path, scene: Path, changes: dict, says: str) -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError("the long work began")

    with pytest.raises(UserError, match=says):
        predict_scene(scene, tmp_path / "height.tif", never, options(**changes), MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_the_picture_does_not_take_the_place_of_the_scene(tmp_path: Path) -> None:
    scene = tmp_path / "scene.png"
    with rasterio.open(scene, "w", driver="PNG", width=40, height=30, count=1, dtype="uint8") as target:
        target.write(np.arange(1200, dtype=np.uint8).reshape(1, 30, 40))
    before = scene.read_bytes()
    with pytest.raises(UserError, match="could be overwritten"):
        predict_scene(scene, tmp_path / "scene.tif", brightness, options(preview=True), MODEL)
    assert scene.read_bytes() == before


def test_metres_need_a_georeferenced_scene(tmp_path: Path, truth: NDArray[np.float64]) -> None:
    reference = coarse_reference(tmp_path, truth)
    for name, where in (("bare.tif", None), ("nocrs.tif", ORIGIN)):
        scene = write_raster(tmp_path / name, (200 * truth).astype(np.uint8), where, None)
        with pytest.raises(UserError, match="CRS|georeferenced"):
            predict_scene(scene, tmp_path / "height.tif", brightness, options(reference=reference), MODEL)


def test_a_reference_that_contradicts_the_model_is_kept_without_its_detail_and_said_so(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    reference = coarse_reference(tmp_path, 1.0 - truth)
    result = predict_scene(scene, tmp_path / "height.tif", brightness, options(reference=reference), MODEL)
    assert "no tile's heights go with the model's" in caplog.text
    assert (read(result.output, band=2) == 1).all()
    error = read(result.output) - (1000 + 500 * (1.0 - truth))
    assert np.sqrt(np.mean(error**2)) < 15.0  # of a range of 500: smooth, but in its place


def test_points_that_contradict_the_model_are_refused_and_nothing_lost(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64]
) -> None:
    rows, columns = np.random.default_rng(1).integers(0, 180, (2, 500))
    xs, ys = ORIGIN @ (columns + 0.5, rows + 0.5)
    heights = 500 - 500 * truth[rows, columns]
    lines = [f"{x},{y},{height}" for x, y, height in zip(xs, ys, heights, strict=True)]
    (tmp_path / "points.csv").write_text("x,y,height\n" + "\n".join(lines))
    given = options(points=tmp_path / "points.csv", points_crs="EPSG:32643")
    with pytest.raises(UserError, match="no tile's heights go with the model's"):
        predict_scene(scene, tmp_path / "height.tif", brightness, given, MODEL)
    assert working_folder(tmp_path / "height.tif").exists()
    assert not (tmp_path / "height.tif").exists()


def test_one_wrong_cell_of_the_reference_stays_without_effect(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    reference = coarse_reference(tmp_path, truth)
    plain = read(predict_scene(scene, tmp_path / "a.tif", brightness, options(reference=reference), MODEL).output)
    for value in (32767.0, 0.0, 8000.0):
        with rasterio.open(reference, "r+") as target:
            cells = target.read(1)
            cells[15, 15] = value
            target.write(cells, 1)
        spiked = options(reference=reference, overwrite=True)
        found = read(predict_scene(scene, tmp_path / "b.tif", brightness, spiked, MODEL).output)
        assert np.abs(found - plain).max() < 20.0
        assert "--keep-outliers" in caplog.text and f"{value:g}" in caplog.text


def wild_correction(*given: object) -> PointCorrection:
    """A correction gone wrong over a tenth of the scene."""
    offset = np.zeros((200, 200), np.float32)
    offset[:20] = -1e6
    ones = np.ones_like(offset)
    place = Geometry(200, 200, UTM, ORIGIN @ Affine.scale(WIDTH / 200, HEIGHT / 200))
    return PointCorrection(Correction(ones, offset, ones, ones, ones.astype(bool), place, place), np.zeros(500), {})


def test_heights_that_cannot_be_are_not_written_and_the_scene_has_failed(
    tmp_path: Path,
    scene: Path,
    truth: NDArray[np.float64],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("Utils.scenes.finishing.correct_to_points", wild_correction)
    monkeypatch.setattr(
        "Systems.models.load_predictor",
        lambda *given: Predictor(brightness, "relative height", "height", 1, TILE, MODEL),
    )
    points = coarse_points(tmp_path, truth)
    output = tmp_path / "height.tif"
    arguments = ["--model", "any", "--input", str(scene), "--output", str(output), "--preview", "--report"]
    assert predict.main([*arguments, "--stretch", "none", "--points", str(points), "--points-crs", "EPSG:32643"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is written, but" in said and "could not be" in said
    found, flags = read(output), read(output, band=2)
    refused = np.isnan(found)
    assert 0.05 < refused.mean() < 0.2 and (flags[refused] == 4).all() and (flags[~refused] < 4).all()
    guard = json.loads((tmp_path / "height.json").read_text())["guard"]
    assert guard["share"] == pytest.approx(refused.mean())
    assert -2000 < guard["low"] <= np.nanmin(found) and np.nanmax(found) <= guard["high"] < 5000
    assert not working_folder(output).exists()


# By the command line, with a real (random) model folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    from tests.toys import toy_model

    folder = tmp_path / "model"
    toy_model().save_pretrained(folder)
    return folder


def test_the_command_line(tmp_path: Path, scene: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(model_folder), "--input", str(scene), "--tile-size", "64", "--preview"]
    assert predict.main([*arguments, "--output", str(tmp_path / "height.tif")]) == 0
    assert "relative heights" in capsys.readouterr().out
    assert (tmp_path / "height.png").stat().st_size > 1000
    assert np.isfinite(read(tmp_path / "height.tif")).all()
    assert predict.main([*arguments, "--output", str(tmp_path / "height.tif")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_several_scenes_go_into_a_folder(
    tmp_path: Path, scene: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_raster(tmp_path / "other.tif", np.full((70, 80), 9, np.uint8))
    arguments = ["--model", str(model_folder), "--input", str(scene), str(other), "--tile-size", "64"]
    assert predict.main([*arguments, "--output", str(tmp_path / "all.tif")]) == 2
    assert "folder" in capsys.readouterr().err
    assert predict.main([*arguments, "--output", str(tmp_path / "heights")]) == 0
    assert sorted(path.name for path in (tmp_path / "heights").glob("*.tif")) == ["other.tif", "scene.tif"]


def test_a_depth_model_of_transformers(tmp_path: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.depth_models import write_depth_model

    write_depth_model(tmp_path / "metric", depth_estimation_type="metric")
    output = tmp_path / "height.tif"
    arguments = ["--input", str(scene), "--output", str(output), "--tile-size", "64"]
    assert predict.main(["--model", str(tmp_path / "metric"), *arguments]) == 0
    assert "gives depth" in capsys.readouterr().err and np.isfinite(read(output)).all()
    model = json.loads(output.with_suffix(".json").read_text())["model"]
    assert (model["direction"], model["predicts"]) == ("depth", "relative height")
    assert predict.main(["--model", str(tmp_path / "metric"), *arguments, "--overwrite", "--steps", "3"]) == 2
    assert "--steps 3" in capsys.readouterr().err


@pytest.mark.parametrize("direction", ["height", "depth", "inverse depth"])
def test_the_polarity_of_a_model_does_not_turn_the_scene(
    direction: Direction, tmp_path: Path, scene: Path, truth: NDArray[np.float64]
) -> None:
    sign = -1 if direction == "depth" else 1

    def draw(images: Tensor) -> Tensor:
        return sign * brightness(images)

    predictor = Predictor(draw, "relative height", direction, 1, TILE, MODEL)
    found = read(predict_scene(scene, tmp_path / "height.tif", predictor, options(), MODEL).output)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    "wrong",
    [
        ["--model", "absent"],
        ["--uncertainty", "9"],
        ["--batch-size", "0"],
        ["--steps", "99"],
        ["--bands", "1,2"],
        ["--input", "absent.tif"],
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, scene: Path, model_folder: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    arguments = ["--model", str(model_folder), "--input", str(scene), "--output", str(tmp_path / "height.tif")]
    assert predict.main([*arguments, *wrong]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and wrong[-1].split(",")[0] in said


def test_a_dem_and_an_image_need_no_model(
    tmp_path: Path, scene: Path, truth: NDArray[np.float64], capsys: pytest.CaptureFixture[str]
) -> None:
    reference = coarse_reference(tmp_path, truth)
    arguments = ["--input", str(scene), "--reference", str(reference), "--report", "--preview"]
    found = {}
    for detail in ("none", "shading"):
        output = tmp_path / f"{detail}.tif"
        assert predict.main([*arguments, "--output", str(output), "--detail", detail]) == 0
        found[detail] = read(output)
        assert np.isfinite(found[detail]).all()
        facts = json.loads(output.with_suffix(".json").read_text())
        assert facts["tiles"] == [] and facts["kind"] == "metric"
        assert list(facts["reference"]["gain"]) == ([] if detail == "none" else ["shading"])
    said = capsys.readouterr().out
    assert "the DEM alone, its noise estimated as" in said and "of the detail from shading" in said
    heights = 1000 + 500 * truth
    assert np.abs(found["none"] - heights).mean() < 0.2 * heights.std()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--detail", "shading"], "--detail shading says what is added to a DEM: give --reference too"),
        ([], "give --model; only --reference with --detail shading or --detail none does without"),
        (["--detail", "none", "--reference", "DEM", "--uncertainty", "4"], "--uncertainty 4 turns tiles for the model"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path,
    scene: Path,
    truth: NDArray[np.float64],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    reference = str(coarse_reference(tmp_path, truth))
    given = [reference if one == "DEM" else one for one in arguments]
    assert predict.main(["--input", str(scene), "--output", str(tmp_path / "height.tif"), *given]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "height.tif").exists()
