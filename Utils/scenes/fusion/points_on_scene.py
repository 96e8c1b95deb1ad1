"""The points of a table on a scene: their pixels, and which of them are no heights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from Utils.core.errors import UserError
from Utils.rasters.coordinates import TRANSFORM_ERRORS, horizontal_crs, on_earth
from Utils.rasters.datum_shift import DatumShift
from Utils.rasters.geometry import Geometry
from Utils.rasters.suspect_heights import NO_HEIGHT, find_fill_values, ground_limits
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum, datum_of_system, suggested_datum
from Utils.scenes.fusion.anchors import Points
from Utils.scenes.fusion.point_files import VECTORS, read_point_file
from Utils.scenes.fusion.point_table import COLUMNS, PointTable, read_table

__all__ = ["FEWEST_POINTS", "read_points"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FEWEST_POINTS = 8
"""Fewer points than this give neither level nor scale."""

# Longitudes run from -180 to 180, or to 360 and a little more where scenes cross a border.
_MOST_DEGREES = (540.0, 90.0)


def read_points(
    path: Path,
    crs: str,
    scene: Geometry,
    columns: Sequence[str] = COLUMNS,
    keep_outliers: bool = False,
    datum: VerticalDatum = UNKNOWN,
    fewest: int = FEWEST_POINTS,
    label: str = "",
    said: VerticalDatum = UNKNOWN,
) -> Points:
    """Read a table with the columns x, y and height (others are ignored); points beside the scene are left out.

    Rows that cannot be read or have no place, fill values and heights that no ground has are left out as well; one
    warning counts them, and ``Points.left_out`` has the numbers for the results.

    Args:
        path: the table, see ``read_table``; or a GeoJSON, GeoPackage or shapefile, whose own system counts.
        crs: CRS of x and y, such as ``EPSG:4326``, where x is the longitude. One with heights, such as
            ``EPSG:4326+3855`` or ``EPSG:4979``, says what the heights refer to.
        scene: where its pixels lie.
        columns: the names of the columns with x, y and height, and perhaps that with the heights' accuracy.
        keep_outliers: whether fill values and impossible heights are taken as heights.
        datum: what the heights shall refer to; where the CRS says another one, they are brought to it.
        fewest: points that are needed.
        label: a column with classes; empty for none.
        said: what the heights refer to, where no system with heights says it.

    Raises:
        UserError: an unreadable table, columns missing, most rows bad, an unusable CRS, too few points on the scene.
    """
    if path.suffix.lower() in VECTORS:
        table, crs = read_point_file(path, columns, label)
    else:
        table = read_table(path, columns, label)
    system = _system(crs, scene)
    xs, ys, heights = table.values.T[:3]
    readable = (np.abs(table.values[:, :2]) < NO_HEIGHT).all(axis=1) & ~np.isnan(heights)
    rows, columns_ = _pixels(system, scene, xs, ys)
    placed = readable & np.isfinite(rows) & np.isfinite(columns_)
    inside = placed & _on(scene, rows, columns_)
    fill, impossible = _suspects(np.where(readable, heights, np.nan), scene, keep_outliers)
    used = inside & ~fill & ~impossible
    if 2 * placed.sum() <= len(xs) or used.sum() < fewest:
        raise _unusable(path, crs, system, scene, table, placed, used, fewest)
    _warn(path, table, readable, placed, fill, impossible)
    logger.info("%d of %d points lie on the scene", inside.sum(), len(xs))
    reasons = {
        "unusable": ~placed,  # no number, or no place
        "beside_the_scene": placed & ~inside,
        "fill_values": inside & fill,
        "impossible": inside & impossible,
    }
    left_out = {reason: int(rows_.sum()) for reason, rows_ in reasons.items() if rows_.any()}
    own = _datum(path, crs, said)
    heights, own = _brought_to(path, datum, own, heights[used], (xs[used], ys[used]), system)
    sigma = _sigma(path, table.values[used, 3]) if len(columns) > 3 else None
    labels = None if table.labels is None else table.labels[used]
    return Points(rows[used], columns_[used], heights, left_out, own, sigma, labels)


def _sigma(path: Path, given: Floats) -> Floats:
    """One standard deviation (N,), in metres; where none is given, the median of the others."""
    known = np.isfinite(given) & (given > 0.0) & (given < NO_HEIGHT)
    if not known.any():
        raise UserError(f"--points '{path}': the column of --points-accuracy holds no number above 0")
    usual = float(np.median(given[known]))
    if not known.all():
        logger.warning(
            "--points '%s': %d of %d points have no accuracy above 0; that of the others, %.3g m, counts for them",
            path,
            (~known).sum(),
            len(known),
            usual,
        )
    return np.where(known, given, usual)


def _datum(path: Path, crs: str, said: VerticalDatum) -> VerticalDatum:
    """What the heights refer to, as the CRS or else the user says it."""
    own = datum_of_system(CRS.from_user_input(crs))
    if own is not None and said.known and not own.same_as(said):
        raise UserError(f"--points '{path}': its CRS says {own}, and --truth-datum {said.label}; leave one out")
    own = own or (said if said.known else None)
    suggestion = "" if own is not None else suggested_datum(path.name)
    if suggestion:
        remedy = suggestion.format(option="--points-crs with heights, of")
        logger.info("--points '%s': --points-crs '%s' does not say what heights refer to; %s", path, crs, remedy)
    return own or UNKNOWN


def _brought_to(
    path: Path, wanted: VerticalDatum, own: VerticalDatum, heights: Floats, at: tuple[Floats, Floats], system: CRS
) -> tuple[Floats, VerticalDatum]:
    """Heights in the wanted datum, and the datum that they are in then."""
    if not wanted.known:
        return heights, own
    if not own.known:
        logger.info(
            "--points '%s': its heights are taken as those of %s, for nothing says another datum", path, wanted.label
        )
        return heights, own
    if own.same_as(wanted):
        return heights, wanted
    metres = DatumShift(own, wanted, system, f"--points '{path}'").at(*at)
    logger.info(
        "--points '%s': heights brought from %s to %s, %+.2f m in the mean",
        path,
        own.label,
        wanted.label,
        metres.mean(),
    )
    return heights + metres, wanted


def _system(crs: str, scene: Geometry) -> CRS:
    try:
        given = CRS.from_user_input(crs)
    except CRSError as error:
        raise UserError(f"--points-crs '{crs}': {error}; give for example EPSG:4326") from error
    system = horizontal_crs(given) or given
    if system != scene.crs and not on_earth(system):
        raise UserError(
            f"--points-crs '{crs}' is neither geographic nor projected, so its points have no place on the scene; give "
            "the table in a CRS such as EPSG:4326"
        )
    return system


def _pixels(system: CRS, scene: Geometry, xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """Rows and columns (N,) of points; NaN for those outside of what the projections can express."""
    known = np.isfinite(xs) & np.isfinite(ys)
    if system.is_geographic:
        known &= (np.abs(xs) <= _MOST_DEGREES[0]) & (np.abs(ys) <= _MOST_DEGREES[1])
    places = np.full((2, len(xs)), np.nan)
    try:
        places[:, known] = scene.place(xs[known], ys[known], system)
    except TRANSFORM_ERRORS as error:
        raise UserError(
            f"--points-crs: there is no way from '{system.to_string()}' to the scene's CRS '{scene.crs.to_string()}'; "
            "give the table in another CRS"
        ) from error
    return places[0], places[1]


def _on(scene: Geometry, rows: Floats, columns: Floats) -> Mask:
    return (rows >= 0) & (rows < scene.height) & (columns >= 0) & (columns < scene.width)


def _suspects(heights: Floats, scene: Geometry, keep_outliers: bool) -> tuple[Mask, Mask]:
    """Which heights (N,) are fill values, and which are those of no ground."""
    if keep_outliers:
        infinite = np.isinf(heights)
        return infinite, np.zeros_like(infinite)
    fill = find_fill_values(heights)
    low, high = ground_limits(scene.crs)
    return fill, ~fill & ((heights < low) | (heights > high))


def _unusable(
    path: Path, crs: str, system: CRS, scene: Geometry, table: PointTable, placed: Mask, used: Mask, fewest: int
) -> UserError:
    """Say why a table gives too little, and what would do."""
    count = len(placed)
    unread = np.isnan(table.values[:, :3]).any(axis=1)
    if table.unreadable and 2 * unread.sum() >= count:
        return UserError(f"--points '{path}': {unread.sum()} of {count} rows cannot be read; {table.unreadable}")
    what = f"--points '{path}': {used.sum()} of {count} points lie on the scene"
    xs, ys = table.values[:, 0], table.values[:, 1]
    own = scene.crs.to_string()
    unknown = np.full_like(xs, np.nan) if system == scene.crs else xs
    for there, first, second, says in (
        (system, ys, xs, "x and y look swapped: exchange them, with --points-columns y,x,height"),
        (scene.crs, unknown, ys, f"they would lie on it in its own CRS: give --points-crs '{own}'"),
        (
            scene.crs,
            ys,
            unknown,
            f"they would lie on it swapped and in its own CRS: --points-crs '{own}', exchange x and y",
        ),
    ):
        if 2 * _on(scene, *_pixels(there, scene, first, second)).sum() > (~unread).sum():
            return UserError(f"{what}; {says}")
    if 2 * placed.sum() <= count:
        what += f", and {count - placed.sum()} lie outside of what '{crs}' can express or lack a number"
    return UserError(
        f"{what}, at least {fewest} with a height are needed; check --points-crs (now '{crs}') and which column is x"
    )


def _warn(path: Path, table: PointTable, readable: Mask, placed: Mask, fill: Mask, impossible: Mask) -> None:
    """One line about all rows that are left out, other than those beside the scene."""
    parts = []
    bad = ~placed
    if bad.any():
        line = table.lines[bad.argmax()]
        example = table.unreadable if (~readable).any() and table.unreadable else f"line {line}: no number or no place"
        parts.append(f"{bad.sum()} rows that cannot be used ({example})")
    heights = table.values[:, 2]
    for rows, what in ((fill & placed, "fill values"), (impossible & placed, "heights that no ground has")):
        if rows.any():
            parts.append(f"{rows.sum()} {what} ({heights[rows.argmax()]:g} in line {table.lines[rows.argmax()]})")
    if parts:
        remedy = "; --keep-outliers takes such heights" if (fill | impossible).any() else ""
        logger.warning("--points '%s': left out %s of %d rows%s", path, " and ".join(parts), len(placed), remedy)
