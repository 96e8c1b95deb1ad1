"""Score stage 2 on the test tiles, beside the priors that it refines.

python evaluateDiffusion.py --config Config/Diffusion/J_K_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.d3rsmde.config import DiffusionEvaluationConfig
from Utils.config.config_files import load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score the refiner of D3-RSMDE", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, DiffusionEvaluationConfig, given.overrides))
        from Systems.d3rsmde.evaluations import evaluate_refiner

        evaluate_refiner(config, given.dry_run)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
