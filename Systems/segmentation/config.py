"""The configs of trainSegmentation.py and evaluateSegmentation.py."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from Modules.segmentation.names import SEGMENTATION_LOSSES, Fusion, Head
from Utils.config.evaluation_keys import ScoringConfig
from Utils.config.land_cover_keys import AugmentationSection, SelfTrainingSection, WithLandCover
from Utils.config.sections import (
    MAY_CHANGE,
    NotNegativeNumber,
    Paths,
    Positive,
    PositiveNumber,
    Section,
    Share,
    ShareBelowOne,
)
from Utils.config.training_keys import TrainingConfig
from Utils.scoring.land_cover.rule_names import AbsentClasses


class SegmentationNetworkSection(Section):
    """``model``: the network."""

    backbone: str = "convnext_base"
    """The image's encoder, any timm model that gives features."""
    depth_backbone: str = "convnext_small"
    """The encoder of relative depth maps, likewise; it needs the strides of the image's."""
    fusion: Fusion = "gate"
    """What is done with relative depth at every level: gate, add, concat, which all start as none (the image alone);
    depth_alone sees no image."""
    head: Head = "mlp"
    """What makes classes of the levels: mlp (all at a quarter of the size, mixed by 1 x 1 convolutions), or upernet."""
    channels: Positive = 256
    """Channels of each level after fusion."""
    head_width: Positive = 512
    """upernet: channels of the head."""
    dropout: ShareBelowOne = 0.1
    """Share of channels that the head drops in training."""
    pretrained: bool = True
    """Whether both encoders start from timm's pretrained weights, from its cache or the hub."""
    adapter_width: Positive | None = None
    """Channels of an adapter in each block of the image's encoder, a vision transformer that is frozen but for these;
    by default the whole encoder learns."""
    options: dict[str, int | float | bool | str] = {}
    """Further arguments of the image's timm model, such as {"drop_path_rate": 0.4}."""
    depth_options: dict[str, int | float | bool | str] = {}
    """Further arguments of the map's timm model."""


