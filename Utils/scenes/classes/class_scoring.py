"""A raster of classes against labels on any grid: one confusion matrix over all pixels where both are known."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.errors
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from Utils.core.errors import RasterError, UserError
from Utils.data.land_cover.class_table import ClassTable, class_table_of, coded_labels, read_class_table
from Utils.data.sample import IGNORED_LABEL
from Utils.rasters.environment import raster_errors
from Utils.rasters.label_files import label_bands, labels_of
from Utils.reports.evaluation import Evaluation
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap
from Utils.scenes.accuracy.height_file import KIND_TAG, opened
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.classes.class_files import CLASSES_TAG
from Utils.scoring.land_cover.class_scorer import ClassScorer
from Utils.scoring.land_cover.rule_names import AbsentClasses

__all__ = ["BLOCK", "PREDICTION", "ClassScores", "holds_classes", "score_classes"]

logger = logging.getLogger(__name__)

PREDICTION = "prediction"
BLOCK = 256
"""Side in pixels of the blocks that the bootstrap draws: pixels beside each other are no independent witnesses."""

Labels = NDArray[np.uint8]
_PICTURE = 700


@dataclass(frozen=True)
class ClassScores:
    """A scored raster of classes.

    Attributes:
        found: the counts of every block.
        table: the classes.
        facts: what was compared.
        maps: truth and prediction, (h, w) class numbers each, small enough to be shown.
    """

    found: Evaluation
    table: ClassTable
    facts: dict[str, Any]
    maps: tuple[Labels, Labels]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) pixels: truth by row, prediction by column."""
        total: NDArray[np.int64] = sum(row["confusion"] for row in self.found.rows[PREDICTION] if row is not None)
        return total


def holds_classes(path: Path) -> bool:
    """Whether a raster is one of classes, as predict.py writes it; False for what cannot be read."""
    try:
        with opened(path) as source:
            return bool(source.tags().get(KIND_TAG) == "classes")
    except (RasterError, rasterio.errors.RasterioError):
        return False


def score_classes(
    prediction: Path,
    truth: Path,
    table: Path | None = None,
    nodata: float | None = None,
    absent: AbsentClasses = "count as 0",
) -> ClassScores:
    """Score a raster of classes against labels, on the pixels of the prediction; the nearest label of each counts.

    Args:
        prediction: whole numbers, a palette or colours, as a mask of a dataset.
        truth: the same, on any grid and in any CRS.
        table: JSON with the classes of both; None takes those that predict.py wrote into the prediction.
        nodata: a further value of the truth that means that nothing is known.
        absent: what a class that neither has anywhere does in means.

    Raises:
        UserError: no table, other places, no common pixel, or values outside of the table.
        RasterError: a raster that cannot be read.
    """
    with ExitStack() as stack:
        source, other = stack.enter_context(opened(prediction)), stack.enter_context(opened(truth))
        classes = _table(prediction, source, table)
        grid, own = Grid.of(source), Grid.of(other)
        check_georeference(grid, own, prediction, truth, "truth")
        if grid.crs is not None and not grid.same_as(own):
            check_overlap(grid, own, prediction, truth, "truth")
        drawn = _Labels(stack, prediction, source, grid, classes)
        labels = _Labels(stack, truth, other, grid, classes, nodata)
        if labels.warped:
            logger.info("'%s' is on another grid: the nearest label of each of the prediction's pixels counts", truth)
        scorer = ClassScorer(classes.names, absent, boundaries=False, calibration=False)
        found = Evaluation(scorer, rows={PREDICTION: []})
        without = 0
        for window in grid.windows():
            guess, label = drawn.read(window), labels.read(window)
            without += int(((guess == IGNORED_LABEL) & (label != IGNORED_LABEL)).sum())
            label = np.where(guess == IGNORED_LABEL, np.uint8(IGNORED_LABEL), label)
            for row in range(0, window.height, BLOCK):
                for column in range(0, window.width, BLOCK):
                    part = np.s_[row : row + BLOCK, column : column + BLOCK]
                    counted = scorer.count_maps(label[part], np.minimum(guess[part], len(classes.names) - 1))
                    if counted is not None:
                        found.ids.append(f"{window.row_off + row}_{window.col_off + column}")
                        found.rows[PREDICTION].append(counted)
        shrink = max(1.0, max(grid.height, grid.width) / _PICTURE)
        shape = (max(1, round(grid.height / shrink)), max(1, round(grid.width / shrink)))
        maps = labels.read(shape=shape), drawn.read(shape=shape)
    if not found.ids:
        raise UserError(f"'{prediction}' and '{truth}' have no pixel where both know a class; check both CRSs")
    if without:
        logger.warning("%d labelled pixels have no predicted class: they are left out", without)
    facts = {
        "prediction": prediction.as_posix(),
        "truth": truth.as_posix(),
        "grid": "that of the prediction" if labels.warped else "the same",
        "labelled_pixels_without_prediction": without,
        "class_table": classes.describe(),
        "blocks": f"{len(found.ids)} blocks of {BLOCK} x {BLOCK} pixels",
    }
    return ClassScores(found, classes, facts, maps)


def _table(path: Path, source: Any, table: Path | None) -> ClassTable:
    """The classes of both rasters."""
    if table is not None:
        return read_class_table(table)
    try:
        return class_table_of(json.loads(source.tags()[CLASSES_TAG]))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{path}' does not say which classes it has (tag {CLASSES_TAG}): give --class-table, a JSON with them"
        ) from error


class _Labels:
    """A raster of classes, read as class numbers on the grid of the prediction.

    Args:
        stack: closes what is opened.
        path: its file.
        source: the open file.
        grid: the grid that windows are of.
        table: the classes.
        nodata: a further value that means that nothing is known.
    """

    def __init__(
        self, stack: ExitStack, path: Path, source: Any, grid: Grid, table: ClassTable, nodata: float | None = None
    ) -> None:
        self._path, self._table, self._nodata = path, table, nodata
        self._bands, self._palette = label_bands(path, source)
        own = Grid.of(source)
        self._view: Any = source
        self.warped = grid.crs is not None and not grid.same_as(own)
        if self.warped:
            place = {"crs": grid.crs, "transform": grid.transform, "height": grid.height, "width": grid.width}
            # Beyond the raster there is nothing. A band of opacity says so where no value does.
            alpha = source.nodata is None and len(self._bands) == source.count
            how = {"src_crs": own.crs, "resampling": Resampling.nearest, "tolerance": 0.01, "add_alpha": alpha}
            self._view = stack.enter_context(WarpedVRT(source, **how, **place))

    def read(self, window: Window | None = None, shape: tuple[int, int] | None = None) -> Labels:
        """(H, W) class numbers, ``IGNORED_LABEL`` where none is known, of a window or, in a given size, of all."""
        size = None if shape is None else (len(self._bands), *shape)
        with raster_errors(self._path):
            bands = self._view.read(indexes=self._bands, window=window, out_shape=size)
            unknown = self._view.dataset_mask(window=window, out_shape=shape) == 0
        if self._nodata is not None:
            unknown |= bands[0] == self._nodata
        return coded_labels(self._path, labels_of(self._path, bands, unknown, self._palette), self._table)
