"""evaluateScene.py: what it writes and prints, and each mistake answered by one line that says what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

import evaluateScene
from tests.conftest import full_disk
from tests.Utils.scenes.accuracy_maps import GRID, UTM, terrain, write_dem
from Utils.core.tables import read_csv


class Bench:
    """The script on a prediction and its truth, which a test may spoil."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.output = folder / "results"
        self.prediction = write_dem(folder / "height.tif", terrain() + 1.0)
        self.truth = write_dem(folder / "dem.tif", terrain())
        self._capsys = capsys

    def run(self, *arguments: object) -> tuple[int, str, str]:
        given = ["--prediction", self.prediction, "--truth", self.truth, "--output", self.output, *arguments]
        self._capsys.readouterr()
        status = evaluateScene.main([str(argument) for argument in given])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def refuse(self, *arguments: object) -> str:
        """The one line with which the script refuses, having written nothing."""
        before = {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}
        status, out, err = self.run(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, err
        assert err.splitlines()[-1] == lines[0]
        assert "Traceback" not in out + err
        assert status == 2
        assert {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")} == before
        return lines[0].removeprefix("error: ")


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_everything_is_written_and_the_table_printed(bench: Bench) -> None:
    baseline = write_dem(bench.folder / "reference.tif", terrain() - 4.0)
    status, out, _ = bench.run("--baseline", baseline, "--slope-classes", "10,20", "--error-map")
    assert status == 0
    names = {path.name for path in bench.output.iterdir()}
    assert names == {"metrics.json", "table.md", "classes.csv", "figure.png", "report.html", "errors.tif"}
    assert out.startswith((bench.output / "table.md").read_text(encoding="utf-8"))
    assert str(bench.output) in out
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"]["prediction"]["bias"] == pytest.approx(1.0, abs=1e-3)
    assert document["scores"]["baseline"]["bias"] == pytest.approx(-4.0, abs=1e-3)
    assert document["change"]["rmse"]["percent"] == pytest.approx(-75.0, abs=0.1)
    assert [one["label"] for one in document["slope_classes"]] == ["0-10", "10-20", ">20"]
    assert len(read_csv(bench.output / "classes.csv")) == 4 * 5 + 1
    with Image.open(bench.output / "figure.png") as picture:
        assert picture.width > 1000
    with rasterio.open(bench.output / "errors.tif") as written, rasterio.open(bench.prediction) as prediction:
        assert (written.crs, written.transform, written.shape) == (
            prediction.crs, prediction.transform, prediction.shape,
        )  # fmt: skip
        assert written.dtypes == ("float32",)
        assert written.descriptions == ("error",)
        np.testing.assert_allclose(written.read(1), 1.0, atol=1e-3)


def test_no_error_map_unless_asked(bench: Bench) -> None:
    assert bench.run()[0] == 0
    assert not (bench.output / "errors.tif").exists()


def test_a_second_run_replaces_the_first(bench: Bench) -> None:
    assert bench.run("--error-map")[0] == 0
    write_dem(bench.prediction, terrain() + 2.0)
    assert bench.run("--error-map")[0] == 0
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"]["prediction"]["bias"] == pytest.approx(2.0, abs=1e-3)
    with rasterio.open(bench.output / "errors.tif") as written:
        np.testing.assert_allclose(written.read(1), 2.0, atol=1e-3)


def test_a_relative_prediction_is_called_aligned_everywhere(bench: Bench) -> None:
    write_dem(bench.prediction, (terrain() - 2900.0) / 200.0, tags={"D3RSMDE_KIND": "relative"})
    status, out, _ = bench.run()
    assert status == 0
    assert "aligned to the truth" in out
    assert "prediction, aligned" in out
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["alignments"]["prediction"]["scale"] == pytest.approx(200.0, rel=1e-4)
    assert document["scores"]["prediction"]["rmse"] < 0.01
    assert bench.run("--align", "none")[0] == 0
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"]["prediction"]["rmse"] > 2000
    assert document["alignments"]["prediction"]["aligned"] is False


def test_no_georeference_on_either_side_compares_pixel_by_pixel(bench: Bench) -> None:
    write_dem(bench.prediction, terrain() + 1.0, transform=Affine.identity(), crs=None)
    write_dem(bench.truth, terrain(), transform=Affine.identity(), crs=None)
    status, out, _ = bench.run("--error-map")
    assert status == 0
    assert "No slopes" in out
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["scores"]["prediction"]["bias"] == pytest.approx(1.0, abs=1e-3)
    assert document["scores"]["prediction"]["slope_error_degrees"] is None
    assert document["slope_classes"] == []
    assert (bench.output / "figure.png").is_file()


def test_nodata_of_the_truth_is_taken_from_the_command(bench: Bench) -> None:
    heights = terrain()
    heights[:20] = -32768.0
    write_dem(bench.truth, heights, nodata=None)
    assert bench.run("--nodata=-32768")[0] == 0
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["pixels"]["scored"] == 20 * 50
    assert document["scores"]["prediction"]["rmse"] == pytest.approx(1.0, abs=1e-3)
    assert document["truth"]["nodata"] == -32768.0


# Mistakes


def spoil_missing(bench: Bench) -> None:
    bench.truth.unlink()


def spoil_text(bench: Bench) -> None:
    bench.truth.write_text("no raster")


def spoil_elsewhere(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), transform=GRID @ Affine.translation(1000, 0))


def spoil_elsewhere_in_degrees(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), transform=from_origin(10.0, 50.0, 0.001, 0.001), crs="EPSG:4326")


