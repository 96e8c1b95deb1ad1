"""Rational polynomial cameras read from images, the files beside them, and text."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from Utils.core.errors import RasterError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.rational.model import RationalModel

__all__ = ["DATUM_KEY", "ELLIPSOID", "TEXT_SUFFIXES", "UNKNOWN_DATUM", "height_datum", "read_rational"]

TEXT_SUFFIXES = (".txt", ".rpc")
"""Suffixes of files of one "KEY: value" a line: those of WHU-TLC with 170 values, and ``_RPC.TXT`` with 90."""

DATUM_KEY, UNKNOWN_DATUM = "VERTICAL_DATUM", "unknown"
"""Line of a text that says what heights refer to, where that need not be the WGS 84 ellipsoid."""

ELLIPSOID = "EPSG:4979"

_SCALARS = [f"{key}_{what}" for what in ("OFF", "SCALE") for key in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")]
_DIRECT = [f"{key}_{part}" for key in ("LINE", "SAMP") for part in ("NUM_COEFF", "DEN_COEFF")]
_INVERSE = [f"{key}_{part}" for key in ("LAT", "LONG") for part in ("NUM_COEFF", "DEN_COEFF")]

# A text is read in full; an image that was taken for one is not.
_LONGEST_TEXT = 1_000_000


def read_rational(path: str | os.PathLike[str]) -> RationalModel:
    """Read the camera of an image.

    Args:
        path: an image, whose tags or side files (RPB, ``_RPC.TXT``, DIMAP, those that GDAL knows) hold the model, or
            which has a text ``NAME.rpc`` or ``NAME_rpc.txt`` beside it; or such a text itself.

    Raises:
        RasterError: the file cannot be read, has no such model, or one that cannot be.
    """
    path = Path(path)
    model = _from_text(path) if path.suffix.lower() in TEXT_SUFFIXES else _from_image(path)
    try:
        model.parameters  # noqa: B018 - the inverse is fitted and kept; what has none is refused here, by its name
    except (ValueError, np.linalg.LinAlgError) as error:
        raise RasterError(path, f"its RPC cannot be inverted: {error}", "give the model that belongs to it") from error
    return model


def height_datum(path: str | os.PathLike[str]) -> str:
    """The code of what the heights of a camera refer to; "" where it is unknown, and the ellipsoid's by default.

    Args:
        path: an image, or a text with a camera; only texts say something else.
    """
    path = Path(path)
    texts = [path] if path.suffix.lower() in TEXT_SUFFIXES else [path.with_suffix(".rpc")]
    for text in texts:
        if text.is_file():
            with open(text, encoding="utf-8", errors="replace") as file:
                for line in file.read(_LONGEST_TEXT).splitlines():
                    if line.startswith(f"{DATUM_KEY}:"):
                        code = line.partition(":")[2].strip()
                        return "" if code.casefold() == UNKNOWN_DATUM else code
    return ELLIPSOID


def _from_image(path: Path) -> RationalModel:
    with raster_errors(path), georeference_optional(), rasterio.open(path) as source:
        try:
            found, size = source.rpcs, source.shape
        except (KeyError, ValueError) as error:
            raise RasterError(path, f"its RPC cannot be read ({error})", "mend its tags or side file") from error
    if found is None:
        for beside in (path.with_suffix(".rpc"), path.with_name(f"{path.stem}_rpc.txt")):
            if beside.is_file():
                return _from_text(beside).fitted_to(*size)
        raise RasterError(
            path,
            "has no RPC, neither in its tags nor in a side file (.RPB, _RPC.TXT, .rpc, DIMAP)",
            "keep the vendor's side files beside the image",
        )
    scalars = [getattr(found, name.lower()) for name in _SCALARS]
    coefficients = [value for name in _DIRECT for value in getattr(found, name.lower())]
    return _model(path, np.array(scalars + coefficients, dtype=np.float64)).fitted_to(*size)


def _from_text(path: Path) -> RationalModel:
    """A model of lines ``KEY: value [unit]``, in any order of lines."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST_TEXT)
    except OSError as error:
        raise RasterError(path, f"cannot be read ({error.strerror})", "give an RPC or an image with one") from error
    values: dict[str, float] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition(":")
        if colon and rest.split():
            try:
                values[re.sub(r"\s+", "", key).upper()] = float(rest.split()[0])
            except ValueError:
                continue  # a line of something else, such as a date
    direct = _SCALARS + [f"{name}_{i}" for name in _DIRECT for i in range(1, 21)]
    if missing := [name for name in direct if name not in values]:
        raise RasterError(
            path,
            f"{len(missing)} of the {len(direct)} values of an RPC are missing, the first is {missing[0]}",
            "give lines like 'LINE_OFF: 2559.5 pixels'",
        )
    inverse = [f"{name}_{i}" for name in _INVERSE for i in range(1, 21)]
    whole = all(name in values for name in inverse)
    return _model(
        path,
        np.array([values[name] for name in direct]),
        np.array([values[name] for name in inverse]) if whole else None,
    )


def _model(path: Path, direct: NDArray[np.float64], inverse: NDArray[np.float64] | None = None) -> RationalModel:
    try:
        return RationalModel(direct, inverse)
    except ValueError as error:
        raise RasterError(path, f"its RPC holds {error}", "give the model that belongs to the image") from error