class SegmentationTrainingConfig(TrainingConfig, WithLandCover):
    """``trainSegmentation.py``."""

    known_losses: ClassVar[tuple[str, ...]] = SEGMENTATION_LOSSES

    batch_size: Positive = 16
    """Tiles that are computed at once, in all processes together."""
    lr: PositiveNumber = 1e-4
    """Learning rate."""
    weight_decay: NotNegativeNumber = 0.05
    """Weight decay, decoupled in AdamW; norms and biases have none."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["CrossEntropyLoss"]
    """CrossEntropyLoss over the labelled pixels."""
    source: Annotated[list[str], Field(min_length=1)]
    """Domains that are trained on, such as ["Urban"]: folders of the dataset's part Train. Weights are selected on the
    same domains of its part Val or, where that has none, on tiles that are held out."""
    oracle: list[str] = []
    """Domains of the target whose part Val selects the weights instead. That uses labels of the target: the results
    say so, and stand apart. By default none."""
    model: SegmentationNetworkSection = SegmentationNetworkSection()
    """The network."""
    augmentation: AugmentationSection = AugmentationSection()
    """How training tiles change at random."""
    self_training: SelfTrainingSection | None = None
    """Learning from images of the target without labels too; the teacher is the average of `ema_decay`. By default
    none: only labelled tiles of the source are seen, and results say where that is not so."""
    layer_decay: Share = 0.9
    """Factor on `lr` from each twelfth of an encoder's blocks to the one before it; 1 for one rate."""
    auxiliary_weight: NotNegativeNumber = 0.0
    """Weight of the loss of an auxiliary head on the last level but one; 0.4 is usual with upernet, 0 is none."""
    class_weights: list[NotNegativeNumber] | Literal["balanced"] | None = None
    """Weight of each class in the loss, by number; balanced: the median of the classes' shares of the labelled pixels
    over each class's own. By default all count the same."""
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training tiles that is held out where the part Val has no such domain."""
    window: Positive | None = 512
    """Side in pixels of the windows in which tiles are validated; null for whole tiles."""
    stride: Positive | None = 341
    """Pixels from a window to the next; the probabilities of overlapping windows are averaged."""
    absent_classes: Annotated[AbsentClasses, MAY_CHANGE] = "count as 0"
    """What a class that neither truth nor prediction has does in the mean IoU: count as 0, or left out."""

    @model_validator(mode="after")
    def _selects_on_the_source(self) -> SegmentationTrainingConfig:
        both = sorted(set(self.oracle) & set(self.source))
        if both:
            raise ValueError(f"oracle names '{both[0]}', which is a source: it is selected on anyway; remove it")
        if self.oracle and (self.val_split_text or self.not_split):
            raise ValueError("oracle selects the weights, and so does val_split_text or not_split: remove one")
        return self

    @model_validator(mode="after")
    def _has_a_teacher(self) -> SegmentationTrainingConfig:
        if self.self_training is None:
            return self
        both = sorted(set(self.self_training.domains) & set(self.source))
        if both:
            raise ValueError(f"self_training.domains names '{both[0]}', which is a source and has labels; remove it")
        if not self.ema_decay:
            raise ValueError("self_training needs ema_decay: that average is the teacher; 0.999 is usual")
        if self.augmentation.crop is None:
            raise ValueError("self_training needs augmentation.crop: squares of the two domains have one size")
        return self

    @model_validator(mode="after")
    def _windows_leave_nothing_out(self) -> SegmentationTrainingConfig:
        _check_windows(self.window, self.stride)
        return self

    @model_validator(mode="after")
    def _a_map_that_is_seen(self) -> SegmentationTrainingConfig:
        if self.model.fusion == "none" and self.depth_source != "true":
            raise ValueError(f"depth_source {self.depth_source} is given, and model.fusion none sees no map; remove it")
        return self


class SegmentationEvaluationConfig(ScoringConfig, WithLandCover):
    """``evaluateSegmentation.py``. What the network is and its classes are known from its folder."""

    batch_size: Positive = 1
    """Tiles that are computed at once, in all processes together."""
    checkpoint_path: str
    """What is scored: a run, a model folder or a checkpoint file."""
    test_split_text: Paths | None = None
    """Split file, or several, of the tiles to score; by default all."""
    part: str = "Val"
    """Part of the dataset that is scored; Test has no masks, and gives a submission alone."""
    domains: Annotated[list[str], Field(min_length=1)]
    """Domains that are scored, such as ["Rural"]."""
    window: Positive | None = 512
    """Side in pixels of the windows in which tiles are drawn; null for whole tiles."""
    stride: Positive | None = 341
    """Pixels from a window to the next; the probabilities of overlapping windows are averaged."""
    absent_classes: AbsentClasses = "count as 0"
    """What a class that neither truth nor prediction has does in means over classes: count as 0, or left out."""
    boundaries: bool = True
    """Whether boundary IoU is taken, which takes seconds a tile of 1024 pixels."""
    confidence: bool = False
    """Whether the probability of each pixel's class is written too, as a float map in `map_format`."""
    submission: str | None = None
    """A zip that is written in the form of LoveDA's challenge: the class numbers of every tile, in files of the images'
    names; it is checked before it is written."""

    @model_validator(mode="after")
    def _windows_leave_nothing_out(self) -> SegmentationEvaluationConfig:
        _check_windows(self.window, self.stride)
        return self


def _check_windows(window: int | None, stride: int | None) -> None:
    """Refuse windows that leave pixels out.

    Raises:
        ValueError: they do.
    """
    if window is None and stride is not None and stride != 341:
        raise ValueError("stride is given without window; give both or neither")
    if window is not None and stride is not None and stride > window:
        raise ValueError(f"stride {stride} leaves pixels out between windows of {window}; give {window} or less")
