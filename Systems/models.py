"""Opens a trained model as the function that whole scenes need."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Modules.common.precision import Precision
from Systems.d3rsmde.build import load_model
from Utils.core.errors import UserError
from Utils.scenes.tiles.tile_prediction import Predictor
from Utils.training.run_files import MODEL_FOLDER

_USUAL_TILE = 512


def load_predictor(
    folder: Path, device: torch.device, precision: Precision = "fp32", steps: int | None = None, compile: bool = False
) -> tuple[Predictor, dict[str, Any], int]:
    """Load a model folder, or that of a run.

    Args:
        folder: folder of the model, or of the run that wrote it.
        device: device on which it runs.
        precision: number format of the weights, as for ``D3RSMDE.optimise``.
        steps: refinement steps; None takes the model's own.
        compile: whether to use torch.compile, as for ``D3RSMDE.optimise``.

    Returns:
        The predictor; facts that identify the model, for results and resuming; the tile size it was trained on.

    Raises:
        UserError: no model there, a damaged one, or one that cannot start from an image.
    """
    model = load_model(folder)
    folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER).is_dir() else folder
    if model.coarse is None:
        raise UserError(f"--model '{folder}' holds no stage 1; train stage 2 with coarse_checkpoint_path set")
    if steps is not None and not (model.refines and 1 <= steps <= len(model.scheduler.weights)):
        most = f"1 to {len(model.scheduler.weights)}" if model.refines else "none: this model has no stage 2"
        raise UserError(f"--steps {steps}: this model takes {most}")
    model.to(device).optimise(precision, compile=compile)

    def predict(images: Tensor) -> Tensor:
        height = model.predict_coarse(images)
        return (model.refine(images, height, steps).height if model.refines else height)[:, 0]

    facts = {
        "name": folder.parent.name if folder.name == MODEL_FOLDER else folder.name,
        "weights": _digest(folder),
        "stages": 2 if model.refines else 1,
        "steps": steps or model.config["steps"],
        "precision": precision,
    }
    return predict, facts, model.config["tile_size"] or _USUAL_TILE


def _digest(folder: Path) -> str:
    """A digest of all weights: a scene is resumed only with the same model."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
