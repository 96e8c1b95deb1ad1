"""Trained models as plain networks, images in and maps out, with what a user of the file must know."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from Modules.common.hub import is_hub_name
from Modules.d3rsmde.coarse import CoarseNet, StageOne
from Modules.depth.enc_dec import EncDec
from Modules.depth.names import DEPTH_TASK
from Modules.segmentation.names import SEGMENTATION_TASK
from Modules.segmentation.networks import SegmentationNetwork
from Systems.depth_models.files import holds_depth_model
from Systems.models import depth_direction, from_hub, holds_detail_model
from Utils.core.errors import UserError
from Utils.core.predictor import Direction
from Utils.training.checkpointed_network import holds_network, model_folder

if TYPE_CHECKING:
    from Modules.d3rsmde.pipeline import D3RSMDE

_USUAL_TILE = 512
# The exporter takes what has a size of 1 while it traces for something that always has: levels have two cells or more.
_TWO_CELLS = 2


@dataclass(frozen=True)
class Exportable:
    """A network that can become a file.

    Attributes:
        network: images (B, 3, H, W) in [0, 1], and what ``inputs`` names beside them, to maps (B, C, H, W).
        output: name of its maps: ``height`` (C = 1) or ``probabilities`` (C classes, which add up to 1).
        predicts: what the maps are, in words.
        multiple: heights and widths that it takes are multiples of this many pixels; 1 for any.
        tile_size: side in pixels of the tiles that it was trained on.
        smallest: the least height and width of an exported network whose sizes are free. What pads smaller images is
            left out of the file.
        inputs: names of its inputs, and the channels of each.
        classes: names of the classes, by number; none for heights.
        facts: what identifies the model.
    """

    network: nn.Module
    output: str
    predicts: str
    multiple: int
    tile_size: int
    smallest: int
    inputs: Mapping[str, int] = field(default_factory=lambda: {"image": 3})
    classes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tile(self) -> int:
        """The side near ``tile_size`` that the file takes."""
        return max(self.smallest, self.tile_size // self.multiple * self.multiple)


def open_exportable(
    model: str,
    steps: int | None = None,
    stage_one: bool = False,
    polarity: Direction | None = None,
    image_alone: bool = False,
) -> Exportable:
    """Open a model folder, or that of a run.

    Args:
        model: the folder, a name on the hub, or a checkpoint of a depth network or of one of land cover.
        steps: blending steps of a D³ model, which are unrolled; None takes the model's own.
        stage_one: whether to take stage 1 of a D³ model alone.
        polarity: what rises in the maps of a depth network whose training did not say.
        image_alone: whether a network of land cover that can see relative depth is to see the image alone.

    Raises:
        UserError: there is no such model, one that cannot become one file, or options that do not fit it.
    """
    found = from_hub(model)
    path = Path(found)
    refused = _why_not(found)
    if refused:
        raise UserError(f"--model '{model}' {refused}")
    is_depth, is_classes = (
        holds_network(path, EncDec, DEPTH_TASK),
        holds_network(path, SegmentationNetwork, SEGMENTATION_TASK),
    )
    kind = "a depth network" if is_depth else "a network of land cover" if is_classes else "a D³ model"
    for option, given, fits in (
        ("--steps", steps is not None, kind == "a D³ model"),
        ("--stage-one", stage_one, kind == "a D³ model"),
        ("--polarity", polarity is not None, is_depth),
        ("--image-alone", image_alone, is_classes),
    ):
        if given and not fits:
            raise UserError(f"{option}: '{model}' is {kind}, which has no such option; leave it out")
    if is_depth:
        return _depth(path, polarity)
    return _classes(path, image_alone) if is_classes else _d3rsmde(path, steps, stage_one)


def _why_not(model: str | os.PathLike[str]) -> str:
    """Why a model of another kind cannot be exported here; empty for one that may be."""
    path = Path(model)
    if holds_depth_model(path) or is_hub_name(model):
        return "is a model of transformers, which has its own exporters (optimum); give a model trained here"
    if holds_detail_model(path):
        return "refines coarse DEMs with a search over whole scenes, which is no single network; use predict.py"
    return ""


class _Heights(nn.Module):
    """Stage 1 of a D³ model, or both with the steps of the second unrolled."""

    def __init__(self, model: D3RSMDE, refines: bool, steps: int | None) -> None:
        super().__init__()
        parts = (model.coarse, model.vae, model.unet) if refines else (model.coarse,)
        self.parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        self._model, self._refines, self._steps = model, refines, steps

    def forward(self, image: Tensor) -> Tensor:
        height = self._model.predict_coarse(image)
        return self._model.refine(image, height, self._steps).height if self._refines else height


class _Depth(nn.Module):
    """A depth network whose maps rise with the ground."""

    def __init__(self, network: EncDec, falls: bool) -> None:
        super().__init__()
        self.network, self._falls = network, falls

    def forward(self, image: Tensor) -> Tensor:
        drawn: Tensor = self.network(image)
        return -drawn if self._falls else drawn


class _Probabilities(nn.Module):
    """A network of land cover."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, relative_depth: Tensor | None = None) -> Tensor:
        scores: Tensor = self.network(image, relative_depth)
        return scores.softmax(dim=1)


