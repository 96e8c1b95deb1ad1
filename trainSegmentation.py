"""Train a network of land cover: classes from an image, with relative depth or without.

python trainSegmentation.py --config Config/Segmentation/LoveDA_U2R_convnext_b_s_train.json
"""

from __future__ import annotations

from collections.abc import Sequence

from Systems.segmentation.config import SegmentationTrainingConfig
from Utils.training.runs.run import Run
from Utils.training.runs.training_script import training_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    return training_script(arguments, "train a network of land cover", SegmentationTrainingConfig, _run)


def _run(config: SegmentationTrainingConfig) -> Run:
    from Systems.segmentation.run import SegmentationRun

    return SegmentationRun(config)


if __name__ == "__main__":
    raise SystemExit(main())
