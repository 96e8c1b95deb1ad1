"""A rational polynomial camera of one image, in numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from Modules.common.rational_polynomials import PARAMETERS, GroundPoints, ImagePoints, ground_of, image_of
from Utils.rasters.rational.inverse_fit import fitted_inverse, inverse_error

__all__ = ["RationalModel"]

Floats = NDArray[np.float64]

# Corrections of the inverse with the direct model: each takes its error down by orders of magnitude.
_CORRECTIONS = 2


@dataclass(frozen=True)
class RationalModel:
    """The camera of one image, from the ground to pixels and back. 0 is the centre of the first pixel.

    Attributes:
        direct: offsets, scales and coefficients of the direct model, float64 (90,), in the order of
            ``Modules.common.rational_polynomials``.
        given_inverse: the coefficients of the inverse model (80,), if its file has them.
    """

    direct: Floats
    given_inverse: Floats | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: a wrong count, numbers that are not finite, scales that are not positive, an offset that no
                place on Earth has, or a denominator of zero.
        """
        if self.direct.shape != (90,):
            raise ValueError(f"{self.direct.size} numbers, where a direct model has 90")
        if not np.isfinite(self.direct).all():
            raise ValueError("numbers that are not finite")
        if (self.direct[5:10] <= 0).any():
            raise ValueError(f"a scale that is not positive ({self.direct[5:10].min():g})")
        if abs(self.direct[2]) > 90 or abs(self.direct[3]) > 360:
            raise ValueError(f"offsets at latitude {self.direct[2]:g}, longitude {self.direct[3]:g}")
        if self.direct[30] == 0 or self.direct[70] == 0:
            raise ValueError("a denominator whose first coefficient is 0")

    @cached_property
    def parameters(self) -> Floats:
        """All 170 numbers; the inverse is fitted where the file has none, or one that misses by 0.01 pixels."""
        if self.given_inverse is not None and inverse_error(self.direct, self.given_inverse) < 0.01:
            return np.concatenate([self.direct, self.given_inverse])
        return np.concatenate([self.direct, fitted_inverse(self.direct)])

    @property
    def height_range(self) -> tuple[float, float]:
        """Lowest and highest height that the model was made for, in metres above the ellipsoid."""
        return float(self.direct[4] - self.direct[9]), float(self.direct[4] + self.direct[9])

    def project(self, longitude: ArrayLike, latitude: ArrayLike, height: ArrayLike) -> tuple[Floats, Floats]:
        """Columns and rows at which points on the ground are seen.

        Args:
            longitude: degrees; the three broadcast with one another.
            latitude: degrees.
            height: metres above the ellipsoid.
        """
        shape, (lon, lat, up) = _flat(longitude, latitude, height)
        # Longitudes of either sense (-180 to 180, 0 to 360).
        lon = lon + 360.0 * torch.round((float(self.direct[3]) - lon) / 360.0)
        padded = torch.from_numpy(np.pad(self.direct, (0, PARAMETERS - 90)))[None]
        seen = image_of(padded, GroundPoints(lat, lon), up)
        return seen.sample.numpy().reshape(shape), seen.line.numpy().reshape(shape)

    def locate(self, column: ArrayLike, row: ArrayLike, height: ArrayLike) -> tuple[Floats, Floats]:
        """Longitudes and latitudes at which the rays of pixels meet heights; arguments broadcast."""
        shape, (across, down, up) = _flat(column, row, height)
        parameters = torch.from_numpy(self.parameters)[None]
        ground = ground_of(parameters, ImagePoints(down, across), up, _CORRECTIONS)
        return ground.longitude.numpy().reshape(shape), ground.latitude.numpy().reshape(shape)

    def fitted_to(self, height: int, width: int) -> RationalModel:
        """The same camera, with offsets and scales of line and sample that are those of an image of this size.

        Cutting an image may leave a model whose offsets lie far outside of it. What is fitted over its box then says
        nothing of the image. A model whose box holds the image is returned as it is.

        Args:
            height: rows of the image.
            width: columns of the image.
        """
        direct, changed = self.direct.copy(), False
        for i, length in enumerate((height, width)):
            offset, scale = self.direct[i], self.direct[5 + i]
            if max(abs(0 - offset), abs(length - 1 - offset)) <= 1.2 * scale:
                continue
            new_offset, new_scale = (length - 1) / 2, length / 2
            numerator, denominator = (slice(10 + 40 * i + start, 30 + 40 * i + start) for start in (0, 20))
            direct[numerator] = (
                self.direct[numerator] * scale + self.direct[denominator] * (offset - new_offset)
            ) / new_scale
            direct[i], direct[5 + i], changed = new_offset, new_scale, True
        return RationalModel(direct) if changed else self

    def shifted(self, columns: float, rows: float) -> RationalModel:
        """The model of the image whose pixel (0, 0) is the pixel (columns, rows) of this one: a window's model."""
        direct = self.direct.copy()
        direct[0] -= rows
        direct[1] -= columns
        return replace(self, direct=direct, given_inverse=self.parameters[90:])  # which counts from the offsets

    def swapped(self) -> RationalModel:
        """The model with line and sample exchanged."""
        direct = self.direct.copy()
        direct[[0, 1, 5, 6]] = self.direct[[1, 0, 6, 5]]
        direct[10:50], direct[50:90] = self.direct[50:90], self.direct[10:50]
        return RationalModel(direct)

    def reduced(self, times: float) -> RationalModel:
        """The model of the image whose pixel i is centred on pixel i * times of this one."""
        direct = self.direct.copy()
        direct[[0, 1, 5, 6]] /= times
        return replace(self, direct=direct, given_inverse=self.parameters[90:])


def _flat(*values: ArrayLike) -> tuple[tuple[int, ...], list[torch.Tensor]]:
    """The common shape, and each as [1, N] in float64."""
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))
    return arrays[0].shape, [torch.from_numpy(np.array(array).reshape(1, -1)) for array in arrays]
