"""Every kind of config, with the script that takes it; without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from Systems.d3rsmde.config import (
    DiffusionEvaluationConfig,
    DiffusionTrainingConfig,
    ViTEvaluationConfig,
    ViTTrainingConfig,
)
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.depth.config import DepthEvaluationConfig, DepthTrainingConfig
from Systems.segmentation.config import SegmentationEvaluationConfig, SegmentationTrainingConfig
from Systems.stereo.config import StereoEvaluationConfig, StereoTrainingConfig
from Utils.config.sections import Section


@dataclass(frozen=True)
class ConfigKind:
    """One kind of config.

    Attributes:
        script: the script that takes it.
        folder: folder of its files below ``Config``.
        config: class of the config.
        when: what in a config makes it one of this kind, where the script takes several.
    """

    script: str
    folder: str
    config: type[Section]
    when: str = ""


KINDS = (
    ConfigKind("trainViT.py", "ViT", ViTTrainingConfig),
    ConfigKind("evaluateViT.py", "ViT", ViTEvaluationConfig),
    ConfigKind("trainDiffusion.py", "Diffusion", DiffusionTrainingConfig),
    ConfigKind("evaluateDiffusion.py", "Diffusion", DiffusionEvaluationConfig),
    ConfigKind("trainDiffusion.py", "Diffusion", DemTrainingConfig, 'with `"prior": "dem"`'),
    ConfigKind("trainDepth.py", "Depth", DepthTrainingConfig),
    ConfigKind("evaluateDepth.py", "Depth", DepthEvaluationConfig),
    ConfigKind("trainSegmentation.py", "Segmentation", SegmentationTrainingConfig),
    ConfigKind("evaluateSegmentation.py", "Segmentation", SegmentationEvaluationConfig),
    ConfigKind("trainStereo.py", "Stereo", StereoTrainingConfig),
    ConfigKind("evaluateStereo.py", "Stereo", StereoEvaluationConfig),
)


def kind_of(keys: Iterable[str]) -> ConfigKind:
    """The kind of config that some keys belong to: the one that knows most of them, and of equal ones the first.

    The key ``checkpoint_path`` tells evaluations from trainings.
    """
    given = frozenset(keys)
    scores = "checkpoint_path" in given
    possible = [kind for kind in KINDS if ("checkpoint_path" in kind.config.model_fields) == scores]
    return max(possible, key=lambda kind: len(given & kind.config.model_fields.keys()))
