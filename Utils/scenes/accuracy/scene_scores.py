"""The scores of a scene, and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray

from Utils.scenes.accuracy.shifts import Shift
from Utils.scenes.accuracy.variogram import Variogram
from Utils.scoring.scores import Metric

FloatArray = NDArray[np.float64]
Align = Literal["auto", "none", "affine"]
PREDICTION, BASELINE = "prediction", "baseline"
BICUBIC, DEM_ALONE = "bicubic", "DEM alone"
"""The DEM that the prediction was fused with: interpolated, and its surface of least error without image and model."""
BICUBIC_LACKS = "bicubic_lacks"
"""Key of the number of pixels that all other maps know: there the DEM has voids."""
SCORES: tuple[Metric, ...] = (
    Metric("bias", "Bias", "zero", digits=3, unit="m"),
    Metric("median_error", "Median", "zero", digits=3, unit="m"),
    Metric("mae", "MAE", "lower", digits=3, unit="m"),
    Metric("rmse", "RMSE", "lower", digits=3, unit="m"),
    Metric("nmad", "NMAD", "lower", digits=3, unit="m"),
    Metric("le90", "LE90", "lower", digits=3, unit="m"),
    Metric("slope_error_degrees", "Slope error", "lower", digits=2, unit="deg"),
    Metric("gradient_error", "Gradient error", "lower", digits=4, unit="m/m"),
    Metric("aspect_error_degrees", "Aspect error", "lower", digits=1, unit="deg"),
)
"""The scores of a map in the order of the tables."""
DEFINITIONS = {
    "error": "prediction minus truth, in metres, over the pixels where all compared maps have a height",
    "bias": "mean error",
    "median_error": "median error",
    "nmad": "1.4826 median |error - median error|",
    "le90": "90th percentile of |error|",
    "slope_error_degrees": "mean |difference of slope angles|; central differences on the prediction's grid, in metres",
    "gradient_error": "mean length of the difference of the two gradients, metres a metre",
    "aspect_error_degrees": "mean angle between the downhill directions where the true slope is above 2 degrees; "
    "where the map is level it has no direction and is left out",
    "slope_class": "by the true slope on the prediction's grid, lower bound included; pixels at the rim or beside "
    "pixels without truth have no slope and are in no class",
    "change": "prediction minus baseline, or minus bicubic without a baseline; no change is given for bias and median "
    "error, whose best is zero",
    "change_from_dem_alone": "prediction minus DEM alone: what image and model add to what the DEM tells by itself",
    "unexplained_variance": "1 - squared correlation of slope (tangent), curvature (Laplacian over one pixel) and "
    "roughness (highest less lowest of 3 x 3 pixels) with those of the truth",
    "drainage": "share of the channel cells of map and truth that have one of the other within a cell; channels drain "
    "half a per cent of the scene (D8 on filled heights, averaged to at most 400 cells a side)",
    "effective_samples": "independent errors that those of the prediction are worth, from a short and a long spherical "
    "range of their variogram, over a disk of the scored area (Rolstad et al., 2009)",
    "standard_error": "of the change, paired, by leaving out one block of 256 x 256 pixels at a time (jackknife)",
    "correlated_error": "standard error of the change from the variogram of the paired differences: their variance "
    "over the number of independent ones that they are worth ('worth'), as for effective_samples; it is the one to "
    "believe where errors are alike over more than a block",
}
BLOCK = 256
"""Side of the blocks behind the standard errors, in pixels; windows hold whole blocks."""
NOMINAL = (0.6827, 0.95)


@dataclass(frozen=True)
class HeightFit:
    """How a map was fitted to the truth before it was scored.

    Attributes:
        fitted: whether the map was fitted; if not, the scale is 1 and the shift 0.
        scale: factor on the heights, never negative.
        shift: metres added after that.
    """

    fitted: bool = False
    scale: float = 1.0
    shift: float = 0.0

    def __str__(self) -> str:
        """One phrase for tables."""
        if not self.fitted:
            return "compared as it is"
        if self.scale == 1.0:
            return f"aligned to the truth by one shift over the scene: {self.shift:+.6g} m"
        return (
            f"aligned to the truth by one least-squares scale (>= 0) and shift over the scene: "
            f"{self.scale:.6g} x height {'-' if self.shift < 0 else '+'} {abs(self.shift):.6g} m"
        )


@dataclass(frozen=True)
class Stratum:
    """Scores over all pixels, or over those of one slope class of the truth.

    Attributes:
        label: ``all``, ``0-5``, ``>30``.
        low: smallest slope of the class in degrees; NaN for all pixels.
        high: slope in degrees that the class stays below; infinite for the last, NaN for all pixels.
        pixels: scored pixels.
        share: of all scored pixels, 0..1.
        scores: by map, ``prediction`` last, each by the keys of :data:`SCORES`; NaN where undefined.
        change: with a baseline or else bicubic, by key of a score: ``change``, ``percent`` and ``standard_error``; over
            all pixels also ``correlated_error`` and ``worth``, where they are known.
        change_from_dem_alone: likewise, with the DEM alone in the baseline's place.
    """

    label: str
    low: float
    high: float
    pixels: int
    share: float
    scores: dict[str, dict[str, float]]
    change: dict[str, dict[str, float]]
    change_from_dem_alone: dict[str, dict[str, float]]

    @property
    def control(self) -> str:
        """The map from which ``change`` is counted."""
        return BASELINE if BASELINE in self.scores else BICUBIC


@dataclass(frozen=True)
class Coverage:
    """Whether the uncertainty band, one standard deviation, means what it says.

    Attributes:
        pixels: scored pixels with an uncertainty.
        within_68: share of true heights inside +-1 sigma; 0.6827 if errors are normal and sigma is right.
        within_95: share inside +-1.96 sigma; 0.95 likewise.
        mean_sigma: metres.
        rms_sigma: metres; equals the RMSE where sigma is right.
        rmse: metres, over the same pixels.
        factor_68: the factor on sigma with which 68.27 % of true heights would be inside.
        deciles: pixels sorted by sigma, in ten parts (fewer where sigmas are equal): ``sigma_low``, ``sigma_high``,
            ``share``, ``rms_sigma`` and the observed ``rmse``, metres.
    """

    pixels: int
    within_68: float
    within_95: float
    mean_sigma: float
    rms_sigma: float
    rmse: float
    factor_68: float
    deciles: list[dict[str, float]]


@dataclass(frozen=True)
class Views:
    """What a figure needs: reduced maps and samples.

    Attributes:
        step: pixels of the scene along a pixel of the reduced maps.
        aspect: height of a pixel over its width on the ground.
        maps: ``truth`` and the scored maps' heights, and ``error of ...`` for each map: (H, W) float64, the mean over
            the scored pixels of each cell, NaN where there are none.
        errors: by map, (N,) float32, a uniform sample of the errors.
        pairs: (2, M) float32, a uniform sample of truth and prediction, as aligned.
    """

    step: int
    aspect: float
    maps: dict[str, FloatArray]
    errors: dict[str, NDArray[np.float32]]
    pairs: NDArray[np.float32]


@dataclass(frozen=True)
class SceneScores:
    """All that was measured.

    Attributes:
        inputs: facts on the files by role: ``prediction``, ``truth``, ``baseline``, ``bicubic``, ``DEM alone``.
        align: the alignment that was asked for.
        alignments: how each map was fitted, by name of the map.
        pixels: counts on the prediction's grid: ``grid``, valid ones by map, ``scored``; with ``bicubic`` also
            :data:`BICUBIC_LACKS`.
        strata: all pixels first, then the slope classes (none where slopes are unknown).
        coverage: None without an uncertainty band.
        sampling: how medians and percentiles were taken.
        blocks: number of blocks with scored pixels.
        views: maps and samples for the figure, which are not in the document.
        before: the scores of the maps where they lay, if they were moved.
        shifts: by map, how it was moved; empty where none was.
        terrain: by map and derivative (slope, curvature, roughness), the fraction of variance left unexplained.
        variogram: of the prediction's error; None where it was not taken.
        ground: rows of scores by class of the ground; empty without classes.
        drainage: by map, the share of channel cells that agree with the truth's; empty where there are none.
    """

    inputs: dict[str, dict[str, Any]]
    align: Align
    alignments: dict[str, HeightFit]
    pixels: dict[str, int]
    strata: list[Stratum]
    coverage: Coverage | None
    sampling: dict[str, Any]
    blocks: int
    views: Views
    before: SceneScores | None = None
    shifts: dict[str, Shift] = field(default_factory=dict)
    terrain: dict[str, dict[str, float]] = field(default_factory=dict)
    variogram: Variogram | None = None
    ground: list[dict[str, Any]] = field(default_factory=list)
    drainage: dict[str, float] = field(default_factory=dict)

    @property
    def overall(self) -> Stratum:
        """Scores over all pixels."""
        return self.strata[0]

    @property
    def classes(self) -> list[Stratum]:
        """Scores by slope class."""
        return self.strata[1:]

    @property
    def valid_share(self) -> float:
        """Scored pixels over all pixels of the prediction's grid, 0..1."""
        return self.pixels["scored"] / self.pixels["grid"]

    def label(self, name: str) -> str:
        """A map's name for readers, which says so where it was aligned."""
        return f"{name}, aligned" if self.alignments[name].fitted else name

    def _moves(self) -> dict[str, Any]:
        """How maps were moved, and the scores before that."""
        if self.before is None:
            return {}
        return {
            "coregistration": {name: shift.describe() for name, shift in self.shifts.items()},
            "before_coregistration": _plain(self.before),
        }

    def to_document(self) -> dict[str, Any]:
        """Everything as JSON can hold it once NaN is null, which :func:`Utils.core.tables.write_json` sees to."""
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.inputs,
            "align": self.align,
            "alignments": {
                name: {"aligned": one.fitted, "scale": one.scale, "shift": one.shift, "how": str(one)}
                for name, one in self.alignments.items()
            },
            "pixels": {**self.pixels, "valid_share": self.valid_share},
            "scores": self.overall.scores,
            **_changes(self.overall),
            "slope_classes": [
                {
                    "label": one.label,
                    "low_degrees": one.low,
                    "high_degrees": one.high if math.isfinite(one.high) else None,
                    "pixels": one.pixels,
                    "share": one.share,
                    "scores": one.scores,
                    **_changes(one),
                }
                for one in self.classes
            ],
            "uncertainty": None if self.coverage is None else vars(self.coverage) | {"nominal": NOMINAL},
            "order_statistics": self.sampling,
            "blocks": {"count": self.blocks, "side_pixels": BLOCK},
            "unexplained_variance": self.terrain,
            "error_correlation": None if self.variogram is None else self.variogram.describe(),
            "ground_classes": self.ground,
            "drainage": self.drainage,
            **self._moves(),
            "definitions": DEFINITIONS,
            "software": {name: version(name) for name in ("rasterio", "numpy")} | {"gdal": rasterio.__gdal_version__},
        }


def _plain(scores: SceneScores) -> dict[str, Any]:
    """What differs between scores before and after a move."""
    kept = (
        "unexplained_variance",
        "drainage",
        "error_correlation",
        "alignments",
        "pixels",
        "scores",
        "change",
        "change_from_dem_alone",
        "slope_classes",
        "uncertainty",
        "blocks",
    )
    document = scores.to_document()
    return {key: document[key] for key in kept if key in document}


def _changes(stratum: Stratum) -> dict[str, Any]:
    alone = stratum.change_from_dem_alone
    return {"change": stratum.change} | ({"change_from_dem_alone": alone} if alone else {})
