"""Score stage 1 on the test tiles, and write its priors for stage 2.

python evaluateViT.py --config Config/ViT/J_K_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.d3rsmde.config import ViTEvaluationConfig
from Utils.config.config_files import load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score the coarse ViT of D3-RSMDE", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, ViTEvaluationConfig, given.overrides))
        from Systems.d3rsmde.evaluations import evaluate_coarse

        evaluate_coarse(config, given.dry_run)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
