"""Score a whole scene's heights against a true DEM, or its classes against labels, on another grid, CRS or resolution.

python evaluateScene.py --prediction height.tif --truth dem.tif --output results/scene
python evaluateScene.py --prediction height.tif --truth lidar.tif --reference dem.tif --output FOLDER --error-map
python evaluateScene.py --prediction height.tif --truth lidar.tif --output FOLDER --coregister
python evaluateScene.py --prediction height.tif --truth points.csv --output FOLDER
python evaluateScene.py --prediction classes.tif --truth labels.tif --output FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.processes import on_main
from Utils.core.reading_arguments import point_columns

if TYPE_CHECKING:
    from Utils.rasters.vertical_datum import VerticalDatum


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    missing = [name for name in ("prediction", "truth") if getattr(given, name) is None]
    if given.several is None and missing:
        parser.error(f"the following arguments are required: {', '.join(f'--{name}' for name in missing)}")
    if given.several is not None and len(missing) < 2:
        parser.error("--several ranks results that are there: leave --prediction and --truth out")

    # One pass over a few rasters: in a launch of several processes the first one makes it.
    def work() -> None:
        on_main(score if given.several is None else rank)

    def rank() -> None:
        from Utils.scenes.accuracy.accuracy_tables import check_output, writing
        from Utils.scenes.accuracy.ranking import rank_results, write_ranking

        check_output(given.output, [])
        ranking = rank_results(given.several)
        with writing(given.output):
            print(write_ranking(given.output, ranking))
        print(f"\nranking: {given.output}")

    def score() -> None:
        # Only now, so that --help and a wrong argument are answered at once.
        from Utils.rasters.places import container
        from Utils.rasters.vertical_datum import parse_datum
        from Utils.scenes.accuracy.accuracy_figure import save_accuracy_figure
        from Utils.scenes.accuracy.accuracy_report import write_accuracy_report
        from Utils.scenes.accuracy.accuracy_tables import check_output, write_tables, writing
        from Utils.scenes.accuracy.checkpoints import holds_points
        from Utils.scenes.accuracy.fused_reference import find_reference
        from Utils.scenes.accuracy.scene_scoring import parse_slope_classes, score_scene
        from Utils.scenes.classes.class_scoring import holds_classes

        if given.class_table is not None or holds_classes(given.prediction):
            return score_labels()
        datums = {
            "prediction": parse_datum(given.vertical_datum),
            "truth": parse_datum(given.truth_datum, "--truth-datum"),
        }
        if holds_points(given.truth):
            return score_points(datums)
        for option in ("points_accuracy", "points_class", "vegetated"):
            if getattr(given, option):
                what = option.replace("_", "-")
                raise UserError(f"--{what} belongs to checkpoints: give a table or a vector file as --truth")
        if given.stable_ground is not None and not given.coregister:
            raise UserError("--stable-ground says where --coregister looks for the shift: give both")
        reference = None
        if not given.no_reference:
            reference = find_reference(given.prediction, given.reference, given.keep_outliers)
        inputs = [path for path in (given.prediction, given.truth, given.baseline) if path is not None]
        inputs += [] if reference is None else [container(reference.path)]
        check_output(given.output, inputs)
        scores = score_scene(
            given.prediction,
            given.truth,
            baseline=given.baseline,
            slope_classes=parse_slope_classes(given.slope_classes),
            align=given.align,
            truth_nodata=given.nodata,
            error_map=given.output / "errors.tif" if given.error_map else None,
            keep_outliers=given.keep_outliers,
            reference=reference,
            datums=datums,
            coregister=given.coregister,
            stable_ground=given.stable_ground,
            classes=given.classes,
        )
        with writing(given.output):
            print(write_tables(scores, given.output))
            save_accuracy_figure(given.output / "figure.png", scores)
            write_accuracy_report(given.output / "report.html", scores, given.output / "figure.png")
        print(f"\ntables, numbers, figure and report: {given.output}")

    def score_labels() -> None:
        from Utils.rasters.places import container
        from Utils.scenes.accuracy.accuracy_tables import check_output, writing
        from Utils.scenes.classes.class_score_report import write_class_scores
        from Utils.scenes.classes.class_scoring import score_classes

        taken = ("prediction", "truth", "output", "nodata", "class_table", "absent_classes")
        for option, value in vars(given).items():
            if option not in taken and value != parser.get_default(option):
                what = option.replace("_", "-")
                raise UserError(f"--{what} belongs to heights, and '{given.prediction}' holds classes; leave it out")
        check_output(given.output, [container(path) for path in (given.prediction, given.truth)])
        absent = given.absent_classes
        scores = score_classes(given.prediction, given.truth, given.class_table, given.nodata, absent)
        with writing(given.output):
            print(write_class_scores(given.output, scores))
        print(f"\ntables, numbers, figure and report: {given.output}")

    def score_points(datums: dict[str, VerticalDatum]) -> None:
        from Utils.rasters.places import container
        from Utils.scenes.accuracy.accuracy_tables import check_output, writing
        from Utils.scenes.accuracy.checkpoint_report import write_checkpoints
        from Utils.scenes.accuracy.checkpoints import score_checkpoints

        for option in ("stable_ground", "classes", "error_map", "reference", "nodata"):
            if getattr(given, option):
                what = option.replace("_", "-")
                raise UserError(f"--{what} needs a raster as --truth; checkpoints are scored without it")
        inputs = [container(path) for path in (given.prediction, given.truth, given.baseline) if path is not None]
        check_output(given.output, inputs)
        scores = score_checkpoints(
            given.prediction,
            given.truth,
            baseline=given.baseline,
            crs=given.points_crs,
            columns=given.points_columns,
            accuracy=given.points_accuracy,
            class_column=given.points_class,
            vegetated=[name for name in given.vegetated.split(",") if name.strip()],
            keep_outliers=given.keep_outliers,
            datums=datums,
            coregister=given.coregister,
        )
        with writing(given.output):
            print(write_checkpoints(given.output, scores))
        print(f"\ntable, numbers, points, figure and report: {given.output}")

    return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--prediction", type=Path, metavar="TIF", help="of predict.py, or any DEM")
    parser.add_argument("--truth", type=Path, metavar="DEM", help="true heights: a raster, or checkpoints")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for tables, JSON and figure")
    parser.add_argument(
        "--several",
        type=Path,
        nargs="+",
        metavar="RESULTS",
        help="rank the maps over several scenes that were scored: the folders of their results",
    )
    parser.add_argument("--baseline", type=Path, metavar="DEM", help="another DEM to score beside")
    fused = parser.add_mutually_exclusive_group()
    fused.add_argument(
        "--reference",
        type=Path,
        metavar="DEM",
        help="the coarse DEM behind the prediction, scored too: interpolated bicubically, and alone, without image and "
        "model (the one that the prediction's JSON names)",
    )
    fused.add_argument("--no-reference", action="store_true", help="score no coarse DEM beside the prediction")
    parser.add_argument("--slope-classes", default="5,15,30", metavar="DEGREES", help="bounds of the classes (5,15,30)")
    parser.add_argument(
        "--align",
        choices=("auto", "none", "affine"),
        default="auto",
        help="fit one scale and shift to the truth for relative heights, a shift alone for metres of unknown level "
        "(auto); never; or one scale and shift always",
    )
    parser.add_argument(
        "--nodata", type=float, metavar="X", help="another value of the truth without data: --nodata=-9999"
    )
    parser.add_argument(
        "--keep-outliers",
        action="store_true",
        help="take undeclared void values and the truth's wrong cells as heights",
    )
    for option, whose in (("--vertical-datum", "prediction"), ("--truth-datum", "truth")):
        parser.add_argument(
            option,
            default="",
            metavar="EPSG:N",
            help=f"what the {whose}'s heights refer to, where its file does not say",
        )
    parser.add_argument(
        "--coregister",
        action="store_true",
        help="also move every map onto the truth (Nuth and Kaab, by xdem; onto checkpoints by least squares) and score "
        "it again; both tables are shown",
    )
    parser.add_argument(
        "--stable-ground",
        type=Path,
        metavar="MASK",
        help="where the ground did not change: a raster (not 0) or polygons (GeoJSON, GeoPackage, shapefile)",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="TIF", help="classes of the ground, for a table (a flag band of the prediction)"
    )
    labels = parser.add_argument_group("classes: --prediction of a model of land cover, --truth a raster of labels")
    labels.add_argument(
        "--class-table", type=Path, metavar="JSON", help="classes of both rasters (those that predict.py wrote)"
    )
    labels.add_argument(
        "--absent-classes",
        choices=("count as 0", "left out"),
        default="count as 0",
        help="in means: classes that neither raster has (count as 0)",
    )
    points = parser.add_argument_group("checkpoints: --truth points.csv, .geojson, .gpkg or .shp")
    points.add_argument(
        "--points-crs",
        default="EPSG:4326",
        help="of x and y (EPSG:4326); EPSG:4326+3855 says what heights refer to, too",
    )
    points.add_argument(
        "--points-columns",
        type=point_columns,
        default=("x", "y", "height"),
        metavar="X,Y,HEIGHT",
        help="names of its columns",
    )
    points.add_argument(
        "--points-accuracy",
        default="",
        metavar="COLUMN",
        help="column with each height's standard deviation, or one in m",
    )
    points.add_argument("--points-class", default="", metavar="COLUMN", help="column with classes, such as NVA and VVA")
    points.add_argument("--vegetated", default="", metavar="CLASSES", help="classes that count as VVA: forest,shrub")
    parser.add_argument("--error-map", action="store_true", help="also errors.tif: prediction minus truth")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
