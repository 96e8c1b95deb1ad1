"""Train stage 2, the refiner: its VAE where asked for, then the U-Net.

python trainDiffusion.py --config Config/Diffusion/J_K_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.d3rsmde.config import DiffusionTrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return training_script(arguments, "train the refiner of D3-RSMDE", DiffusionTrainingConfig, _run)


def _run(config: DiffusionTrainingConfig) -> Run:
    from Systems.d3rsmde.refiner_run import RefinerRun

    return RefinerRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
