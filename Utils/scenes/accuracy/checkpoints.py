"""Height maps of any size against checkpoints: read at the points alone, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.core.errors import UserError
from Utils.rasters.datum_shift import DatumShift
from Utils.rasters.environment import gdal_environment
from Utils.rasters.geometry import Geometry
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum, datum_of
from Utils.scenes.accuracy.checkpoint_scores import FEWEST, CheckpointScores, PointErrors
from Utils.scenes.accuracy.height_file import check_heights, opened, scaling_of
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.height_maps import HeightMap
from Utils.scenes.accuracy.point_coregistration import coregistered
from Utils.scenes.accuracy.scene_scores import BASELINE, PREDICTION
from Utils.scenes.fusion.anchors import Points
from Utils.scenes.fusion.point_files import VECTORS
from Utils.scenes.fusion.points_on_scene import read_points

__all__ = ["TABLES", "holds_points", "score_checkpoints"]

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".txt", ".dat")
"""Suffixes of tables of points."""

_VEGETATED = ("vva", "vegetated")


def holds_points(path: Path) -> bool:
    """Whether a truth is a file of points."""
    return path.suffix.lower() in (*TABLES, *VECTORS)


def score_checkpoints(
    prediction: Path,
    truth: Path,
    *,
    baseline: Path | None = None,
    crs: str = "EPSG:4326",
    columns: Sequence[str] = ("x", "y", "height"),
    accuracy: str = "",
    class_column: str = "",
    vegetated: Sequence[str] = (),
    keep_outliers: bool = False,
    datums: dict[str, VerticalDatum] | None = None,
    coregister: bool = False,
) -> CheckpointScores:
    """Score height maps in metres against checkpoints.

    Args:
        prediction: any DEM; its vertical datum is that of all comparisons.
        truth: a table, GeoJSON, GeoPackage or shapefile of points.
        baseline: another DEM, scored at the same points.
        crs: of x and y in a table; one with heights says what they refer to.
        columns: names of x, y and height.
        accuracy: a column with each height's standard deviation, or one number in metres for all; empty for unknown.
        class_column: a column with classes; empty for none.
        vegetated: classes that are vegetated, beside VVA.
        keep_outliers: whether fill values and impossible heights are taken as heights.
        datums: what heights refer to where a file does not say it, of ``prediction`` and ``truth``.
        coregister: whether each map is also moved onto the checkpoints and scored again; ``before`` of the scores then
            has those of the maps where they lay.

    Raises:
        UserError: no checkpoint lies on the maps, a map has no metres or no place, datums that cannot be brought over,
            or a shift that cannot be found.
        RasterError: a map that cannot be read.
    """
    datums = datums or {}
    with gdal_environment(), ExitStack() as stack:
        maps, inputs, datum = {}, {}, UNKNOWN
        for name, path in {PREDICTION: prediction, BASELINE: baseline}.items():
            if path is None:
                continue
            source = stack.enter_context(opened(path))
            band, facts = check_heights(path, source)
            grid = Grid.of(source)
            if facts["kind"] != "metric":
                raise UserError(
                    f"{name} '{path}': its heights are {facts['kind']}; checkpoints score heights in metres"
                )
            if grid.crs is None:
                raise UserError(f"{name} '{path}' has no CRS (or no transform), so no checkpoint can be laid on it")
            own = datum_of(path, source, datums.get(name, UNKNOWN))
            facts["vertical_datum"] = own.describe()
            datum = own if name == PREDICTION else datum
            scaling = scaling_of(source, band, facts["metres_per_unit"])
            scene = Geometry(grid.height, grid.width, grid.crs, grid.transform)
            lift = None
            if name == BASELINE and own.known and datum.known and not own.same_as(datum):
                shift = DatumShift(own, datum, grid.crs, f"baseline '{path}'")
                lift = partial(_lifted, shift, grid)
                facts["vertical_datum"]["brought_to"] = datum.describe()
            maps[name], inputs[name] = (HeightMap(path, source, band, scaling, lift), scene, grid), facts
        points = _checkpoints(truth, crs, maps, columns, accuracy, class_column, keep_outliers, datums, datum)
        scene = maps[PREDICTION][1]
        places = {PREDICTION: (points.rows, points.columns)}
        if BASELINE in maps:
            xs, ys = scene.coordinates(points.rows, points.columns)
            places[BASELINE] = maps[BASELINE][1].place(xs, ys, scene.crs)
        heights = {name: _at(one, *places[name]) for name, (one, _, _) in maps.items()}
        shifts, moved = {}, {}
        if coregister:
            for name, (one, _, grid) in maps.items():
                shifts[name], moved[name] = coregistered(one, grid, *places[name], points.heights, name)
        truth_datum = points.datum
    inputs["truth"] = {"path": truth.as_posix(), "vertical_datum": truth_datum.describe()}
    before = _scores(truth, inputs, points, heights, vegetated)
    return before if not coregister else replace(
        _scores(truth, inputs, points, moved, vegetated), before=before, shifts=shifts
    )  # fmt: skip


def _scores(
    truth: Path,
    inputs: dict[str, dict[str, Any]],
    points: Points,
    heights: dict[str, NDArray[np.float64]],
    vegetated: Sequence[str],
) -> CheckpointScores:
    """The scores of maps whose heights (N,) at the points are given."""
    known = np.logical_and.reduce([np.isfinite(values) for values in heights.values()])
    left_out = {**points.left_out, **({"on_pixels_without_data": int((~known).sum())} if not known.all() else {})}
    if not known.any():
        raise UserError(
            f"--truth '{truth}': all {known.size} checkpoints lie on pixels without data; nothing is scored"
        )
    if known.sum() < FEWEST:
        logger.warning("--truth '%s': %d checkpoints, fewer than %d: scored all the same", truth, known.sum(), FEWEST)
    labels = None if points.labels is None else points.labels[known]
    errors = {name: (values - points.heights)[known] for name, values in heights.items()}
    sigma = None if points.sigma is None else points.sigma[known]
    wooded = _vegetated(labels, vegetated, int(known.sum()))
    found = PointErrors(points.rows[known], points.columns[known], points.heights[known], errors, sigma, labels, wooded)
    return CheckpointScores(inputs, found, left_out)


def _lifted(shift: DatumShift, grid: Grid, window: Window) -> NDArray[np.float64]:
    """Metres (H, W) that a window's heights are raised by, to another datum."""
    return shift.over(grid.transform, window.row_off, window.col_off, window.height, window.width)


