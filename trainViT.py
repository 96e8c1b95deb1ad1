"""Train stage 1, the ViT that draws coarse height maps, and make the priors of stage 2.

python trainViT.py --config Config/ViT/J_K_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.d3rsmde.config import ViTTrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return training_script(arguments, "train the coarse ViT of D3-RSMDE", ViTTrainingConfig, _run)


def _run(config: ViTTrainingConfig) -> Run:
    from Systems.d3rsmde.coarse_run import CoarseRun

    return CoarseRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
