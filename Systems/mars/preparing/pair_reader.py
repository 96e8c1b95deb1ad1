"""Reads a pair window by window: heights as they are, and the image warped onto their grid by its georeference."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from Systems.mars.preparing.product_checks import CheckedPair
from Utils.core.errors import UserError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.planetary.special_values import NULL, is_special

__all__ = ["PairReader"]

logger = logging.getLogger(__name__)

# Image pixels so much smaller than the DTM's are averaged: bilinear would take four of them and leave the others out.
_MUCH_FINER = 1.5
_SAMPLE_SIDE = 1024
_FOOTPRINT_SIDE = 256
# Percentiles of an image of more than 8 bits that become 1 and 255.
_PERCENTILES = (0.1, 99.9)
# GDAL's fast way takes a place on every so many pixels for exact; on other spheres that was up to 0.1 pixels off.
_EXACT = 0.05


class PairReader:
    """An open pair. A context manager; not for several threads at once.

    Attributes:
        pair: what is read.
    """

    def __init__(self, pair: CheckedPair) -> None:
        """Nothing is opened before the context is entered."""
        self.pair = pair
        self._stack = ExitStack()
        self._limits: tuple[float, float] | None = None

    def __enter__(self) -> PairReader:
        pair, grid = self.pair, self.pair.grid
        with ExitStack() as stack:
            stack.enter_context(georeference_optional())
            with raster_errors(pair.dtm):
                self._heights = stack.enter_context(rasterio.open(pair.dtm))
            with raster_errors(pair.ortho):
                image = stack.enter_context(rasterio.open(pair.ortho))
                void = float(NULL) if image.dtypes[0] == "float32" else 0.0
                void = void if image.nodatavals[pair.band - 1] is None else image.nodatavals[pair.band - 1]
                found = ground_sample_distance(image.crs, image.transform, image.height, image.width)
                self.image_metres = pair.metres if found is None else (found[0] * found[1]) ** 0.5
                finer = pair.metres / self.image_metres >= _MUCH_FINER
                where = {"crs": grid.crs, "transform": grid.transform, "height": grid.height, "width": grid.width}
                voids = {"src_nodata": void, "nodata": void, "tolerance": _EXACT, "dtype": image.dtypes[0]}
                # Two ways: values, and the mask by the nearest pixel, so that no edge of the image is smeared.
                self._image, self._nearest = (
                    stack.enter_context(WarpedVRT(image, resampling=way, **where, **voids))
                    for way in (Resampling.average if finer else Resampling.bilinear, Resampling.nearest)
                )
                self._void = void
                self._limits = None if image.dtypes[0] == "uint8" else self._stretch(image)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the DTM's grid, which must lie inside it.

        Returns:
            The image (H, W), 1 to 255 where it is valid and 0 elsewhere; where it is valid; heights (H, W) in metres,
            0 where they are not valid; where they are valid.

        Raises:
            RasterError: a file turns out to be damaged here.
        """
        window = Window(column, row, width, height)
        with raster_errors(self.pair.dtm):
            raw = self._heights.read(1, window=window)
            known = (self._heights.read_masks(1, window=window) > 0) & ~is_special(raw)
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = raw.astype(np.float64) * self._heights.scales[0] + self._heights.offsets[0]
        heights = np.where(known, scaled, 0.0).astype(np.float32)
        with raster_errors(self.pair.ortho):
            values = self._image.read(self.pair.band, window=window)
            nearest = self._nearest.read(self.pair.band, window=window)
        seen = ~is_special(values) & ~is_special(nearest) & (values != self._void) & (nearest != self._void)
        return np.where(seen, self._as_8_bits(values), 0).astype(np.uint8), seen, heights, known

    def known_places(self) -> NDArray[np.bool_]:
        """(h, w) where the DTM has heights, at some 256 x 256 places spread over it.

        Raises:
            UserError: there are none at all.
        """
        grid = self.pair.grid
        shape = min(grid.height, _FOOTPRINT_SIDE), min(grid.width, _FOOTPRINT_SIDE)
        with raster_errors(self.pair.dtm):
            raw = self._heights.read(1, out_shape=shape)
            known: NDArray[np.bool_] = (self._heights.read_masks(1, out_shape=shape) > 0) & ~is_special(raw)
        if not known.any():
            raise UserError(f"'{self.pair.dtm}': no height at {known.size} places spread over it; nothing to learn")
        return known

    def check_overlap(self, known: NDArray[np.bool_]) -> float:
        """The share of the places with heights (h, w) that the image covers.

        Raises:
            UserError: image and DTM do not meet.
        """
        with raster_errors(self.pair.ortho):
            seen = self._nearest.read(self.pair.band, out_shape=known.shape)
        share = float((known & ~is_special(seen) & (seen != self._void)).sum() / known.sum())
        if share == 0.0:
            raise UserError(
                f"'{self.pair.ortho}' and '{self.pair.dtm}' do not overlap by their georeferences: are they of one "
                "place, and is the label of each its own?"
            )
        if share < 0.5:
            logger.warning(
                "%s: the image covers %.0f %% of the heights; the rest is left out", self.pair.name, 100 * share
            )
        return share

    def _stretch(self, image: Any) -> tuple[float, float]:
        step = max(1.0, max(image.shape) / _SAMPLE_SIDE)
        sample = image.read(self.pair.band, out_shape=tuple(max(1, round(length / step)) for length in image.shape))
        values = sample[~is_special(sample) & (sample != self._void)]
        if not values.size:
            raise UserError(f"'{self.pair.ortho}': no valid pixel among {sample.size}; is it the right --band?")
        low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
        high = high if high > low else low + 1.0
        logger.info("%s: %s values from %g to %g become 1 to 255", self.pair.ortho, image.dtypes[0], low, high)
        return low, high

    def _as_8_bits(self, values: NDArray[Any]) -> NDArray[Any]:
        if self._limits is None:
            return values
        low, high = self._limits
        with np.errstate(invalid="ignore", over="ignore"):
            return np.clip(1.0 + 254.0 * (values.astype(np.float64) - low) / (high - low), 1.0, 255.0)
