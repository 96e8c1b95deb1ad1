"""A scene in, a height raster out: what predict.py does for each scene."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio
import torch

from Utils.core.errors import UserError, write_error
from Utils.core.processes import everywhere, on_main
from Utils.core.tables import write_json
from Utils.rasters.environment import gdal_environment
from Utils.rasters.places import container, gdal_name, raster_place
from Utils.rasters.source.scene_source import SceneSource, open_scene
from Utils.rasters.tile_files import GDAL_ERRORS
from Utils.scenes.finishing import Finisher
from Utils.scenes.fusion.cells import CoarseHeights
from Utils.scenes.fusion.known_heights import KnownHeights, read_heights
from Utils.scenes.fusion.learned_relief import DrawDetail
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL
from Utils.scenes.options import SceneOptions
from Utils.scenes.output.height_writer import check_output, space_needed
from Utils.scenes.output.output_checks import BESIDE
from Utils.scenes.output.preview import write_preview
from Utils.scenes.output.scene_report import write_scene_report
from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scenes.tiles.tile_prediction import HeightModel, predict_tiles
from Utils.scenes.tiles.tile_store import TileStore, remove_unfinished, working_folder

_KINDS = {
    "metric": "metric heights",
    "offset": "heights in metres above the lowest place (level unknown)",
    "relative": "relative heights",
}
_THUMBNAIL = 900  # pixels of the image's longer side in the report


@dataclass(frozen=True)
class SceneResult:
    """What was written.

    Attributes:
        output: the height raster.
        document: the content of the JSON beside it.
    """

    output: Path
    document: dict[str, Any] = field(repr=False)


def check_scene(scene: Path, output: Path, options: SceneOptions) -> KnownHeights:
    """Find the mistakes that can be found before the long work; gives the known heights that were read meanwhile.

    Raises:
        UserError: options, scene, heights or output do not fit.
        RasterError: a scene that cannot be read.
    """
    if not 16 <= options.tile_size <= 8192:
        raise UserError(f"--tile-size {options.tile_size}: give 16 to 8192 pixels")
    if not 1 <= options.shared < options.tile_size:
        raise UserError(f"--overlap {options.shared}: give 1 to {options.tile_size - 1} pixels, below the tile size")
    if not 0.0 <= options.hold_out <= 0.5:
        raise UserError(f"--hold-out {options.hold_out:g}: give a share of the points from 0 to 0.5")
    if (options.hold_out or options.points_accuracy) and options.points is None:
        raise UserError("--hold-out and --points-accuracy belong to --points: give it too")
    if options.detail != "both" and options.reference is None:
        raise UserError(f"--detail {options.detail} says what is added to a DEM: give --reference too")
    if options.register and options.reference is None:
        raise UserError("--register moves the coarse DEM onto the image: give --reference too")
    if options.refines_dem and options.uses_model and options.reference is None:
        raise UserError("--model refines a coarse DEM, and draws nothing without one: give --reference")
    if options.refines_dem and options.orientations > 1:
        raise UserError(f"--uncertainty {options.orientations} turns tiles, and this model draws none; leave it out")
    if not options.uses_model and options.orientations > 1:
        raise UserError(
            f"--uncertainty {options.orientations} turns tiles for the model, and --detail {options.detail} needs none"
        )
    with _open(scene, options) as source:
        grid = TileGrid(source.height, source.width, options.tile_size, options.shared)
        pixels, layers = source.height * source.width, 1 + (options.orientations > 1)
        tiles = len(grid) * grid.size**2 * layers
        bands = layers + options.metric
        needed = 4 * (tiles + pixels * bands) + space_needed(source.height, source.width, bands)
        inputs = [*source.files, *_files_of_heights(options)]
        check_output(output, inputs, needed, options.overwrite or options.resume)
        # The picture of scene.tif is scene.png, which may be the scene itself.
        for beside in (output.with_suffix(suffix) for suffix in BESIDE):
            if beside.exists() and any(path.exists() and beside.samefile(path) for path in inputs):
                raise UserError(f"--output '{output}': the input '{beside}' could be overwritten; give another name")
        heights = read_heights(source, options)
        if heights.reference is not None:
            more = _scratch_of_fusion(heights.reference, pixels, options)
            check_output(output, inputs, needed + more, options.overwrite or options.resume)
        return heights


def predict_scene(
    scene: Path,
    output: Path,
    predictor: HeightModel | None,
    options: SceneOptions,
    model: Mapping[str, Any],
    device: torch.device | None = None,
    heights: KnownHeights | None = None,
    refine: DrawDetail | None = None,
) -> SceneResult:
    """Predict a scene of any size; the processes of a launch share its tiles, and the first one joins them.

    Args:
        scene: any raster.
        output: the GeoTIFF to write; a JSON with the same stem goes beside it, and the picture if it is asked for.
        predictor: the model that draws tiles; None where the options do without.
        options: tile size, bands, stretch, known heights and what to write.
        model: facts that identify the model; they go into the JSON, and a scene is resumed only with the same model.
        device: where the model is.
        heights: what ``check_scene`` gave, in the first process; with None the check is made here.
        refine: a model that refines the reference, in the place of one that draws tiles.

    Raises:
        UserError: a mistake in the options or files, or a disk that is full; finished tiles stay for ``resume``.
        RasterError: a raster that cannot be read or written.
    """
    known = heights or on_main(lambda: check_scene(scene, output, options))
    started = time.monotonic()
    with gdal_environment(), ExitStack() as opened:
        source = opened.enter_context(everywhere(lambda: _open(scene, options, tell=False)))
        grid = TileGrid(source.height, source.width, options.tile_size, options.shared)
        on_main(lambda: _open_store(source, grid, output, options, model))
        on_main(lambda: remove_unfinished(output))
        store = everywhere(lambda: _open_store(source, grid, output, replace(options, resume=True), model))
        with store.kept_for_resuming():
            if predictor is not None:
                predict_tiles(
                    source,
                    grid,
                    predictor,
                    store,
                    batch_size=options.batch_size,
                    orientations=options.orientations,
                    device=device,
                    scale_known=options.model_in_metres,
                )
            return on_main(lambda: _finish(source, grid, store, output, options, known, model, started, refine))


def _finish(
    source: SceneSource,
    grid: TileGrid,
    store: TileStore,
    output: Path,
    options: SceneOptions,
    heights: KnownHeights,
    model: Mapping[str, Any],
    started: float,
    refine: DrawDetail | None,
) -> SceneResult:
    """From predicted tiles to the raster and the files beside it."""
    image = source.thumbnail(_THUMBNAIL)
    finisher = Finisher(source, grid, store, options, heights, str(model.get("name", "")), refine)
    document = finisher.finish(output) | {
        "scene": source.fingerprint(),
        "stretch": source.stretch.describe(),
        "model": dict(model),
        "options": options.describe(),
        "seconds": round(time.monotonic() - started, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {name: version(name) for name in ("torch", "rasterio", "numpy", "scipy")},
    }
    try:
        write_json(output.with_suffix(".json"), document)
    except OSError as error:
        raise write_error(output.with_suffix(".json"), error, f"'{output}' itself is whole") from error
    result = SceneResult(output, document)
    if options.preview:
        write_preview(output.with_suffix(".png"), output, title=output.stem)
    if options.report:
        write_scene_report(output.with_suffix(".html"), output, image, summary(result).splitlines(), document)
    store.remove()
    return result


def summary(result: SceneResult) -> str:
    """A summary for the user, in a few lines."""
    document = result.document
    tiles = document["tiles"]
    made = f", {len(tiles)} tiles" if tiles else ""
    lines = [f"{result.output}: {_KINDS[document['kind']]}{made}, {document['seconds']:.0f} s"]
    if document["components"] > 1:
        lines.append(f"{document['components']} groups of tiles do not touch each other: see 'component' in the JSON")
    if document["kind"] == "metric" and tiles:
        held = sum(tile["supported"] for tile in tiles)
        lines.append(
            f"{held} of {len(tiles)} tiles were fitted to the heights; the others follow their neighbours (flag band)"
        )
    if "reference" in document:
        lines.append(_detail(document["reference"]))
        found = document["reference"]["agreement"]
        if found["count"]:
            lines.append(
                f"against the reference, at its own resolution: RMSE {found['rmse']:.2f} m, "
                f"bias {found['bias']:+.2f} m, {found['count']} cells"
            )
    if "points" in document:
        before, after = document["points"]["before"], document["points"]["after"]
        lines.append(
            f"against {after['count']} points: RMSE {after['rmse']:.2f} m, NMAD {after['nmad']:.2f} m "
            f"(before the correction {before['rmse']:.2f} m)"
        )
        held = document["points"].get("held_out")
        if held and held["after"]["count"]:
            lines.append(
                f"against {held['after']['count']} points that were held out: RMSE {held['after']['rmse']:.2f} m, "
                f"NMAD {held['after']['nmad']:.2f} m (before the correction {held['before']['rmse']:.2f} m)"
            )
    return "\n".join(lines)


def _scratch_of_fusion(reference: CoarseHeights, pixels: int, options: SceneOptions) -> int:
    """Bytes that the fusion keeps on disk for a while: maps at samples of the cells, and copies of the scene."""
    shading = options.detail in ("both", "shading") or options.refines_dem
    maps, copies = (8 if options.refines_dem else 7, 4) if shading else (2, 1)
    return 4 * (maps * reference.heights.size * SAMPLES_A_CELL**2 + copies * pixels)


def _detail(reference: Mapping[str, Any]) -> str:
    """A line on what was added to the DEM."""
    names = {"model": "the model's detail", "shading": "the detail from shading"}
    gains = [f"{100 * gain:.0f} % of {names[name]}" for name, gain in reference["gain"].items()]
    if not gains:
        return f"the DEM alone, its noise estimated as {reference['noise']:.2f} m"
    return (
        f"added to the DEM (noise {reference['noise']:.2f} m): {' and '.join(gains)}; on cells twice as wide, where "
        f"the DEM is the truth, this explains {100 * reference['explained']:.0f} % of what they leave open"
    )


def _open(scene: Path, options: SceneOptions, tell: bool = True) -> SceneSource:
    return open_scene(scene, options.bands, options.nodata, options.stretch, options.suspect_voids, tell)


def _files_of_heights(options: SceneOptions) -> list[Path]:
    """The files that the known heights are read from, also those that a VRT names."""
    files = [options.points] if options.points is not None else []
    if options.reference is not None:
        place = raster_place(options.reference)
        files.append(container(place))
        with suppress(*GDAL_ERRORS), gdal_environment(), rasterio.open(gdal_name(place)) as reference:
            if reference.driver == "VRT":
                files += [container(name) for name in reference.files]
    return files


def _open_store(
    source: SceneSource, grid: TileGrid, output: Path, options: SceneOptions, model: Mapping[str, Any]
) -> TileStore:
    folder = working_folder(output)
    key = {
        "scene": source.fingerprint(),
        "model": dict(model),
        "tile_size": grid.size,
        "overlap": grid.overlap,
        "orientations": options.orientations,
    } | ({"model_in_metres": True} if options.model_in_metres else {})
    if options.overwrite and not options.resume:
        TileStore.clear(folder)
    return TileStore(folder, key, options.resume)
