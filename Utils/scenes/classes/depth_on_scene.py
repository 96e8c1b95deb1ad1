"""Relative depth as a model of classes sees it over a whole scene: one stretch, on the scene's grid."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from Utils.core.errors import RasterError, UserError
from Utils.data.land_cover.land_cover_dataset import DEPTH_PERCENTILES
from Utils.data.stereo.relative_maps import told
from Utils.rasters.environment import raster_errors
from Utils.rasters.source.scene_source import SceneSource
from Utils.scenes.accuracy.grid_overlap import check_georeference, check_overlap, pixels_per_pixel
from Utils.scenes.accuracy.height_file import KIND_TAG, opened
from Utils.scenes.accuracy.height_grid import Grid
from Utils.scenes.accuracy.warping import warped_view

__all__ = ["DepthOnScene"]

logger = logging.getLogger(__name__)

# The percentiles come from as many pixels as this squared, at most.
_SAMPLE_SIDE = 2048


class DepthOnScene:
    """A raster of relative depth or height, seen on a scene's grid, in [0, 1]; larger is nearer to the camera.

    The whole raster has one stretch, from its 2nd to its 98th percentile, as an image's map has in training. What it
    does not know is 0, as there.

    Args:
        stack: closes what is opened.
        path: any raster of one band; of several, the first where predict.py wrote it.
        source: the scene.
        rises: what rises in it; None for what the file or the JSON beside it says, and height where neither does.

    Raises:
        UserError: another place, no valid pixel, or a JSON that does not say what rises.
        RasterError: a raster that cannot be read.
    """

    def __init__(
        self, stack: ExitStack, path: Path, source: SceneSource, rises: Literal["depth", "height"] | None = None
    ) -> None:
        self.path = path
        raster = stack.enter_context(opened(path))
        drawn_here = KIND_TAG in raster.tags()
        if raster.count != 1 and not drawn_here:
            raise RasterError(path, f"{raster.count} bands", "relative depth has one; take it out with gdal_translate")
        self.rises = rises or ("height" if drawn_here else told(path)) or "height"
        grid = Grid(Grid.of(source).crs, source.transform, source.height, source.width)
        own = Grid.of(raster)
        check_georeference(grid, own, source.path, path, "relative depth")
        self._view: Any = raster
        if grid.crs is not None and not grid.same_as(own):
            check_overlap(grid, own, source.path, path, "relative depth")
            finer = pixels_per_pixel(grid, own)
            method = Resampling.average if finer > 1.5 else Resampling.bilinear
            self._view = warped_view(stack, raster, grid, method, finer, {"dtype": "float32"})
        self._low, self._high = self._ends(raster)

    def _ends(self, raster: Any) -> tuple[float, float]:
        """The values that become 0 and 1."""
        shrink = max(1.0, max(raster.height, raster.width) / _SAMPLE_SIDE)
        shape = (max(1, round(raster.height / shrink)), max(1, round(raster.width / shrink)))
        with raster_errors(self.path):
            sample = raster.read(1, out_shape=shape, masked=True).astype(np.float64).filled(np.nan)
        known = sample[np.isfinite(sample)]
        if not known.size:
            raise UserError(f"relative depth '{self.path}' has no valid pixel; give another raster")
        low, high = (float(end) for end in np.percentile(known, DEPTH_PERCENTILES))
        if high > low:
            logger.info(
                "relative depth '%s': %s rises; its 2nd and 98th percentiles, %.6g and %.6g, become 0 and 1",
                self.path,
                self.rises,
                low,
                high,
            )
        else:
            logger.warning("relative depth '%s' is %.6g nearly everywhere: it tells nothing, and is 0", self.path, low)
        return low, high

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[np.float32]:
        """A window (height, width) of the scene.

        Raises:
            RasterError: the file turns out to be damaged here.
        """
        window = Window(column, row, width, height)
        with raster_errors(self.path):
            values = self._view.read(1, window=window).astype(np.float32)
            masked = getattr(self._view, "read_masks", None)
            known = np.isfinite(values) if masked is None else (masked(1, window=window) > 0) & np.isfinite(values)
        if not self._high > self._low:
            return np.zeros_like(values)
        share = np.clip((np.where(known, values, self._low) - self._low) / (self._high - self._low), 0.0, 1.0)
        nearer = 1.0 - share if self.rises == "depth" else share
        return np.where(known, nearer, 0.0).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """What tiles depend on, as JSON."""
        file = self.path.stat() if self.path.is_file() else None
        found = {"name": self.path.name, "rises": self.rises, "low": self._low, "high": self._high}
        return found | ({} if file is None else {"bytes": file.st_size, "mtime_ns": file.st_mtime_ns})
