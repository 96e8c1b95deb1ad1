"""Ends of a scene that are no good ends: what is left, what is said, and what becomes of the other scenes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import evaluateScene
import predict
from tests.conftest import full_disk
from tests.scenes import ORIGIN, UTM, brightness, landscape, write_raster
from tests.toys import toy_model
from Utils.core.errors import RasterError, UserError
from Utils.scenes.finishing import Finisher
from Utils.scenes.options import SceneOptions
from Utils.scenes.output.output_checks import name_outputs
from Utils.scenes.scene_run import predict_scene
from Utils.scenes.tiles.tile_store import working_folder

MODEL = {"name": "brightness", "weights": "none"}
OPTIONS = SceneOptions(tile_size=64, stretch=None, batch_size=1)
GREY = np.rint(20 + 200 * landscape(100, 120, seed=3)).astype(np.uint8)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", GREY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    toy_model().save_pretrained(folder)
    return folder


def after(tiles: int, error: BaseException) -> Callable[[Tensor], Tensor]:
    """A model that fails after so many tiles."""
    done = [0]

    def predictor(images: Tensor) -> Tensor:
        if done[0] == tiles:
            raise error
        done[0] += 1
        return brightness(images)

    return predictor


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no"), RasterError("a", "b", "c"), MemoryError()])
def test_finished_tiles_stay_and_are_named(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    output = tmp_path / "height.tif"
    with pytest.raises(type(error)):
        predict_scene(scene, output, after(2, error), OPTIONS, MODEL)
    folder = working_folder(output)
    assert len(list(folder.glob("tile_*.npy"))) == 2
    assert str(folder) in caplog.text and "--resume" in caplog.text and "--overwrite" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no")])
def test_without_a_finished_tile_nothing_stays(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        predict_scene(scene, tmp_path / "height.tif", after(0, error), OPTIONS, MODEL)
    assert os.listdir(tmp_path) == ["scene.tif"] and "--resume" not in caplog.text


def test_an_error_in_joining_leaves_the_tiles_alone(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise UserError("no fusion")

    monkeypatch.setattr(Finisher, "_write", fails)
    output = tmp_path / "height.tif"
    with pytest.raises(UserError, match="no fusion"):
        predict_scene(scene, output, brightness, OPTIONS, MODEL)
    left = os.listdir(working_folder(output))
    assert all(name.startswith("tile_") or name == "key.json" for name in left), "the mosaic is made anew"
    assert str(working_folder(output)) in caplog.text


def test_a_full_disk_is_said_and_the_tiles_are_named(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "height.tif"
    # The tiles of 16 KiB find room, the scene of 47 KiB does not.
    with full_disk(20_000), pytest.raises(UserError, match="space"):
        predict_scene(scene, output, brightness, OPTIONS, MODEL)
    assert str(working_folder(output)) in caplog.text
    assert sorted(os.listdir(tmp_path)) == [working_folder(output).name, "scene.tif"]


def test_what_a_killed_run_was_writing_is_removed_by_the_next(tmp_path: Path, scene: Path) -> None:
    from Utils.scenes.output.height_writer import Band, HeightWriter

    output = tmp_path / "height [1].tif"
    # As a kill leaves it: entered, and never left.
    HeightWriter(output, 9, 9, [Band("height", "", "")], None, None, {}).__enter__()
    (tmp_path / ".height.tif.tmp").mkdir()
    predict_scene(scene, output, brightness, OPTIONS, MODEL)
    assert sorted(os.listdir(tmp_path)) == [".height.tif.tmp", "height [1].json", "height [1].tif", "scene.tif"]


def test_names_of_outputs(tmp_path: Path) -> None:
    scenes = [Path("a.tif"), Path("in/b.JP2"), Path("/vsigzip/data/dem.tif.gz")]
    (tmp_path / "old.tif").mkdir()
    for folder in ("new", "new.v1", "old.tif"):
        found = name_outputs(scenes, tmp_path / folder)
        assert found == [tmp_path / folder / name for name in ("a.tif", "b.tif", "dem.tif")]
    assert name_outputs(scenes[:1], tmp_path / "one.tif") == [tmp_path / "one.tif"]
    assert name_outputs(scenes[:1], f"{tmp_path}/one/") == [tmp_path / "one" / "a.tif"]
    with pytest.raises(UserError, match=r"a\.tif, x/a\.png would all be written"):
        name_outputs([*scenes, Path("x/a.png")], tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "fits"), [("x" * 250, True), ("é" * 125, True), ("漢" * 83, True), ("x" * 251, False), ("é" * 400, False)]
)
def test_long_names(tmp_path: Path, scene: Path, name: str, fits: bool) -> None:
    output = tmp_path / f"{name}.tif"
    if fits:  # the .html beside it has up to 255 bytes
        predict_scene(scene, output, brightness, OPTIONS, MODEL)
        assert output.is_file()
    else:
        with pytest.raises(UserError, match="name is too long"):
            predict_scene(scene, output, brightness, OPTIONS, MODEL)
        assert os.listdir(tmp_path) == ["scene.tif"]


def test_two_long_names_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = (working_folder(tmp_path / f"{'x' * 245}{number}.tif") for number in (1, 2))
    assert first != second and max(len(folder.name) for folder in (first, second)) <= 255


def test_the_output_is_none_of_the_inputs_by_another_name(tmp_path: Path, scene: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scene.zip", "w") as archive:
        archive.write(scene, "scene.tif")
    (tmp_path / "link.tif").symlink_to(scene)
    os.link(scene, tmp_path / "hard.tif")
    overwriting = SceneOptions(tile_size=64, overwrite=True)
    for name in ("link.tif", "hard.tif"):
        with pytest.raises(UserError, match="is the input"):
            predict_scene(scene, tmp_path / name, brightness, overwriting, MODEL)
    vrt = tmp_path / "dem.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="100"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">dem.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    dem = write_raster(tmp_path / "dem.tif", GREY)
    with pytest.raises(UserError, match="is the input"):
        predict_scene(
            tmp_path / "scene.zip", dem, brightness, SceneOptions(tile_size=64, overwrite=True, reference=vrt), MODEL
        )


def test_a_name_that_is_too_long_is_called_that(
    tmp_path: Path, scene: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, height = "x" * 300, str(tmp_path / "height.tif")
    for model_name, scene_name, output in (
        (long, str(scene), height),
        (str(model), str(scene), str(tmp_path / long / "a.tif")),
    ):
        assert predict.main(["--model", model_name, "--input", scene_name, "--output", output]) == 2
        assert "too long" in capsys.readouterr().err
    arguments = ["--prediction", str(scene), "--truth", str(scene), "--output", str(tmp_path / long)]
    assert evaluateScene.main(arguments) == 2
    assert "too long" in capsys.readouterr().err


def several(folder: Path) -> Path:
    """Two sound scenes; one cut short at once, one that has no place on the ground, one damaged further on."""
    scenes = folder / "scenes"
    scenes.mkdir()
    for name in ("a.tif", "e.tif"):
        write_raster(scenes / name, GREY)
    (scenes / "b.tif").write_bytes((scenes / "a.tif").read_bytes()[:700])
    write_raster(scenes / "c.tif", GREY, ORIGIN, None)
    write_raster(scenes / "d.tif", GREY[:80], ORIGIN, UTM, blockysize=10)
    return scenes


def test_a_scene_that_fails_does_not_stop_the_others(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from Utils.rasters.source import scene_source

    read = scene_source.SceneSource.read

    def damaged(self: scene_source.SceneSource, *window: int) -> object:
        if self.path.name == "d.tif":
            raise ZeroDivisionError("an error of ours")
        return read(self, *window)

    monkeypatch.setattr(scene_source.SceneSource, "read", damaged)
    cells = 1000 + 500 * landscape(100, 120, seed=3).reshape(25, 4, 30, 4).mean(axis=(1, 3))
    dem = write_raster(tmp_path / "dem.tif", cells.astype(np.float32), ORIGIN @ ORIGIN.scale(4))
    arguments = ["--model", str(model), "--input", str(several(tmp_path)), "--tile-size", "64"]
    heights = tmp_path / "heights.v1"
    assert predict.main([*arguments, "--output", str(heights), "--reference", str(dem)]) == 2
    assert sorted(os.listdir(heights)) == ["a.json", "a.tif", "e.json", "e.tif"]
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: 3 of 5 scenes failed, 2 were written. ")
    for words in ("b.tif: cannot be read", "c.tif", "no CRS", "d.tif: ZeroDivisionError: an error of ours"):
        assert words in last
    # A mistake that concerns all is said once.
    assert predict.main([*arguments, "--output", str(tmp_path / "none"), "--overlap", "99"]) == 2
    assert "all 5 scenes failed: --overlap 99" in capsys.readouterr().err
