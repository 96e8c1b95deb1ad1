"""What the tests of reports put into them: pictures of one colour, small evaluations, and scores of many tiles."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from Systems.d3rsmde.targets import RELATIVE_HEIGHT
from tests.conftest import TEST, height_path, image_path, prior_path, write_prior, write_raster, write_tile
from Utils.config.evaluation_keys import EvaluationConfig
from Utils.data.published_layout import TileFiles, find_priors, list_tiles
from Utils.data.sample import Batch
from Utils.data.tile_dataset import TileDataset
from Utils.rasters.tile_files import write_map_float
from Utils.reports.evaluation import Evaluation, Prediction, evaluate, make_height_scorer, map_file
from Utils.reports.evaluation_report import choose_examples, write_report
from Utils.scoring.aligned import ALIGNED
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.paper import PAPER

CEILING = "VAE ceiling"


def picture(
    colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (300, 200), kind: str = "PNG"
) -> bytes:
    """A picture of one colour, ``size`` being width and height."""
    buffer = io.BytesIO()
    Image.new("RGB", size, tuple(colour)).save(buffer, format=kind)
    return buffer.getvalue()


def test_part(folder: Path, ids: Sequence[str], size: int = 32, empty: Sequence[str] = ()) -> Path:
    """A dataset with test tiles alone, with priors; ``empty`` tiles have no valid height."""
    for tile in ids:
        write_tile(folder, tile, TEST, size)
        write_prior(folder, tile, TEST, size)
    for tile in empty:
        write_raster(height_path(folder, tile, TEST), np.zeros((size, size), np.uint8), nodata=0)
    return folder


test_part.__test__ = False  # type: ignore[attr-defined]


def run_evaluation(
    dataset: Path, results: Path, stages: int = 2, **settings: Any
) -> tuple[Evaluation, EvaluationConfig, TileDataset]:
    """Score the priors of a dataset's test tiles, and with two stages maps between them and the truth."""
    given = {"dataset_path": str(dataset), "output_dir": str(results), "checkpoint_path": str(results), "pictures": 0}
    config = EvaluationConfig.model_validate(given | {"batch_size": 3} | settings)
    files = list_tiles(dataset, TEST)
    tiles = TileDataset(files, list(files), find_priors(dataset, TEST, list(files)), target=RELATIVE_HEIGHT)

    def predict(batch: Batch) -> Prediction:
        refined = 0.4 * batch["prior"] + 0.6 * batch["height"]
        return Prediction({"coarse": batch["prior"]} | ({"refined": refined} if stages == 2 else {}))

    references = (lambda batch: {CEILING: 0.1 * batch["prior"] + 0.9 * batch["height"]}) if stages == 2 else None
    kept = {} if references is None else {"references": references}
    return evaluate(predict, tiles, config, torch.device("cpu"), make_height_scorer(config), **kept), config, tiles


def write_evaluation(dataset: Path, results: Path, stages: int = 2, **settings: Any) -> Path:
    """The same with its report, whose path is returned."""
    found, config, tiles = run_evaluation(dataset, results, stages, **settings)
    write_report(found, config, {"model": config.checkpoint_path, "timesteps": [2, 1, 0]}, tiles, {"coarse": "prior"})
    return results / "report.html"


def rugged(size: int, seed: int) -> NDArray[np.float32]:
    """Terrain in [0, 1], rougher than real one at every scale: pictures of it compress badly."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequencies[0, 0] = np.inf
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(size, size)))
    field = np.fft.irfft2(noise / frequencies**1.5, s=(size, size))
    return ((field - field.min()) / np.ptp(field)).astype(np.float32)


def write_large_evaluation(folder: Path, count: int = 5000, size: int = 512) -> Path:
    """A report of scores that were drawn at random, with two maps of ``count`` tiles; returns its path.

    All tiles share the files of one: the page shows pictures of few of them, whatever their number.
    """
    truth = rugged(size, 0)
    levels = np.rint(truth * 255).astype(np.uint8)
    dataset = folder / "dataset"
    write_raster(height_path(dataset, "1", TEST), levels)
    write_raster(image_path(dataset, "1", TEST), np.stack([levels, levels[::-1], levels[:, ::-1]]))
    write_raster(prior_path(dataset, "1", TEST), np.rint(rugged(size, 1) * 65535).astype(np.uint16))
    ids = [f"{number}" for number in range(1, count + 1)]
    files = TileFiles(image_path(dataset, "1", TEST), height_path(dataset, "1", TEST))
    tiles = TileDataset(dict.fromkeys(ids, files), ids, dict.fromkeys(ids, prior_path(dataset, "1", TEST)))
    found = random_scores(ids)
    results = folder / "results"
    given = {"dataset_path": str(dataset), "output_dir": str(results), "checkpoint_path": str(folder)}
    config = EvaluationConfig.model_validate(given)
    guess = 0.7 * truth + 0.3 * rugged(size, 2)
    for tile in (tile for chosen in choose_examples(found).values() for tile in chosen):
        path = map_file(results, tile, config.map_format)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map_float(path, guess)
    write_report(found, config, {}, tiles, {"coarse": "prior"})
    return results / "report.html"


def random_scores(ids: Sequence[str], seed: int = 0) -> Evaluation:
    """Scores of two maps, every hundredth missing."""
    rng = np.random.default_rng(seed)
    found = Evaluation(HeightScorer(), ids=list(ids))
    keys = [f"paper.{metric.key}" for metric in PAPER] + [f"aligned.{metric.key}" for metric in ALIGNED]
    for name in ("coarse", "refined"):
        values = rng.gamma(4.0, 5.0, size=(len(ids), len(keys)))
        values[::100] = math.nan
        values[:, keys.index("aligned.slope_error_degrees")] = math.nan
        found.rows[name] = [dict(zip(keys, row, strict=True)) for row in values.tolist()]
    return found
