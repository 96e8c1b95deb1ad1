"""Areas of one class as polygons in a GeoPackage."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import rasterio
from rasterio.features import shapes

from Utils.core.errors import UserError, write_error
from Utils.core.survey_library import survey_library
from Utils.data.land_cover.class_table import ClassTable
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.scenes.classes.class_files import NO_CLASS

__all__ = ["LAYER", "check_polygons", "polygon_file", "write_polygons"]

logger = logging.getLogger(__name__)

LAYER = "classes"
"""Name of the layer."""
_AT_ONCE = 20_000


def polygon_file(output: Path) -> Path:
    """Where the polygons of a class raster go."""
    return output.with_suffix(".gpkg")


def check_polygons(output: Path, overwrite: bool) -> None:
    """Refuse, before the long work, polygons that could not be written.

    Raises:
        UserError: geopandas is not installed, or an older file is in the way.
    """
    survey_library("geopandas", "--polygons")
    path = polygon_file(output)
    if path.exists() and not overwrite:
        raise UserError(f"--polygons '{path}': exists already; give another --output, or --overwrite to replace it")


def write_polygons(output: Path, table: ClassTable) -> int:
    """Write the areas of a class raster: value, name and colour of each and, in a projected CRS, square metres.

    Pixels that touch along a side are of one area. The raster is read line by line; the memory that is needed grows
    with the number of polygons, not of pixels.

    Args:
        output: the class raster.
        table: its classes, with the values that the raster has.

    Returns:
        How many polygons there are.

    Raises:
        UserError: the file cannot be written.
    """
    geopandas = survey_library("geopandas", "--polygons")
    path, count = polygon_file(output), 0
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
            made = Path(folder) / path.name
            with raster_errors(output), georeference_optional(), rasterio.open(output) as source:
                crs = source.crs
                metres = crs.linear_units_factor[1] if crs is not None and crs.is_projected else None
                found = _features(source, table)
                while features := list(islice(found, _AT_ONCE)):
                    frame = geopandas.GeoDataFrame.from_features(features, crs=crs)
                    if metres is not None:
                        frame["area_m2"] = frame.area * metres**2
                    frame.to_file(made, layer=LAYER, driver="GPKG", mode="a" if count else "w")
                    count += len(frame)
            if not count:
                logger.warning("%s: no pixel has a class, so there are no polygons", output)
                return 0
            os.replace(made, path)
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error
    return count


def _features(source: Any, table: ClassTable) -> Iterator[dict[str, Any]]:
    names = dict(zip(table.values, table.names, strict=True))
    colours = {value: "#{:02x}{:02x}{:02x}".format(*c) for value, c in zip(table.values, table.colours, strict=True)}
    for shape, found in shapes(rasterio.band(source, 1), connectivity=4, transform=source.transform):
        value = int(found)
        if value != NO_CLASS:
            known = {"value": value, "class": names[value], "colour": colours[value]}
            yield {"type": "Feature", "geometry": shape, "properties": known}
