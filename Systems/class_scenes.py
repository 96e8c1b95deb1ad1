"""Classes of whole scenes, what predict.py does with a model of land cover: its arguments, and the relative depth."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Utils.core.errors import UserError
from Utils.core.processes import everywhere, on_main, tell
from Utils.core.reading_arguments import NO_VOIDS

if TYPE_CHECKING:
    import torch

    from Utils.core.predictor import Predictor
    from Utils.scenes.classes.class_model import ClassModel

__all__ = ["add_class_arguments", "draw_classes", "refuse_class_arguments"]

logger = logging.getLogger(__name__)

_OF_CLASSES = ("relative_depth", "relative_depth_rises", "depth_model", "probabilities", "polygons")
_OF_HEIGHTS = (
    "steps",
    "uncertainty",
    "tilt",
    "reference",
    "detail",
    "reference_nodata",
    "register",
    "points",
    "points_crs",
    "points_columns",
    "points_accuracy",
    "hold_out",
    "keep_outliers",
    "vertical_datum",
)


def add_class_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that models of classes take alone."""
    group = parser.add_argument_group("classes, of a model of land cover")
    group.add_argument(
        "--relative-depth",
        type=Path,
        metavar="RASTER",
        help="relative depth or heights of the same place, on any grid; a folder with a raster of each scene's name",
    )
    group.add_argument(
        "--relative-depth-rises",
        choices=("depth", "height"),
        help="what rises in it (what the JSON beside it says, else height)",
    )
    group.add_argument(
        "--depth-model", metavar="MODEL", help="draws the relative depth first: any --model of heights, or a hub name"
    )
    group.add_argument("--probabilities", action="store_true", help="also a raster with each class's, and the entropy")
    group.add_argument("--polygons", action="store_true", help="also a GeoPackage with the areas of each class")


def refuse_class_arguments(given: argparse.Namespace) -> None:
    """Refuse arguments of classes where the model draws heights.

    Raises:
        UserError: one is given.
    """
    for name in _OF_CLASSES:
        if getattr(given, name):
            raise UserError(
                f"--{name.replace('_', '-')} belongs to models of land cover, which draw classes; leave it out"
            )


def draw_classes(
    given: argparse.Namespace,
    defaults: argparse.ArgumentParser,
    scenes: Sequence[Path],
    outputs: Sequence[Path],
    device: torch.device,
) -> None:
    """Draw the classes of scenes with the model ``given.model``.

    Args:
        given: the arguments of predict.py.
        defaults: its parser, which knows what they are where nobody gave them.
        scenes: the scenes.
        outputs: the raster to write for each.
        device: where models run.

    Raises:
        UserError: arguments, model, scenes or outputs that cannot be used.
    """
    from Systems.models import load_class_model
    from Utils.scenes.classes.class_run import check_class_scene, class_summary, predict_class_scene
    from Utils.scenes.several_scenes import SceneFailures

    _check_arguments(given, defaults)
    model = everywhere(lambda: load_class_model(given.model, device, given.precision, given.compile))
    _check_depth(given, model)
    depth_model = everywhere(lambda: _depth_model(given, device))
    failures = SceneFailures(list(scenes))
    for scene, output in zip(scenes, outputs, strict=True):
        with failures.noted(scene):
            where = None if given.relative_depth is None else on_main(partial(_raster_of, scene, given.relative_depth))
            options = _options(given, defaults, model, where)
            # Whatever is wrong shows here, and not after the relative depth was drawn.
            on_main(partial(check_class_scene, scene, output, options, model))
            if depth_model is not None:
                drawn = _draw_depth(scene, output, depth_model, given, device)
                options = _options(given, defaults, model, drawn)
            tell(class_summary(predict_class_scene(scene, output, model, options, device)))
    failures.tell()


def _check_arguments(given: argparse.Namespace, defaults: argparse.ArgumentParser) -> None:
    for name in _OF_HEIGHTS:
        if getattr(given, name) != defaults.get_default(name):
            option = name.replace("_", "-")
            raise UserError(f"--{option} belongs to heights, and the model '{given.model}' draws classes; leave it out")
    if given.polarity is not None and given.depth_model is None:
        raise UserError("--polarity says what rises in the maps of --depth-model: give it too, or leave this out")
    if given.relative_depth is not None and given.depth_model is not None:
        raise UserError("--relative-depth is a raster that is there, and --depth-model draws one: give one of them")
    if given.relative_depth_rises is not None and given.relative_depth is None:
        raise UserError("--relative-depth-rises says what rises in --relative-depth: give it too")


