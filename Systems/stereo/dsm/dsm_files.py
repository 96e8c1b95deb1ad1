"""From finished tiles to files: the raster, and the picture, page and points beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.fill import fillnodata
from rasterio.windows import Window

from Systems.stereo.dsm.dsm_report import write_dsm_report
from Systems.stereo.dsm.geoid import undulations_of
from Systems.stereo.dsm.ground import GEOGRAPHIC
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.orthoimage import orthoimage
from Systems.stereo.dsm.point_cloud import write_points
from Systems.stereo.dsm.tile_heights import AT_END, FILLED, NO_MATCH, UNSEEN
from Systems.stereo.dsm.views import View, datum_words
from Utils.core.errors import UserError, write_error
from Utils.core.tables import write_json
from Utils.rasters.coordinates import transformed
from Utils.rasters.geometry import Geometry
from Utils.rasters.vertical_datum import TAG
from Utils.scenes.output.height_writer import Band, HeightWriter
from Utils.scenes.output.preview import write_preview

__all__ = ["datum_of", "write_files"]

Strip = NDArray[np.float32]

# Rows of the strips that are written, and cells over which a hole is filled from its sides.
_STRIP, _FILL_REACH = 256, 60
_THUMBNAIL = 900

_BANDS = (
    Band("height", "height in metres above {datum}", "metre"),
    Band("uncertainty", "one standard deviation of the height in metres", "metre"),
    Band("views", "how many views agree about the cell", ""),
    Band(
        "flags",
        f"sum of: {FILLED} filled from around it, {UNSEEN} seen by fewer than two views, {NO_MATCH} seen but without "
        f"heights that agree, {AT_END} height at an end of the range that was searched",
        "",
    ),
)


def datum_of(options: DsmOptions, views: Sequence[View]) -> str:
    """What heights refer to, in words: a geoid that is asked for, or what the cameras' heights refer to."""
    return f"the geoid of {Path(options.geoid).name}" if options.geoid else datum_words(views[0].datum)


def _datum_tag(options: DsmOptions, views: Sequence[View]) -> dict[str, str]:
    """The tag that other tools look for; none where the datum is unknown."""
    named = datum_of(options, views) if Path(options.geoid).is_file() else options.geoid or views[0].datum
    return {TAG: named} if named else {}


def write_files(mosaic: Path, views: Sequence[View], document: Mapping[str, Any], options: DsmOptions) -> None:
    """Write the raster and all that was asked for beside it.

    Args:
        mosaic: all tiles in one raster.
        views: the views as they were used.
        document: the content of the JSON.
        options: what is written.

    Raises:
        UserError: a file that cannot be written, or a geoid without values here.
    """
    output, datum = options.output, datum_of(options, views)
    with rasterio.open(mosaic) as source:
        ground = Geometry(source.height, source.width, source.crs, source.transform)
    bands = [Band(band.name, band.description.format(datum=datum), band.unit) for band in _BANDS]
    tags = {
        "D3RSMDE_KIND": "metric",
        "D3RSMDE_MODEL": str(document["matcher"]["name"]),
        "D3RSMDE_IMAGES": ", ".join(view.name for view in views),
    } | _datum_tag(options, views)
    with HeightWriter(output, ground.height, ground.width, bands, ground.crs, ground.transform, tags) as writer:
        for row, layers in _converted(_filled(mosaic, options.fill), ground, options.geoid):
            writer.write(row, layers)
    try:
        write_json(output.with_suffix(".json"), dict(document))
    except OSError as error:
        raise write_error(output.with_suffix(".json"), error, f"'{output}' itself is whole") from error
    if options.points is not None:
        write_points(options.points, output, views, datum)
    if options.preview:
        write_preview(output.with_suffix(".png"), output, title=f"{output.stem}: height above {datum}")
    if options.report:
        image = orthoimage(views, output, _THUMBNAIL)
        write_dsm_report(output.with_suffix(".html"), output, image, document)


def _filled(mosaic: Path, fill: bool) -> Iterator[tuple[int, Strip]]:
    """The mosaic strip by strip, with holes filled from their sides where that is asked for."""
    with rasterio.open(mosaic) as source:
        for row in range(0, source.height, _STRIP):
            rows = min(_STRIP, source.height - row)
            # What is further away than a hole is filled from does not matter: strips fill like the whole.
            first = max(0, row - 2 * _FILL_REACH) if fill else row
            last = min(source.height, row + rows + 2 * _FILL_REACH) if fill else row + rows
            layers = source.read(window=Window(0, first, source.width, last - first))
            if fill:
                _fill(layers)
            yield row, layers[:, row - first : row - first + rows]


def _fill(layers: Strip) -> None:
    """Fill cells that were seen and have no height, or were not seen but lie between such that have one."""
    known = np.isfinite(layers[0])
    if known.all() or not known.any():
        return
    for layer in (0, 1):
        layers[layer] = np.where(
            known,
            layers[layer],
            _interpolated(np.where(known, layers[layer], 0.0).astype(np.float32), known),
        )
    filled = ~known & np.isfinite(layers[0])
    layers[3][filled] = FILLED


def _interpolated(values: Strip, known: NDArray[np.bool_]) -> Strip:
    found = fillnodata(values.copy(), mask=known.astype(np.uint8), max_search_distance=_FILL_REACH)
    # Cells that nothing near could fill keep what they had, a zero, and are told by filling a map of ones.
    reached = fillnodata(known.astype(np.float32), mask=known.astype(np.uint8), max_search_distance=_FILL_REACH) > 0
    return np.where(reached, found, np.nan).astype(np.float32)


def _converted(strips: Iterator[tuple[int, Strip]], ground: Geometry, geoid: str) -> Iterator[tuple[int, Strip]]:
    """Heights above the geoid where one is given."""
    undulations = undulations_of(geoid)
    for row, layers in strips:
        if undulations is not None:
            part = ground.window(row, 0, layers.shape[1], ground.width)
            rows, columns = np.nonzero(np.isfinite(layers[0]))
            x, y = part.coordinates(rows + 0.5, columns + 0.5)
            up = undulations(*transformed(ground.crs, GEOGRAPHIC, x, y))
            if not np.isfinite(up).all():
                raise UserError(f"--geoid '{geoid}': has no value for part of the ground; give one that covers it")
            layers[0, rows, columns] -= up.astype(np.float32)
        yield row, layers
