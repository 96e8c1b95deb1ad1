"""predictStereo.py on dataset folders: the published tree of maps, a height raster of them, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

import predictStereo
from Modules.stereo.networks import StereoNetwork
from Utils.data.stereo.pinhole_camera import read_camera
from Utils.data.stereo.view_choice import PinholeView
from Utils.rasters.pfm import read_pfm
from Utils.synthetic.stereo_dataset import RELATIVE, write_dataset

SIZE = (64, 96)


@pytest.fixture(scope="module")
def aerial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aerial")
    write_dataset(folder, 1, 1, 3, SIZE, 3, workers=1)
    return folder


@pytest.fixture(scope="module")
def satellite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("satellite")
    write_dataset(folder, 1, 1, 2, SIZE, 4, workers=1, cameras="rpc")
    return folder


def run(folder: Path, output: Path, *more: str) -> int:
    return predictStereo.main(["--dataset", str(folder), "--output", str(output), *more])


def truths(folder: Path, kind: str, name: str) -> dict[str, np.ndarray]:
    return {path.parent.name: read_pfm(path) for path in (folder / "test" / kind).glob(f"*/{name}.pfm")}


def test_the_published_tree_and_a_raster_of_a_pinhole_folder(aerial: Path, tmp_path: Path) -> None:
    output, raster = tmp_path / "maps", tmp_path / "dsm.tif"
    # The part itself may be named, as the published script wants it.
    assert run(aerial / "test", output, "--dsm", str(raster), "--resolution", "0.5", "--preview") == 0
    name = "town5000_0000"
    for view, truth in truths(aerial, "depth", name).items():
        found = read_pfm(output / view / "init" / f"{name}.pfm")
        sure = read_pfm(output / view / "prob" / f"{name}.pfm")
        assert found.shape == truth.shape == sure.shape
        # Windows widen roofs, and what is hidden in the other views matches badly: both are unsure.
        # A metre is half a pixel of parallax.
        assert np.median(np.abs(found - truth)[sure > 0.7]) < 0.8 and (sure > 0.7).mean() > 0.2
        for picture in (f"init/color/{name}.png", f"prob/color/{name}_prob.png"):
            assert (output / view / picture).stat().st_size > 1000
    with rasterio.open(raster) as source:
        heights, crs, tags = source.read(1, masked=True), source.crs, source.tags() | source.tags(1)
        camera = read_camera(aerial / "test" / "camera" / "1" / f"{name}.txt")
        rows, columns = (axis.ravel().astype(float) for axis in np.mgrid[: SIZE[0], : SIZE[1]])
        points = PinholeView(camera, SIZE).ground(
            columns, rows, truths(aerial, "depth", name)["1"].ravel().astype(float)
        )
        across, down = ~source.transform @ (points[:, 0], points[:, 1])
    assert crs is None and "VERTICAL_DATUM" not in tags and "not known" in tags["long_name"]
    inside = (across >= 0) & (down >= 0) & (across < heights.shape[1]) & (down < heights.shape[0])
    apart = heights[down[inside].astype(int), across[inside].astype(int)] - points[inside, 2]
    assert np.ma.count(apart) > 0.7 * inside.sum()
    assert np.ma.median(np.abs(apart)) < 0.8
    document = json.loads((output / "predictions.json").read_text())
    assert document["dsm"]["coverage"]["share"] > 0.5 and raster.with_suffix(".png").is_file()


def test_a_network_draws_heights_of_a_folder_with_rpcs_and_goes_on(satellite: Path, tmp_path: Path) -> None:
    model, output, raster = tmp_path / "model", tmp_path / "maps", tmp_path / "dsm.tif"
    network = StereoNetwork(hypotheses=(16, 8, 8), base=4, norm="group", geometry="rpc")
    network.save_pretrained(model)
    more = ("--model", str(model), "--min-coverage", "0", "--tolerance", "8")
    assert run(satellite, output, *more) == 0
    first = output / "0" / "init" / "town5000_0000.pfm"
    low, high = np.percentile(truths(satellite, "height", "town5000_0000")["0"], (0, 100))
    assert low - 30 < read_pfm(first).min() <= read_pfm(first).max() < high + 30
    first.unlink()
    kept = (output / "1" / "init" / "town5000_0000.pfm").stat().st_mtime_ns
    assert run(satellite, output, *more, "--resume", "--dsm", str(raster)) == 0
    assert first.is_file() and (output / "1" / "init" / "town5000_0000.pfm").stat().st_mtime_ns == kept
    with rasterio.open(raster) as source:
        assert source.crs.is_projected and source.tags()["VERTICAL_DATUM"] == "EPSG:4979"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--aoi", "1,2,3,4"], "--aoi belongs to --images"),
        (["--tile-size", "64"], "--tile-size belongs to --images"),
        (["--preview"], "--preview is for a height raster: give --dsm too"),
        (["--views", "7"], "--views 7: give 2 to 3"),
        (["--part", "validation"], "--part 'validation': give train or test"),
        (["--dsm", "dsm.png"], "give a name that ends in .tif"),
        (["--values", "60,75"], "--min-coverage asks for 50 %"),
        (["--model", "guided"], "uses relative depth maps; give their folder with --relative-depth"),
        (["--relative-depth", "maps"], "not found; make it with python -m Systems.relative_depth"),
    ],
)
def test_mistakes_are_one_line(
    aerial: Path,
    tmp_path: Path,
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    StereoNetwork(relative_depth="guided", hypotheses=(8, 8, 8), base=4, geometry="pinhole").save_pretrained("guided")
    assert run(aerial, tmp_path / "maps", *more) == 2
    text = capsys.readouterr().err
    assert said in text and "Traceback" not in text


def test_views_that_are_missing_and_folders_of_others_are_refused(
    aerial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "letter.txt").write_text("mine")
    assert run(aerial, tmp_path / "maps") == 2
    assert "holds other files" in capsys.readouterr().err
    image = aerial / "test" / "image" / "2" / "town5000_0000.png"
    kept = image.read_bytes()
    image.unlink()
    try:
        assert run(aerial, tmp_path / "others") == 2
    finally:
        image.write_bytes(kept)
    assert "view 2 of 'town5000_0000' has no image" in capsys.readouterr().err


def test_relative_depth_of_the_folder_reaches_the_network(aerial: Path, tmp_path: Path) -> None:
    network = StereoNetwork(relative_depth="guided", hypotheses=(8, 8, 8), base=4, geometry="pinhole")
    network.save_pretrained(tmp_path / "model")
    more = ("--model", str(tmp_path / "model"), "--relative-depth", RELATIVE, "--min-coverage", "0", "--tolerance", "9")
    assert run(aerial, tmp_path / "maps", *more) == 0
    assert len(list((tmp_path / "maps").glob("*/init/*.pfm"))) == 3
