"""Scores by class of the ground, as a raster of classes or the prediction's flag band tells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from Utils.core.errors import UserError
from Utils.rasters.environment import raster_errors
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap
from Utils.scenes.accuracy.height_file import opened
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.scene_scores import FloatArray
from Utils.scenes.accuracy.warping import warped_view

__all__ = ["ClassRaster", "ClassSums", "flag_classes"]

BoolArray = NDArray[np.bool_]

_MOST = 256
_FLAGS = {0: "fitted", 1: "tile not fitted", 2: "no heights known", 3: "neither", 4: "refused"}


class ClassRaster:
    """Classes on the prediction's grid, the nearest one of each pixel, read window by window."""

    def __init__(self, path: Path, view: Any, band: int, names: Mapping[int, str]) -> None:
        self.path, self._view, self._band, self.names = path, view, band, names

    @classmethod
    def of(cls, stack: ExitStack, path: Path, grid: Grid, prediction: Path) -> ClassRaster:
        """Open a raster of classes on any grid.

        Raises:
            UserError: more than one band, or another place.
        """
        source = stack.enter_context(opened(path))
        if source.count != 1:
            raise UserError(f"--classes '{path}' has {source.count} bands; give one with the number of each class")
        own = Grid.of(source)
        check_georeference(grid, own, prediction, path, "classes")
        view = source
        if grid.crs is not None and not grid.same_as(own):
            check_overlap(grid, own, prediction, path, "classes")
            view = warped_view(stack, source, grid, Resampling.nearest, 1.0, {"dtype": "float64"})
        return cls(path, view, 1, {})

    def read(self, window: Window) -> FloatArray:
        """(H, W) numbers of classes; NaN where there is none."""
        with raster_errors(self.path):
            values = self._view.read(self._band, window=window).astype(np.float64)
            masked = getattr(self._view, "read_masks", None)
            known = np.isfinite(values) if masked is None else masked(self._band, window=window) > 0
        return np.where(known, values, np.nan)


def flag_classes(path: Path, source: Any) -> ClassRaster | None:
    """The flag band of a raster of predict.py; None where there is none."""
    names = [(name or "").strip().lower() for name in source.descriptions]
    return ClassRaster(path, source, names.index("flag") + 1, _FLAGS) if "flag" in names else None


class ClassSums:
    """Errors summed by class.

    Args:
        raster: the classes.
        maps: names of the maps.
    """

    def __init__(self, raster: ClassRaster, maps: list[str]) -> None:
        self._raster, self._maps = raster, maps
        self._sums: dict[int, NDArray[np.float64]] = {}

    def add(self, window: Window, scored: BoolArray, errors: Mapping[str, FloatArray]) -> None:
        """Take in the errors (H, W) of a window.

        Raises:
            UserError: numbers that are no classes.
        """
        classes = self._raster.read(window)
        used = scored & np.isfinite(classes)
        for number in np.unique(classes[used]):
            if number != round(number) or (len(self._sums) >= _MOST and int(number) not in self._sums):
                raise UserError(
                    f"--classes '{self._raster.path}': {number:g} is no class, or there are more than {_MOST}; "
                    "give whole numbers"
                )
            chosen = used & (classes == number)
            sums = self._sums.setdefault(int(number), np.zeros((len(self._maps), 4)))
            for place, name in enumerate(self._maps):
                error = errors[name][chosen]
                sums[place] += [error.size, error.sum(), np.abs(error).sum(), (error * error).sum()]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each class and map: class, pixels, share, bias, mae, rmse."""
        total = sum(float(sums[0, 0]) for sums in self._sums.values())
        rows = []
        for number, sums in sorted(self._sums.items()):
            for name, (count, error, absolute, squared) in zip(self._maps, sums, strict=True):
                mean = error / count if count else math.nan
                rows.append({
                    "class": number,
                    "name": self._raster.names.get(number, ""),
                    "map": name,
                    "pixels": int(count),
                    "share": count / total if total else math.nan,
                    "bias": mean,
                    "mae": absolute / count if count else math.nan,
                    "rmse": math.sqrt(squared / count) if count else math.nan,
                })  # fmt: skip
        return rows
