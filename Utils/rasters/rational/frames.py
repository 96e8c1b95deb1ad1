"""RPCs of aerial frames with orientation, so that predictStereo.py takes frames as it takes satellite images.

    python -m Utils.rasters.rational.frames --table frames.csv --crs EPSG:32651 --heights 50,120 --output rpcs/

The table has the columns image, x, y, z, omega, phi, kappa and focal (pixels), and where known column and row of the
principal point (pixels, the middle of the image by default) and k1, k2, k3, p1, p2 of Brown's distortion. Positions are
in metres of the CRS, angles in degrees: R = Rx(omega) Ry(phi) Rz(kappa) turns camera (X right, Y up, Z backward) to
world. Each image gets a text of 170 lines, NAME.rpc, in the folder. Heights are those that z is measured in;
--vertical-datum says what that refers to, and what is made of the frames is labelled with it; else it is unknown.
Rational polynomials cannot follow a strong distortion: with --undistort the folder gets images without it, NAME.tif.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from scipy import ndimage

from Modules.common.plain_json import read_text
from Modules.common.rational_polynomials import monomials
from Utils.core.command_line import run_script
from Utils.core.errors import RasterError, UserError, write_error
from Utils.rasters.coordinates import transformed
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.rational.inverse_fit import fitted_ratio
from Utils.rasters.rational.model import RationalModel
from Utils.rasters.rational.writing import write_rational
from Utils.rasters.tile_files import raster_size
from Utils.rasters.vertical_datum import parse_datum

__all__ = ["Frame", "fit_frame", "turned"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_POSE = ("x", "y", "z", "omega", "phi", "kappa", "focal")
_CENTRE = ("column", "row")
_DISTORTION = ("k1", "k2", "k3", "p1", "p2")
_NODES = (17, 17, 7)  # along rows, columns and heights
_STEPS = 30  # of the way back through the distortion
_RIDGE = 1e-6  # a frame is a ratio of linear terms, and so of many others
_WORST = 0.5  # pixels by which a fitted model may miss its frame
_LEAST_DROP = 0.1  # metres that a ray has to fall for each metre of depth


@dataclass(frozen=True)
class Frame:
    """A frame camera.

    Attributes:
        place: (3,) x, y and z in metres.
        rotation: (3, 3) camera (X right, Y up, Z backward) to world.
        focal: focal length in pixels.
        centre: column and row of the principal point.
        size: height and width in pixels.
        distortion: k1, k2, k3, p1, p2 of Brown's model.
    """

    place: Floats
    rotation: Floats
    focal: float
    centre: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def pixels(self, points: Floats) -> Floats:
        """(N, 2): columns and rows at which points (N, 3) are seen."""
        seen = (points - self.place) @ self.rotation
        flat = np.stack([seen[:, 0], -seen[:, 1]], axis=1) / -seen[:, 2:]
        return self.distorted(flat) * self.focal + self.centre

    def directions(self, columns: Floats, rows: Floats) -> Floats:
        """(N, 3): directions in the world of pixels, one metre long along the optical axis.

        Raises:
            ValueError: the distortion cannot be inverted there: it folds back.
        """
        wanted = (np.stack([columns, rows], axis=1) - self.centre) / self.focal
        flat = wanted.copy()
        for _ in range(_STEPS):
            flat = flat + (wanted - self.distorted(flat))
        worst = float(np.abs(wanted - self.distorted(flat)).max()) * self.focal
        if not worst < 1e-3:
            raise ValueError(f"its distortion cannot be undone at the image's border (it misses by {worst:.3g} pixels)")
        seen = np.stack([flat[:, 0], -flat[:, 1], -np.ones(len(flat))], axis=1)
        return seen @ self.rotation.T

    def distorted(self, flat: Floats) -> Floats:
        """Brown's model (Brown, Close-range camera calibration, 1971), on coordinates of focal length 1."""
        k1, k2, k3, p1, p2 = self.distortion
        x, y = flat.T
        squared = x * x + y * y
        radial = 1.0 + squared * (k1 + squared * (k2 + squared * k3))
        across = x * radial + 2.0 * p1 * x * y + p2 * (squared + 2.0 * x * x)
        down = y * radial + p1 * (squared + 2.0 * y * y) + 2.0 * p2 * x * y
        return np.stack([across, down], axis=1)


