"""Score a network of land cover, write its class maps, or a submission to LoveDA's challenge.

python evaluateSegmentation.py --config Config/Segmentation/LoveDA_U2R_convnext_b_s_evaluate.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.segmentation.config import SegmentationEvaluationConfig
from Utils.config.config_files import load_config
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = parse_arguments(config_parser("score a network of land cover", resumable=False), arguments)

    def work() -> None:
        config = everywhere(lambda: load_config(given.config, SegmentationEvaluationConfig, given.overrides))
        from Systems.segmentation.evaluation import evaluate_segmentation

        evaluate_segmentation(config, given.dry_run)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
