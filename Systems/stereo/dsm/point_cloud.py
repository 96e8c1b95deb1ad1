"""The cells of a height raster as points: PLY, or LAZ where laspy is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.orthoimage import grey_of
from Systems.stereo.dsm.views import View
from Utils.core.errors import UserError, write_error
from Utils.core.files import replacing
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry

__all__ = ["check_points", "write_points"]

_STRIP = 256
_PLY_POINT = np.dtype([("x", "<f8"), ("y", "<f8"), ("z", "<f4"), ("uncertainty", "<f4"), ("grey", "u1")])
_PLY_NAMES = {"<f8": "double", "<f4": "float", "|u1": "uchar"}


def check_points(path: Path) -> None:
    """Refuse, before the long work, a name that says no format, or a format without its library.

    Raises:
        UserError: another suffix than .ply, .las or .laz, no such folder, or laspy missing.
    """
    suffix = path.suffix.lower()
    if suffix not in (".ply", ".las", ".laz"):
        raise UserError(f"--points '{path}': give a name ending in .ply, .las or .laz")
    if not path.parent.is_dir():
        raise UserError(f"--points '{path}': there is no folder '{path.parent}'; create it first")
    if suffix != ".ply":
        try:
            import laspy
        except ImportError as error:
            raise UserError(
                f"--points '{path}': needs laspy (pip install 'laspy[lazrs]'), or give a name ending in .ply"
            ) from error
        if suffix == ".laz" and not laspy.LazBackend.detect_available():
            raise UserError(f"--points '{path}': laspy packs with lazrs (pip install lazrs), or give a .las or .ply")


def write_points(path: Path, output: Path, views: Sequence[View], datum: str) -> None:
    """Write one point for each cell that has a height: easting, northing, height, its uncertainty, and grey.

    Args:
        path: the file to write.
        output: the height raster.
        views: the views that give the grey.
        datum: what heights refer to, for the header.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            if path.suffix.lower() == ".ply":
                _write_ply(temporary, output, views, datum)
            else:
                _write_las(temporary, output, views, path.suffix.lower() == ".laz")
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error


def _write_ply(path: Path, output: Path, views: Sequence[View], datum: str) -> None:
    with rasterio.open(output) as source:
        system = source.crs.to_string()
    properties = [f"property {_PLY_NAMES[_PLY_POINT[name].str]} {name}" for name in _PLY_POINT.names or ()]
    lines = ["ply", "format binary_little_endian 1.0", f"comment {system}, heights above {datum}"]
    # The number of points is known at the end; its line keeps its length.
    with path.open("wb") as file:
        file.write("\n".join([*lines, "element vertex "]).encode())
        place = file.tell()
        file.write("\n".join([" " * 20, *properties, "end_header\n"]).encode())
        count = 0
        for points in _points(output, views):
            file.write(points.tobytes())
            count += len(points)
        file.seek(place)
        file.write(str(count).encode())


def _write_las(path: Path, output: Path, views: Sequence[View], packed: bool) -> None:
    import laspy

    with rasterio.open(output) as source:
        crs, bounds = source.crs, source.bounds
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.array([bounds.left, bounds.bottom, 0.0])
    header.vlrs.append(laspy.vlrs.known.WktCoordinateSystemVlr(crs.to_wkt()))
    header.global_encoding.wkt = True
    with laspy.open(path, mode="w", header=header, do_compress=packed) as file:
        for points in _points(output, views):
            record = laspy.ScaleAwarePointRecord.zeros(len(points), header=header)
            record.x, record.y, record.z = points["x"], points["y"], points["z"]
            record.intensity = points["grey"].astype(np.uint16) * 257
            file.write_points(record)


def _points(output: Path, views: Sequence[View]) -> Iterator[NDArray[np.void]]:
    """The points, strip by strip."""
    with rasterio.open(output) as source:
        ground = Geometry(source.height, source.width, source.crs, source.transform)
        for row in range(0, ground.height, _STRIP):
            window = Window(0, row, ground.width, min(_STRIP, ground.height - row))
            height, deviation = source.read([1, 2], window=window, masked=True)
            rows, columns = np.nonzero(~np.ma.getmaskarray(height))
            if not len(rows):
                continue
            points = np.zeros(len(rows), _PLY_POINT)
            x, y = ground.coordinates(row + rows + 0.5, columns + 0.5)
            points["x"], points["y"] = x, y
            points["z"], points["uncertainty"] = height.data[rows, columns], deviation.data[rows, columns]
            grey = grey_of(views, *transformed(ground.crs, GEOGRAPHIC, x, y), points["z"].astype(np.float64))
            points["grey"] = np.rint(255 * np.clip(np.nan_to_num(grey), 0.0, 1.0))
            yield points