def _check_depth(given: argparse.Namespace, model: ClassModel) -> None:
    """Relative depth must be there where the model sees it, and must not where it sees none."""
    if model.uses_depth and given.relative_depth is None and given.depth_model is None:
        raise UserError(
            f"the model '{given.model}' sees relative depth: give --relative-depth RASTER (heights, or what python -m "
            "Systems.relative_depth wrote), or --depth-model MODEL, such as depth-anything/Depth-Anything-V2-Small-hf"
        )
    for name in ("relative_depth", "depth_model"):
        if not model.uses_depth and getattr(given, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')}: the model '{given.model}' sees no relative depth; leave it out"
            )


def _depth_model(given: argparse.Namespace, device: torch.device) -> Predictor | None:
    if given.depth_model is None:
        return None
    from Systems.models import load_predictor

    return load_predictor(given.depth_model, device, given.precision, None, given.compile, given.polarity)


def _raster_of(scene: Path, given: Path) -> Path:
    """The raster of relative depth of a scene: the one that is given, or that of its name in the folder given."""
    if not given.is_dir():
        return given
    found = [path for path in sorted(given.glob(f"{scene.stem}.*")) if path.suffix != ".json"]
    if not found:
        raise UserError(
            f"--relative-depth '{given}' has no raster named {scene.stem}; make it: python -m Systems.relative_depth "
            f"--model depth-anything/Depth-Anything-V2-Small-hf --input '{scene}' --output '{given}'"
        )
    return found[0]


def _options(
    given: argparse.Namespace, defaults: argparse.ArgumentParser, model: ClassModel, relative_depth: Path | None
) -> Any:
    from Utils.scenes.classes.class_options import ClassOptions

    # Percentiles are the default for heights. A model of classes sees colours as in its training, unless somebody asks.
    usual = given.stretch is defaults.get_default("stretch")
    return ClassOptions(
        tile_size=given.tile_size or model.tile_size,
        overlap=given.overlap,
        bands=given.bands,
        nodata=None if given.nodata == NO_VOIDS else given.nodata,
        suspect_voids=given.nodata != NO_VOIDS,
        stretch=None if usual else given.stretch,
        white=model.white,
        batch_size=given.batch_size,
        relative_depth=relative_depth,
        rises=given.relative_depth_rises,
        probabilities=given.probabilities,
        polygons=given.polygons,
        preview=given.preview,
        report=given.report,
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _draw_depth(scene: Path, output: Path, model: Predictor, given: argparse.Namespace, device: torch.device) -> Path:
    """Draw the relative depth of a whole scene, seamless, into a raster beside the output, which stays."""
    from Utils.scenes.options import SceneOptions
    from Utils.scenes.scene_run import check_scene, predict_scene

    path = output.with_name(f"{output.stem}_relative_depth.tif")
    if given.resume and on_main(lambda: _is_drawn(path, model)):
        logger.info("'%s' is there already, drawn by the same model", path)
        return path
    options = SceneOptions(
        tile_size=model.tile_size,
        bands=given.bands,
        nodata=None if given.nodata == NO_VOIDS else given.nodata,
        suspect_voids=given.nodata != NO_VOIDS,
        stretch=given.stretch,
        batch_size=given.batch_size,
        model_in_metres=model.predicts == "height",
        resume=given.resume,
        overwrite=given.overwrite,
    )
    known = on_main(lambda: check_scene(scene, path, options))
    predict_scene(scene, path, model, options, model.describe(), device, known)
    tell(f"{path}: relative depth, drawn by {model.describe().get('name', given.depth_model)}")
    return path


def _is_drawn(path: Path, model: Predictor) -> bool:
    """Whether a raster of relative depth is there, whole, and drawn by this model."""
    try:
        document = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        same: bool = document["model"] == json.loads(json.dumps(model.describe()))
        return path.is_file() and same
    except (OSError, ValueError, KeyError, TypeError):
        return False
