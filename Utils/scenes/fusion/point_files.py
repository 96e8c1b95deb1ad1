"""Points in GeoJSON, GeoPackage or shapefiles, as the rows of a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from Utils.core.errors import UserError
from Utils.core.survey_library import survey_library
from Utils.scenes.fusion.point_table import PointTable

__all__ = ["VECTORS", "read_point_file"]

logger = logging.getLogger(__name__)

VECTORS = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml")
"""Suffixes of the files that are read here."""


def read_point_file(path: Path, columns: Sequence[str], label: str = "") -> tuple[PointTable, str]:
    """Read the points of a vector file, and its system.

    Args:
        path: the file.
        columns: names as for a table; x and y are the geometry's, and so is a height that no attribute has.
        label: name of an attribute whose text is wanted too; empty for none.

    Returns:
        The rows, and the system of the file as text.

    Raises:
        UserError: geopandas is not installed; no points, no system, or no heights.
    """
    geopandas = survey_library("geopandas", f"--points '{path}'")
    if not path.is_file():
        raise UserError(f"--points '{path}': no such file")
    try:
        frame = geopandas.read_file(path)
    except Exception as error:  # GDAL's own errors come through here, and share no public base
        raise UserError(f"--points '{path}' cannot be read: {' '.join(str(error).split())}") from error
    whole = len(frame)
    frame = frame[[shape is not None and shape.geom_type == "Point" and not shape.is_empty for shape in frame.geometry]]
    if not len(frame):
        raise UserError(f"--points '{path}' holds no points")
    if len(frame) < whole:
        logger.warning("--points '%s': left out %d of %d features that are no points", path, whole - len(frame), whole)
    if frame.crs is None:
        raise UserError(f"--points '{path}' has no CRS, so nobody knows where its points lie")
    values = [frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy()]
    values += [_attribute(path, frame, name, number == 0) for number, name in enumerate(columns[2:])]
    labels = None
    if label:
        if label not in frame.columns:
            raise UserError(
                f"--points '{path}' has no attribute '{label}'; it has: {', '.join(map(str, frame.columns))}"
            )
        labels = np.array(["" if value is None else str(value) for value in frame[label]], dtype=np.str_)
    table = PointTable(np.stack(values, axis=1).astype(np.float64), np.arange(1, len(frame) + 1), "", labels)
    authority = frame.crs.to_authority(min_confidence=90)
    return table, ":".join(authority) if authority else frame.crs.to_wkt()


def _attribute(path: Path, frame: Any, wanted: str, is_height: bool) -> Any:
    names = {str(name).strip().casefold(): name for name in frame.columns if name != "geometry"}
    name = names.get(wanted.strip().casefold())
    if name is not None:
        return np.array([_number(value) for value in frame[name]])
    if is_height and bool(frame.geometry.has_z.any()):
        return np.array([shape.z if shape.has_z else np.nan for shape in frame.geometry])
    listed = ", ".join(f"'{each}'" for each in names.values()) or "none"
    raise UserError(
        f"--points '{path}' has no attribute '{wanted}'; it has: {listed}. --points-columns names the right one"
    )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
