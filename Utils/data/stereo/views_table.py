"""A table of one's own views, ``views.csv``: a line names an image, its scene, and its camera.

Columns: scene, image; camera (a file; without it the RPC of the image), or x, y, z, omega, phi, kappa, focal (and
column, row of the principal point) of a photogrammetric frame; and where wanted truth, relative, part, low, high,
lowest, highest, interval. Dataset/README.md describes them.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Modules.common.plain_json import read_text
from Utils.core.errors import RasterError, UserError
from Utils.data.stereo.listing import ListedScene, Part
from Utils.data.stereo.pinhole_camera import PinholeCamera
from Utils.data.stereo.view_files import CameraKind, ViewFiles
from Utils.data.table_paths import TablePaths
from Utils.rasters.tile_files import raster_size

__all__ = ["read_views_table"]

_REQUIRED = ("scene", "image")
_POSE = ("x", "y", "z", "omega", "phi", "kappa", "focal")
_CENTRE = ("column", "row")
_DEPTHS, _HEIGHTS = ("low", "high"), ("lowest", "highest")
_KNOWN = (*_REQUIRED, "camera", "truth", "relative", "part", *_POSE, *_CENTRE, *_DEPTHS, *_HEIGHTS, "interval")
_PARTS = ("train", "test")
_HINT = f"give a CSV with the columns {', '.join(_REQUIRED)} and camera (Dataset/README.md)"


@dataclass(frozen=True)
class TableScene:
    """A scene of a table: its views, and what the table says of their depths or heights.

    Attributes:
        listed: the scene.
        value_range: smallest and largest value that is looked for; None for what the cameras say.
        interval: metres between values; None for what the cameras say.
    """

    listed: ListedScene
    value_range: tuple[float, float] | None
    interval: float | None


def read_views_table(path: Path, part: Part, root: Path | None = None, relative: bool = False) -> list[TableScene]:
    """The scenes of one part of a table, in the order in which they first occur.

    Args:
        path: the table.
        part: whose lines are wanted; without a column part, all lines are of both.
        root: where relative paths start; None for the table's folder.
        relative: whether relative depth maps are wanted.

    Raises:
        UserError: a table or a line that cannot be used, files that are missing.
    """
    header, lines = _read(path)
    _check_columns(path, header)
    rows = [_Row(path, number, header, cells) for number, cells in lines]
    own = [row for row in rows if row.part in ("", part)]
    if not own:
        raise UserError(f"table '{path}' has no line of the part '{part}'; mark some in its column part")
    paths = TablePaths(path, root, [row.text("image") for row in rows])
    scenes: dict[str, list[_Row]] = {}
    for row in own:
        scenes.setdefault(row.text("scene"), []).append(row)
    return [_scene(path, name, views, paths, relative) for name, views in scenes.items()]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        reader = csv.reader(read_text(path).splitlines(), strict=True)
        lines = list(_filled(reader))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"table '{path}' cannot be read: {reason}; {_HINT}") from error
    if len(lines) < 2:
        raise UserError(f"table '{path}' has no line below its header; {_HINT}")
    return [cell.lower() for cell in lines[0][1]], lines[1:]


def _filled(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _check_columns(path: Path, header: Sequence[str]) -> None:
    for column in header:
        if column not in _KNOWN:
            near = difflib.get_close_matches(column, _KNOWN, n=1)
            meant = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(f"table '{path}': unknown column '{column}'; {meant}(known: {', '.join(_KNOWN)})")
        if header.count(column) > 1:
            raise UserError(f"table '{path}': two columns are called '{column}'; remove one")
    for column in _REQUIRED:
        if column not in header:
            raise UserError(f"table '{path}' has no column '{column}'; {_HINT}")


class _Row:
    """One line: its cells by column."""

    def __init__(self, path: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> None:
        self.where = f"table '{path}', line {number}"
        self.line = number
        if len(cells) != len(header):
            raise UserError(
                f"{self.where}: {len(cells)} cells, and the header has {len(header)} columns; correct the line"
            )
        self._cells: Mapping[str, str] = dict(zip(header, cells, strict=True))
        for column in _REQUIRED:
            if not self._cells[column]:
                raise UserError(f"{self.where}: no {column}; fill the cell, or remove the line")
        self.part = self.text("part").lower()
        if self.part not in _PARTS and "part" in header:
            raise UserError(f"{self.where}: part '{self.part[:60]}'; write train or test")

    def text(self, column: str) -> str:
        """The cell of a column; empty where there is none."""
        return self._cells.get(column, "")

    def numbers(self, columns: Sequence[str]) -> list[float] | None:
        """The numbers of some columns; None where all are empty.

        Raises:
            UserError: one is no finite number, or some are empty.
        """
        texts = [self.text(column) for column in columns]
        if not any(texts):
            return None
        values = []
        for column, text in zip(columns, texts, strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                given = f"'{text[:60]}' is no number" if text else "is empty"
                raise UserError(f"{self.where}: {column} {given}; fill {', '.join(columns)}, or none of them")
            values.append(value)
        return values


def _scene(path: Path, name: str, rows: Sequence[_Row], paths: TablePaths, relative: bool) -> TableScene:
    if len(rows) < 2:
        raise UserError(f"{rows[0].where}: scene '{name[:60]}' has one view, and stereo needs two or more")
    kinds = {_kind(row, paths) for row in rows}
    if len(kinds) > 1:
        raise UserError(f"{rows[0].where}: scene '{name[:60]}' has pinhole cameras and RPCs; make two scenes of it")
    (kind,) = kinds
    views = [_view(number, row, paths, kind, relative) for number, row in enumerate(rows)]
    ranges = {tuple(values) for row in rows if (values := row.numbers(_range_columns(kind))) is not None}
    intervals = {values[0] for row in rows if (values := row.numbers(["interval"])) is not None}
    for found, what in ((ranges, "ranges"), (intervals, "intervals")):
        if len(found) > 1:
            raise UserError(f"{rows[0].where}: the views of scene '{name[:60]}' name {len(found)} {what}; give one")
    value_range = next(iter(ranges), None)
    if value_range is not None and not value_range[0] < value_range[1]:
        raise UserError(f"{rows[0].where}: from {value_range[0]:g} to {value_range[1]:g}; the first is the smaller one")
    interval = next(iter(intervals), None)
    if interval is not None and interval <= 0.0:
        raise UserError(f"{rows[0].where}: interval {interval:g}; it is positive, in metres")
    listed = ListedScene(name, name, views, kind, None, "raster")
    whole = None if value_range is None else (value_range[0], value_range[1])
    return TableScene(listed, whole, interval)


def _range_columns(kind: CameraKind) -> tuple[str, str]:
    return _DEPTHS if kind == "pinhole" else _HEIGHTS


def _kind(row: _Row, paths: TablePaths) -> CameraKind:
    if row.numbers(_POSE) is not None:
        return "pinhole"
    camera = row.text("camera")
    if not camera:
        return "rpc"
    found = paths.find(camera)
    if found.suffix.lower() != ".txt":
        return "rpc"
    # Both kinds are published as .txt: an RPC's lines begin with its keys.
    try:
        return "rpc" if "LINE_OFF" in read_text(found).upper() else "pinhole"
    except (OSError, ValueError) as error:
        raise UserError(f"{row.where}: camera '{camera}' cannot be read; {paths.remedy(camera)}") from error


def _view(number: int, row: _Row, paths: TablePaths, kind: CameraKind, relative: bool) -> ViewFiles:
    image = _found(row, "image", paths)
    if row.numbers(_POSE) is not None:
        camera: Path | PinholeCamera = _frame(row, image)
    else:
        camera = _found(row, "camera", paths) if row.text("camera") else image
        if kind == "pinhole" and row.numbers(_HEIGHTS) is not None:
            raise UserError(f"{row.where}: lowest and highest are for frames and RPCs; give low and high, depths")
    if relative and not row.text("relative"):
        raise UserError(f"{row.where}: no relative depth map in column relative, and relative_depth_folder asks for it")
    return ViewFiles(
        str(number),
        image,
        camera,
        _found(row, "truth", paths) if row.text("truth") else None,
        _found(row, "relative", paths) if relative else None,
    )


def _found(row: _Row, column: str, paths: TablePaths) -> Path:
    path = paths.find(row.text(column))
    if not path.is_file():
        raise UserError(f"{row.where}: {column} '{row.text(column)}' does not exist; {paths.remedy(row.text(column))}")
    return path


def _frame(row: _Row, image: Path) -> PinholeCamera:
    """The camera of a frame with orientation: R = Rx(omega) Ry(phi) Rz(kappa), camera to world, Y up, Z backward."""
    values = row.numbers(_POSE)
    assert values is not None
    x, y, z, omega, phi, kappa, focal = values
    if focal <= 0.0:
        raise UserError(f"{row.where}: focal length {focal:g}; it is positive, in pixels")
    try:
        height, width = raster_size(image)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    centre = row.numbers(_CENTRE) or [(width - 1) / 2.0, (height - 1) / 2.0]
    pose = np.eye(4)
    pose[:3, :3] = _turned(omega, phi, kappa) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = x, y, z
    extrinsics = np.linalg.inv(pose)
    nearest, farthest = _depths(row, extrinsics, focal, (centre[0], centre[1]), (height, width), z)
    interval = row.numbers(["interval"])
    # A pixel's width on the ground, at the farthest depth, where nothing else is said.
    step = interval[0] if interval else farthest / focal
    return PinholeCamera(extrinsics, focal, (centre[0], centre[1]), nearest, farthest, step)


def _turned(omega: float, phi: float, kappa: float) -> NDArray[np.float64]:
    (so, co), (sp, cp), (sk, ck) = (
        (math.sin(math.radians(angle)), math.cos(math.radians(angle))) for angle in (omega, phi, kappa)
    )
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, co, -so], [0.0, so, co]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_z = np.array([[ck, -sk, 0.0], [sk, ck, 0.0], [0.0, 0.0, 1.0]])
    return about_x @ about_y @ about_z


def _depths(
    row: _Row,
    extrinsics: NDArray[Any],
    focal: float,
    centre: tuple[float, float],
    size: tuple[int, int],
    altitude: float,
) -> tuple[float, float]:
    """Smallest and largest depth: the table's own, or those of its lowest and highest ground below the image's corners.

    A ray goes down by so many metres for each metre of depth; the ground is met after the altitude over that.
    """
    depths = row.numbers(_DEPTHS)
    if depths is not None:
        return depths[0], depths[1]
    ground = row.numbers(_HEIGHTS)
    if ground is None:
        raise UserError(f"{row.where}: neither low and high (depths) nor lowest and highest (ground); give one pair")
    corners = [(column, line) for column in (0, size[1] - 1) for line in (0, size[0] - 1)]
    seen = np.array([((c - centre[0]) / focal, (r - centre[1]) / focal, 1.0) for c, r in corners])
    down = -(seen @ extrinsics[:3, :3])[:, 2]  # of the ray in the world
    if not (down > 0.05).all() or not ground[0] < ground[1] < altitude:
        raise UserError(
            f"{row.where}: the camera at {altitude:g} m does not look down on ground from {ground[0]:g} to "
            f"{ground[1]:g} m in all its corners; give the depths themselves, low and high"
        )
    return float((altitude - ground[1]) / down.max()), float((altitude - ground[0]) / down.min())
