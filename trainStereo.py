"""Train a network of multi-view stereo: CasMVSNet, UCSNet or CasRED, plain or with relative depth.

python trainStereo.py --config Config/Stereo/WHU_MVS_CasMVSNet_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.stereo.config import StereoTrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return training_script(arguments, "train a stereo network", StereoTrainingConfig, _run)


def _run(config: StereoTrainingConfig) -> Run:
    from Systems.stereo.run import StereoRun

    return StereoRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