def _checkpoints(
    truth: Path,
    crs: str,
    maps: dict[str, Any],
    columns: Sequence[str],
    accuracy: str,
    class_column: str,
    keep_outliers: bool,
    datums: dict[str, VerticalDatum],
    wanted: VerticalDatum,
) -> Points:
    """The checkpoints on the prediction, in its datum where both are known."""
    number = _number(accuracy)
    names = (*columns, *([accuracy] if accuracy and number is None else []))
    try:
        points = read_points(
            truth, crs, maps[PREDICTION][1], names, keep_outliers, wanted, 1, class_column, datums.get("truth", UNKNOWN)
        )
    except UserError as error:
        raise UserError(str(error).replace("--points '", "--truth '")) from error
    if number is not None:
        points = Points(
            points.rows, points.columns, points.heights, points.left_out, points.datum,
            np.full(len(points.rows), number), points.labels,
        )  # fmt: skip
    return points


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if not 0.0 <= found < 1000.0:
        raise UserError(f"--points-accuracy {text}: give a standard deviation in metres, 0 or more, or a column's name")
    return found


def _vegetated(labels: NDArray[np.str_] | None, named: Sequence[str], count: int) -> NDArray[np.bool_]:
    if labels is None:
        return np.zeros(count, bool)
    wanted = {*_VEGETATED, *(name.strip().casefold() for name in named)}
    unknown = [name for name in named if name.strip().casefold() not in {label.casefold() for label in labels}]
    if unknown:
        held = ", ".join(sorted(set(labels.tolist()))[:20])
        raise UserError(f"--vegetated {','.join(unknown)}: no checkpoint has this class; there are {held}")
    return np.array([label.casefold() in wanted for label in labels], bool)


def _at(one: HeightMap, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights at points (N,), bilinear between the centres of pixels; NaN beside the raster or without data."""
    found = np.full(len(rows), np.nan)
    for number, (row, column) in enumerate(zip(rows - 0.5, columns - 0.5, strict=True)):
        if not (-0.5 <= row <= one.height - 0.5 and -0.5 <= column <= one.width - 0.5):
            continue
        # Within half a pixel of the border the border's pixels count.
        row, column = min(max(row, 0.0), one.height - 1.0), min(max(column, 0.0), one.width - 1.0)
        top, left = min(int(row), max(one.height - 2, 0)), min(int(column), max(one.width - 2, 0))
        values = one.read(Window(left, top, min(2, one.width), min(2, one.height)))
        down, right = row - top, column - left
        weights = np.outer([1 - down, down][: values.shape[0]], [1 - right, right][: values.shape[1]])
        used = weights > 0.0
        found[number] = float((weights[used] * values[used]).sum())
    return found