def turned(omega: float, phi: float, kappa: float) -> Floats:
    """The rotation Rx(omega) Ry(phi) Rz(kappa) of angles in degrees."""
    (so, co), (sp, cp), (sk, ck) = (
        (math.sin(math.radians(angle)), math.cos(math.radians(angle))) for angle in (omega, phi, kappa)
    )
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, co, -so], [0.0, so, co]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_z = np.array([[ck, -sk, 0.0], [sk, ck, 0.0], [0.0, 0.0, 1.0]])
    return about_x @ about_y @ about_z


def fit_frame(frame: Frame, crs: CRS, heights: tuple[float, float]) -> tuple[RationalModel, float]:
    """Fit an RPC to a frame over the ground that it shows.

    Args:
        frame: the camera.
        crs: of its place; it is taken for Cartesian, as it was when the frames were oriented.
        heights: lowest and highest ground in metres.

    Returns:
        The model, and by how many pixels it misses the frame at most.

    Raises:
        ValueError: a frame that does not look down on this ground, or a distortion that cannot be undone.
    """
    ground, pixels = _seen(frame, heights, _NODES)
    model = _fit(frame, crs, ground, pixels)
    # Between the nodes, and at other heights.
    others, there = _seen(frame, heights, tuple(count - 1 for count in _NODES))
    longitude, latitude = transformed(crs, CRS.from_epsg(4326), others[:, 0], others[:, 1])
    found = np.stack(model.project(longitude, latitude, others[:, 2]), axis=1)
    return model, float(np.linalg.norm(found - there, axis=1).max())


def _seen(frame: Frame, heights: tuple[float, float], nodes: Sequence[int]) -> tuple[Floats, Floats]:
    """Points of the ground (N, 3) under a grid of pixels (N, 2) at several heights."""
    rows, columns, up = (
        grid.ravel()
        for grid in np.meshgrid(
            np.linspace(0, frame.size[0] - 1, nodes[0]),
            np.linspace(0, frame.size[1] - 1, nodes[1]),
            np.linspace(*heights, nodes[2]),
            indexing="ij",
        )
    )
    directions = frame.directions(columns, rows)
    if heights[1] >= frame.place[2] or not (directions[:, 2] < -_LEAST_DROP).all():
        raise ValueError(
            f"at {frame.place[2]:g} m it does not look down on ground from {heights[0]:g} to {heights[1]:g} m in all "
            "of its corners"
        )
    away = (up - frame.place[2]) / directions[:, 2]
    return frame.place + away[:, None] * directions, np.stack([columns, rows], axis=1)


def _fit(frame: Frame, crs: CRS, ground: Floats, pixels: Floats) -> RationalModel:
    longitude, latitude = transformed(crs, CRS.from_epsg(4326), ground[:, 0], ground[:, 1])
    places = np.stack([latitude, longitude, ground[:, 2]], axis=1)
    low, high = places.min(axis=0), places.max(axis=0)
    middle, half = (low + high) / 2.0, (high - low) / 2.0
    centre = (np.array(frame.size[::-1]) - 1.0) / 2.0
    terms = monomials(*(torch.from_numpy(axis.copy()) for axis in ((places - middle) / half).T)).numpy().T
    column, row = ((pixels - centre) / centre).T
    offsets, scales = [centre[1], centre[0], *middle], [centre[1], centre[0], *half]
    direct = np.concatenate([offsets, scales, *(fitted_ratio(terms, axis, _RIDGE) for axis in (row, column))])
    # Of the way back, too, only what the image shows is known: an oblique frame's box of ground is mostly beyond it.
    north, east, up = ((places - middle) / half).T
    back = monomials(*(torch.from_numpy(axis.copy()) for axis in (column, row, up))).numpy().T
    return RationalModel(direct, np.concatenate([fitted_ratio(back, axis, _RIDGE) for axis in (north, east)]))


