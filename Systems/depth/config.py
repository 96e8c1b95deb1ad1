"""The configs of trainDepth.py and evaluateDepth.py."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from Modules.common.directions import Direction
from Modules.depth.names import DEPTH_LOSSES, PUBLISHED_NETWORK, ChannelOrder, DecoderName, Scaling, Target
from Utils.config.cross_fitting_keys import CrossFittingConfig, WithPriors
from Utils.config.evaluation_keys import EvaluationConfig
from Utils.config.sections import (
    MAY_CHANGE,
    Fraction,
    NotNegativeNumber,
    Positive,
    PositiveNumber,
    Section,
    Share,
)
from Utils.data.resize_names import Resize
from Utils.scoring.depth.depth_names import Crop

Scores = Literal["height", "depth", "published", "agreement", "relief"]


class DepthNetworkSection(Section):
    """``model``: the network. The published one has no settings but ``pretrained``."""

    backbone: str = PUBLISHED_NETWORK
    """EncDecIRv2 for the published network; or any timm encoder that gives features, or mit_b0 to mit_b5."""
    decoder: DecoderName = "EncDec"
    """EncDec, that of Enc-Dec-IRv2, or GLPN; with mit_b4, GLPN is the network of Config/Mars."""
    pretrained: bool = True
    """Whether the encoder starts from timm's pretrained weights, from its cache or the hub."""
    options: dict[str, int | float | bool | str] = {}
    """Further arguments of the encoder, such as {"in_chans": 1} for grey images."""
    widths: Annotated[list[Positive], Field(min_length=1)] = [256, 128, 64, 32]
    """Channels of the decoder's blocks, the last being that of full size; GLPN has one width, [64] as published."""
    channel_order: ChannelOrder = "RGB"
    """Order in which the encoder sees the channels; EncDecIRv2 sees BGR, as published."""
    scaling: Scaling = "mean_std"
    """mean_std: by the encoder's mean and deviation; min_max: each image by its extremes, as EncDecIRv2 always does;
    none: images in [0, 1] as they are."""
    norm_momentum: Share = 0.1
    """Weight of a batch in the running statistics of the decoder's batch norms; 0.01 in EncDecIRv2."""

    @model_validator(mode="after")
    def _published_as_it_is(self) -> DepthNetworkSection:
        own = sorted(self.model_fields_set - {"backbone", "pretrained"})
        changed = [name for name in own if getattr(self, name) != type(self).model_fields[name].default]
        if self.backbone == PUBLISHED_NETWORK and changed:
            raise ValueError(f"{PUBLISHED_NETWORK} is built as published, without '{changed[0]}'; name a timm encoder")
        if self.decoder == "GLPN" and len(self.widths) != 1:
            raise ValueError(f"decoder GLPN has one width; set widths to [64], as published, not {self.widths}")
        return self


class DisparitySection(Section):
    """``disparity``: the files hold disparities of a stereo camera; depth = baseline * focal / disparity.

    Disparity in pixels is stored number * scale + offset, and 0 is a hole. The defaults are Cityscapes'. Baseline and
    focal length are those of each frame's camera file, where there is one: ``camera/.../x_camera.json`` for
    ``disparity/.../x_disparity.png``.
    """

    scale: PositiveNumber = 1 / 256
    """Pixels of disparity that one unit of the files stands for."""
    offset: float = -1 / 256
    """Added to that."""
    baseline: PositiveNumber | None = None
    """Metres between the two cameras, for frames without camera file."""
    focal: PositiveNumber | None = None
    """Focal length in pixels, for frames without camera file."""

    @model_validator(mode="after")
    def _both_or_none(self) -> DisparitySection:
        if (self.baseline is None) != (self.focal is None):
            raise ValueError("baseline and focal go together; give both or neither")
        return self


class WithDepthFiles(Section):
    """The keys about the files of depth or height."""

    description: Annotated[str, MAY_CHANGE] = ""
    """A line that says what the config is for; the log begins with it."""
    metres_per_unit: PositiveNumber = 1.0
    """Metres that one unit of the depth or height files stands for: 0.001 for millimetres, 0.00390625 for KITTI."""
    hole: float | None = None
    """The value, in the files' unit, that says that nothing was measured; 0 in the files of KITTI and NYU."""
    disparity: DisparitySection | None = None
    """Given, if only as {}, where the files hold disparities, as those of Cityscapes do; they become metres."""

    @model_validator(mode="after")
    def _disparity_makes_metres(self) -> WithDepthFiles:
        if self.disparity is not None and (self.metres_per_unit != 1.0 or self.hole is not None):
            raise ValueError("disparity makes metres and has holes of its own: remove metres_per_unit and hole")
        return self


