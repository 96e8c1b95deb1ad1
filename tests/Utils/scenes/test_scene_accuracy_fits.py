"""Heights that are fitted, uncertainties beside their errors, and changes against a baseline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject

from tests.Utils.scenes.accuracy_maps import (
    GRID,
    STORED,
    UTM,
    Floats,
    as_stored,
    score,
    terrain,
    write_dem,
    written_out,
)
from Utils.scenes.accuracy import error_statistics as statistics
from Utils.scenes.accuracy import height_grid
from Utils.scenes.accuracy.accuracy_tables import write_tables
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION, SceneScores
from Utils.scenes.accuracy.scene_scoring import score_scene

# HeightFit


def test_relative_heights_are_fitted_and_it_is_said(tmp_path: Path) -> None:
    truth = terrain()
    relative = (truth - truth.min()) / np.ptp(truth)
    path = write_dem(tmp_path / "p.tif", relative, tags={"D3RSMDE_KIND": "relative"})
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    line = found.alignments[PREDICTION]
    assert line.fitted
    # 24 bits of [0, 1] over some 100 m.
    assert line.scale == pytest.approx(np.ptp(truth), rel=1e-5)
    assert line.shift == pytest.approx(truth.min(), abs=1e-2)
    assert found.overall.scores[PREDICTION]["rmse"] < STORED
    document = found.to_document()
    assert document["prediction"]["kind"] == "relative"
    assert document["alignments"][PREDICTION]["aligned"] is True
    assert "aligned" in document["alignments"][PREDICTION]["how"]
    table = write_tables(found, tmp_path)
    assert table.startswith("prediction: aligned to the truth by one least-squares scale (>= 0) and shift")
    assert "| prediction, aligned |" in table


def test_metres_of_unknown_level_get_a_shift_alone(tmp_path: Path) -> None:
    truth = terrain()
    path = write_dem(tmp_path / "p.tif", 0.5 * (truth - truth.min()), tags={"D3RSMDE_KIND": "offset"})
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    line = found.alignments[PREDICTION]
    assert line.fitted and line.scale == 1.0
    # Half of the relief is missing, and no scale may hide it.
    assert found.overall.scores[PREDICTION]["rmse"] == pytest.approx(0.5 * truth.std(), rel=1e-3)
    assert found.overall.scores[PREDICTION]["bias"] == pytest.approx(0.0, abs=1e-3)
    assert "one shift" in found.to_document()["alignments"][PREDICTION]["how"]


def test_metric_heights_are_taken_as_they_are_unless_asked(tmp_path: Path) -> None:
    truth = terrain()
    prediction = 0.8 * truth + 500.0
    alone = score(tmp_path, prediction, truth)
    assert not alone.alignments[PREDICTION].fitted
    assert alone.overall.scores[PREDICTION]["bias"] == pytest.approx((prediction - truth).mean(), abs=STORED)
    fitted = score(tmp_path, prediction, truth, align="affine")
    assert fitted.alignments[PREDICTION].scale == pytest.approx(1.25, rel=1e-5)
    assert fitted.overall.scores[PREDICTION]["rmse"] < 2 * STORED
    path = write_dem(tmp_path / "r.tif", prediction, tags={"D3RSMDE_KIND": "relative"})
    none = score_scene(path, tmp_path / "truth.tif", align="none")
    assert none.overall.scores[PREDICTION] == alone.overall.scores[PREDICTION]


def test_hills_for_valleys_get_scale_zero(tmp_path: Path) -> None:
    truth = terrain()
    line = score(tmp_path, -truth, truth, align="affine").alignments[PREDICTION]
    assert (line.scale, line.shift) == (0.0, pytest.approx(truth.mean(), abs=STORED))
    flat = score(tmp_path, np.full(truth.shape, 7.0), truth, align="affine").alignments[PREDICTION]
    assert (flat.scale, flat.shift) == (0.0, pytest.approx(truth.mean(), abs=STORED))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 300), min_size=1, max_size=6), st.floats(-1e5, 1e5))
def test_a_line_fitted_in_parts_is_that_of_the_whole(seed: int, sizes: list[int], far: float) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.normal(far, 3.0, size) for size in sizes]
    truths = [0.7 * part + generator.normal(5.0, 1.0, part.size) for part in parts]
    fit = statistics.LineFit()
    for part, truth in zip(parts, truths, strict=True):
        fit.add(part, truth)
    heights, truth = np.concatenate(parts), np.concatenate(truths)
    assert fit.count == heights.size
    if heights.size < 3:
        return
    centred = heights - heights.mean()
    scale = max(float((centred * (truth - truth.mean())).sum() / (centred**2).sum()), 0.0)
    line = fit.line()
    # 1e5 off zero costs five digits of sixteen, squared in the moments about a mean.
    assert line.scale == pytest.approx(scale, rel=1e-7, abs=1e-7)
    assert line.scale * heights.mean() + line.shift == pytest.approx(truth.mean(), rel=1e-12, abs=1e-9)


# Uncertainty


def uncertain(tmp_path: Path, stated: float, **tags: str) -> SceneScores:
    """A prediction with normal errors whose true deviation is 1 to 5 m; the band states ``stated`` times that."""
    truth = terrain(300, 400)
    generator = np.random.default_rng(5)
    sigma = generator.uniform(1.0, 5.0, truth.shape)
    prediction = truth + generator.normal(0.0, 1.0, truth.shape) * sigma
    path = write_dem(
        tmp_path / "p.tif", prediction, stated * sigma, names=("height", "uncertainty"),
        tags={"D3RSMDE_KIND": "metric"},
    )  # fmt: skip
    return score_scene(path, write_dem(tmp_path / "t.tif", truth))


def test_a_calibrated_uncertainty_covers_what_it_should(tmp_path: Path) -> None:
    coverage = uncertain(tmp_path, 1.0).coverage
    assert coverage is not None
    n = coverage.pixels
    assert n == 300 * 400
    # Four binomial standard errors.
    assert coverage.within_68 == pytest.approx(0.6827, abs=4 * math.sqrt(0.6827 * 0.3173 / n))
    assert coverage.within_95 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / n))
    assert coverage.mean_sigma == pytest.approx(3.0, abs=4 * 4 / math.sqrt(12 * n))
    assert coverage.rms_sigma == pytest.approx(coverage.rmse, rel=0.02)
    assert coverage.factor_68 == pytest.approx(1.0, abs=0.02)
    assert len(coverage.deciles) == 10
    for row in coverage.deciles:
        assert row["share"] == pytest.approx(0.1, abs=1e-4)
        assert row["sigma_low"] <= row["rms_sigma"] <= row["sigma_high"]
        # Four standard errors of the deviation of 12,000 normal errors.
        assert row["rmse"] == pytest.approx(row["rms_sigma"], rel=4 / math.sqrt(2 * 12_000))
    # Over the whole range, 1 to 5 m, not one part of it.
    assert coverage.deciles[0]["rms_sigma"] < 1.4
    assert coverage.deciles[-1]["rms_sigma"] > 4.6


def test_a_boastful_uncertainty_is_found_out(tmp_path: Path) -> None:
    coverage = uncertain(tmp_path, 0.5).coverage
    assert coverage is not None
    # P(|z| < 0.5) and P(|z| < 0.98) of a normal variable.
    assert coverage.within_68 == pytest.approx(0.3829, abs=0.006)
    assert coverage.within_95 == pytest.approx(0.6729, abs=0.006)
    assert coverage.factor_68 == pytest.approx(2.0, abs=0.03)


def test_uncertainty_is_scaled_with_the_heights(tmp_path: Path) -> None:
    truth = terrain(120, 120)
    generator = np.random.default_rng(6)
    relative = (truth + generator.normal(0.0, 2.0, truth.shape) - 3000.0) / 400.0
    path = write_dem(
        tmp_path / "p.tif", relative, np.full(truth.shape, 2.0 / 400.0), names=("height", "uncertainty"),
        tags={"D3RSMDE_KIND": "relative"},
    )  # fmt: skip
    coverage = score_scene(path, write_dem(tmp_path / "t.tif", truth)).coverage
    assert coverage is not None
    # Noise in the regressor draws the fitted scale a little below 400.
    assert coverage.mean_sigma == pytest.approx(2.0, rel=0.02)
    assert coverage.within_68 == pytest.approx(0.6827, abs=0.03)
    assert len(coverage.deciles) == 1, "one sigma everywhere is one part"


def test_pixels_without_an_uncertainty_are_left_out_of_its_shares(tmp_path: Path) -> None:
    truth = terrain()
    sigma = np.full(truth.shape, 2.0)
    sigma[:10], sigma[10] = np.nan, -1.0
    prediction = truth + np.where(np.arange(50) % 2 == 0, 1.0, 3.0)
    path = write_dem(
        tmp_path / "p.tif", prediction, sigma, names=("height", "Uncertainty"), tags={"D3RSMDE_KIND": "metric"}
    )
    found = score_scene(path, write_dem(tmp_path / "t.tif", truth))
    assert found.coverage is not None
    assert found.coverage.pixels == 29 * 50
    assert found.coverage.within_68 == 0.5
    assert found.coverage.within_95 == 1.0
    assert found.pixels["scored"] == 2000


# Beside a baseline


def test_the_baseline_is_brought_on_bicubically(tmp_path: Path) -> None:
    """It scores as GDAL's own cubic resampling of all of it at once does."""
    truth = as_stored(terrain(48, 64))
    coarse = truth.reshape(12, 4, 16, 4).mean(axis=(1, 3)).astype(np.float32)
    grid = GRID @ Affine.scale(4)
    baseline = write_dem(tmp_path / "b.tif", coarse, transform=grid)
    found = score(tmp_path, truth + 1.0, truth, baseline=baseline)
    cubic = np.full(truth.shape, np.nan, np.float32)
    options = {"src_crs": UTM, "dst_crs": UTM, "src_transform": grid, "dst_transform": GRID, "dst_nodata": np.nan}
    # Unless told, GDAL guesses the ratio of the grids from the windows' sizes.
    reproject(coarse, cubic, resampling=Resampling.cubic, XSCALE=1, YSCALE=1, **options)
    expected = written_out(cubic.astype(np.float64), truth)
    assert found.overall.scores[BASELINE] == pytest.approx(expected, rel=1e-4, abs=STORED)
    assert found.inputs[BASELINE]["resampling"] == "cubic"


