"""Score a stereo network on the test samples, beside baselines that need no weights.

python evaluateStereo.py --config Config/Stereo/WHU_MVS_CasMVSNet_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.stereo.config import StereoEvaluationConfig
from Utils.config.config_files import load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score a stereo network", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, StereoEvaluationConfig, given.overrides))
        from Systems.stereo.evaluation import evaluate_stereo

        evaluate_stereo(config, given.dry_run)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
