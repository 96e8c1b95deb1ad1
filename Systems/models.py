"""Opens any trained model as a predictor that says what it predicts.

A folder of D³-RSMDE or of a depth network, or a depth model of transformers.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from Modules.common.plain_json import parse_json, read_text
from Modules.common.precision import Precision
from Systems.depth_models.files import holds_depth_model, is_hub_name
from Utils.core.errors import UserError
from Utils.core.predictor import Direction, Predictor
from Utils.training.run_files import MODEL_FOLDER

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_USUAL_TILE = 512
_NO_STEPS = "--steps {steps}: this model takes none: it is no D³ model"


def load_predictor(
    model: str | os.PathLike[str],
    device: torch.device,
    precision: Precision = "fp32",
    steps: int | None = None,
    compile: bool = False,
    polarity: Direction | None = None,
) -> Predictor:
    """Load a model folder, that of a run, or a depth model that transformers knows.

    Args:
        model: folder of the model, or of the run that wrote it; or a name on the hub.
        device: device on which it runs.
        precision: number format of the weights, as for ``D3RSMDE.optimise``.
        steps: refinement steps of a D³ model; None takes the model's own.
        compile: whether to use torch.compile, as for ``D3RSMDE.optimise``.
        polarity: what rises in the maps of a depth model that does not tell.

    Returns:
        The predictor, with the tile size that the model was trained on and facts that identify it.

    Raises:
        UserError: no model there, a damaged one, one that cannot start from an image, or one whose polarity is unknown.
    """
    folder = Path(model)
    if holds_depth_model(folder) or is_hub_name(model):
        from Systems.depth_models.loading import load_depth_model

        if steps is not None:
            raise UserError(_NO_STEPS.format(steps=steps))
        return load_depth_model(model, device, precision, compile, polarity)
    if holds_depth_network(folder):
        return _load_depth_network(folder, device, precision, steps, compile, polarity)
    if polarity is not None:
        raise UserError(f"--polarity {polarity}: '{model}' is no depth model; leave it out")
    return _load_d3rsmde(folder, device, precision, steps, compile)


def holds_depth_network(folder: Path) -> bool:
    """Whether a folder is a run or a model of trainDepth.py."""
    try:
        config = parse_json(read_text(_model_folder(folder) / "config.json"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("_class_name") == "EncDec"


def _model_folder(folder: Path) -> Path:
    return folder / MODEL_FOLDER if (folder / MODEL_FOLDER).is_dir() else folder


def _load_depth_network(
    folder: Path,
    device: torch.device,
    precision: Precision,
    steps: int | None,
    compile: bool,
    polarity: Direction | None,
) -> Predictor:
    from Systems.depth.build import load_depth
    from Systems.depth.predictor import depth_predictor

    if steps is not None:
        raise UserError(_NO_STEPS.format(steps=steps))
    network = load_depth(folder)
    facts = {"name": _name(folder), "weights": _digest(_model_folder(folder))}
    return depth_predictor(network, facts, device, precision, compile, polarity)


def _name(folder: Path) -> str:
    model = _model_folder(folder)
    return model.parent.name if model.name == MODEL_FOLDER else model.name


def _load_d3rsmde(
    folder: Path, device: torch.device, precision: Precision, steps: int | None, compile: bool
) -> Predictor:
    from Systems.d3rsmde.build import load_model

    model = load_model(folder)
    folder = _model_folder(folder)
    if model.coarse is None:
        raise UserError(f"--model '{folder}' holds no stage 1; train stage 2 with coarse_checkpoint_path set")
    if steps is not None and not (model.refines and 1 <= steps <= len(model.scheduler.weights)):
        most = f"1 to {len(model.scheduler.weights)}" if model.refines else "none: this model has no stage 2"
        raise UserError(f"--steps {steps}: this model takes {most}")
    model.to(device).optimise(precision, compile=compile)

    def draw(images: Tensor) -> Tensor:
        height = model.predict_coarse(images)
        return (model.refine(images, height, steps).height if model.refines else height)[:, 0]

    facts = {
        "name": _name(folder),
        "weights": _digest(folder),
        "stages": 2 if model.refines else 1,
        "steps": steps or model.config["steps"],
        "precision": precision,
    }
    multiple = model.size_multiple if model.refines else 1
    tile_size = model.config["tile_size"] or _USUAL_TILE
    return Predictor(draw, "relative height", "height", multiple, tile_size, facts)


def _digest(folder: Path) -> str:
    """A digest of all weights: a scene is resumed only with the same model."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
