"""A refiner of DEMs: its samples, its training by trainDiffusion.py, and its model in predict.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import evaluateDiffusion
import evaluateViT
import predict
import trainDiffusion
from Systems.d3rsmde.dem_prior.config import DrawsSection, GroundSection
from Systems.d3rsmde.dem_prior.draws import DrawnDems, draw
from Systems.d3rsmde.dem_prior.ground import Ground, Grounds
from Systems.models import load_detail_model, load_predictor
from tests.conftest import write_config, write_tile
from tests.scenes import ORIGIN, landscape, write_raster
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.data.published_layout import TRAINING_PART
from Utils.data.tile_sources import part_tiles

SIDE = 64
DRAWS = DrawsSection(factors=[4, 8], draws=2)


def lit(truth: NDArray[np.float64]) -> NDArray[np.uint8]:
    """An image (3, H, W) of heights in metres that is lit from one side."""
    down, across = np.gradient(truth)
    return np.clip(128 + 2.5 * (down + across), 1, 255).astype(np.uint8)[None].repeat(3, axis=0)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """An image and the true heights of the same ground, in metres."""
    truth = 500.0 + 300.0 * landscape(96, 160, seed=1)
    image = write_raster(tmp_path / "image.tif", lit(truth))
    return image, write_raster(tmp_path / "truth.tif", truth.astype(np.float32))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for tile in ("1", "2", "3"):
        write_tile(tmp_path / "tiles", tile, size=SIDE)
    return tmp_path / "tiles"


def grounds(dataset: Path, scenes: tuple[GroundSection, ...] = (), synthetic: int = 0) -> Grounds:
    return Grounds(part_tiles(dataset, TRAINING_PART), scenes, synthetic, seed=0)


def config(dataset: Path, tmp_path: Path, **changes) -> Path:
    small = {
        "dataset_path": str(dataset),
        "output_dir": str(tmp_path / "run"),
        "prior": "dem",
        "batch_size": 2,
        "max_steps": 3,
        "crop_size": 32,
        "flips": ["horizontal"],
        "dem": {"factors": [4, 8], "draws": 2},
        "model": {"block_out_channels": [8, 16]},
    }
    return write_config(tmp_path / "config.json", small | changes)


def test_a_sample_is_the_same_again_and_kept(dataset: Path, tmp_path: Path) -> None:
    def samples(folder: str) -> DrawnDems:
        return DrawnDems(grounds(dataset), ["1", "2"], DRAWS, tmp_path / folder, 32, seed=5)

    first, again = samples("a"), samples("b")
    assert len(first) == 4
    for place in range(4):
        one, other = first[place], again[place]
        assert one["id"] == other["id"]
        for name in ("surface", "error", "relief", "truth", "image"):
            assert np.array_equal(one[name], other[name])
        assert one["surface"].shape == (1, *one["image"].shape[-2:]) and min(one["image"].shape[-2:]) >= 32
    files = sorted((tmp_path / "a").iterdir())
    times = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 4 and samples("a")[2]["surface"].equal(first[2]["surface"])
    assert [path.stat().st_mtime_ns for path in files] == times
    # The draws differ.
    assert not np.array_equal(first[0]["surface"], first[1]["surface"])


def test_a_damaged_sample_is_made_again(dataset: Path, tmp_path: Path) -> None:
    samples = DrawnDems(grounds(dataset), ["1"], DRAWS, tmp_path / "a", 32, seed=5)
    whole = samples[0]
    (path,) = [path for path in (tmp_path / "a").iterdir()]
    path.write_bytes(path.read_bytes()[:100])
    assert DrawnDems(grounds(dataset), ["1"], DRAWS, tmp_path / "a", 32, seed=5)[0]["truth"].equal(whole["truth"])


def test_what_a_sample_shows_is_the_ground() -> None:
    truth = 500.0 + 300.0 * landscape(128, 128, seed=2)
    clean = DRAWS.model_copy(update={"factors": [8], "least_noise": 1e-4, "most_noise": 1e-4, "voids": 0.0})
    clean = clean.model_copy(update={"displaced": 0.0, "correlated": 0.0})
    found = draw(Ground(truth, lit(truth) / np.float32(255)), clean, 32, np.random.default_rng(0), "x")
    error = (found["surface"] - found["truth"])[0]
    # Means over cells are right, and what is wrong within them is about as large as the standard error says.
    assert np.abs(error.reshape(16, 4, 16, 4).mean(axis=(1, 3))).max() < 0.1 * found["truth"].std()
    assert 0.4 < error.std() / found["error"].mean() < 2.0
    # The relief from shading is part of what is missing.
    assert np.corrcoef(found["relief"].ravel(), -error.ravel())[0, 1] > 0.5
    alone = draw(Ground(truth, None), clean, 32, np.random.default_rng(0), "x")
    assert np.array_equal(alone["surface"], found["surface"])
    assert not alone["image"].any() and not alone["relief"].any()


def test_unknown_heights_stay_unknown() -> None:
    truth = 500.0 + 300.0 * landscape(64, 64, seed=2)
    truth[20:36, 8:24] = np.nan
    found = draw(Ground(truth, None), DRAWS, 32, np.random.default_rng(1), "x")
    assert np.isnan(found["truth"]).mean() == pytest.approx(np.isnan(truth).mean(), abs=0.05)
    assert np.isfinite(found["surface"]).all() and np.isfinite(found["error"]).all()


def test_scenes_of_any_size_and_grid_are_ground(dataset: Path, tmp_path: Path, scene: tuple[Path, Path]) -> None:
    image, height = scene
    with rasterio.open(image) as source:
        bands = source.read()
    # The same image on pixels half as wide.
    fine = write_raster(tmp_path / "fine.tif", bands.repeat(2, axis=1).repeat(2, axis=2), ORIGIN @ ORIGIN.scale(0.5))
    files = ((image, height), (fine, height), (None, height))
    given = tuple(GroundSection(height=str(dem), image=None if one is None else str(one)) for one, dem in files)
    found = grounds(dataset, given, synthetic=1)
    same, finer, alone, synthetic = (found.read(name) for name in found.further)
    assert same.image is not None and finer.image is not None and alone.image is None
    assert np.array_equal(same.heights, alone.heights) and same.heights.shape == (96, 160)
    inside = np.s_[:, 4:-4, 4:-4]
    assert np.corrcoef(same.image[inside].ravel(), finer.image[inside].ravel())[0, 1] > 0.99
    assert synthetic.image is not None and synthetic.heights.std() > 10
    assert np.array_equal(found.read(found.further[-1]).heights, synthetic.heights)


def test_a_large_dem_is_taken_in_parts_and_its_empty_parts_left_out(dataset: Path, tmp_path: Path) -> None:
    heights = gaussian_filter(np.random.default_rng(0).standard_normal((1100, 1500)), 3).astype(np.float32)
    heights[:, :750] = -9999
    dem = write_raster(tmp_path / "dem.tif", heights, nodata=-9999)
    found = grounds(dataset, (GroundSection(height=str(dem)),))
    assert len(found.further) == 2
    assert [found.read(name).heights.shape for name in found.further] == [(550, 750)] * 2


def test_it_is_trained_and_predicts(dataset: Path, tmp_path: Path, scene: tuple[Path, Path], capsys) -> None:
    image, height = scene
    settings = config(dataset, tmp_path, scenes=[{"height": str(height), "image": str(image)}])
    assert trainDiffusion.main(["--config", str(settings)]) == 0
    run = tmp_path / "run"
    log = [json.loads(line) for line in (run / "refiner" / "log.jsonl").read_text().splitlines()]
    assert 0.5 < log[-1]["validation/detail.rmse"] < 1.5 and log[-1]["train/detail"] > 0
    # Going on with a finished run trains nothing, and needs no config.
    assert trainDiffusion.main(["--resume", str(run)]) == 0
    with rasterio.open(height) as source:
        cells = source.read(1).reshape(12, 8, 20, 8).mean(axis=(1, 3))
    dem = write_raster(tmp_path / "dem.tif", cells, ORIGIN @ ORIGIN.scale(8))
    output = tmp_path / "fine.tif"
    command = ["--model", str(run), "--input", str(image), "--output", str(output), "--reference", str(dem)]
    capsys.readouterr()
    assert predict.main(command) == 0
    assert "% of the model's detail" in capsys.readouterr().out
    document = json.loads(output.with_suffix(".json").read_text())
    assert document["model"]["predicts"] == "detail of a DEM" and set(document["reference"]["gain"]) == {
        "model",
        "shading",
    }
    with rasterio.open(output) as found, rasterio.open(height) as true:
        assert np.sqrt(((found.read(1) - true.read(1)) ** 2).mean()) < 0.3 * true.read(1).std()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from Modules.d3rsmde.dem_refiner import DemRefiner

    DemRefiner((8, 16)).save_pretrained(tmp_path / "refiner")
    return tmp_path / "refiner"


def test_a_model_alone_is_opened_and_draws(model: Path) -> None:
    refiner = load_detail_model(model, pick_device())
    surface = np.random.default_rng(0).standard_normal((40, 36)).astype(np.float32)
    drawn = refiner.draw(surface, np.ones_like(surface), surface, np.stack([surface] * 3))
    assert drawn.shape == surface.shape and refiner.describe()["name"] == "refiner"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ([], "give --reference"),
        (["--reference", "{dem}", "--uncertainty"], "turns tiles, and this model draws none"),
        (["--reference", "{dem}", "--tile-size", "64"], "--tile-size: the model"),
        (["--reference", "{dem}", "--steps", "2"], "--steps: the model"),
    ],
)
def test_what_only_tiles_have_is_refused(
    model: Path, scene: tuple[Path, Path], tmp_path: Path, capsys, added: list[str], said: str
) -> None:
    image, height = scene
    given = [text.format(dem=height) for text in added]
    command = ["--model", str(model), "--input", str(image), "--output", str(tmp_path / "x.tif"), *given]
    assert predict.main(command) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "x.tif").exists()


def test_other_tools_say_that_it_needs_a_dem(model: Path) -> None:
    with pytest.raises(UserError, match="refines coarse DEMs"):
        load_predictor(model, pick_device())


@pytest.mark.parametrize("script", [evaluateViT, evaluateDiffusion])
def test_evaluations_of_tiles_name_the_tools_for_it(
    script: ModuleType, model: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    keys = {"dataset_path": str(dataset), "output_dir": str(tmp_path / "x"), "checkpoint_path": str(model)}
    assert script.main(["--config", str(write_config(tmp_path / "evaluate.json", keys))]) == 2
    assert "benchmarks.real_ground" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_size": 96}, "24 cells of 4 pixels are needed"),
        ({"scenes": [{"height": "none.tif"}]}, "'none.tif' cannot be read"),
        ({"prior": "map"}, "key 'prior'"),
        ({"dem": {"least_noise": 0.5, "most_noise": 0.1}}, "least_noise 0.5 is more than most_noise 0.1"),
        ({"dem": {"factors": [6]}}, "multiple of 4"),
        ({"vae_type": "AutoencoderKL"}, "unknown key 'vae_type'"),
    ],
)
def test_bad_configs_are_refused(dataset: Path, tmp_path: Path, capsys, changes: dict, said: str) -> None:
    assert trainDiffusion.main(["--config", str(config(dataset, tmp_path, **changes))]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_image_and_heights_that_do_not_fit_are_refused(dataset: Path, tmp_path: Path, capsys) -> None:
    image = write_raster(tmp_path / "image.tif", np.ones((3, 40, 40), np.uint8), None, None)
    height = write_raster(tmp_path / "truth.tif", np.zeros((50, 40), np.float32), None, None)
    settings = config(dataset, tmp_path, scenes=[{"height": str(height), "image": str(image)}])
    assert trainDiffusion.main(["--config", str(settings)]) == 2
    assert "40 x 50" in capsys.readouterr().err