def _d3rsmde(path: Path, steps: int | None, stage_one: bool) -> Exportable:
    from Systems.d3rsmde.build import load_model

    model = load_model(path)
    if model.coarse is None:
        raise UserError(f"--model '{path}' holds no stage 1; train stage 2 with coarse_checkpoint_path set")
    refines = model.refines and not stage_one
    most = len(model.scheduler.weights) if refines else 0
    if steps is not None and not 1 <= steps <= most:
        raise UserError(f"--steps {steps}: give 1 to {most}" if refines else f"--steps {steps}: stage 1 has no steps")
    multiple = math.lcm(model.size_multiple, _multiple_of_coarse(model.coarse)) if refines else 1
    taken = (steps or model.config["steps"] or most) if refines else 0
    return Exportable(
        _Heights(model, refines, steps),
        "height",
        "relative height, 0 to 1 in each tile",
        multiple,
        model.config["tile_size"] or _USUAL_TILE,
        2 * multiple if refines else _TWO_CELLS * _multiple_of_coarse(model.coarse),
        facts={"name": _name(path), "stages": 1 + refines, "steps": taken},
    )


def _multiple_of_coarse(coarse: StageOne) -> int:
    return 2 * coarse.encoder.stride if isinstance(coarse, CoarseNet) else coarse.encoder.multiple


def _depth(path: Path, polarity: Direction | None) -> Exportable:
    from Systems.depth.build import load_depth

    network = load_depth(path)
    direction = depth_direction(network, path, polarity)
    target = network.config["target"]
    what = "relative height, of unknown scale and level" if target == "relative" else "height in metres, level unknown"
    return Exportable(
        _Depth(network, falls=direction == "depth"),
        "height",
        what,
        1,
        network.config["tile_size"] or _USUAL_TILE,
        max(network.encoder.smallest, _TWO_CELLS * network.encoder.multiple),
        facts={"name": _name(path), "target": target, "own_direction": direction},
    )


def _classes(path: Path, image_alone: bool) -> Exportable:
    from Systems.segmentation.build import load_segmentation

    network = load_segmentation(path)
    fusion = network.config["fusion"]
    if fusion == "depth_alone":
        raise UserError(f"--model '{path}' sees relative depth and no image; it is a control, and is not exported")
    if image_alone and not network.uses_depth:
        raise UserError(f"--image-alone: '{path}' sees nothing but the image; leave it out")
    inputs = {"image": 3} if image_alone or not network.uses_depth else {"image": 3, "relative_depth": 1}
    return Exportable(
        _Probabilities(network),
        "probabilities",
        "probabilities of classes",
        1,
        network.config["tile_size"] or _USUAL_TILE,
        max(max(each.smallest, _TWO_CELLS * each.multiple) for each in network.encoders),
        inputs,
        tuple(network.config["classes"]),
        {"name": _name(path), "fusion": "none" if image_alone else fusion, "images": _scaled(network.config["white"])},
    )


def _scaled(white: float | None) -> str:
    return "RGB in [0, 1]" + ("" if white is None else f"; of more than 8 bits, {white:g} counted as 1")


def _name(path: Path) -> str:
    folder = model_folder(path)
    return folder.resolve().parent.name if folder.name == "model" else folder.stem
