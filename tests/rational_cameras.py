"""Small rational polynomial cameras for tests, written down by hand, and images that carry them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.rpc import RPC

from Utils.rasters.rational import RationalModel

# Degrees of latitude and longitude to metres at the test ground, which lies on the equator.
METRES_PER_DEGREE = 111_000.0


def camera(
    tilt: tuple[float, float] = (0.0, 0.0),
    size: tuple[int, int] = (100, 120),
    pixel: float = 1.0,
    heights: tuple[float, float] = (-100.0, 200.0),
    bent: float = 1e-3,
) -> RationalModel:
    """A camera above 0 N, 10 E whose middle sees the ground at height 0.

    Args:
        tilt: pixels by which a point moves per metre of its height: along lines, along samples.
        size: rows and columns of the image.
        pixel: metres of a pixel on the ground.
        heights: lowest and highest height that the model names.
        bent: size of the terms of second and third degree, and of the denominators'.
    """
    rows, columns = size
    low, high = heights
    offsets = [(rows - 1) / 2, (columns - 1) / 2, 0.0, 10.0, (low + high) / 2]
    scales = [rows / 2, columns / 2, rows / 2 * pixel / METRES_PER_DEGREE * 1.2]
    scales += [columns / 2 * pixel / METRES_PER_DEGREE * 1.2, (high - low) / 2]
    line, sample = np.zeros((2, 2, 20))
    along, across = tilt
    line[0, :4] = along * offsets[4] / scales[0], 0.02, -1.2, along * scales[4] / scales[0]
    sample[0, :4] = across * offsets[4] / scales[1], 1.2, 0.02, across * scales[4] / scales[1]
    line[0, 4:] = bent * np.cos(np.arange(4, 20))
    sample[0, 4:] = bent * np.sin(np.arange(4, 20))
    for part in (line, sample):
        part[1, 0], part[1, 1:4] = 1.0, (bent, -bent, bent / 2)
    return RationalModel(np.concatenate([offsets, scales, line.ravel(), sample.ravel()]))


def rpc_of(model: RationalModel) -> RPC:
    """The model as rasterio writes it into a file."""
    direct = model.direct
    names = [f"{key}_{what}" for what in ("off", "scale") for key in ("line", "samp", "lat", "long", "height")]
    tables = [f"{key}_{part}_coeff" for key in ("line", "samp") for part in ("num", "den")]
    values = {name: float(value) for name, value in zip(names, direct[:10], strict=True)}
    coefficients = {
        name: direct[start : start + 20].tolist() for name, start in zip(tables, (10, 30, 50, 70), strict=True)
    }
    return RPC(**values, **coefficients)


def write_image(path: Path, pixels: NDArray[np.generic], model: RationalModel | None, **profile: object) -> Path:
    """An image [H, W] or [bands, H, W] as GeoTIFF, with the model in its tags; returns its path."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(bands)
        if model is not None:
            file.rpcs = rpc_of(model)
    return path


def text_of(model: RationalModel, inverse: bool) -> str:
    """The model as lines of "KEY: value unit": all 170 values as WHU-TLC has them, or the 90 of ``_RPC.TXT``."""
    names = [f"{key}_{what}" for what in ("OFF", "SCALE") for key in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")]
    keys = ("LINE", "SAMP", "LAT", "LONG") if inverse else ("LINE", "SAMP")
    names += [f"{key}_{part}_COEFF_{i}" for key in keys for part in ("NUM", "DEN") for i in range(1, 21)]
    units = ["pixels", "pixels", "degrees", "degrees", "meters"] * 2 + [""] * 160
    values = model.parameters if inverse else model.direct
    return "\n".join(f"{n}: {v!r} {u}".rstrip() for n, v, u in zip(names, values.tolist(), units, strict=False)) + "\n"
