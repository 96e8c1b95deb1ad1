"""Train stage 2, the refiner: its VAE where asked for, then the U-Net; or, with "prior": "dem", a refiner of DEMs.

python trainDiffusion.py --config Config/Diffusion/J_K_train.json
python trainDiffusion.py --config Config/Diffusion/DEM_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.d3rsmde.config import DiffusionTrainingConfig
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Utils.config.training_keys import TrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    # A prior that is a DEM needs no autoencoder and no stage 1.
    variants = {"prior": DemTrainingConfig}
    return training_script(arguments, "train the refiner of D3-RSMDE", DiffusionTrainingConfig, _run, variants)


def _run(config: TrainingConfig) -> Run:
    if isinstance(config, DemTrainingConfig):
        from Systems.d3rsmde.dem_prior.run import DemRun

        return DemRun(config)
    assert isinstance(config, DiffusionTrainingConfig)
    from Systems.d3rsmde.refiner_run import RefinerRun

    return RefinerRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
