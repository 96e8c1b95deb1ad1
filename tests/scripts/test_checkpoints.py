"""evaluateScene.py with checkpoints as truth: the figures of ASPRS 2023, and bad input answered by one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyproj
import pytest

import evaluateScene
from tests.Utils.rasters.test_vertical_datum import write_geoid
from tests.Utils.scenes.accuracy_maps import GRID, write_dem
from Utils.core.tables import read_csv


class Bench:
    """A plane as the map, and checkpoints beside it whose errors are known."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output, self._capsys = folder, folder / "results", capsys
        rows, columns = np.indices((60, 50)) + 0.5
        self.map = write_dem(folder / "dem.tif", 1000.0 + 2.0 * rows + 3.0 * columns)
        rng = np.random.default_rng(5)
        self.rows, self.columns = rng.uniform(1, 59, 40), rng.uniform(1, 49, 40)
        self.errors = rng.normal(0.5, 0.3, 40)
        self.classes = np.where(np.arange(40) < 8, "forest", "bare")

    def table(self, errors: np.ndarray | None = None, count: int = 40) -> Path:
        path = self.folder / "gcps.csv"
        errors = self.errors if errors is None else errors
        heights = 1000.0 + 2.0 * self.rows + 3.0 * self.columns - errors  # an error is map minus checkpoint
        places = [GRID @ place for place in zip(self.columns, self.rows, strict=True)]
        lines = [
            f"{x:.4f},{y:.4f},{z:.6f},{kind},0.1" for (x, y), z, kind in zip(places, heights, self.classes, strict=True)
        ]
        path.write_text("\n".join(["x,y,height,cover,sigma", *lines[:count]]))
        return path

    def run(self, *arguments: object, truth: Path | None = None) -> tuple[int, str, str]:
        given = ["--prediction", self.map, "--truth", truth or self.table(), "--output", self.output]
        self._capsys.readouterr()
        status = evaluateScene.main([str(each) for each in (*given, "--points-crs", "EPSG:32643", *arguments)])
        return status, *self._capsys.readouterr()

    def document(self) -> dict:
        return json.loads((self.output / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_the_figures_of_the_standard(bench: Bench) -> None:
    baseline = write_dem(bench.folder / "vendor.tif", np.full((60, 50), 1100.0))
    given = ["--points-class", "cover", "--vegetated", "forest", "--points-accuracy", "sigma", "--baseline", baseline]
    status, out, _ = bench.run(*given)
    assert status == 0
    found = bench.document()["scores"]["prediction"]
    bare = bench.errors[8:]
    assert found["NVA"]["count"] == 32 and found["VVA"]["count"] == 8 and found["bare"] == found["NVA"]
    assert found["NVA"]["mean"] == pytest.approx(bare.mean(), abs=1e-3)
    assert found["NVA"]["rmse_z"] == pytest.approx(np.sqrt(np.mean(bare**2)), abs=1e-3)
    assert found["NVA"]["rmse_v"] == pytest.approx(np.hypot(found["NVA"]["rmse_z"], 0.1), abs=1e-6)
    assert "more than a quarter of the RMSE" in out
    assert bench.document()["scores"]["baseline"]["all"]["count"] == 40
    assert {path.name for path in bench.output.iterdir()} == {
        "table.md", "metrics.json", "points.csv", "figure.png", "report.html",
    }  # fmt: skip
    rows = read_csv(bench.output / "points.csv")
    assert float(rows[3]["error_of_prediction"]) == pytest.approx(bench.errors[3], abs=1e-3)


def test_fewer_than_thirty_are_scored_and_it_is_said(bench: Bench) -> None:
    status, out, err = bench.run(truth=bench.table(count=12))
    assert status == 0
    assert "12 checkpoints, fewer than" in err and "fewer than the 30" in out


def test_points_beside_the_map_or_on_no_data_are_counted(bench: Bench) -> None:
    bench.rows[:5] += 500.0
    heights = np.where(np.arange(60)[:, None] < 20, np.nan, 1000.0) + np.zeros((60, 50))
    write_dem(bench.map, heights)
    status, out, _ = bench.run()
    assert status == 0
    left_out = bench.document()["left_out"]
    assert left_out["beside_the_scene"] == 5 and left_out["on_pixels_without_data"] > 5
    assert "Left out: 5 beside the scene" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--points-class", "kind"], "kind"),
        (["--points-class", "cover", "--vegetated", "wood"], "no checkpoint has this class; there are bare, forest"),
        (["--stable-ground", "mask.tif"], "needs a raster as --truth"),
        (["--points-crs", "EPSG:32601"], "of 40 points lie on the scene"),
        (["--points-crs", "EPSG:32643+5773", "--vertical-datum", "EPSG:5728"], "EPSG:5773"),
        (["--points-accuracy", "-1"], "give a standard deviation"),
        (["--truth-datum", "EGM96"], "not a name"),
    ],
)
def test_mistakes_get_one_line(arguments: list[str], says: str, bench: Bench) -> None:
    status, out, err = bench.run(*arguments)
    last = err.splitlines()[-1]
    assert status == 2
    assert last.startswith("error: ") and says in last
    assert "Traceback" not in out + err and "--points '" not in last
    assert not bench.output.exists()


