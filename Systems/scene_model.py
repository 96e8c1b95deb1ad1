"""The model of a whole scene: opened once, with the options that follow from it; for predict.py and the app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Modules.common.precision import Precision
from Utils.core.errors import UserError
from Utils.core.predictor import Direction

if TYPE_CHECKING:
    import torch

    from Utils.core.predictor import DetailModel, Predictor
    from Utils.scenes.options import SceneOptions

__all__ = ["SceneModel", "open_scene_model"]


@dataclass(frozen=True)
class SceneModel:
    """What draws a scene.

    Attributes:
        predictor: a model that draws tiles; None for one that refines DEMs, and where no model is used.
        refiner: a model that refines a DEM; None for all others.
        facts: what identifies the model, for the JSON beside the output and for resuming.
    """

    predictor: Predictor | None = None
    refiner: DetailModel | None = None
    facts: Mapping[str, Any] = field(default_factory=lambda: {"name": ""})

    def fitted(self, options: SceneOptions, tile_size: int | None = None) -> SceneOptions:
        """The options as this model needs them; ``tile_size`` None takes the size that it was trained on."""
        if self.refiner is not None:
            return replace(options, refines_dem=True)
        if self.predictor is None:
            return options
        size, in_metres = tile_size or self.predictor.tile_size, self.predictor.predicts == "height"
        return replace(options, tile_size=size, model_in_metres=in_metres)


def open_scene_model(
    model: str,
    device: torch.device,
    precision: Precision = "fp32",
    compile: bool = False,
    *,
    steps: int | None = None,
    polarity: Direction | None = None,
    of_tiles: Mapping[str, object] | None = None,
) -> SceneModel:
    """Open any model that makes heights of scenes.

    Args:
        model: folder of the model or of its run; or a name on the hub.
        device: device on which it runs.
        precision: number format of the weights.
        compile: whether to use torch.compile.
        steps: refinement steps of a D³ model; None takes the model's own.
        polarity: what rises in the maps of a depth model whose type does not tell.
        of_tiles: further options that only a model that draws tiles takes, by name; None where one is not given.

    Raises:
        UserError: no model there, a damaged one, or one that does not take these options.
    """
    from Systems.models import holds_detail_model, load_detail_model, load_predictor

    if holds_detail_model(model):
        for name, value in {"steps": steps, "polarity": polarity, **(of_tiles or {})}.items():
            if value is not None:
                option = name.replace("_", "-")
                raise UserError(f"--{option}: the model '{model}' refines a DEM, and draws no tiles; leave it out")
        refiner = load_detail_model(Path(model), device, precision, compile)
        return SceneModel(refiner=refiner, facts=refiner.describe())
    predictor = load_predictor(model, device, precision, steps, compile, polarity)
    return SceneModel(predictor, facts=predictor.describe())
