"""Score stage 1 on the test tiles, and write its priors for stage 2.

python evaluateViT.py --config Config/ViT/J_K_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.build import load_coarse
from Systems.d3rsmde.coarse_run import PRIORS_FOLDER, save_prior
from Utils.config.settings import ViTEvaluationConfig, load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.device import pick_device
from Utils.core.processes import everywhere, on_main, tell
from Utils.data.tiles import TEST_PART, TileDataset, prior_file
from Utils.reports.evaluation import Prediction, check_test_tiles, evaluate
from Utils.reports.evaluation_report import REPORT_FILE, write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score the coarse ViT of D3-RSMDE", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, ViTEvaluationConfig, given.overrides))
        files, ids = on_main(lambda: check_test_tiles(config))
        device = pick_device()
        model = D3RSMDE(coarse=everywhere(lambda: load_coarse(Path(config.checkpoint_path)))).to(device)
        model.optimise(config.precision, config.channels_last, config.compile)
        priors = Path(config.prior_path or Path(config.output_dir) / PRIORS_FOLDER)
        if given.dry_run:
            tell(f"config and dataset are in order: {len(ids)} test tiles, results would go to '{config.output_dir}'")
            return
        dataset = TileDataset(files, ids)
        found = evaluate(
            lambda batch: Prediction({"coarse": model.predict_coarse(batch["image"])}),
            dataset,
            config,
            device,
            on_maps=lambda tile, maps: save_prior(prior_file(priors, TEST_PART, tile), maps["coarse"]),
        )
        facts = {"model": config.checkpoint_path, "prior_path": str(priors)}
        tell(on_main(lambda: write_report(found, config, facts, dataset)))
        tell(f"\nto look at: {Path(config.output_dir) / REPORT_FILE}\ntables, maps and pictures: {config.output_dir}")
        tell(f"priors of the test tiles: {priors}")

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
