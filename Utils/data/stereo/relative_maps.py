"""Relative depth maps as stereo networks see them: near is dark, in three channels of which two are blurred."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from Modules.common.plain_json import parse_json, read_text
from Utils.core.errors import UserError
from Utils.rasters.tile_files import raster_type, read_image, read_prior

__all__ = ["blur_pyramid", "read_relative", "told"]

_SIGMA = 2.0
_REACH = (1, 12)  # pixels to each side: the published kernels are 3 and 25 wide, both with sigma 2
_HIGHER_IS_NEARER = "higher values are higher ground"


def read_relative(path: Path, rises: Literal["depth", "height"] | None = None) -> NDArray[np.float32]:
    """Read a relative depth map.

    Args:
        path: a raster. One band is a map, of which the blur pyramid is made; three different ones are such a pyramid.
        rises: what rises in the file; None for what the JSON beside it says, as ``Systems.relative_depth`` writes it,
            and depth (as published) where there is none.

    Returns:
        (3, H, W) in [0, 1]: the map and two blurred ones; smaller is nearer to the camera, higher ground.

    Raises:
        RasterError: a file that cannot be read.
        UserError: a JSON beside it that cannot be read.
    """
    rises = rises or told(path) or "depth"
    if raster_type(path)[0] == 1:
        values = read_prior(path)
        return blur_pyramid(1.0 - values if rises == "height" else values)
    pyramid = read_image(path)
    if np.array_equal(pyramid[0], pyramid[1]):  # a grey map saved in colours
        return blur_pyramid(1.0 - pyramid[0] if rises == "height" else pyramid[0])
    return 1.0 - pyramid if rises == "height" else pyramid


def told(path: Path) -> Literal["depth", "height"] | None:
    """What rises in a map, as the JSON beside it says (``Systems.relative_depth`` writes it); None where there is none.

    Raises:
        UserError: a JSON that does not say it.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        polarity = parse_json(read_text(beside))["polarity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{beside}' does not say what rises in '{path.name}' (polarity); write the map again with python -m "
            "Systems.relative_depth, or set relative_depth_rises"
        ) from error
    if not str(polarity).startswith(_HIGHER_IS_NEARER):
        raise UserError(f"'{beside}': unknown polarity '{polarity}'; set relative_depth_rises to depth or height")
    return "height"


def blur_pyramid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map (H, W) and the map blurred with two kernels, (3, H, W).

    The kernels are the published ones: Gaussians of sigma 2, cut off at 3 and at 25 pixels, with mirrored borders. The
    first is therefore nearly a mean over 3 x 3 pixels, with a standard deviation of 0.8. Values are not rounded to 8
    bits between.
    """
    blurred = [ndimage.gaussian_filter(values, _SIGMA, radius=reach, mode="reflect") for reach in _REACH]
    return np.stack([values, *blurred]).astype(np.float32)
