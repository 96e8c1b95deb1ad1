"""Score stage 2 on the test tiles, beside the priors that it refines.

python evaluateDiffusion.py --config Config/Diffusion/J_K_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from Modules.d3rsmde.pipeline import reconstruct_maps
from Systems.d3rsmde.build import load_refiner
from Utils.config.settings import DiffusionEvaluationConfig, load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.device import pick_device
from Utils.core.processes import everywhere, on_main, tell
from Utils.data.tiles import TEST_PART, Batch, TileDataset, find_priors
from Utils.reports.evaluation import Prediction, check_test_tiles, evaluate
from Utils.reports.evaluation_report import REPORT_FILE, write_report

CEILING = "VAE ceiling"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score the refiner of D3-RSMDE", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, DiffusionEvaluationConfig, given.overrides))
        prior_path = Path(config.prior_path or config.dataset_path)
        files, ids = on_main(lambda: check_test_tiles(config, prior_path))
        priors = everywhere(lambda: find_priors(prior_path, TEST_PART, ids))
        device = pick_device()
        model = everywhere(lambda: load_refiner(config)).to(device)
        model.optimise(config.precision, config.channels_last, config.compile)
        if given.dry_run:
            tell(f"config and dataset are in order: {len(ids)} test tiles, results would go to '{config.output_dir}'")
            return

        def predict(batch: Batch) -> Prediction:
            refinement = model.refine(batch["image"], batch["prior"], keep_steps=config.save_steps)
            return Prediction({"coarse": batch["prior"], "refined": refinement.height}, refinement.steps)

        def ceiling(batch: Batch) -> dict[str, Tensor]:
            return {CEILING: reconstruct_maps(model.vae, batch["height"], model.config["margin"])}

        dataset = TileDataset(files, ids, priors)
        found = evaluate(predict, dataset, config, device, references=ceiling)
        timesteps = model.scheduler.timesteps.tolist()
        facts = {"model": config.checkpoint_path, "prior_path": str(prior_path), "timesteps": timesteps}
        tell(on_main(lambda: write_report(found, config, facts, dataset)))
        tell(f"\nto look at: {Path(config.output_dir) / REPORT_FILE}\ntables, maps and pictures: {config.output_dir}")

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
