"""How accurate a height raster is against a true one on another grid: whole scenes, in constant memory.

An error is prediction minus truth everywhere. All maps are scored over the same pixels, those where each has a height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.windows import Window

from Utils.core.errors import UserError
from Utils.core.seeds import derive_seed
from Utils.rasters.environment import gdal_environment
from Utils.rasters.ground import ground_sample_distance
from Utils.rasters.places import container
from Utils.rasters.vertical_datum import VerticalDatum
from Utils.scenes.accuracy.accuracy_tables import writing
from Utils.scenes.accuracy.change_correlation import ChangeCorrelation
from Utils.scenes.accuracy.drainage import channel_agreement, reduced
from Utils.scenes.accuracy.error_correlation import ErrorCorrelation
from Utils.scenes.accuracy.error_statistics import (
    BlockSums,
    LineFit,
    Sample,
    Thumbnails,
    jackknife_error,
    length,
    order_statistics,
    ratio,
    reliability,
)
from Utils.scenes.accuracy.fused_reference import FusedReference
from Utils.scenes.accuracy.ground_classes import ClassSums
from Utils.scenes.accuracy.height_maps import (
    UNCERTAINTY,
    WINDOW,
    BoolArray,
    Grid,
    Maps,
    WindowMaps,
    inner,
    opened_maps,
    progress,
)
from Utils.scenes.accuracy.scene_scores import (
    BASELINE,
    BICUBIC,
    BICUBIC_LACKS,
    DEM_ALONE,
    NOMINAL,
    PREDICTION,
    SCORES,
    Align,
    Coverage,
    FloatArray,
    HeightFit,
    SceneScores,
    Stratum,
    Views,
)
from Utils.scenes.accuracy.terrain_scores import TerrainSums
from Utils.scenes.accuracy.variogram import Variogram
from Utils.scenes.output.height_writer import Band, HeightWriter, space_needed
from Utils.scenes.output.height_writer import check_output as check_raster_output

SAMPLE_LIMIT = 10_000_000
"""Most errors that are kept for medians and percentiles: all of them up to this many, else a random half or more."""
_ROWS = 128
_PAIRS_LIMIT = 1_000_000
_LEVEL_DEGREES = 2.0
_MOST_BOUNDS = 50


def score_scene(
    prediction: Path,
    truth: Path,
    *,
    baseline: Path | None = None,
    slope_classes: Sequence[float] = (5.0, 15.0, 30.0),
    align: Align = "auto",
    truth_nodata: float | None = None,
    error_map: Path | None = None,
    sample_limit: int = SAMPLE_LIMIT,
    keep_outliers: bool = False,
    reference: FusedReference | None = None,
    datums: Mapping[str, VerticalDatum] | None = None,
    coregister: bool = False,
    stable_ground: Path | None = None,
    classes: Path | None = None,
) -> SceneScores:
    """Score a height raster of any size.

    Args:
        prediction: a GeoTIFF of predict.py, or any DEM of one band, which counts as metric.
        truth: the true heights in metres; any grid, resolution and CRS.
        baseline: another DEM in metres that is scored beside the prediction.
        slope_classes: inner bounds of the slope classes, degrees, ascending.
        align: ``auto`` fits relative maps to the truth by one scale and shift, maps in metres of unknown level by one
            shift, and takes metric ones as they are; ``affine`` fits all by scale and shift, ``none`` fits none.
        truth_nodata: value that means no data in the truth, in addition to what its file names.
        error_map: a .tif to write the prediction's error to; its folder is made where missing.
        sample_limit: most errors kept for medians and percentiles.
        keep_outliers: whether void values that no tag declares, and in the truth also impossible heights and wrong
            single cells, are taken as heights.
        reference: the coarse DEM that the prediction was fused with. It is scored too: interpolated bicubically, unless
            that is the baseline, and as what it tells without image and model. One that cannot be used is an error only
            if it was named by hand, and else a warning.
        datums: what heights refer to where a file does not say it, of ``prediction`` and ``truth``. All are brought to
            the prediction's datum; an unknown one is left as it is.
        coregister: whether all maps are also moved onto the truth (Nuth and Kaab) and scored again; ``before`` of the
            scores then has those of the maps where they lay.
        stable_ground: mask of the ground that did not change, a raster or polygons; None trusts all ground that is no
            outlier.
        classes: raster of classes of the ground, for a table by class; a flag band of the prediction counts without it.

    Raises:
        UserError: files that cannot be compared, datums that cannot be brought to each other, or an error map that
            cannot be written.
        RasterError: a file that cannot be read or is no DEM.
    """
    check_slope_classes(slope_classes)
    with (
        gdal_environment(),
        opened_maps(prediction, truth, baseline, truth_nodata, keep_outliers, reference, datums, classes) as maps,
    ):
        inputs = [path for path in (prediction, truth, baseline) if path is not None]
        inputs += [] if reference is None else [container(reference.path)]
        with _error_map(error_map, maps.grid, inputs) as write_errors:
            alignments = _fit(maps, align)
            before, shifts = None, {}
            if coregister:
                from Utils.scenes.accuracy.coregistration import find_shifts, moved
                from Utils.scenes.accuracy.stable_ground import StableGround

                with ExitStack() as stack:
                    mask = None
                    if stable_ground is not None:
                        mask = StableGround(stack, stable_ground, maps.grid, prediction)
                    shifts = find_shifts(maps, alignments, mask)
                before = _scored(maps, alignments, slope_classes, sample_limit).scores(align)
                maps = moved(maps, shifts)
                alignments = _fit(maps, align)
            run = _scored(maps, alignments, slope_classes, sample_limit, write_errors)
        return replace(run.scores(align), before=before, shifts=shifts)


def _scored(
    maps: Maps,
    alignments: dict[str, HeightFit],
    bounds: Sequence[float],
    sample_limit: int,
    write_errors: Callable[[Window, FloatArray], None] = lambda window, errors: None,
) -> _Run:
    """All that is summed over the scene."""
    run = _Run(maps, alignments, bounds, sample_limit)
    for window in progress(maps.grid, "scoring"):
        write_errors(window, run.add(maps.read(window, alignments)))
    if not run.pixels["scored"]:
        raise maps.nothing_in_common()
    return run


def parse_slope_classes(text: str) -> tuple[float, ...]:
    """Bounds in degrees from ``5,15,30``.

    Raises:
        UserError: not ascending numbers between 0 and 90.
    """
    try:
        bounds = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"slope classes '{text}': not numbers; give bounds in degrees, as 5,15,30") from None
    check_slope_classes(bounds)
    return bounds


def check_slope_classes(bounds: Sequence[float]) -> None:
    """Refuse bounds that are not ascending between 0 and 90 degrees."""
    inside = all(0.0 < bound < 90.0 for bound in bounds)
    ascending = all(low < high for low, high in pairwise(bounds))
    if not (1 <= len(bounds) <= _MOST_BOUNDS and inside and ascending):
        text = ",".join(f"{bound:g}" for bound in bounds)
        wanted = f"give 1 to {_MOST_BOUNDS} ascending bounds between 0 and 90 degrees, as 5,15,30"
        raise UserError(f"slope classes '{text}': {wanted}")


def _fit(maps: Maps, align: Align) -> dict[str, HeightFit]:
    """One line, or one shift, for each map that needs it, over the pixels that will be scored."""
    wanted = [name for name in maps.scored if align == "affine" or (align == "auto" and maps.kinds[name] != "metric")]
    alignments = {name: HeightFit() for name in maps.scored}
    if not wanted:
        return alignments
    fits = {name: LineFit() for name in wanted}
    for window in progress(maps.grid, "aligning"):
        found = maps.read(window, alignments)
        truth = inner(found.truth)[found.scored]
        for name, fit in fits.items():
            fit.add(inner(found.heights[name])[found.scored], truth)
    if not all(fit.count for fit in fits.values()):
        raise maps.nothing_in_common()
    shifted = {name for name in wanted if align == "auto" and maps.kinds[name] == "offset"}
    return alignments | {name: fit.level() if name in shifted else fit.line() for name, fit in fits.items()}


class _Run:
    """All that is summed while windows are read."""

    def __init__(
        self, maps: Maps, alignments: dict[str, HeightFit], bounds: Sequence[float], sample_limit: int
    ) -> None:
        self._maps = maps
        self._alignments = alignments
        self._bounds = tuple(bounds)
        self._sums = BlockSums(maps.grid, len(bounds) + 1)
        names = {name: np.float32 for name in maps.scored}
        sigma = {} if maps.sigma is None else {UNCERTAINTY: np.float32}
        limit = max(1, min(sample_limit, maps.grid.size))
        self._sample = Sample({**names, **sigma, "class": np.uint8}, limit, derive_seed(0, "errors"))
        pairs = min(_PAIRS_LIMIT, limit)
        self._pairs = Sample({"truth": np.float32, PREDICTION: np.float32}, pairs, derive_seed(0, "pairs"))
        self._thumbnails = Thumbnails(maps.grid)
        grid = maps.grid
        metres = ground_sample_distance(grid.crs, grid.transform, grid.height, grid.width)
        self._correlation = ErrorCorrelation(metres, grid.size)
        self._changes = {
            name: ChangeCorrelation(metres, grid.size) for name in dict.fromkeys((self._control, DEM_ALONE))
            if name in maps.scored
        }  # fmt: skip
        self._terrain = TerrainSums(list(maps.scored)) if grid.has_metres else None
        self._ground = None if maps.classes is None else ClassSums(maps.classes, list(maps.scored))
        self.pixels = {"grid": maps.grid.size, "truth": 0, **dict.fromkeys(maps.scored, 0), "scored": 0}
        if BICUBIC in maps.scored:
            self.pixels[BICUBIC_LACKS] = 0

    def add(self, found: WindowMaps) -> FloatArray:
        """Count a window; gives the prediction's error, (H, W), NaN where it is not scored."""
        window, scored = found.window, found.scored
        truth, heights = inner(found.truth), {name: inner(values) for name, values in found.heights.items()}
        for name, values in {"truth": truth, **heights}.items():
            self.pixels[name] += int(np.count_nonzero(np.isfinite(values)))
        self.pixels["scored"] += int(np.count_nonzero(scored))
        if BICUBIC in heights:
            known = found.known_to_all_but(BICUBIC)
            self.pixels[BICUBIC_LACKS] += int(np.count_nonzero(known & ~scored))
        if not scored.any():  # most windows of a strip that lies askew in its raster
            return np.full(scored.shape, np.nan)

        east, north = self._maps.grid.gradient(found.truth, window)
        slope = np.degrees(np.arctan(length(east, north)))
        # NaN sorts behind every bound; it must not count as steep.
        classes = np.where(np.isfinite(slope), np.digitize(slope, self._bounds), len(self._bounds) + 1)
        cells = self._sums.cells(classes)
        errors = {name: values - truth for name, values in heights.items()}
        self._add_errors(window, cells, scored, errors)
        slopes = self._add_slopes(found, cells, (east, north), slope)
        columns = {name: values[scored] for name, values in errors.items()} | {"class": classes[scored]}
        if found.sigma is not None:
            columns[UNCERTAINTY] = self._add_sigma(found, cells, errors[PREDICTION])[scored]
        self._sample.add(columns)
        self._pairs.add({"truth": truth[scored], PREDICTION: heights[PREDICTION][scored]})
        self._add_thumbnails(window, scored, {"truth": truth, **heights})
        if self._ground is not None:
            self._ground.add(window, scored, errors)
        for name, one in self._changes.items():
            one.add(window, scored, errors[PREDICTION], errors[name], slopes[PREDICTION], slopes[name])
        error = np.where(scored, errors[PREDICTION], np.nan)
        self._correlation.add(window, error)
        return error

    @property
    def _control(self) -> str:
        """The map from which changes are counted."""
        return BASELINE if BASELINE in self._maps.scored else BICUBIC

    def _add_errors(
        self, window: Window, cells: NDArray[np.intp], scored: BoolArray, errors: Mapping[str, FloatArray]
    ) -> None:
        chosen = cells[scored]
        self._sums.add("pixels", window, chosen)
        for name, values in errors.items():
            error = values[scored]
            self._sums.add(f"{name} error", window, chosen, error)
            self._sums.add(f"{name} absolute", window, chosen, np.abs(error))
            self._sums.add(f"{name} squared", window, chosen, error * error)

    def _add_slopes(
        self,
        found: WindowMaps,
        cells: NDArray[np.intp],
        true_gradient: tuple[FloatArray, FloatArray],
        true_slope: FloatArray,
    ) -> dict[str, FloatArray]:
        """Count the errors of slopes; gives by map the distance of its slopes from the true ones, (H, W) degrees."""
        gradients = {name: self._maps.grid.gradient(values, found.window) for name, values in found.heights.items()}
        if self._terrain is not None:
            self._terrain.add(found.scored, found.truth, found.heights, gradients, true_gradient)
        usable = found.scored & np.isfinite(true_slope)
        for east, north in gradients.values():
            usable &= np.isfinite(east) & np.isfinite(north)
        chosen, slope = cells[usable], true_slope[usable]
        true_east, true_north = (part[usable] for part in true_gradient)
        self._sums.add("slopes", found.window, chosen)
        for name, gradient in gradients.items():
            east, north = (part[usable] for part in gradient)
            steepness = length(east, north)
            difference = np.abs(np.degrees(np.arctan(steepness)) - slope)
            self._sums.add(f"{name} slope", found.window, chosen, difference)
            self._sums.add(f"{name} gradient", found.window, chosen, length(east - true_east, north - true_north))
            has_aspect = (slope > _LEVEL_DEGREES) & (steepness > 0.0)
            # The angle between two vectors: so 359 and 1 degrees are 2 apart without a special case.
            sine = np.abs(east * true_north - north * true_east)[has_aspect]
            cosine = (east * true_east + north * true_north)[has_aspect]
            angles = np.degrees(np.arctan2(sine, cosine))
            self._sums.add(f"{name} aspects", found.window, chosen[has_aspect])
            self._sums.add(f"{name} aspect", found.window, chosen[has_aspect], angles)
        return {
            name: np.abs(np.degrees(np.arctan(length(*gradients[name]))) - true_slope)
            for name in ([PREDICTION, *self._changes] if self._changes else [])
        }

    def _add_sigma(self, found: WindowMaps, cells: NDArray[np.intp], error: FloatArray) -> FloatArray:
        """Count coverage; gives sigma (H, W), NaN where it is unknown or negative."""
        assert found.sigma is not None
        sigma = np.where(found.sigma >= 0.0, found.sigma, np.nan)
        known = found.scored & np.isfinite(sigma)
        chosen, deviation, absolute = cells[known], sigma[known], np.abs(error[known])
        self._sums.add("sigmas", found.window, chosen)
        values = {"sigma": deviation, "sigma squared": deviation**2, "sigma error squared": absolute**2}
        values["within 68"] = (absolute <= deviation).astype(np.float64)
        values["within 95"] = (absolute <= 1.96 * deviation).astype(np.float64)
        for name, one in values.items():
            self._sums.add(name, found.window, chosen, one)
        return sigma

    def _add_thumbnails(self, window: Window, scored: BoolArray, heights: Mapping[str, FloatArray]) -> None:
        self._thumbnails.add("scored", window, scored.astype(np.float64))
        for name, values in heights.items():
            self._thumbnails.add(name, window, np.where(scored, values, 0.0))

    def scores(self, align: Align) -> SceneScores:
        """Compute all scores from what was summed."""
        sample = self._sample
        scored = self.pixels["scored"]
        method = "all scored pixels" if sample.rate == 1.0 else "a seeded uniform random sample of the scored pixels"
        sampling: dict[str, Any] = {"method": f"medians and percentiles are over {method}, errors held as float32"}
        sampling |= {"sampled": sample.count, "of": scored, "exact": sample.rate == 1.0}
        views = self._views()
        return SceneScores(
            inputs=self._maps.inputs,
            align=align,
            alignments=self._alignments,
            pixels=self.pixels,
            strata=[self._stratum(None), *(self._stratum(one) for one in self._classes())],
            coverage=self._coverage(),
            sampling=sampling,
            blocks=int(np.count_nonzero(self._sums.by_block("pixels", None))),
            views=views,
            terrain={} if self._terrain is None else self._terrain.unexplained(),
            variogram=self._correlation.variogram(),
            ground=[] if self._ground is None else self._ground.rows(),
            drainage=self._drainage(views),
        )

    def _drainage(self, views: Views) -> dict[str, float]:
        """How well the maps' channels agree with the truth's, on the reduced maps."""
        truth = reduced(views.maps["truth"])
        found = {name: channel_agreement(truth, reduced(views.maps[name]), views.aspect) for name in self._maps.scored}
        return {name: share for name, share in found.items() if not math.isnan(share)}

    def _classes(self) -> range:
        return range(len(self._bounds) + 1 if self._maps.grid.has_metres else 0)

    def _stratum(self, chosen: int | None) -> Stratum:
        edges = (0.0, *self._bounds, math.inf)
        low, high = (math.nan, math.nan) if chosen is None else edges[chosen : chosen + 2]
        label = "all" if chosen is None else f">{low:g}" if math.isinf(high) else f"{low:g}-{high:g}"
        pixels = int(self._sums.total("pixels", chosen))
        scores = {name: self._map_scores(name, chosen) for name in self._maps.scored}
        change, alone = (
            self._change(scores, chosen, name) if name in scores else {} for name in (self._control, DEM_ALONE)
        )
        return Stratum(label, low, high, pixels, pixels / max(self.pixels["scored"], 1), scores, change, alone)

    def _map_scores(self, name: str, chosen: int | None) -> dict[str, float]:
        def mean(what: str, count: str = "pixels") -> float:
            return ratio(self._sums.total(f"{name} {what}", chosen), self._sums.total(count, chosen))

        errors = self._sample[name] if chosen is None else self._sample[name][self._sample["class"] == chosen]
        return {
            "bias": mean("error"),
            **order_statistics(errors),
            "mae": mean("absolute"),
            "rmse": math.sqrt(mean("squared")),
            "slope_error_degrees": mean("slope", "slopes"),
            "gradient_error": mean("gradient", "slopes"),
            "aspect_error_degrees": mean("aspect", f"{name} aspects"),
            "aspect_pixels": self._sums.total(f"{name} aspects", chosen),
        }

    def _change(
        self, scores: Mapping[str, Mapping[str, float]], chosen: int | None, control: str
    ) -> dict[str, dict[str, float]]:
        """Prediction minus another map."""
        errors = {
            "mae": self._change_error(control, "absolute", "pixels", chosen, root=False),
            "rmse": self._change_error(control, "squared", "pixels", chosen, root=True),
            "slope_error_degrees": self._change_error(control, "slope", "slopes", chosen, root=False),
        }
        correlated: dict[str, Variogram] = {}
        if chosen is None:
            correlated = self._changes[control].variograms(scores[PREDICTION]["rmse"], scores[control]["rmse"])
        changes = {}
        for key in (metric.key for metric in SCORES if metric.better != "zero"):
            before, after = scores[control][key], scores[PREDICTION][key]
            percent = 100.0 * ratio(after - before, before)
            changes[key] = {"change": after - before, "percent": percent, "standard_error": errors.get(key, math.nan)}
            if key in correlated:
                found = correlated[key]
                changes[key] |= {"correlated_error": found.standard_error_of_mean, "worth": found.effective}
        return changes

    def _change_error(self, control: str, what: str, count: str, chosen: int | None, root: bool) -> float:
        """Standard error of prediction minus another map of a mean, or of a mean's root."""
        names = (f"{control} {what}", f"{PREDICTION} {what}", count)
        before, after, counts = np.stack([self._sums.by_block(name, chosen) for name in names])

        def change(before: ArrayLike, after: ArrayLike, counts: ArrayLike) -> FloatArray:
            means = np.divide(after, counts), np.divide(before, counts)
            # If a block holds all the errors, rounding may leave the sum without it slightly below zero.
            return np.sqrt(np.maximum(means[0], 0)) - np.sqrt(np.maximum(means[1], 0)) if root else means[0] - means[1]

        filled = counts > 0
        return jackknife_error(change, before[filled], after[filled], counts[filled])

    def _coverage(self) -> Coverage | None:
        if self._maps.sigma is None:
            return None
        count = self._sums.total("sigmas", None)

        def mean(what: str) -> float:
            return ratio(self._sums.total(what, None), count)

        known = np.isfinite(self._sample[UNCERTAINTY])
        sigma, error = self._sample[UNCERTAINTY][known], np.abs(self._sample[PREDICTION][known])
        sure = sigma > 0.0
        return Coverage(
            pixels=int(count),
            within_68=mean("within 68"),
            within_95=mean("within 95"),
            mean_sigma=mean("sigma"),
            rms_sigma=math.sqrt(mean("sigma squared")),
            rmse=math.sqrt(mean("sigma error squared")),
            factor_68=float(np.quantile(error[sure] / sigma[sure], NOMINAL[0])) if sure.any() else math.nan,
            deciles=reliability(sigma, error),
        )

    def _views(self) -> Views:
        names = list(self._maps.scored)
        maps = {name: self._thumbnails.mean(name, "scored") for name in ["truth", *names]}
        maps |= {f"error of {name}": maps[name] - maps["truth"] for name in names}
        grid = self._maps.grid
        size = ground_sample_distance(grid.crs, grid.transform, grid.height, grid.width)
        down, across = size or (1.0, 1.0)
        return Views(
            step=self._thumbnails.step,
            aspect=down / across,
            maps=maps,
            errors={name: self._sample[name] for name in names},
            pairs=np.stack([self._pairs["truth"], self._pairs[PREDICTION]]),
        )


@contextmanager
def _error_map(path: Path | None, grid: Grid, inputs: Sequence[Path]) -> Iterator[Callable[[Window, FloatArray], None]]:
    """Give a function that takes the errors window by window; the file gets its name when all is written."""
    if path is None:
        yield lambda window, errors: None
        return
    with writing(path.parent):
        check_raster_output(path, inputs, space_needed(grid.height, grid.width, 1), overwrite=True)
    band = Band("error", "prediction minus truth", "metre")
    with HeightWriter(path, grid.height, grid.width, [band], grid.crs, grid.transform, {}) as writer:
        strip = np.empty((1, WINDOW, grid.width), np.float32)

        def write(window: Window, errors: FloatArray) -> None:
            end = window.col_off + window.width
            strip[0, : window.height, window.col_off : end] = errors
            if end == grid.width:
                # In parts, because the writer needs several times the memory of what it is given.
                for row in range(0, window.height, _ROWS):
                    writer.write(window.row_off + row, strip[:, row : min(row + _ROWS, window.height)])

        yield write