def test_changes_and_their_paired_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over blocks of one size the jackknife of a mean is the textbook's standard error of paired differences."""
    monkeypatch.setattr(statistics, "BLOCK", 16)
    monkeypatch.setattr(height_grid, "WINDOW", 32)
    truth = as_stored(terrain(64, 80))
    generator = np.random.default_rng(8)
    blocks = np.kron(generator.normal(0.0, 2.0, (4, 5)), np.ones((16, 16)))
    prediction = as_stored(truth + blocks + generator.normal(0.0, 1.0, truth.shape))
    baseline = as_stored(truth + 1.5 * blocks + generator.normal(0.0, 2.0, truth.shape))
    found = score(tmp_path, prediction, truth, baseline=write_dem(tmp_path / "b.tif", baseline))
    before, after = found.overall.scores[BASELINE], found.overall.scores[PREDICTION]
    change = found.overall.change
    for key in ("mae", "rmse", "nmad", "le90", "slope_error_degrees", "gradient_error", "aspect_error_degrees"):
        assert change[key]["change"] == pytest.approx(after[key] - before[key])
        assert change[key]["percent"] == pytest.approx(100 * (after[key] / before[key] - 1))
    assert "bias" not in change

    def cut(values: Floats) -> Floats:
        return values.reshape(4, 16, 5, 16).swapaxes(1, 2).reshape(20, 256)

    assert found.blocks == 20
    differences = (np.abs(cut(prediction - truth)) - np.abs(cut(baseline - truth))).mean(axis=1)
    assert change["mae"]["standard_error"] == pytest.approx(differences.std(ddof=1) / math.sqrt(20), rel=1e-9)
    # Of a root, the same with one block left out at a time.
    squares = [(cut(values - truth) ** 2).sum(axis=1) for values in (prediction, baseline)]
    left = np.array([np.subtract(*(math.sqrt((s.sum() - s[k]) / (19 * 256)) for s in squares)) for k in range(20)])
    expected = math.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    assert change["rmse"]["standard_error"] == pytest.approx(expected, rel=1e-9)
    assert change["slope_error_degrees"]["standard_error"] > 0
    assert math.isnan(change["nmad"]["standard_error"])


