"""Reading a stereo sample from its files: images, cameras, truth, relative depth maps, and what is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import RasterError, UserError
from Utils.data.stereo.pinhole_camera import PinholeCamera
from Utils.data.stereo.relative_maps import read_relative
from Utils.data.stereo.view_choice import PinholeView, SatelliteView, ViewGeometry
from Utils.data.stereo.view_files import CameraKind, StereoFiles, TruthFormat, ViewFiles, pinhole_of
from Utils.rasters.height_coding import HeightCoding
from Utils.rasters.pfm import read_pfm
from Utils.rasters.rational import RationalModel, read_rational
from Utils.rasters.tile_files import raster_size, read_height, read_image

__all__ = ["StereoArrays", "geometry_of_view", "read_stereo", "read_truth_map"]

Found = TypeVar("Found")

_WHU_PNG = HeightCoding(scale=1 / 64, nodata=0)


@dataclass(frozen=True)
class StereoArrays:
    """A sample as it is stored.

    Attributes:
        images: (3, H, W) in [0, 1] for each view, the reference first.
        relative: (3, H, W) in [0, 1] for each view, near is dark; empty where none are read.
        cameras: (V, 4, 4) projections of pinholes, or (V, 170) of RPCs, float64.
        target: (H, W) depth or height of the reference in metres; 0 where it is unknown.
        known: (H, W) bool, where the truth is known, inside and outside of the range.
        value_range: smallest and largest value that is looked for.
        interval: metres between values.
    """

    images: list[NDArray[np.float32]]
    relative: list[NDArray[np.float32]]
    cameras: NDArray[np.float64]
    target: NDArray[np.float32]
    known: NDArray[np.bool_]
    value_range: tuple[float, float]
    interval: float


def read_stereo(files: StereoFiles) -> StereoArrays:
    """Read a sample in full.

    Raises:
        UserError: a file that cannot be read; maps whose size is not that of their image; an RPC without an interval.
    """
    images = [_read(lambda view=view: read_image(view.image, files.full_scale)) for view in files.views]  # type: ignore[misc]
    relative = [
        _read(lambda path=view.relative: read_relative(path, files.relative_rises))  # type: ignore[misc]
        for view in files.views
        if view.relative is not None
    ]
    for view, image, relative_map in zip(files.views, images, relative, strict=False):
        _same_size(view.image, image, view.relative, relative_map)
    reference = files.reference
    size = images[0].shape[-2:]
    if reference.truth is None:
        target, known = np.zeros(size, np.float32), np.zeros(size, bool)
    else:
        truth = reference.truth
        target, known = _read(lambda: read_truth_map(files.truth_format, files.kind, truth))
        _same_size(reference.image, images[0], truth, target)
    cameras, value_range, interval = _cameras(files)
    return StereoArrays(images, relative, cameras, target, known, value_range, interval)


def _read(read: Callable[[], Found]) -> Found:
    try:
        return read()
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error


def _same_size(image: Path, values: NDArray[np.float32], other: Path | None, found: NDArray[np.float32]) -> None:
    if values.shape[-2:] != found.shape[-2:]:
        (height, width), (other_height, other_width) = values.shape[-2:], found.shape[-2:]
        raise UserError(
            f"'{other}' is {other_width} x {other_height} pixels but its image '{image}' is {width} x {height}; both "
            "must have one size: replace the one that is wrong"
        )


def read_truth_map(
    stored_as: TruthFormat, kind: CameraKind, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Depth or height in metres (H, W), 0 where it is unknown, and where it is known.

    Depth is positive: 0 and less are unknown, as are NaN and infinity.

    Raises:
        RasterError: a file that cannot be read.
    """
    if path.suffix.lower() == ".pfm":
        stored = read_pfm(path)
        known = np.isfinite(stored)
    else:
        coding = _WHU_PNG if stored_as == "whu_png" else HeightCoding()
        raster = read_height(path, coding)
        stored, known = raster.values, raster.valid
    if kind == "pinhole":
        with np.errstate(invalid="ignore"):
            known = known & (stored > 0.0)
    return np.where(known, stored, np.float32(0.0)), known


def _cameras(files: StereoFiles) -> tuple[NDArray[np.float64], tuple[float, float], float]:
    """Cameras, range and interval; the latter two are the reference's."""
    if files.kind == "pinhole":
        pinholes = [pinhole_of(files, view) for view in files.views]
        own = pinholes[0].nearest, pinholes[0].farthest
        stacked = np.stack([camera.projection for camera in pinholes])
        return stacked, files.value_range or own, files.interval or pinholes[0].interval
    models = [_model(view) for view in files.views]
    if files.interval is None:
        raise UserError(
            f"'{files.reference.camera}' is an RPC, which does not say in which steps heights are looked for; set "
            "interval, in metres (2.5 as published for WHU-TLC)"
        )
    return np.stack([model.parameters for model in models]), files.value_range or models[0].height_range, files.interval


def _model(view: ViewFiles) -> RationalModel:
    camera = view.camera
    assert not isinstance(camera, PinholeCamera), "a table's numbers are of frames"
    return _read(lambda: read_rational(camera))


def geometry_of_view(files: StereoFiles, view: ViewFiles) -> ViewGeometry:
    """The camera of a view, to ask where it sees what.

    Raises:
        UserError: a camera or image that cannot be read.
    """
    size = _read(lambda: raster_size(view.image))
    if files.kind == "pinhole":
        return PinholeView(pinhole_of(files, view), size)
    model = _model(view)
    return SatelliteView(model, size, files.value_range or model.height_range)