def spoil_truth_crs(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), crs=None)


def spoil_prediction_crs(bench: Bench) -> None:
    write_dem(bench.prediction, terrain(), transform=Affine.identity(), crs=None)


def spoil_sizes(bench: Bench) -> None:
    write_dem(bench.prediction, terrain(), transform=Affine.identity(), crs=None)
    write_dem(bench.truth, terrain(39, 50), transform=Affine.identity(), crs=None)


def spoil_common_pixels(bench: Bench) -> None:
    left, right = terrain(), terrain()
    left[:, :25], right[:, 25:] = math.nan, math.nan
    write_dem(bench.prediction, left)
    write_dem(bench.truth, right)


def spoil_common_pixels_of_a_relative_one(bench: Bench) -> None:
    write_dem(bench.prediction, np.full((40, 50), math.nan), tags={"D3RSMDE_KIND": "relative"})


def spoil_bands(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), terrain(), terrain())


def spoil_relative_truth(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), tags={"D3RSMDE_KIND": "relative"})


def spoil_kind(bench: Bench) -> None:
    write_dem(bench.prediction, terrain(), tags={"D3RSMDE_KIND": "guess"})


def spoil_unit(bench: Bench) -> None:
    with rasterio.open(bench.truth, "r+") as source:
        source.units = ("kelvin",)


def spoil_complex(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), nodata=None, dtype="complex64")


def spoil_palette(bench: Bench) -> None:
    write_dem(bench.truth, terrain() % 250, nodata=None, dtype="uint8", photometric="palette")


def spoil_area(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), transform=Affine(10.0, 10.0, 0.0, 10.0, 10.0, 0.0))


def spoil_gcps(bench: Bench) -> None:
    places = [(0, 0, 75.0, 34.0), (0, 50, 75.1, 34.0), (40, 0, 75.0, 33.9)]
    with rasterio.open(
        bench.truth, "w", driver="GTiff", height=40, width=50, count=1, dtype="float32", crs="EPSG:4326",
        gcps=[GroundControlPoint(*place) for place in places],
    ) as target:  # fmt: skip
        target.write(terrain(), 1)


def spoil_planet(bench: Bench) -> None:
    mars = "+proj=longlat +a=3396190 +b=3376200 +no_defs"
    write_dem(bench.truth, terrain(), transform=from_origin(75.0, 34.5, 0.01, 0.01), crs=mars)


