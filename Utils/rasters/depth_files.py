"""Measured depth as its datasets store it: whole numbers of 16 bits whose unit is no metre, 0 where there is none."""

from __future__ import annotations

import os

import numpy as np

from Utils.core.errors import RasterError
from Utils.rasters.tile_files import HeightRaster, read_height

METRES_PER_UNIT = {"kitti": 1 / 256, "nyu": 1 / 1000}
"""Metres that one unit stands for in the PNGs of KITTI, and in the raw ones of NYU Depth v2 (millimetres)."""


def read_depth(path: str | os.PathLike[str], metres_per_unit: float, hole: float = 0.0) -> HeightRaster:
    """Read a depth map in full, whatever its number of bits.

    Args:
        path: a PNG, TIFF or NPY file with one band, as for ``read_height``.
        metres_per_unit: metres that one unit of the file stands for; 1 for metres.
        hole: the value, in the file's unit, that says that nothing was measured.

    Returns:
        Depth in metres, float32; 0 and invalid where the file has a hole or says so itself.

    Raises:
        RasterError: a file that cannot be read, or negative depth.
        ValueError: a unit that is not positive.
    """
    if not (np.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise ValueError(f"metres_per_unit is {metres_per_unit}; it must be a positive finite number")
    found = read_height(path)
    valid = found.valid & (found.values != hole)
    if lowest := float(found.values.min(where=valid, initial=0.0)):
        count = int(np.count_nonzero(found.values[valid] < 0))
        raise RasterError(
            path, f"{count} negative depths, down to {lowest:g}", "give the value that marks holes, or another file"
        )
    valid &= found.values > 0
    # In float64, because 1/1000 of a whole number should be the float32 nearest to it.
    metres = np.where(valid, found.values.astype(np.float64) * metres_per_unit, 0.0)
    return HeightRaster(metres.astype(np.float32), valid)
