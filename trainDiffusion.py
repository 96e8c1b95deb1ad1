"""Train stage 2, the refiner: its VAE where asked for, then the U-Net.

python trainDiffusion.py --config Config/Diffusion/J_K_train.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from Systems.d3rsmde.refiner_run import check_refiner, run_refiner
from Utils.config.settings import DiffusionTrainingConfig
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere, on_main, tell
from Utils.training.run_folder import default_folder, describe_plan, resolve_config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("train the refiner of D3-RSMDE", resumable=True), arguments)

    def work() -> None:
        config = everywhere(
            lambda: resolve_config(given.config, given.resume, given.overrides, DiffusionTrainingConfig)
        )
        folder = given.resume or Path(config.output_dir or default_folder("Diffusion", given.config))
        if given.dry_run:
            setup = on_main(lambda: check_refiner(config))
            tell(describe_plan(setup.plan, setup.check, folder, config))
        else:
            run_refiner(config, folder, resume=given.resume is not None)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
