"""Looking into the files of a pair: is it whole, on a map, in metres, of one channel, and of one ground?"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from rasterio.crs import CRS

from Systems.mars.preparing.options import PrepareOptions
from Systems.mars.preparing.product_pairs import PairFiles
from Utils.core.errors import RasterError, UserError
from Utils.rasters.environment import georeference_optional, raster_errors
from Utils.rasters.geometry import Geometry
from Utils.rasters.ground import ground_sample_distance, has_transform
from Utils.rasters.planetary.hirise_names import GRIDS, PRODUCERS, read_dtm_name, read_ortho_name
from Utils.rasters.planetary.product_label import ProductLabel, Sun, label_beside, product_reference, read_label
from Utils.rasters.planetary.whole_files import check_whole_product

__all__ = ["CheckedPair", "check_pair"]

logger = logging.getLogger(__name__)

# A true pixel size may differ so much from the nominal one before it is told.
_NOMINAL = 0.1
_PLAIN_RDR = re.compile(r"(?:ESP|PSP)_\d{6}_\d{4}_(?:RED|COLOR)(?!.*ORTHO)", re.IGNORECASE)
_SOURCE = re.compile(r"(?:ESP|PSP)_(\d{6}_\d{4})", re.IGNORECASE)


@dataclass(frozen=True)
class CheckedPair:
    """A pair of products that fit together.

    Attributes:
        name: of the pair.
        dtm: what GDAL opens for the heights.
        ortho: what GDAL opens for the image.
        grid: the DTM's.
        metres: true pixel size of the DTM, the mean of both directions.
        reference: what heights are: "areoid", "radius" or "unknown".
        producer: name of the producer; empty where unknown.
        version: number of the version; None where unknown.
        sources: orbit and target of the source observations; empty where unknown.
        sun: where it stood; None where no label tells.
        band: band of the image.
    """

    name: str
    dtm: Path
    ortho: Path
    grid: Geometry
    metres: float
    reference: str
    producer: str
    version: int | None
    sources: tuple[str, ...]
    sun: Sun | None
    band: int


def check_pair(files: PairFiles, options: PrepareOptions) -> CheckedPair:
    """Check the two files of a pair.

    Raises:
        UserError, RasterError: the files cannot be used; the line says what is wrong and which option decides.
    """
    check_whole_product(files.dtm)
    check_whole_product(files.ortho)
    label, image_label = read_label(files.dtm), read_label(files.ortho)
    name = read_dtm_name(files.dtm.name)
    dtm = _readable(files.dtm)
    grid, metres = _check_heights(dtm, label)
    if name is not None and name.grid in GRIDS and abs(metres / GRIDS[name.grid] - 1.0) > _NOMINAL:
        logger.warning(
            "%s: pixels of %.4g m, though the name says grid %s, %g m; the true size is taken",
            files.dtm,
            metres,
            name.grid,
            GRIDS[name.grid],
        )
    sources = name.sources if name is not None else _sources(label)
    _check_observations(files, sources, image_label)
    ortho, band = _check_image(files.ortho, options)
    return CheckedPair(
        files.name,
        dtm,
        ortho,
        grid,
        metres,
        _reference(files.dtm, options),
        PRODUCERS.get(name.producer, "other") if name else "" if label is None else label.text("PRODUCER_FULL_NAME"),
        None if name is None else name.version,
        sources,
        None if image_label is None else image_label.sun,
        band,
    )


def _check_heights(path: Path, label: ProductLabel | None) -> tuple[Geometry, float]:
    """The grid of a DTM and its pixel size in metres."""
    _check_scale(path, label)
    with raster_errors(path), georeference_optional(), rasterio.open(path) as source:
        if source.count != 1:
            raise RasterError(path, f"{source.count} bands, where a DTM has one", "extract the heights to a GeoTIFF")
        crs = _map_crs(path, source)
        grid = Geometry(source.height, source.width, crs, source.transform)
        found = ground_sample_distance(crs, source.transform, source.height, source.width)
        assert found is not None, "a projected system has metres"
        return grid, (found[0] * found[1]) ** 0.5


def _check_scale(path: Path, label: ProductLabel | None) -> None:
    scale = None if label is None else label.get("MAP_SCALE")
    if scale is not None and "DEG" in scale.unit:
        raise RasterError(
            path,
            f"MAP_SCALE {scale.value} is in degrees ({scale.unit.lower()}), which GDAL would take for metres",
            "project it again in metres, for example with gdalwarp -t_srs",
        )


def _map_crs(path: Path, source: Any) -> CRS:
    if source.crs is None or not has_transform(source.transform):
        raise RasterError(
            path,
            "is not map-projected: no map projection in it, nor in a label beside it",
            "give the orthoimage (..._ORTHO.JP2 with its .LBL) or the DTM, not the image as the camera took it",
        )
    if source.crs.is_geographic:
        raise RasterError(
            path,
            f"its pixels are {abs(source.transform.a):g} degrees, not metres",
            "project it, for example with gdalwarp -t_srs '+proj=eqc +R=3396190 +units=m'",
        )
    if not source.crs.is_projected:
        raise RasterError(path, "its coordinate system is not on a planet", "give it a map projection")
    return source.crs


def _check_observations(files: PairFiles, sources: tuple[str, ...], label: ProductLabel | None) -> None:
    """Refuse an image of an observation that the DTM was not made of."""
    name = read_ortho_name(files.ortho.name)
    found = _SOURCE.search(files.ortho.name)
    own = (name.source,) if name else (found[1],) if found else _sources(label)[:1]
    if sources and own and own[0] not in sources:
        raise UserError(
            f"'{files.ortho}' is of observation {own[0]}, and '{files.dtm}' was made of {' and '.join(sources)}: give "
            "the orthoimage of one of these"
        )


def _sources(label: ProductLabel | None) -> tuple[str, ...]:
    return () if label is None else tuple(text[4:] for text in label.observations)


def _check_image(path: Path, options: PrepareOptions) -> tuple[Path, int]:
    """What GDAL opens for an image, and its band."""
    if _PLAIN_RDR.match(path.name) and not options.plain_rdr:
        raise RasterError(
            path,
            "is a plain image product (RDR): it is not orthorectified, so slopes lie beside their heights by up to "
            "tens of metres",
            "give the ..._ORTHO.JP2, or take it as it is with --plain-rdr",
        )
    readable = _readable(path)
    with raster_errors(path), georeference_optional(), rasterio.open(readable) as source:
        _map_crs(path, source)
        if source.dtypes[0] not in ("uint8", "uint16", "float32"):
            raise RasterError(path, f"an image of type {source.dtypes[0]}", "convert it to 8 bits")
        if options.band is not None and options.band > source.count:
            raise RasterError(path, f"has {source.count} bands, and --band is {options.band}", "choose one of them")
        if source.count > 1 and options.band is None:
            raise RasterError(
                path,
                f"is a colour product of {source.count} bands, and the model sees one",
                "give the RED image, or choose a band with --band (2 is red in IRB products)",
            )
        return readable, options.band or 1


def _readable(path: Path) -> Path:
    """The file itself, or the label beside it, where georeference or layout stand in the label alone."""
    label = label_beside(path)
    if label is None:
        return path
    try:
        with raster_errors(path), georeference_optional(), rasterio.open(path) as source:
            return path if source.crs is not None and has_transform(source.transform) else label
    except RasterError:
        return label  # the data of PDS4 are bare numbers


def _reference(path: Path, options: PrepareOptions) -> str:
    """What heights refer to: the name says it, or the label, or an option."""
    stated = product_reference(path)
    found = None if stated is None else stated[0]
    if found is not None and options.reference not in (None, found):
        logger.warning("%s: heights are %s by its name or label; --height-reference is not used", path, found)
    if found is None and options.reference is None:
        logger.warning(
            "%s: nothing says whether heights are above the areoid or radii; written as unknown, --height-reference "
            "areoid or radius says it",
            path,
        )
    return found or options.reference or "unknown"