def test_unknown_datums_are_written_so(bench: Bench) -> None:
    status, out, _ = bench.run("--truth-datum", "EPSG:5773")
    assert status == 0
    assert "prediction unknown, truth EPSG:5773; what is unknown was compared as it is" in out


def hills(bench: Bench, columns: float, rows: float) -> np.ndarray:
    """Write a map whose pixels show the ground so far beside them, 4 m too high; gives the ground at the points."""

    def ground(column: np.ndarray, row: np.ndarray) -> np.ndarray:
        return 900.0 + 40.0 * np.sin(column / 5.0 + row / 9.0) + 30.0 * np.cos(row / 6.0 - column / 11.0)

    row, column = np.indices((60, 50)) + 0.5
    noise = np.random.default_rng(2).normal(0.0, 0.3, (60, 50))
    write_dem(bench.map, ground(column + columns, row + rows) + 4.0 + noise)
    return ground(bench.columns, bench.rows)


def checkpoints(bench: Bench, heights: np.ndarray) -> Path:
    path = bench.folder / "gcps.csv"
    places = [GRID @ place for place in zip(bench.columns, bench.rows, strict=True)]
    path.write_text(
        "x,y,height\n" + "".join(f"{x},{y},{z}\n" for (x, y), z in zip(places, heights, strict=True))
    )  # fmt: skip
    return path


def test_checkpoints_say_how_a_map_is_shifted(bench: Bench) -> None:
    heights = hills(bench, 0.6, -1.3)
    heights[:8] -= np.linspace(5.0, 25.0, 8)  # a fifth of the ground has grown trees
    status, out, _ = bench.run("--coregister", truth=checkpoints(bench, heights))
    assert status == 0
    shift = bench.document()["coregistration"]["prediction"]
    assert (shift["columns"], shift["rows"]) == pytest.approx((0.6, -1.3), abs=0.1)
    assert shift["metres"] == pytest.approx(-4.0, abs=0.2)
    assert (shift["east"], shift["north"]) == pytest.approx((10 * shift["columns"], -10 * shift["rows"]), rel=0.01)
    before, after = (bench.document()[key] for key in ("before_coregistration", "scores"))
    assert after["prediction"]["all"]["nmad"] < 0.6 < before["scores"]["prediction"]["all"]["nmad"]
    assert out.index("As the files lie") < out.index("After coregistration with the checkpoints")


def test_a_shift_that_checkpoints_do_not_tell_is_refused_with_its_numbers(bench: Bench) -> None:
    status, _, err = bench.run("--coregister")  # a plane slides along its contours
    assert status == 2 and "do not tell the shift (prediction: " in err.splitlines()[-1]
    few = checkpoints(bench, hills(bench, 0.6, -1.3)).read_text().splitlines()[:20]
    (bench.folder / "few.csv").write_text("\n".join(few))
    status, _, err = bench.run("--coregister", truth=bench.folder / "few.csv")
    assert status == 2 and "19 checkpoints lie on heights of prediction; 30 are needed" in err.splitlines()[-1]


def test_a_baseline_of_another_datum_is_brought_over_or_the_grid_is_named(bench: Bench) -> None:
    before = pyproj.datadir.get_data_dir()
    pyproj.datadir.set_data_dir(str(Path(pyproj.__file__).parent / "proj_dir" / "share" / "proj"))
    try:
        rows, columns = np.indices((60, 50)) + 0.5
        plane = 1000.0 + 2.0 * rows + 3.0 * columns
        baseline = write_dem(bench.folder / "ellipsoidal.tif", plane + 40.0, tags={"VERTICAL_DATUM": "EPSG:4979"})
        given = ["--baseline", baseline, "--vertical-datum", "EPSG:5773"]
        status, _, err = bench.run(*given)
        assert status == 2 and "us_nga_egm96_15.tif, which is not installed" in err.splitlines()[-1]
        write_geoid(bench.folder, "us_nga_egm96_15.tif", 40.0)
        pyproj.datadir.append_data_dir(str(bench.folder))
        status, out, _ = bench.run(*given)
        assert status == 0 and "baseline: heights brought from EPSG:4979 to EPSG:5773" in out
        found = bench.document()["scores"]
        # The made geoid is 40 m at longitude 0 and a hundredth more with each degree; the map lies near 75 east.
        difference = found["prediction"]["all"]["mean"] - found["baseline"]["all"]["mean"]
        assert difference == pytest.approx(0.75, abs=0.02)
    finally:
        pyproj.datadir.set_data_dir(before)