def test_the_standard_error_tells_how_much_changes_scatter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many scenes drawn alike the changes of RMSE scatter by about what each scene states."""
    monkeypatch.setattr(statistics, "BLOCK", 8)
    monkeypatch.setattr(height_grid, "WINDOW", 64)
    generator = np.random.default_rng(9)
    truth = terrain(64, 64)
    changes, stated = [], []
    for _ in range(60):
        # Errors of a block go together, as neighbours' do.
        common = np.kron(generator.normal(0.0, 1.0, (8, 8)), np.ones((8, 8)))
        own = generator.normal(0.0, 1.0, (2, 64, 64))
        baseline = write_dem(tmp_path / "b.tif", truth + 2 * common + own[0])
        found = score(tmp_path, truth + common + own[1], truth, baseline=baseline).overall.change["rmse"]
        changes.append(found["change"])
        stated.append(found["standard_error"])
    # The deviation of 60 numbers is known to 9 %; three of those.
    assert np.std(changes, ddof=1) == pytest.approx(np.mean(stated), rel=0.28)


def test_one_block_has_no_standard_error(tmp_path: Path) -> None:
    found = score(tmp_path, terrain() + 1, terrain(), baseline=write_dem(tmp_path / "b.tif", terrain() + 2))
    assert math.isnan(found.overall.change["rmse"]["standard_error"])
    assert found.overall.change["rmse"]["percent"] == pytest.approx(-50.0, abs=0.1)
