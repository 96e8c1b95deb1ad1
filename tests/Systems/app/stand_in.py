"""What the app's processes open in place of trained models, in tests: by the name of a model's place."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from Systems.scene_model import SceneModel
from tests.launching import HANG
from tests.scenes import brightness
from Utils.core.predictor import Predictor
from Utils.data.land_cover.class_table import ClassTable
from Utils.scenes.classes.class_model import ClassModel

TILE = 64
GREED = 1_300_000_000  # bytes that the model "greedy" takes


def install(signs: Path) -> None:
    """Replace what opens models, in a process that is there for scenes alone.

    Args:
        signs: folder in which the model "held" writes the file "entered", and then waits while "hold" is there.
    """
    import Systems.models
    import Systems.scene_model

    Systems.scene_model.open_scene_model = lambda place, *_: _opened(place, signs)
    Systems.models.load_class_model = lambda *_: _classes()


def _opened(place: str, signs: Path) -> SceneModel:
    predictor = Predictor(partial(_draw, place, signs), "relative height", "height", 1, TILE, {"name": "brightness"})
    if place == "as it is":
        predictor = replace(predictor, full_range=True)
    return SceneModel(predictor, facts=predictor.describe())


def _draw(place: str, signs: Path, images: Tensor) -> Tensor:
    match place:
        case "held":
            (signs / "entered").touch()
            end = time.monotonic() + HANG
            while (signs / "hold").exists() and time.monotonic() < end:
                time.sleep(0.02)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "greedy":
            much = b"1" * GREED
            time.sleep(HANG)
            del much
        case "mistake":
            raise ZeroDivisionError("division by zero")
    return brightness(images)


def _classes() -> ClassModel:
    def draw(images: Tensor, maps: Tensor | None) -> Tensor:
        bright = images.mean(dim=1, keepdim=True)
        return torch.cat([1.0 - bright, bright], dim=1)

    table = ClassTable(("water", "snow"), ((0, 0, 255), (250, 250, 250)), (1, 2))
    facts: dict[str, Any] = {"name": "toy"}
    return ClassModel(draw, table, False, TILE, None, facts)
