"""A scene in, a class raster out: what predict.py does for each scene with a model of classes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from Utils.core.errors import UserError, write_error
from Utils.core.processes import everywhere, on_main
from Utils.core.tables import write_json
from Utils.rasters.environment import gdal_environment
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.source.scene_source import SceneSource, open_scene
from Utils.scenes.classes.class_average import averaged
from Utils.scenes.classes.class_files import probability_file, write_class_rasters, written_values
from Utils.scenes.classes.class_model import ClassModel
from Utils.scenes.classes.class_options import ClassOptions
from Utils.scenes.classes.class_picture import write_class_preview
from Utils.scenes.classes.class_polygons import check_polygons, polygon_file, write_polygons
from Utils.scenes.classes.class_scene_report import write_class_scene_report
from Utils.scenes.classes.depth_on_scene import DepthOnScene
from Utils.scenes.output.height_writer import check_output, space_needed
from Utils.scenes.output.output_checks import BESIDE
from Utils.scenes.tiles.tile_grid import Tile, TileGrid
from Utils.scenes.tiles.tile_prediction import draw_tiles, fill_tile
from Utils.scenes.tiles.tile_store import TileStore, remove_unfinished, working_folder

__all__ = ["ClassResult", "check_class_scene", "class_summary", "predict_class_scene"]

logger = logging.getLogger(__name__)

_THUMBNAIL = 900  # pixels of the image's longer side in the report


@dataclass(frozen=True)
class ClassResult:
    """What was written.

    Attributes:
        output: the class raster.
        document: the content of the JSON beside it.
    """

    output: Path
    document: dict[str, Any] = field(repr=False)


def check_class_scene(scene: Path, output: Path, options: ClassOptions, model: ClassModel) -> None:
    """Find the mistakes that can be found before the long work.

    Raises:
        UserError: options, scene, relative depth or output do not fit.
        RasterError: a raster that cannot be read.
    """
    if not 16 <= options.tile_size <= 8192:
        raise UserError(f"--tile-size {options.tile_size}: give 16 to 8192 pixels")
    if not 1 <= options.shared < options.tile_size:
        raise UserError(f"--overlap {options.shared}: give 1 to {options.tile_size - 1} pixels, below the tile size")
    with ExitStack() as stack:
        source = stack.enter_context(_open(scene, options))
        inputs = list(source.files)
        if options.relative_depth is not None:
            DepthOnScene(stack, options.relative_depth, source, options.rises)
            inputs.append(options.relative_depth)
        grid = TileGrid(source.height, source.width, options.tile_size, options.shared)
        classes = len(model.table.names)
        bands = 1 + (classes + 1 if options.probabilities else 0)
        needed = 2 * classes * len(grid) * grid.size**2 + space_needed(source.height, source.width, bands)
        check_output(output, inputs, needed, options.overwrite or options.resume)
        if options.probabilities:
            check_output(probability_file(output), inputs, 0, options.overwrite or options.resume)
        if options.polygons:
            check_polygons(output, options.overwrite or options.resume)
        beside = [output.with_suffix(suffix) for suffix in BESIDE]
        for path in (path for path in beside if path.exists()):
            if any(other.exists() and path.samefile(other) for other in inputs):
                raise UserError(f"--output '{output}': the input '{path}' could be overwritten; give another name")


def predict_class_scene(
    scene: Path, output: Path, model: ClassModel, options: ClassOptions, device: torch.device | None = None
) -> ClassResult:
    """Draw the classes of a scene of any size; the processes of a launch share its tiles, the first averages them.

    Args:
        scene: any raster.
        output: the GeoTIFF to write; a JSON with the same stem goes beside it, and what the options ask for.
        model: the model.
        options: tile size, bands, stretch, relative depth and what to write.
        device: where the model is.

    Raises:
        UserError: a mistake in the options or files, or a disk that is full; finished tiles stay for ``resume``.
        RasterError: a raster that cannot be read or written.
    """
    on_main(lambda: check_class_scene(scene, output, options, model))
    started = time.monotonic()
    with gdal_environment(), ExitStack() as stack:
        source = stack.enter_context(everywhere(lambda: _open(scene, options, tell=False)))
        depth = everywhere(lambda: _depth(stack, source, options))
        grid = TileGrid(source.height, source.width, options.tile_size, options.shared)
        on_main(lambda: _open_store(source, depth, grid, output, options, model))
        on_main(lambda: remove_unfinished(output))
        again = replace(options, resume=True)
        store = everywhere(lambda: _open_store(source, depth, grid, output, again, model))

        @torch.no_grad()
        def layers(tiles: Sequence[Tile], images: Sequence[NDArray[np.float32]]) -> NDArray[np.float16]:
            batch = torch.from_numpy(np.stack(images)).to(device)
            maps = None
            if depth is not None:
                maps = torch.from_numpy(np.stack([_map(depth, tile, grid.size) for tile in tiles])).to(device)
            # Half the disk; a probability keeps three digits.
            found: NDArray[np.float16] = model.draw(batch, maps).cpu().numpy().astype(np.float16)
            return found

        with store.kept_for_resuming():
            draw_tiles(source, grid, layers, store, options.batch_size)
            return on_main(lambda: _finish(source, grid, store, output, options, model, depth, started))


def class_summary(result: ClassResult) -> str:
    """A summary for the user, in a few lines."""
    document = result.document
    shares = sorted(document["classes"], key=lambda one: -one["pixels"])
    total = max(sum(one["pixels"] for one in shares), 1)
    named = ", ".join(f"{one['name']} {100 * one['pixels'] / total:.1f} %" for one in shares if one["pixels"])
    lines = [
        f"{result.output}: classes, {document['tiles']} tiles, {document['seconds']:.0f} s",
        named or "no pixel has a class",
    ]
    if "polygons" in document:
        lines.append(f"{document['polygons']['file']}: {document['polygons']['count']:,} polygons")
    if "probabilities" in document:
        lines.append(f"{document['probabilities']}: the probability of each class, and the entropy")
    return "\n".join(lines)


def _finish(
    source: SceneSource,
    grid: TileGrid,
    store: TileStore,
    output: Path,
    options: ClassOptions,
    model: ClassModel,
    depth: DepthOnScene | None,
    started: float,
) -> ClassResult:
    """From tiles to the raster and the files beside it."""
    table = model.table.with_values(written_values(model.table))
    if table.values != model.table.values:
        logger.warning("the values of the masks do not fit into a byte: the raster has the classes' numbers, from 0")
    size = source.height, source.width
    tags = {
        "D3RSMDE_MODEL": str(model.facts.get("name", "")),
        "D3RSMDE_SCENE": source.path.name,
        "D3RSMDE_STRETCH": json.dumps(source.stretch.describe()),
        "D3RSMDE_TILES": f"{len(grid)} of {grid.size} pixels, {grid.overlap} shared, probabilities averaged",
    }
    strips = averaged(grid, store, len(table.names))
    place = source.crs, source.transform
    counts = write_class_rasters(output, strips, size, *place, model.table, tags, options.probabilities)
    ground = ground_sample_distance(source.crs, source.transform, *size)
    pixel = None if ground is None else ground[0] * ground[1]
    pixels = [int(count) for count in counts.by_class]
    document: dict[str, Any] = {
        "kind": "classes",
        "classes": [
            {"value": value, "name": name, "colour": list(colour), "pixels": count}
            | ({} if pixel is None else {"square_metres": round(count * pixel, 1)})
            for value, name, colour, count in zip(table.values, table.names, table.colours, pixels, strict=True)
        ],
        "ignored_values": list(table.ignored),
        "without_class": counts.unknown,
        "mean_entropy": counts.mean_entropy,
        "tiles": len(grid),
        "relative_depth": None if depth is None else depth.describe(),
        "scene": source.fingerprint(),
        "stretch": source.stretch.describe(),
        "model": model.describe(),
        "options": options.describe(),
    }
    if options.probabilities:
        document["probabilities"] = probability_file(output).name
    if options.polygons:
        document["polygons"] = {"file": polygon_file(output).name, "count": write_polygons(output, table)}
    document |= {
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: version(name) for name in ("torch", "rasterio", "numpy")},
    }
    try:
        write_json(output.with_suffix(".json"), document)
    except OSError as error:
        raise write_error(output.with_suffix(".json"), error, f"'{output}' itself is whole") from error
    result = ClassResult(output, document)
    if options.preview:
        write_class_preview(output.with_suffix(".png"), output, table, pixels, counts.unknown)
    if options.report:
        lines = class_summary(result).splitlines()
        image = source.thumbnail(_THUMBNAIL)
        write_class_scene_report(output.with_suffix(".html"), output, image, table, lines, document)
    store.remove()
    return result


def _open(scene: Path, options: ClassOptions, tell: bool = True) -> SceneSource:
    return open_scene(
        scene, options.bands, options.nodata, options.stretch, options.suspect_voids, tell, white=options.white
    )


def _depth(stack: ExitStack, source: SceneSource, options: ClassOptions) -> DepthOnScene | None:
    if options.relative_depth is None:
        return None
    return DepthOnScene(stack, options.relative_depth, source, options.rises)


def _map(depth: DepthOnScene, tile: Tile, size: int) -> NDArray[np.float32]:
    values = depth.read(tile.row, tile.column, tile.height, tile.width)
    return fill_tile(values[None], np.ones_like(values, bool), size)


def _open_store(
    source: SceneSource,
    depth: DepthOnScene | None,
    grid: TileGrid,
    output: Path,
    options: ClassOptions,
    model: ClassModel,
) -> TileStore:
    folder = working_folder(output)
    key = {
        "scene": source.fingerprint(),
        "model": model.describe(),
        "tile_size": grid.size,
        "overlap": grid.overlap,
        "relative_depth": None if depth is None else depth.describe(),
    }
    if options.overwrite and not options.resume:
        TileStore.clear(folder)
    return TileStore(folder, key, options.resume)