MISTAKES: dict[str, tuple[Callable[[Bench], None], tuple[str, ...]]] = {
    "missing": (spoil_missing, ("dem.tif: no such file", "check the path")),
    "no raster": (spoil_text, ("dem.tif: cannot be read", "replace it")),
    "elsewhere": (spoil_elsewhere, ("dem.tif'", "does not overlap the prediction", "check both CRSs")),
    "elsewhere, degrees": (spoil_elsewhere_in_degrees, ("does not overlap the prediction", "check both CRSs")),
    "truth without CRS": (spoil_truth_crs, ("dem.tif' has no CRS", "gdal_edit.py")),
    "prediction without CRS": (spoil_prediction_crs, ("height.tif' has no CRS", "gdal_edit.py")),
    "sizes": (spoil_sizes, ("50 x 40", "50 x 39", "georeference both")),
    "no common pixel": (spoil_common_pixels, ("no pixel has a height in all of", "--nodata")),
    "nothing to align": (spoil_common_pixels_of_a_relative_one, ("no pixel has a height in all of",)),
    "bands": (spoil_bands, ("dem.tif: 3 bands", "gdal_translate -b")),
    "relative truth": (spoil_relative_truth, ("relative", "give a DEM in metres")),
    "kind": (spoil_kind, ("'guess'", "relative, offset or metric")),
    "no length": (spoil_unit, ("heights in 'kelvin'", "convert them to metres")),
    "complex": (spoil_complex, ("complex64", "real numbers")),
    "palette": (spoil_palette, ("palette", "give the DEM itself")),
    "no area": (spoil_area, ("pixels of no area", "georeference it anew")),
    "control points": (spoil_gcps, ("control points only", "gdalwarp")),
    "another planet": (spoil_planet, ("dem.tif'", "no way from the prediction's CRS", "reproject")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_by_one_line(bench: Bench, mistake: str) -> None:
    spoil, said = MISTAKES[mistake]
    spoil(bench)
    message = bench.refuse()
    for part in said:
        assert part in message, message


def test_a_baseline_is_checked_like_the_truth(bench: Bench) -> None:
    other = write_dem(bench.folder / "b.tif", terrain(), transform=GRID @ Affine.translation(1000, 0))
    assert "baseline" in bench.refuse("--baseline", other)
    assert "b2.tif: no such file" in bench.refuse("--baseline", bench.folder / "b2.tif")


@pytest.mark.parametrize("classes", ["", "5;15", "15,5", "5,5", "0,10", "10,90", "nan", "-5,10"])
def test_slope_classes_that_are_none(bench: Bench, classes: str) -> None:
    message = bench.refuse(f"--slope-classes={classes}")
    assert message.startswith(f"slope classes '{classes}'")
    assert "5,15,30" in message


def test_a_nodata_value_that_the_truth_cannot_hold(bench: Bench) -> None:
    write_dem(bench.truth, terrain() % 250, nodata=None, dtype="uint8")
    assert "uint8" in bench.refuse("--nodata=-9999")


def test_the_output_must_be_a_folder(bench: Bench) -> None:
    bench.output.write_text("a file")
    assert "is a file; give a folder" in bench.refuse()
    bench.output = bench.output / "within"
    assert "results' is a file; give a folder" in bench.refuse()


def test_no_input_is_overwritten(bench: Bench) -> None:
    bench.output = bench.folder
    bench.truth = bench.truth.rename(bench.folder / "errors.tif")
    assert "would be overwritten" in bench.refuse("--error-map")


def test_a_file_cut_short(bench: Bench) -> None:
    noise = np.random.default_rng(0).normal(size=(600, 600))
    write_dem(bench.prediction, noise)
    write_dem(bench.truth, noise)
    for path in (bench.truth, bench.prediction):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        message = bench.refuse()
        assert path.name in message
        assert "cannot be read" in message
        path.write_bytes(whole)
    grid = GRID @ Affine.translation(0.5, 0.5)
    write_dem(bench.truth, noise, transform=grid)
    bench.truth.write_bytes(bench.truth.read_bytes()[: 600 * 600 * 2])
    assert "dem.tif" in bench.refuse(), "also where the truth is warped"


def test_a_full_disk_while_results_are_written(bench: Bench) -> None:
    with full_disk(20_000):
        status, _, err = bench.run()
    assert status == 2
    assert "figure.png" in err.splitlines()[-1]
    assert "no space left" in err.splitlines()[-1]
    assert not list(bench.output.glob("*.tmp"))
    assert not list(bench.output.glob(".*"))
    assert not (bench.output / "figure.png").exists()
    assert json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))["scores"]


def test_a_full_disk_while_errors_are_written(bench: Bench) -> None:
    write_dem(bench.prediction, np.random.default_rng(0).normal(size=(600, 600)), crs=UTM)
    write_dem(bench.truth, np.zeros((600, 600)))
    with full_disk(200_000):
        status, _, err = bench.run("--error-map")
    assert status == 2
    assert "errors.tif" in err.splitlines()[-1]
    assert not any(bench.output.iterdir())


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluateScene.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    options: list[Any] = [action.option_strings for action in evaluateScene._parser()._actions]
    assert len(options) == 25
    assert all(names[-1] in text for names in options)


# Vertical datums


def test_two_known_datums_are_not_compared_without_the_grid(bench: Bench) -> None:
    write_dem(bench.truth, terrain(), crs="EPSG:32643+5773")
    write_dem(bench.prediction, terrain() + 1.0, tags={"VERTICAL_DATUM": "EPSG:5728"})
    said = bench.refuse()
    assert "EPSG:5773" in said and "EPSG:5728" in said
    assert "EPSG:5728" in bench.refuse("--vertical-datum", "EPSG:5773")
    assert "not a name" in bench.refuse("--truth-datum", "EGM96")


def test_an_unknown_datum_stays_unknown_and_is_written_so(bench: Bench) -> None:
    status, out, _ = bench.run("--truth-datum", "EPSG:5773")
    assert status == 0
    assert "Vertical datum: prediction unknown, truth EPSG:5773; what is unknown was compared as it is." in out
    document = json.loads((bench.output / "metrics.json").read_text(encoding="utf-8"))
    assert document["prediction"]["vertical_datum"]["code"] == "unknown"
    assert document["truth"]["vertical_datum"]["from"] == "--truth-datum"
    assert document["scores"]["prediction"]["bias"] == pytest.approx(1.0, abs=1e-3)
