"""A raster as a description that disguises change, and the file that it becomes in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

Floats = NDArray[np.float64]

TAG, NAN, INTERNAL, EXTERNAL, ALPHA, UNDECLARED = "tag", "NaN", "internal mask", "external mask", "alpha", "undeclared"
# The formats that tests write, with the types that they hold without loss; GeoTIFF and its kin hold all of them.
_TYPES = {
    "PNG": ("uint8", "uint16"),
    "JP2OpenJPEG": ("uint8", "uint16", "int16"),
    "AAIGrid": ("int16", "int32", "float32"),
    "netCDF": ("int16", "int32", "float32", "float64"),
}
_SUFFIXES = {
    "GTiff": "tif",
    "COG": "tif",
    "PNG": "png",
    "JP2OpenJPEG": "jp2",
    "AAIGrid": "asc",
    "HFA": "img",
    "ENVI": "dat",
    "SAGA": "sdat",
    "EHdr": "bil",
    "netCDF": "nc",
}

Step = Callable[[Path], str]


@dataclass(frozen=True)
class Raster:
    """What a raster says, apart from how it is written.

    Attributes:
        values: (C, H, W), in metres or grey levels; anything where not valid.
        valid: (H, W) bool.
        places: (2, H, W), metres east and south of the scene's corner, of each pixel's centre.
        transform: from (column, row) to coordinates.
        crs: anything that rasterio takes.
        dtype: type of the file.
        scale: what a stored value is multiplied by.
        offset: what is added after that.
        unit: unit of the bands.
        void: the way in which invalid pixels are told.
        nodata: the value of invalid pixels, and the tag where ``void`` is ``TAG``.
        colours: colour interpretation of each band.
        tags: of the dataset.
        driver: GDAL's format.
        creation: its creation options.
        steps: what happens to the written file; each gives the name by which the file is found from then on.
        given: options that a user has to give with the file.
    """

    values: Floats
    valid: NDArray[np.bool_]
    places: Floats
    transform: Affine
    crs: Any
    dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    void: str = TAG
    nodata: float = -9999.0
    colours: tuple[ColorInterp, ...] | None = None
    tags: dict[str, str] = field(default_factory=dict)
    driver: str = "GTiff"
    creation: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    given: dict[str, str] = field(default_factory=dict)

    @property
    def can_be_written(self) -> bool:
        """Whether the format holds what the raster says."""
        kind = np.dtype(self.dtype).kind
        if kind in "iu":
            limits = np.iinfo(self.dtype)
            if self.void in (TAG, UNDECLARED):
                if not (limits.min <= self.nodata <= limits.max and float(self.nodata).is_integer()):
                    return False
            numbers = (self.values[:, self.valid] - self.offset) / self.scale
            if (
                numbers.min() < limits.min
                or numbers.max() > limits.max
                or np.abs(numbers - np.rint(numbers)).max() > 1e-6
            ):
                return False
        if self.void == NAN and kind != "f":
            return False
        if self.creation.get("predictor") == 3 and kind != "f":
            return False
        # GDAL 3.10 writes neither scale nor offset into a GeoTIFF with a compound CRS.
        scaled = (self.scale, self.offset) != (1.0, 0.0)
        if scaled and CRS.from_user_input(self.crs).to_wkt().startswith(("COMPD", "COMPOUND")):
            return False
        if self.driver in ("GTiff", "COG"):
            return True
        return (
            self.dtype in _TYPES.get(self.driver, (self.dtype,))
            # Formats lose the unit, and the vertical part of a CRS.
            and not (self.unit or "+" in str(self.crs).removeprefix("+"))
            and not scaled
            and self.void in (TAG, UNDECLARED)
            and not (self.driver == "AAIGrid" and _is_turned(self.transform))
            and not (self.driver in ("SAGA", "EHdr", "netCDF", "JP2OpenJPEG") and _is_turned(self.transform))
        )

    def stored(self) -> NDArray[Any]:
        """The values as the file holds them, (C, H, W), the void in place."""
        numbers = (self.values - self.offset) / self.scale
        if np.dtype(self.dtype).kind in "iu":
            numbers = np.rint(numbers)
        # What lies under a mask is no height; a reader that forgets the mask shows itself.
        hidden = {TAG: self.nodata, UNDECLARED: self.nodata, NAN: np.nan}.get(self.void, 7.0)
        return np.where(self.valid, numbers, hidden).astype(self.dtype)

    def write(self, folder: Path, name: str) -> str:
        """Write into an empty folder of its own, and take all steps; gives the name for GDAL."""
        folder.mkdir(parents=True)
        path = folder / f"{name}.{_SUFFIXES[self.driver]}"
        bands, colours = self.stored(), self.colours
        if self.void == ALPHA:
            opaque = np.where(self.valid, np.iinfo(self.dtype).max if np.dtype(self.dtype).kind in "iu" else 255, 0)
            bands = np.concatenate([bands, opaque[None].astype(self.dtype)])
            colours = (*(colours or (ColorInterp.undefined,) * (len(bands) - 1)), ColorInterp.alpha)
        direct = self.driver == "GTiff"
        plain = path if direct else folder.with_name(f"{folder.name} before") / "plain.tif"
        plain.parent.mkdir(exist_ok=True)
        self._write_tiff(plain, bands, colours, self.creation if direct else {})
        if not direct:
            copy(plain, path, driver=self.driver, strict=False, **self.creation)
        found = str(path)
        for step in self.steps:
            found = step(Path(found))
        return found

    def _write_tiff(
        self, path: Path, bands: NDArray[Any], colours: tuple[ColorInterp, ...] | None, creation: dict[str, Any]
    ) -> None:
        count, height, width = bands.shape
        profile: dict[str, Any] = {"driver": "GTiff", "height": height, "width": width, "count": count}
        profile |= {"dtype": self.dtype, "transform": self.transform, "crs": CRS.from_user_input(self.crs), **creation}
        if self.void == TAG:
            profile["nodata"] = self.nodata
        # GDAL takes a fourth band for alpha if nobody says that it is none.
        profile["alpha"] = "YES" if self.void == ALPHA or ColorInterp.alpha in (colours or ()) else "NO"
        inside = self.void != EXTERNAL
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "w", **profile) as target:
            if self.tags:
                target.update_tags(**self.tags)
            target.write(bands)
            if self.unit:
                target.units = (self.unit,) * count
            if (self.scale, self.offset) != (1.0, 0.0):
                target.scales, target.offsets = (self.scale,) * count, (self.offset,) * count
            if colours is not None:
                target.colorinterp = colours
            if self.void in (INTERNAL, EXTERNAL):
                target.write_mask(self.valid)


def _is_turned(transform: Affine) -> bool:
    return not (transform.b == transform.d == 0.0 and transform.a > 0.0 > transform.e)
