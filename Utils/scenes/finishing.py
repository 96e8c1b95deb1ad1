"""From the tiles' maps to the finished raster: aligned, blended, brought to metres where heights are given, written."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from Utils.core.errors import UserError
from Utils.core.watching import note_step
from Utils.rasters.geometry import Geometry
from Utils.rasters.places import place_beside, raster_place
from Utils.rasters.source.scene_source import SceneSource
from Utils.rasters.suspect_heights import ground_limits
from Utils.rasters.vertical_datum import TAG as DATUM_TAG
from Utils.scenes.fusion.anchors import anchor_to_points, anchor_to_reference
from Utils.scenes.fusion.cells import CoarseHeights
from Utils.scenes.fusion.correction import Correction, Corrections
from Utils.scenes.fusion.detail_fusion import Fusion, fuse
from Utils.scenes.fusion.image_samples import image_samples
from Utils.scenes.fusion.known_heights import KnownHeights
from Utils.scenes.fusion.learned_relief import DrawDetail
from Utils.scenes.fusion.points import correct_to_points, sample_mosaic
from Utils.scenes.fusion.reference import REFERENCE_TAG
from Utils.scenes.fusion.whole_scene import fit_whole_scene
from Utils.scenes.joining.mosaic import Mosaic, blend, write_mosaic
from Utils.scenes.joining.overlaps import Overlap, measure_overlap
from Utils.scenes.joining.tile_alignment import Anchor, TileAlignment, align
from Utils.scenes.options import SceneOptions
from Utils.scenes.output.fit_record import agreement, describe_tiles, spread_of
from Utils.scenes.output.height_writer import Band, HeightWriter
from Utils.scenes.output.last_guard import LastGuard, guard_of
from Utils.scenes.output.removed_planes import removed_planes
from Utils.scenes.tiles.tile_grid import TileGrid
from Utils.scenes.tiles.tile_store import TileStore

logger = logging.getLogger(__name__)

# Values of the flag band; a pixel may have the first two, and the last where it has no height.
NOT_FITTED = 1
NO_HEIGHTS = 2
REFUSED = 4

# A model's metres are doubted where they are wrong by more than this factor.
_METRES_OFF = 1.5
_STRIP = 512  # number of rows that are finished at once


class Finisher:
    """The work that is left once all tiles are predicted.

    Args:
        source: the scene.
        grid: its tiles.
        store: their maps.
        options: overlap, orientations, tilt and the content of the tags.
        heights: the known heights.
        model: name of the model, for the tags.
        refine: a model that refines the reference, in the place of tiles.
    """

    def __init__(
        self,
        source: SceneSource,
        grid: TileGrid,
        store: TileStore,
        options: SceneOptions,
        heights: KnownHeights,
        model: str,
        refine: DrawDetail | None = None,
    ) -> None:
        self._refine = refine
        self._is_level = False  # whether the model's map was left out, since it does not go with the heights
        self._source, self._grid, self._store, self._options, self._model = source, grid, store, options, model
        self._geometry, self._reference, self._points = heights.geometry, heights.reference, heights.points
        self._datum, self._held_out = heights.datum, heights.held_out

    def finish(self, output: Path) -> dict[str, Any]:
        """Align, blend, fuse and write; returns the content of the JSON."""
        mosaic, fits = self._joined() if self._options.draws_tiles else self._without_model()
        facts: dict[str, Any] = {"kind": self._kind}
        if self._options.metric:
            facts["vertical_datum"] = self._datum.describe()
        correction: Correction | Corrections | None = None
        fused: Correction | None = None
        if self._reference is not None and self._geometry is not None:
            fusion = self._fuse(self._reference, self._geometry, mosaic)
            correction = fused = fusion.correction
            facts["reference"] = self._described(self._reference, output) | fusion.facts
        if self._points is not None and self._geometry is not None:
            spacing = max(self._options.tile_size / 4, 1.0)
            corrected = correct_to_points(self._points, mosaic.path, self._geometry, spacing, fused)
            correction = corrected.correction if fused is None else Corrections(fused, corrected.correction)
            facts["points"] = {
                "count": len(corrected.before),
                "left_out": {**self._points.left_out, **corrected.left_out},
                "before": spread_of(corrected.before),
            }
            if self._held_out is not None:
                at = sample_mosaic(self._held_out, mosaic.path, None if fused is None else (fused, self._geometry))
                facts["points"]["held_out"] = {"before": spread_of(self._held_out.heights - at)}
        guard = self._guard(mosaic)
        self._write(output, mosaic, correction, guard)
        if guard is not None:
            facts["guard"] = guard.describe()
        if self._reference is not None and self._geometry is not None:
            facts["reference"]["agreement"] = agreement(self._reference, output, self._geometry)
        if self._points is not None:
            facts["points"]["after"] = spread_of(self._points.heights - sample_mosaic(self._points, output))
        if self._held_out is not None:
            found = spread_of(self._held_out.heights - sample_mosaic(self._held_out, output))
            facts["points"]["held_out"]["after"] = found
        return facts | fits

    def _described(self, reference: CoarseHeights, output: Path) -> dict[str, Any]:
        """Facts on the DEM, with its place as seen from the output's folder: evaluateScene.py finds it there."""
        assert self._options.reference is not None
        place = place_beside(raster_place(self._options.reference), output.parent)
        return {"file": reference.description["file"], "place": place} | dict(reference.description)

    def _joined(self) -> tuple[Mosaic, dict[str, Any]]:
        """The model's maps as one, in metres where heights are known, and how each tile was fitted."""
        logger.info("aligning %d tiles", len(self._grid))
        anchors = self._anchors()
        in_metres = self._options.model_in_metres
        overlaps = self._overlaps()
        alignment = align(self._grid.tiles, overlaps, anchors, self._options.tilt, in_metres)
        _check_metres(anchors, in_metres)
        mosaic = self._blend(alignment, anchors)
        self._check_valid(mosaic)
        removed = {}
        if anchors and in_metres:
            free = align(self._grid.tiles, overlaps, (), self._options.tilt, True)
            removed = {"tied": removed_planes(self._grid.tiles, free, anchors)}
        if self._reference is not None and self._geometry is not None and not anchors:
            alignment, mosaic = self._fit_as_a_whole(alignment, mosaic)
        elif self._options.metric:
            self._check_support(anchors)
        return mosaic, describe_tiles(self._grid, alignment, anchors, self._options) | removed

    def _without_model(self) -> tuple[Mosaic, dict[str, Any]]:
        """A map that is 0 wherever the scene has valid pixels."""
        source = self._source

        def strips() -> Iterator[tuple[int, NDArray[np.float32]]]:
            for row in range(0, source.height, _STRIP):
                note_step("rows that are read", row, source.height)
                _, valid = source.read(row, 0, min(_STRIP, source.height - row), source.width)
                nothing = np.where(valid, np.float32(0.0), np.float32(np.nan))
                yield row, np.stack([nothing, nothing + 1.0])

        mosaic = self._written(strips(), 2)
        self._check_valid(mosaic)
        return mosaic, {"components": 1, "tiles": []}

    def _check_valid(self, mosaic: Mosaic) -> None:
        if mosaic.valid_pixels == 0:
            raise UserError(f"'{self._source.path}' has no valid pixel; nothing was written")

    def _fuse(self, reference: CoarseHeights, scene: Geometry, mosaic: Mosaic) -> Fusion:
        logger.info("estimating the ground from the reference, and what the maps add to it")
        detail, folder = self._options.detail, self._store.folder
        image = None
        if detail in ("shading", "both") or self._refine is not None:
            image = image_samples(self._source, scene, reference.geometry, folder)
        model = mosaic.path if self._options.draws_tiles else None
        spread = self._with_spread and not self._is_level
        return fuse(reference, scene, model, image, spread, folder, refine=self._refine, shading=detail != "model")

    def _fit_as_a_whole(self, alignment: TileAlignment, mosaic: Mosaic) -> tuple[TileAlignment, Mosaic]:
        """Bring the scene to metres by one fit, where no tile holds enough cells of the reference."""
        assert self._reference is not None and self._geometry is not None
        wide = self._reference.pixels_a_cell
        what = f"no tile holds enough cells of the reference with heights (a cell is {wide:.0f} pixels wide)"
        tiles, in_metres = self._grid.tiles, self._options.model_in_metres
        fitted = fit_whole_scene(self._reference, mosaic.path, self._geometry, tiles, alignment, in_metres)
        if fitted is None:
            logger.warning(
                "%s, and over the whole scene its heights do not go with the model's map; check that they belong to "
                "this scene, and the bands' order. What is written is the reference without the model's detail",
                what,
            )
            # A level map: a gain found by chance where so few cells judge would do harm at all finer octaves.
            nothing = np.zeros_like(alignment.scale)
            alignment = replace(alignment, scale=nothing, shift=nothing, tilt=np.zeros_like(alignment.tilt))
            self._is_level = True
            return alignment, self._blend(alignment, [])
        logger.warning("%s: the scene was fitted as a whole; a larger --tile-size would let tiles be fitted", what)
        return fitted, self._blend(fitted, [])

    def _check_support(self, anchors: Sequence[Anchor]) -> None:
        """Warn when the model's maps agree with the heights nowhere, or stop where no result is possible."""
        if any(anchor.supports for anchor in anchors):
            return
        what = "no tile's heights go with the model's map; check that they belong to this scene, and the bands' order"
        if self._reference is None or not anchors:
            raise UserError(f"{what}. Nothing was written; the tiles stay for --resume")
        logger.warning("%s. What is written is the reference, with as much of the model's detail as it supports", what)

    def _anchors(self) -> list[Anchor]:
        if self._geometry is None:
            return []
        found: list[Anchor | None] = []
        for number, tile in enumerate(self._grid.tiles):
            note_step("tiles that are fitted", number, len(self._grid))
            values = self._store.load(tile)
            if self._reference is not None:
                found.append(anchor_to_reference(tile, values, self._geometry, self._reference))
            elif self._points is not None:
                found.append(anchor_to_points(tile, values, self._points))
        return [anchor for anchor in found if anchor is not None]

    def _overlaps(self) -> list[Overlap]:
        found = (
            measure_overlap(first, second, self._store.load(first), self._store.load(second), self._options.tilt)
            for first, second in self._grid.pairs()
        )
        return [overlap for overlap in found if overlap is not None]

    @property
    def _kind(self) -> str:
        """``metric``; ``offset``, metres whose level is unknown; or ``relative``."""
        return "metric" if self._options.metric else "offset" if self._options.model_in_metres else "relative"

    @property
    def _with_spread(self) -> bool:
        return self._options.orientations > 1

    def _blend(self, alignment: TileAlignment, anchors: Sequence[Anchor]) -> Mosaic:
        supported = None
        if self._options.metric:
            supported = np.zeros(len(self._grid), bool)
            supported[[anchor.tile for anchor in anchors if anchor.supports]] = True
        strips = blend(self._grid, self._store, alignment, self._with_spread, supported)
        return self._written(strips, 1 + self._with_spread + self._options.metric)

    def _written(self, strips: Iterator[tuple[int, NDArray[np.float32]]], bands: int) -> Mosaic:
        crs = self._source.crs if self._geometry is None else self._geometry.crs
        georeference = {"crs": crs, "transform": self._source.transform or Affine.identity()}
        return write_mosaic(self._store.scratch("mosaic.tif"), strips, self._grid, bands, georeference)

    def _guard(self, mosaic: Mosaic) -> LastGuard | None:
        known: NDArray[np.floating] | None = self._points.heights if self._points is not None else None
        if self._reference is not None and self._geometry is not None:
            under = self._reference.part(self._geometry)
            known = None if under is None else under.heights
        return None if known is None else guard_of(known, mosaic.path, ground_limits(self._source.crs))

    def _write(
        self, output: Path, mosaic: Mosaic, correction: Correction | Corrections | None, guard: LastGuard | None
    ) -> None:
        finish = self._in_metres(correction, guard) if correction is not None else self._relative(mosaic)
        source = self._source
        with HeightWriter(
            output, source.height, source.width, self._bands(), source.crs, source.transform, self._tags(mosaic)
        ) as writer:
            for row, layers in _strips(mosaic.path):
                writer.write(row, finish(row, layers))

    def _relative(self, mosaic: Mosaic) -> Callable[[int, NDArray[np.float32]], NDArray[np.float32]]:
        """Let the scene's lowest place be 0 and, where the model knows no metres, its highest 1, as in a tile."""
        span = 1.0 if self._options.model_in_metres else max(mosaic.high - mosaic.low, 1e-12)
        offsets = np.array([mosaic.low, 0.0], np.float32)[: 1 + self._with_spread, None, None]
        return lambda row, layers: (layers - offsets) / np.float32(span)

    def _in_metres(
        self, correction: Correction | Corrections, guard: LastGuard | None
    ) -> Callable[[int, NDArray[np.float32]], NDArray[np.float32]]:
        assert self._geometry is not None
        scene = self._geometry

        def finish(row: int, layers: NDArray[np.float32]) -> NDArray[np.float32]:
            place = scene.window(row, 0, layers.shape[1], layers.shape[2])
            heights = correction.apply(layers[0], place)
            found = [heights]
            if self._with_spread:
                found.append(correction.uncertainty(layers[1], place))
            flags = NOT_FITTED * (layers[-1] < 0.5) + NO_HEIGHTS * correction.filled(place)
            found.append(flags.astype(np.float32))
            refused = guard.refuse(heights) if guard is not None else np.zeros(heights.shape, bool)
            layers = np.where(np.isfinite(heights) & ~refused, np.stack(found), np.float32(np.nan))
            layers[-1][refused] = REFUSED
            return layers

        return finish

    def _bands(self) -> list[Band]:
        unit = "" if self._kind == "relative" else "metre"
        what = {
            "metric": "height in metres",
            "offset": "height in metres above the scene's lowest place; its level is unknown",
            "relative": "relative height, 0 the scene's lowest, 1 its highest",
        }[self._kind]
        bands = [Band("height", what, unit)]
        if self._with_spread:
            bands.append(Band("uncertainty", "one standard deviation of the height, in its unit", unit))
        if self._options.metric:
            says = (
                f"{NOT_FITTED}: tile not fitted to heights itself, {NO_HEIGHTS}: no heights known here, or their sum; "
            )
            says += f"{REFUSED}: the height could not be and was left out"
            bands.append(Band("flag", says, ""))
        return bands

    def _tags(self, mosaic: Mosaic) -> dict[str, str]:
        options = self._options
        tags = {
            "D3RSMDE_KIND": self._kind,
            "D3RSMDE_MODEL": self._model,
            "D3RSMDE_SCENE": self._source.path.name,
            "D3RSMDE_STRETCH": json.dumps(self._source.stretch.describe()),
            "D3RSMDE_TILES": f"{len(self._grid)} of {self._grid.size} pixels, {self._grid.overlap} shared",
        }
        if options.reference is not None:
            tags["D3RSMDE_FIT"] = f"fused with {options.reference.name}"
        if options.points is not None:
            fused = f"{tags['D3RSMDE_FIT']}, then " if options.reference is not None else ""
            tags["D3RSMDE_FIT"] = f"{fused}corrected to the points of {options.points.name}"
        if self._kind == "offset":
            tags["D3RSMDE_FIT"] = "tiles shifted to each other, the scene's lowest place is 0"
        if self._kind == "relative":
            tags["D3RSMDE_FIT"] = "tiles aligned with each other, scene stretched to 0..1"
        if self._datum.known:
            tags[DATUM_TAG] = self._datum.label
        if self._reference is not None and "height_reference" in self._reference.description:
            tags[REFERENCE_TAG] = str(self._reference.description["height_reference"])
        return tags


def _check_metres(anchors: Sequence[Anchor], in_metres: bool) -> None:
    """Say where the known heights contradict the metres of a model that claims to know them."""
    slopes = [math.exp(anchor.log_scale) for anchor in anchors if anchor.supports]
    if not in_metres or not slopes:
        return
    usual = float(np.median(slopes))
    if not 1 / _METRES_OFF <= usual <= _METRES_OFF:
        logger.warning(
            "a metre of the model is %.2g m of the known heights (median of %d tiles), and its scale was kept: is the "
            "ground sample distance that of its training?",
            usual,
            len(slopes),
        )


def _strips(path: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
    with rasterio.open(path) as source:
        for row in range(0, source.height, _STRIP):
            note_step("rows that are written", row, source.height)
            yield row, source.read(window=Window(0, row, source.width, min(_STRIP, source.height - row)))
