"""Score a depth network on the test tiles.

python evaluateDepth.py --config Config/Depth/NYU_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.depth.config import DepthEvaluationConfig
from Utils.config.config_files import load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score a depth network", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, DepthEvaluationConfig, given.overrides))
        from Systems.depth.evaluation import evaluate_depth

        evaluate_depth(config, given.dry_run)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