class DepthTrainingConfig(CrossFittingConfig, WithDepthFiles):
    """``trainDepth.py``."""

    known_losses: ClassVar[tuple[str, ...]] = DEPTH_LOSSES

    lr: PositiveNumber = 1e-4
    """Learning rate."""
    weight_decay: NotNegativeNumber = 0.0
    """Weight decay: decoupled in AdamW, an L2 penalty in the other optimisers."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["SSIMEdgeL1Loss"]
    """SSIMEdgeL1Loss (published), SILogLoss, L1Loss, OffsetFreeL1Loss, GradientLoss, HDNLoss or SSIMAELoss, or a list
    to average."""
    loss_weights: Annotated[list[PositiveNumber], Field(min_length=1)] | None = None
    """Factor of each loss of `loss_types` before they are averaged; by default 1. Losses of metres need small ones
    beside SILogLoss, which has no unit."""
    silog_forgiveness: Fraction = 0.85
    """SILogLoss: share of the squared mean that is taken away; 0.5 in GLPN, 1 would forgive any scale."""
    model: DepthNetworkSection = DepthNetworkSection()
    """The network."""
    target: Target = "relative"
    """relative: each map stretched to [0, 1]; metres: depth in metres; summit: metres below each tile's highest."""
    max_depth: PositiveNumber | None = None
    """The largest value in metres that metres and summit can draw; pixels beyond it are left out of the training."""
    direction: Annotated[Direction | None, MAY_CHANGE] = None
    """What rises in the files' maps: height, depth (the distance from the camera) or inverse depth. It is kept with
    the network, so that its maps are never turned the wrong way round; the folds of D³-RSMDE want height."""

    image_size: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    """Height and width to which images and maps are brought, whatever that does to their shape; [240, 320] as
    published. By default none, and all tiles must have one size."""
    resize_depth: Resize = "area"
    """How maps are brought to it: area, means of what is known; nearest, for maps that know few pixels (KITTI's)."""
    split_by: Literal["scene", "frame"] = "scene"
    """What goes to validation: whole scenes, or single frames, as published, though frames of one scene resemble each
    other. Scenes are those of a table's column, or NYU's rooms, KITTI's drives, Cityscapes' cities."""
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training tiles that is held out for validation; 0.3 as published."""

    @model_validator(mode="after")
    def _a_largest_depth_for_metres(self) -> DepthTrainingConfig:
        if (self.target == "relative") != (self.max_depth is None):
            what = "has no unit: remove max_depth" if self.target == "relative" else "needs max_depth, in metres"
            raise ValueError(f"target {self.target} {what}")
        return self

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> DepthTrainingConfig:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.losses):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} numbers for {len(self.losses)} losses")
        return self

    @model_validator(mode="after")
    def _a_direction_that_the_target_allows(self) -> DepthTrainingConfig:
        if self.target == "summit" and self.direction not in (None, "height"):
            raise ValueError(f"target summit is metres below the highest ground: direction {self.direction} is not")
        if self.target == "metres" and self.direction == "inverse depth":
            raise ValueError("inverse depth has no metres: set target relative, or direction height or depth")
        if self.k_folds and self.target != "summit" and self.direction != "height":
            given = "is not given" if self.direction is None else f"is {self.direction}"
            raise ValueError(f"k_folds write priors for D³-RSMDE, which are heights, and direction {given}")
        return self


class DepthEvaluationConfig(EvaluationConfig, WithDepthFiles, WithPriors):
    """``evaluateDepth.py``. What the network draws is known from its folder."""

    metres_per_unit: PositiveNumber = 1.0
    """Metres that one unit of the depth or height files stands for: 0.001 for millimetres, 0.00390625 for KITTI."""
    scores: Scores | None = None
    """height: as for D³; depth: metric, aligned and median; published: NYU's; agreement; relief: of summit, as Mars is
    scored. By default after the target: depth for metres, else height."""
    nearest: PositiveNumber = 1e-3
    """depth: truths up to this many metres do not count, and predictions are clipped to it."""
    farthest: PositiveNumber | None = None
    """depth: likewise, the largest depth that counts: 10 for NYU, 80 for KITTI; by default none."""
    crop: Crop = "none"
    """depth: none, eigen_nyu (frames of 640 x 480) or garg (KITTI)."""

    @model_validator(mode="after")
    def _no_mean_of_disparities(self) -> DepthEvaluationConfig:
        # The mean is taken of the training tiles' files as they are, without the cameras that make depth of them.
        means = [name for name in self.controls if name in ("mean", "mean_map")]
        if means and self.disparity is not None:
            raise ValueError(f"control '{means[0]}' cannot be made of disparities; take it out of controls")
        return self

    @model_validator(mode="after")
    def _near_before_far(self) -> DepthEvaluationConfig:
        if self.farthest is not None and self.farthest <= self.nearest:
            raise ValueError(f"farthest {self.farthest} must be larger than nearest {self.nearest}")
        return self
