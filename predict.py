"""Height rasters from whole scenes: any raster in, a GeoTIFF out, seamless, in metres where a reference is given.

A model of land cover draws classes instead.

python predict.py --model output/Demo/diffusion/model --input scene.tif --output height.tif
python predict.py --model FOLDER --input scene.tif --output height.tif --reference dem.tif --uncertainty --preview
python predict.py --input scene.tif --output height.tif --reference dem.tif --detail shading
python predict.py --model output/Diffusion/DEM --input scene.tif --output height.tif --reference dem.tif
python predict.py --model output/LandCover --input scene.tif --output classes.tif --relative-depth depth.tif --preview
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from Modules.common.precision import PRECISIONS
from Systems.class_scenes import add_class_arguments, draw_classes, refuse_class_arguments
from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.predictor import DIRECTIONS
from Utils.core.processes import everywhere, on_main, tell
from Utils.core.reading_arguments import NO_VOIDS, add_reading_arguments, point_columns
from Utils.core.stopping import interrupted_by_termination
from Utils.scenes.options import DETAILS, MOST_ORIENTATIONS, SceneOptions

logger = logging.getLogger(__name__)

_USUAL_STRETCH = (2.0, 98.0)  # itself, where the command says nothing and the model may decide


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)

    def work() -> None:
        # Only now, so that --help and a wrong argument are answered at once.
        from Systems.models import from_hub, holds_class_model
        from Systems.scene_model import SceneModel, open_scene_model
        from Utils.core.device import pick_device
        from Utils.rasters.source.scene_source import find_scenes
        from Utils.scenes.output.last_guard import check_refused
        from Utils.scenes.output.output_checks import name_outputs
        from Utils.scenes.scene_run import check_scene, predict_scene, summary
        from Utils.scenes.several_scenes import SceneFailures

        scenes = on_main(lambda: find_scenes(given.input))
        outputs = on_main(lambda: name_outputs(scenes, given.output))
        options = everywhere(lambda: _options(given))
        device = pick_device()
        if given.model is not None:
            given.model = everywhere(lambda: from_hub(given.model))
        if given.model is not None and holds_class_model(given.model):
            return draw_classes(given, parser, scenes, outputs, device)
        refuse_class_arguments(given)
        model = SceneModel()
        if options.uses_model:
            model = everywhere(
                lambda: open_scene_model(
                    given.model,
                    device,
                    given.precision,
                    given.compile,
                    steps=given.steps,
                    polarity=given.polarity,
                    of_tiles={"tile_size": given.tile_size, "overlap": given.overlap},
                )
            )
            options = model.fitted(options, given.tile_size)
        predictor, refine = model.predictor, model.refiner.draw if model.refiner else None
        if predictor is not None and predictor.full_range and given.stretch is _USUAL_STRETCH:
            logger.info("the model learnt from brightness as it is in files: scenes are not stretched (--stretch)")
            options = replace(options, stretch=None)
        failures, checked = SceneFailures(scenes), {}
        for scene, output in zip(scenes, outputs, strict=True):
            with failures.noted(scene):
                checked[scene] = on_main(partial(check_scene, scene, output, options))
        for scene, output in zip(scenes, outputs, strict=True):
            if scene in failures:
                continue
            if len(scenes) > 1:
                logger.info("%s", scene)
            with failures.noted(scene):
                known = checked.pop(scene)
                result = predict_scene(scene, output, predictor, options, model.facts, device, known, refine)
                tell(summary(result))
                check_refused(output, result.document)
        failures.tell()

    with interrupted_by_termination():
        return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--model", help="model folder, folder of a run, or name on the hub; see also --detail")
    parser.add_argument("--input", required=True, nargs="+", metavar="SCENE", help="rasters, folders or patterns")
    parser.add_argument("--output", required=True, help="GeoTIFF to write; for several scenes, a folder")

    reading = parser.add_argument_group("reading")
    add_reading_arguments(reading, "the whole scene")
    parser.set_defaults(stretch=_USUAL_STRETCH)

    model = parser.add_argument_group("model")
    model.add_argument("--tile-size", type=int, metavar="PIXELS", help="(the size that the model was trained on)")
    model.add_argument("--overlap", type=int, metavar="PIXELS", help="shared by neighbouring tiles (a quarter)")
    model.add_argument("--batch-size", type=int, default=4, help="tiles at once (4)")
    model.add_argument("--steps", type=int, help="refinement steps (the model's own)")
    model.add_argument(
        "--polarity",
        choices=DIRECTIONS,
        help="what rises in the maps of a depth model whose type does not tell",
    )
    model.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    model.add_argument("--compile", action="store_true", help="torch.compile")
    model.add_argument(
        "--uncertainty",
        type=int,
        nargs="?",
        const=MOST_ORIENTATIONS,
        default=1,
        metavar="N",
        help=f"a second band: one standard deviation, from N ways to flip and turn each tile ({MOST_ORIENTATIONS})",
    )
    model.add_argument("--tilt", action="store_true", help="align tiles by a slope each as well")

    metres = parser.add_argument_group("metres")
    metres.add_argument("--reference", type=Path, metavar="DEM", help="a coarse DEM, in any CRS and resolution")
    metres.add_argument(
        "--detail",
        choices=DETAILS,
        default="both",
        help="what adds detail to the DEM, as far as the DEM shows that it is right: "
        "the model and shading (both), model, shading or none; the last two need no --model",
    )
    metres.add_argument("--reference-nodata", type=float, help="a void value that the file does not name")
    metres.add_argument(
        "--register",
        action="store_true",
        help="move a reference that is shifted by more than half a cell onto the image (else it is only said)",
    )
    metres.add_argument(
        "--points",
        type=Path,
        metavar="FILE",
        help="heights at points, alone or beside --reference: "
        "CSV with columns x, y, height, or GeoJSON, GeoPackage, shapefile",
    )
    metres.add_argument(
        "--points-crs",
        default="EPSG:4326",
        help="of x and y (EPSG:4326); EPSG:4326+3855 says what heights refer to, too",
    )
    metres.add_argument(
        "--points-columns",
        type=point_columns,
        default=("x", "y", "height"),
        metavar="X,Y,HEIGHT",
        help="names of its columns",
    )
    metres.add_argument(
        "--points-accuracy", default="", metavar="COLUMN", help="column with each height's standard deviation in metres"
    )
    metres.add_argument(
        "--hold-out",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="keep this share of the points, 0 to 0.5, from the fit, and say how well the result meets them",
    )
    metres.add_argument(
        "--keep-outliers",
        action="store_true",
        help="use void values that nothing declares, spikes and impossible heights",
    )
    metres.add_argument(
        "--vertical-datum",
        default="",
        metavar="EPSG:N",
        help="what the output's heights refer to (what those "
        "of --reference or --points do); known heights of another datum are brought to it",
    )

    add_class_arguments(parser)

    writing = parser.add_argument_group("writing")
    writing.add_argument("--preview", action="store_true", help="also a PNG: relief, or classes, in colours")
    writing.add_argument("--report", action="store_true", help="also report.html beside the output")
    writing.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    writing.add_argument("--overwrite", action="store_true", help="replace an output, or an interrupted run's remains")
    return parser


def _options(given: argparse.Namespace) -> SceneOptions:
    """The options that the command line says; the tile size may wait for the model."""
    if not 1 <= given.uncertainty <= MOST_ORIENTATIONS:
        raise UserError(f"--uncertainty {given.uncertainty}: give 2 to {MOST_ORIENTATIONS} ways, or no number")
    if given.model is None and given.detail in ("both", "model"):
        raise UserError("give --model; only --reference with --detail shading or --detail none does without")
    if given.batch_size < 1:
        raise UserError(f"--batch-size {given.batch_size}: give 1 or more")
    return SceneOptions(
        tile_size=given.tile_size or 512,
        overlap=given.overlap,
        bands=given.bands,
        nodata=None if given.nodata == NO_VOIDS else given.nodata,
        suspect_voids=given.nodata != NO_VOIDS,
        stretch=given.stretch,
        batch_size=given.batch_size,
        orientations=given.uncertainty,
        tilt=given.tilt,
        reference=given.reference,
        detail=given.detail,
        reference_nodata=given.reference_nodata,
        register=given.register,
        points=given.points,
        points_crs=given.points_crs,
        points_columns=given.points_columns,
        points_accuracy=given.points_accuracy,
        hold_out=given.hold_out,
        keep_outliers=given.keep_outliers,
        vertical_datum=given.vertical_datum,
        preview=given.preview,
        report=given.report,
        resume=given.resume,
        overwrite=given.overwrite,
    )


if __name__ == "__main__":
    raise SystemExit(main())
