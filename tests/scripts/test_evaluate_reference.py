"""evaluateScene.py beside the coarse DEM of a prediction: bicubic, and what the DEM tells without image and model."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

import evaluateScene
from tests.scenes import ORIGIN, landscape, write_raster
from Utils.core.errors import UserError
from Utils.core.tables import read_csv
from Utils.scenes.accuracy import error_statistics, height_grid
from Utils.scenes.accuracy.accuracy_tables import format_scores
from Utils.scenes.accuracy.fused_reference import FusedReference, find_reference
from Utils.scenes.accuracy.scene_scores import SceneScores
from Utils.scenes.accuracy.scene_scoring import score_scene
from Utils.scenes.options import SceneOptions
from Utils.scenes.scene_run import predict_scene

SIDE, CELL = 96, 8
# Heights of some 1300 m are stored as float32: a rounding of 2^-13 m at most in each map.
STORED = 2e-4
FROM_ALONE = "change from DEM alone"


class Fused:
    """A prediction that is the DEM alone, as ``--detail none`` gives it, in a folder with its DEM and its truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        heights = 1000 + 300 * landscape(SIDE, SIDE, seed=4)
        self.truth = write_raster(folder / "truth.tif", heights.astype(np.float32))
        cells = heights.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3)).astype(np.float32)
        self.dem = write_raster(folder / "dem.tif", cells, ORIGIN @ Affine.scale(CELL), nodata=-9999)
        self.scene = write_raster(folder / "scene.tif", np.full((SIDE, SIDE), 100, np.uint8))
        (folder / "results").mkdir()
        self.prediction = folder / "results" / "height.tif"
        self.predict()

    def predict(self, **changes: Any) -> None:
        given = {"reference": self.dem, "detail": "none", "tile_size": 64, "overwrite": True} | changes
        predict_scene(self.scene, self.prediction, None, SceneOptions(**given), {"name": ""})

    def score(self, reference: FusedReference | None, **options: Any) -> SceneScores:
        return score_scene(self.prediction, self.truth, reference=reference, **options)

    def run(self, *arguments: object) -> int:
        given = ["--prediction", self.prediction, "--truth", self.truth, "--output", self.folder / "scores", *arguments]
        return evaluateScene.main([str(argument) for argument in given])

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "scores" / "metrics.json").read_text(encoding="utf-8"))
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Fused(tmp_path_factory.mktemp("made")).folder


@pytest.fixture
def fused(made: Path, tmp_path: Path) -> Fused:
    """A copy of what was made, for a test to spoil; all files have moved together."""
    found = object.__new__(Fused)
    found.folder = Path(shutil.copytree(made, tmp_path / "copy"))
    found.truth, found.dem, found.scene = (found.folder / f"{name}.tif" for name in ("truth", "dem", "scene"))
    found.prediction = found.folder / "results" / "height.tif"
    return found


def heights_of(path: Path) -> NDArray[np.float64]:
    with rasterio.open(path) as source:
        return source.read(1, masked=True).astype(np.float64).filled(np.nan)


def test_bicubic_and_the_dem_alone_stand_beside_the_prediction(
    fused: Fused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fused.run() == 0
    document, table = fused.document, capsys.readouterr().out
    scores = document["scores"]
    assert list(scores) == ["bicubic", "DEM alone", "prediction"]
    assert scores["DEM alone"]["rmse"] < 0.95 * scores["bicubic"]["rmse"]
    # The prediction is the DEM alone itself.
    assert scores["DEM alone"] == pytest.approx(scores["prediction"], abs=STORED)
    assert document["change_from_dem_alone"]["rmse"]["change"] == pytest.approx(0.0, abs=STORED)
    change = document["change"]["rmse"]
    assert change["change"] == pytest.approx(scores["prediction"]["rmse"] - scores["bicubic"]["rmse"])
    assert {Path(document[role]["path"]).name for role in ("bicubic", "DEM alone")} == {"dem.tif"}
    assert document["DEM alone"]["noise"] >= 0.0
    first = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:13]
    assert first[:5] == ["bicubic", "DEM alone", "prediction", "change from bicubic", "change from bicubic (%)"]
    assert first[7:9] == [FROM_ALONE, f"{FROM_ALONE} (%)"]
    assert first[5].startswith("± standard error") and first[9].startswith("± standard error")
    assert "the ground of least error that 'dem.tif' tells without image and model" in table
    rows = [row["map"] for row in read_csv(fused.folder / "scores" / "classes.csv", text_columns=["slope_class"])]
    changes = ["change", "percent", "standard_error", "correlated_error"]
    assert rows[3:11] == [*changes, *(f"{what} from DEM alone" for what in changes)]
    page = (fused.folder / "scores" / "report.html").read_text(encoding="utf-8")
    assert FROM_ALONE in page and "change from bicubic" in page


