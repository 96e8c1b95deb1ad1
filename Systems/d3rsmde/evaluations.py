"""The evaluations of both stages on the test tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Systems.d3rsmde.config import DiffusionEvaluationConfig, ViTEvaluationConfig
from Utils.config.evaluation_keys import EvaluationConfig
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.processes import everywhere, on_main, tell
from Utils.data.published_layout import TEST_PART, prior_file
from Utils.data.test_tiles import check_test_tiles
from Utils.data.tile_sources import part_priors
from Utils.training.priors import PRIORS_FOLDER, save_prior

if TYPE_CHECKING:
    from torch import Tensor

    from Utils.data.sample import Batch
    from Utils.data.tile_dataset import TileDataset
    from Utils.reports.evaluation import Evaluation, Prediction

CEILING = "VAE ceiling"


def evaluate_coarse(config: ViTEvaluationConfig, dry_run: bool) -> None:
    """Score stage 1, and write its priors of the test tiles.

    Raises:
        UserError: tiles, model or results that cannot be read or written.
    """
    everywhere(lambda: _refuse_dem_refiner(config))
    files, ids = on_main(lambda: check_test_tiles(config))
    device = pick_device()

    from Modules.d3rsmde.pipeline import D3RSMDE
    from Systems.d3rsmde.build import load_coarse
    from Utils.data.tile_dataset import TileDataset
    from Utils.reports.evaluation import Prediction, evaluate, make_height_scorer

    model = D3RSMDE(coarse=everywhere(lambda: load_coarse(Path(config.checkpoint_path)))).to(device)
    model.optimise(config.precision, config.channels_last, config.compile)
    if dry_run:
        _describe(config, len(ids))
        return
    priors = Path(config.prior_path or Path(config.output_dir) / PRIORS_FOLDER)
    dataset = TileDataset(files, ids)
    found = evaluate(
        lambda batch: Prediction({"coarse": model.predict_coarse(batch["image"])}),
        dataset,
        config,
        device,
        make_height_scorer(config),
        on_maps=lambda tile, maps: save_prior(prior_file(priors, TEST_PART, tile), maps["coarse"]),
    )
    _report(found, config, {"model": config.checkpoint_path, "prior_path": str(priors)}, dataset)
    tell(f"priors of the test tiles: {priors}")


def evaluate_refiner(config: DiffusionEvaluationConfig, dry_run: bool) -> None:
    """Score stage 2 beside the priors that it refines, and beside its autoencoder's reconstruction of the truth.

    Raises:
        UserError: tiles, priors, model or results that cannot be read or written.
    """
    everywhere(lambda: _refuse_dem_refiner(config))
    prior_path = Path(config.prior_path or config.dataset_path)
    files, ids = on_main(lambda: check_test_tiles(config, prior_path))
    priors = everywhere(lambda: part_priors(prior_path, TEST_PART, files, ids))
    device = pick_device()

    from Modules.d3rsmde.pipeline import reconstruct_maps
    from Systems.d3rsmde.build import load_refiner
    from Systems.d3rsmde.targets import RELATIVE_HEIGHT
    from Utils.data.tile_dataset import TileDataset
    from Utils.reports.evaluation import Prediction, evaluate, make_height_scorer

    model = everywhere(lambda: load_refiner(config)).to(device)
    model.optimise(config.precision, config.channels_last, config.compile)
    if dry_run:
        _describe(config, len(ids))
        return

    def predict(batch: Batch) -> Prediction:
        refinement = model.refine(batch["image"], batch["prior"], keep_steps=config.save_steps)
        steps = {f"step {number}": values for number, values in enumerate(refinement.steps, start=1)}
        shown = {"prior": batch["prior"]} | steps if steps else {}
        return Prediction({"coarse": batch["prior"], "refined": refinement.height}, shown)

    def ceiling(batch: Batch) -> dict[str, Tensor]:
        return {CEILING: reconstruct_maps(model.vae, batch["height"], model.config["margin"])}

    dataset = TileDataset(files, ids, priors, target=RELATIVE_HEIGHT)
    found = evaluate(predict, dataset, config, device, make_height_scorer(config), references=ceiling)
    timesteps = model.scheduler.timesteps.tolist()
    facts = {"model": config.checkpoint_path, "prior_path": str(prior_path), "timesteps": timesteps}
    _report(found, config, facts, dataset, {"coarse": "prior"})


def _describe(config: EvaluationConfig, tiles: int) -> None:
    tell(f"config and dataset are in order: {tiles} test tiles, results would go to '{config.output_dir}'")


def _report(
    found: Evaluation,
    config: EvaluationConfig,
    facts: Mapping[str, Any],
    dataset: TileDataset,
    entries: Mapping[str, str] | None = None,
) -> None:
    """Write the report, and print where everything is."""
    from Utils.reports.evaluation_report import REPORT_FILE, write_report

    tell(on_main(lambda: write_report(found, config, facts, dataset, entries)))
    tell(f"\nto look at: {Path(config.output_dir) / REPORT_FILE}\ntables, maps and pictures: {config.output_dir}")


def _refuse_dem_refiner(config: EvaluationConfig) -> None:
    """Name the tools for a model that draws nothing of an image alone."""
    from Systems.d3rsmde.dem_prior.build import holds_dem_refiner

    if holds_dem_refiner(Path(config.checkpoint_path)):
        raise UserError(
            f"'{config.checkpoint_path}' refines coarse DEMs, and tiles have none; score it with "
            "python -m benchmarks.real_ground, or predict.py --reference and evaluateScene.py"
        )
