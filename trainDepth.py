"""Train a depth network: Enc-Dec-IRv2, or its decoder on any timm encoder; relative depth or metres.

python trainDepth.py --config Config/Depth/NYU_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.depth.config import DepthTrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return training_script(arguments, "train a depth network", DepthTrainingConfig, _run)


def _run(config: DepthTrainingConfig) -> Run:
    from Systems.depth.run import DepthRun

    return DepthRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