def test_bicubic_is_what_the_same_dem_gives_as_a_baseline(fused: Fused) -> None:
    beside = fused.score(find_reference(fused.prediction)).overall
    before = fused.score(None, baseline=fused.dem).overall
    assert beside.scores["bicubic"] == before.scores["baseline"]
    assert beside.change.keys() == before.change.keys()
    assert before.change_from_dem_alone == {}


def test_a_baseline_keeps_its_name_and_the_same_dem_is_scored_once(fused: Fused) -> None:
    reference = find_reference(fused.prediction)
    same = fused.score(reference, baseline=fused.folder / "results" / ".." / "dem.tif")
    assert list(same.overall.scores) == ["baseline", "DEM alone", "prediction"]
    assert "change from baseline" in format_scores(same)
    other = fused.score(reference, baseline=shutil.copy(fused.dem, fused.folder / "other.tif"))
    assert list(other.overall.scores) == ["baseline", "bicubic", "DEM alone", "prediction"]
    alone = format_scores(fused.score(None, baseline=fused.dem))
    assert "| change " in alone and "change from" not in alone


def test_the_change_from_the_dem_alone_is_that_from_a_raster_of_it(
    fused: Fused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the block jackknife's error of paired differences."""
    monkeypatch.setattr(error_statistics, "BLOCK", 16)
    monkeypatch.setattr(height_grid, "WINDOW", 32)
    alone = shutil.copy(fused.prediction, fused.folder / "alone.tif")
    noise = np.random.default_rng(0).normal(0.0, 1.0, (SIDE, SIDE))
    write_raster(fused.prediction, (0.5 * (heights_of(alone) + heights_of(fused.truth)) + noise).astype(np.float32))
    found = fused.score(find_reference(fused.prediction)).overall.change_from_dem_alone
    expected = fused.score(None, baseline=alone).overall.change
    for key in ("rmse", "mae", "slope_error_degrees"):
        assert expected[key]["standard_error"] > 0.0 and expected[key]["change"] < 0.0
        for what, value in expected[key].items():
            assert found[key][what] == pytest.approx(value, rel=1e-3, abs=STORED)


def test_a_reference_that_has_moved_is_missed_by_name(fused: Fused, caplog: pytest.LogCaptureFixture) -> None:
    moved = fused.dem.rename(fused.folder / "elsewhere.tif")
    assert find_reference(fused.prediction) is None
    assert len(caplog.messages) == 1
    assert "dem.tif" in caplog.text and "not there" in caplog.text and "--reference" in caplog.text
    given = find_reference(fused.prediction, moved)
    assert list(fused.score(given).overall.scores) == ["bicubic", "DEM alone", "prediction"]


def test_a_reference_inside_an_archive_is_found(fused: Fused) -> None:
    shutil.make_archive(str(fused.folder / "dems"), "zip", fused.folder, "dem.tif")
    fused.dem.unlink()
    fused.dem = fused.folder / "dems.zip"
    fused.predict()
    found = find_reference(fused.prediction)
    assert found is not None and found.path == Path(f"/vsizip/{fused.folder}/dems.zip/dem.tif")
    assert "DEM alone" in fused.score(found).overall.scores


def test_a_reference_by_hand_needs_no_json(fused: Fused) -> None:
    fused.prediction.with_suffix(".json").unlink()
    assert find_reference(fused.prediction) is None
    assert fused.run("--reference", fused.dem) == 0
    assert list(fused.document["scores"]) == ["bicubic", "DEM alone", "prediction"]


def test_no_reference_scores_the_prediction_alone(fused: Fused, capsys: pytest.CaptureFixture[str]) -> None:
    assert fused.run("--no-reference") == 0
    assert list(fused.document["scores"]) == ["prediction"]
    assert "change_from_dem_alone" not in fused.document
    with pytest.raises(SystemExit):
        fused.run("--no-reference", "--reference", fused.dem)
    assert "not allowed with" in capsys.readouterr().err


def spoil_text(fused: Fused) -> str:
    fused.dem.write_text("no raster")
    return "cannot be read"


def spoil_place(fused: Fused) -> str:
    write_raster(fused.dem, heights_of(fused.dem), ORIGIN @ Affine.translation(5000, 0) @ Affine.scale(CELL))
    return "dem.tif"


def spoil_bands(fused: Fused) -> str:
    write_raster(fused.dem, np.stack([heights_of(fused.dem)] * 3), ORIGIN @ Affine.scale(CELL))
    return "3 bands"


@pytest.mark.parametrize("spoil", [spoil_text, spoil_place, spoil_bands])
def test_a_reference_that_cannot_be_used_is_one_line_unless_named_by_hand(
    fused: Fused, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    said = spoil(fused)
    caplog.set_level(logging.WARNING)
    scores = fused.score(find_reference(fused.prediction))
    assert list(scores.overall.scores) == ["prediction"] and list(scores.inputs) == ["prediction", "truth"]
    assert len(caplog.messages) == 1
    assert said in caplog.text and "--reference" in caplog.text and "--no-reference" in caplog.text
    with pytest.raises(UserError, match=said):
        fused.score(find_reference(fused.prediction, fused.dem))


def test_a_reference_named_by_hand_that_is_missing(fused: Fused, capsys: pytest.CaptureFixture[str]) -> None:
    assert fused.run("--reference", fused.folder / "absent.tif") == 2
    assert "absent.tif" in capsys.readouterr().err.splitlines()[-1]
    assert not (fused.folder / "scores").exists()


def test_a_prediction_without_a_place_takes_no_reference(fused: Fused) -> None:
    for path in (fused.prediction, fused.truth):
        write_raster(path, heights_of(path), None, None)
    with pytest.raises(UserError, match="has no CRS"):
        fused.score(FusedReference(fused.dem))


@pytest.mark.parametrize("text", ['{"kind": "relative", "options": {"reference": null}}', "[1]", '{"reference": "a"}'])
def test_a_json_without_a_reference_says_nothing(fused: Fused, text: str, caplog: pytest.LogCaptureFixture) -> None:
    fused.prediction.with_suffix(".json").write_text(text)
    assert find_reference(fused.prediction) is None
    assert not caplog.messages


def test_a_damaged_json_is_said(fused: Fused, caplog: pytest.LogCaptureFixture) -> None:
    fused.prediction.with_suffix(".json").write_text('{"reference": {')
    assert find_reference(fused.prediction) is None
    assert len(caplog.messages) == 1 and "--reference" in caplog.text


def test_an_older_json_without_the_place_is_understood(fused: Fused) -> None:
    path = fused.prediction.with_suffix(".json")
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["reference"]["place"]
    path.write_text(json.dumps(document))
    shutil.copy(fused.dem, path.parent)
    found = find_reference(fused.prediction)
    assert found is not None and found.path == path.parent / "dem.tif"


def test_the_reference_is_read_as_for_the_prediction(fused: Fused) -> None:
    cells = heights_of(fused.dem)
    cells[4:6, 4:7] = 777.0
    write_raster(fused.dem, cells.astype(np.float32), ORIGIN @ Affine.scale(CELL), nodata=-9999)
    fused.predict(reference_nodata=777.0, keep_outliers=True)
    reference = find_reference(fused.prediction)
    assert reference == FusedReference(fused.dem, 777.0, True, by_hand=False)
    found = fused.score(reference)
    assert found.overall.scores["DEM alone"] == pytest.approx(found.overall.scores["prediction"], abs=STORED)
    # Where the DEM is void it has no bicubic height, and that is said.
    lacks = found.pixels["bicubic_lacks"]
    assert 0 < lacks <= 6 * CELL**2 and found.pixels["scored"] == SIDE**2 - lacks
    assert f"{lacks} pixels that only bicubic does not know" in format_scores(found)
    without = FusedReference(fused.dem, None, True)
    assert fused.score(without).overall.scores["DEM alone"]["rmse"] > 2 * found.overall.scores["DEM alone"]["rmse"]


def test_a_relative_prediction_is_aligned_and_the_dem_is_not(fused: Fused) -> None:
    heights = heights_of(fused.truth)
    write_raster(fused.prediction, ((heights - 1000) / 300).astype(np.float32))
    with rasterio.open(fused.prediction, "r+") as target:
        target.update_tags(D3RSMDE_KIND="relative")
    found = fused.score(FusedReference(fused.dem))
    assert [name for name, one in found.alignments.items() if one.fitted] == ["prediction"]
    assert math.isclose(found.overall.scores["prediction"]["rmse"], 0.0, abs_tol=1e-3)
