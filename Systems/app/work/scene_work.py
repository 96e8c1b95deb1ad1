"""What the app's processes do of a scene: open models, predict, and make what the page or the API answers.

Everything here runs in a process of a ``Crew``, where a crash costs one request.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from Systems.app.asked_options import USUAL_STRETCH, class_options
from Systems.app.limits import Refusal
from Systems.app.offered_models import OfferedModel
from Systems.app.work.crew import PRELOADED
from Utils.core.watching import note_step

if TYPE_CHECKING:
    from Systems.app.page_results import PageResults
    from Utils.scenes.classes.class_run import ClassResult
    from Utils.scenes.options import SceneOptions
    from Utils.scenes.scene_run import SceneResult

__all__ = ["Answer", "answer_scene", "draw_scene", "predict", "prepare_checks", "prepare_scenes"]

Answer = Literal["geotiff", "json", "glb", "png"]
T = TypeVar("T")

logger = logging.getLogger(__name__)

_HEIGHTS, _CLASSES = "height.tif", "classes.tif"
_SUFFIXES = {"geotiff": ".tif", "glb": ".glb", "png": ".png"}
_TRIANGLES = 300_000
_kept: tuple[str, Any] | None = None


def prepare_checks() -> None:
    """Import what the look at an upload needs, before the first one comes."""
    importlib.import_module("Systems.app.uploads")


def prepare_scenes() -> None:
    """Import what a scene needs, before the first one comes."""
    for name in PRELOADED:
        importlib.import_module(name)


def predict(folder: Path, image: Path, model: OfferedModel | None, options: SceneOptions) -> SceneResult | ClassResult:
    """Predict a scene: heights, or classes with a model that draws these.

    Args:
        folder: folder of the job, into which the result is written.
        image: the scene.
        model: the model; None for none.
        options: of the scene.

    Raises:
        UserError: options or files that do not fit.
        RasterError: a raster that cannot be read.
        Stopped: the job is to stop.
    """
    note_step("opening the model", 0, 0)
    if model is not None and model.draws_classes:
        return _classes(folder, image, model, options)
    return _heights(folder, image, model, options)


def answer_scene(
    folder: Path, image: Path, model: OfferedModel | None, options: SceneOptions, answer: Answer
) -> dict[str, Any] | Path:
    """Predict a scene for the API.

    Returns:
        Statistics for ``json``, else the file that is to be sent.

    Raises:
        Refusal: 422 for a surface of classes; and what ``predict`` raises.
    """
    from Systems.app.statistics import raster_statistics

    result = predict(folder, image, model, options)
    output, document = result.output, result.document
    if answer == "json":
        return raster_statistics(output, document)
    path = output.with_suffix(_SUFFIXES[answer])
    if document["kind"] == "classes":
        if answer == "glb":
            raise Refusal(422, "this model draws classes, which have no surface; ask for geotiff, png or json")
    elif answer == "png":
        from Utils.scenes.output.preview import write_preview

        write_preview(path, output)
    if answer == "glb":
        from Systems.app.views import scene_glb, scene_image

        path.write_bytes(scene_glb(scene_image(image, options), output, _TRIANGLES))
    return path


def draw_scene(folder: Path, image: Path, model: OfferedModel | None, options: SceneOptions) -> PageResults:
    """Predict a scene for the page, and draw all that it shows of it."""
    from Systems.app.page_results import collect_results

    result = predict(folder, image, model, options)
    note_step("drawing", 0, 0)
    return collect_results(folder, image, result, options)


def _heights(folder: Path, image: Path, model: OfferedModel | None, options: SceneOptions) -> SceneResult:
    from Systems.models import from_hub
    from Systems.scene_model import SceneModel, open_scene_model
    from Utils.core.device import pick_device
    from Utils.scenes.scene_run import check_scene, predict_scene

    device = pick_device()
    opened = SceneModel()
    if options.uses_model and model is not None:
        opened = _open(model.place, lambda: open_scene_model(str(from_hub(model.place)), device))
    if opened.predictor is not None and opened.predictor.full_range and options.stretch == USUAL_STRETCH:
        logger.info("the model learnt from brightness as it is in files: the scene is not stretched")
        options = replace(options, stretch=None)
    options = opened.fitted(options)
    note_step("reading", 0, 0)
    output = folder / _HEIGHTS
    known = check_scene(image, output, options)
    refine = opened.refiner.draw if opened.refiner else None
    return predict_scene(image, output, opened.predictor, options, opened.facts, device, known, refine)


def _classes(folder: Path, image: Path, model: OfferedModel, options: SceneOptions) -> ClassResult:
    from Systems.models import load_class_model
    from Utils.core.device import pick_device
    from Utils.scenes.classes.class_run import predict_class_scene

    device = pick_device()
    opened = _open(model.place, lambda: load_class_model(model.place, device))
    note_step("reading", 0, 0)
    asked = class_options(model, opened, options)
    return predict_class_scene(image, folder / _CLASSES, opened, asked, device)


def _open(place: str, opened: Callable[[], T]) -> T:
    """A model, which stays open in this process until another one is wanted."""
    global _kept
    if _kept is None or _kept[0] != place:
        _kept = None  # two at once may be too many for the memory
        _kept = (place, opened())
    model: T = _kept[1]
    return model