def read_frames(table: Path) -> dict[Path, Frame]:
    """The frames of a table, by image; paths are relative to the table's folder.

    Raises:
        UserError: a table or image that cannot be read, or missing columns.
    """
    try:
        rows = list(csv.DictReader(read_text(table).splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"table '{table}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise UserError(f"table '{table}' has no line below its header; columns: image, {', '.join(_POSE)}")
    for column in ("image", *_POSE):
        if column not in rows[0]:
            raise UserError(f"table '{table}' has no column '{column}'; it needs image, {', '.join(_POSE)}")
    return {table.parent / row["image"]: _frame(table, line, row) for line, row in enumerate(rows, 2)}


def _frame(table: Path, line: int, row: Mapping[str, str]) -> Frame:
    def numbers(columns: Sequence[str]) -> list[float]:
        try:
            values = [float(row[column]) for column in columns]
        except (KeyError, TypeError, ValueError):
            values = [math.nan]
        if not np.isfinite(values).all():
            raise UserError(f"table '{table}', line {line}: {', '.join(columns)} must be numbers; correct the line")
        return values

    try:
        size = raster_size(table.parent / row["image"])
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    x, y, z, omega, phi, kappa, focal = numbers(_POSE)
    if focal <= 0.0:
        raise UserError(f"table '{table}', line {line}: focal length {focal:g}; it is positive, in pixels")
    column, line_of_centre = numbers(_CENTRE) if row.get("column") else ((size[1] - 1) / 2.0, (size[0] - 1) / 2.0)
    k1, k2, k3, p1, p2 = numbers(_DISTORTION) if row.get("k1") else (0.0,) * 5
    centre = (column, line_of_centre)
    return Frame(np.array([x, y, z]), turned(omega, phi, kappa), focal, centre, size, (k1, k2, k3, p1, p2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the RPCs; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m Utils.rasters.rational.frames",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", type=Path, required=True, metavar="CSV", help="frames and their orientation")
    parser.add_argument("--crs", required=True, help="of the positions: EPSG:32651, or a PROJ string")
    parser.add_argument("--heights", required=True, metavar="LOW,HIGH", help="lowest and highest ground in metres")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the RPCs")
    parser.add_argument("--undistort", action="store_true", help="also write the images without their distortion")
    parser.add_argument("--vertical-datum", default="", metavar="EPSG:N", help="what z refers to (unknown)")
    given = parser.parse_args(arguments)

    def work() -> None:
        heights, datum = _heights(given.heights), parse_datum(given.vertical_datum).code
        try:
            crs = CRS.from_user_input(given.crs)
        except CRSError as error:
            raise UserError(f"--crs '{given.crs}': {error}; give EPSG:32651 or the like") from error
        for image, frame in read_frames(given.table).items():
            straight = replace(frame, distortion=(0.0,) * 5) if given.undistort else frame
            _write(image, straight, crs, heights, given.output, datum)
            if given.undistort:
                _write_undistorted(image, frame, given.output / f"{image.stem}.tif")

    return run_script(work)


def _heights(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not low < high:
        raise UserError(f"--heights '{text}': give the lowest and the highest ground in metres, as 50,120")
    return low, high


def _write(image: Path, frame: Frame, crs: CRS, heights: tuple[float, float], folder: Path, datum: str) -> None:
    try:
        model, worst = fit_frame(frame, crs, heights)
        model.parameters  # noqa: B018 - the way back is checked here, under the image's name
    except ValueError as error:
        raise UserError(f"'{image}': {error}; check its angles, --heights and --crs") from error
    if worst > _WORST:
        raise UserError(
            f"'{image}': an RPC misses the frame by up to {worst:.2f} pixels ({_WORST} are allowed); add "
            "--undistort, or give a narrower range of --heights"
        )
    path = folder / f"{image.stem}.rpc"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_rational(path, model, datum)
    except OSError as error:
        raise write_error(path, error, "choose another folder with --output") from error
    logger.info("%s: misses the frame by %.3f pixels at most", path, worst)


def _write_undistorted(image: Path, frame: Frame, path: Path) -> None:
    """Write an image as the same camera without distortion would have taken it; 0 beyond its border."""
    if path.resolve() == image.resolve():
        raise UserError(f"--output: the image '{image}' lies there; give another folder")
    rows, columns = np.mgrid[: frame.size[0], : frame.size[1]]
    flat = (np.stack([columns.ravel(), rows.ravel()], axis=1) - frame.centre) / frame.focal
    places = (frame.distorted(flat) * frame.focal + frame.centre).reshape(*frame.size, 2)
    with raster_errors(image), georeference_optional(), rasterio.open(image) as source:
        bands, profile = source.read(), source.profile
    seen = [places[..., 1], places[..., 0]]
    straight = np.stack([ndimage.map_coordinates(band, seen, order=1, cval=0) for band in bands])
    kept = {key: profile[key] for key in ("count", "dtype", "height", "width")}
    kept |= {"driver": "GTiff", "compress": "deflate", "nodata": 0}
    try:
        with georeference_optional(), rasterio.open(path, "w", **kept) as target:
            target.write(straight)
    except OSError as error:
        raise write_error(path, error, "choose another folder with --output") from error


if __name__ == "__main__":
    raise SystemExit(main())
