"""The rows of an ablation, and the folders of its runs and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ALONE", "SELF_TRAINED", "TRUE", "VARIANTS", "Ablation", "Variant"]

ALONE, TRUE = "image", "true"


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: part of the names of its folders.
        title: its row.
        changes: config keys in which it differs.
        control: whether it has the parameters of the network with depth, and knows nothing of heights.
        without: of a self-trained row, the name of the same row without self-training.
    """

    name: str
    title: str
    changes: Mapping[str, object] = field(default_factory=dict)
    control: bool = False
    without: str = ""

    @property
    def depth_source(self) -> str:
        """What stands for the map, in training and in the evaluation."""
        return str(self.changes.get("depth_source", "true"))


_ONLY_LABELS = {"self_training": None}

VARIANTS = (
    Variant(ALONE, "image alone", {"model.fusion": "none", "depth_source": "true", **_ONLY_LABELS}),
    Variant("depth", "relative depth alone", {"model.fusion": "depth_alone", "depth_source": "true", **_ONLY_LABELS}),
    Variant(TRUE, "image and relative depth", {"depth_source": "true", **_ONLY_LABELS}),
    Variant("constant", "control: constant map", {"depth_source": "constant", **_ONLY_LABELS}, control=True),
    Variant("shuffled", "control: maps of other tiles", {"depth_source": "shuffled", **_ONLY_LABELS}, control=True),
    Variant("grey", "control: grey copy of the image", {"depth_source": "grey", **_ONLY_LABELS}, control=True),
)
SELF_TRAINED = (
    Variant(
        f"{ALONE}_taught",
        "image alone, self-trained",
        {"model.fusion": "none", "depth_source": "true"},
        without=ALONE,
    ),
    Variant(f"{TRUE}_taught", "image and relative depth, self-trained", {"depth_source": "true"}, without=TRUE),
)
"""Rows of a training config that has ``self_training``: they see images of the target, which the others do not."""


@dataclass(frozen=True)
class Ablation:
    """What is trained and scored.

    Attributes:
        train: config of the training of the network with relative depth.
        evaluate: config of the evaluation on the target.
        output: folder of the results.
        seeds: seeds of the trainings.
        variants: the rows.
        runs: folder of the trainings; None for one in ``output``.
    """

    train: Path
    evaluate: Path
    output: Path
    seeds: Sequence[int]
    variants: Sequence[Variant] = VARIANTS
    runs: Path | None = None

    def run(self, variant: Variant, seed: int) -> Path:
        """Folder of a training."""
        return (self.runs or self.output / "runs") / f"{variant.name}_{seed}"

    def scores(self, variant: Variant, seed: int) -> Path:
        """Folder of an evaluation."""
        return self.output / "scores" / f"{variant.name}_{seed}"

    @property
    def each(self) -> list[tuple[Variant, int]]:
        """Every training."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]
