"""One picture of a scene's accuracy: maps of error and relief above, distributions and slope classes below.

Only matplotlib's objects are used, never pyplot: no state is shared, nothing needs a display.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from Utils.core.files import atomic_write_bytes
from Utils.pictures.comparison import hillshade
from Utils.scenes.accuracy.scene_scores import BASELINE, BICUBIC, DEM_ALONE, PREDICTION, SceneScores
from Utils.scenes.accuracy.survey_charts import draw_before_after, draw_variogram, draw_vectors

__all__ = ["png_of", "save_accuracy_figure"]

_DPI = 100
_PANEL = 4.4  # inches
_NO_DATA = "#8c8c8c"
# Colours that the colour-blind can tell apart (Okabe and Ito).
_COLOURS = {PREDICTION: "#0072b2", BASELINE: "#e69f00", BICUBIC: "#cc79a7", DEM_ALONE: "#009e73"}
_BINS = 121
_DENSITY_BINS = 160
# The relief is exaggerated until its slopes are about this steep on average (root mean square of the tangent).
_RELIEF_STEEPNESS = 0.5
_SMALL = 8


def save_accuracy_figure(path: Path, scores: SceneScores) -> None:
    """Draw errors, relief, distributions and slope classes of a scored scene.

    Args:
        path: a .png in an existing folder; it is whole or absent.
        scores: from :func:`Utils.scenes.accuracy.score_scene`.

    Raises:
        OSError: the file cannot be written.
    """
    maps = [f"error of {name}" for name in reversed(scores.alignments)] + ["truth", PREDICTION]
    charts = [_histogram, _density] + ([_slope_bars] if scores.classes else [])
    charts += [draw_variogram] if scores.variogram is not None and len(scores.variogram.distances) else []
    charts += [draw_before_after, draw_vectors] if scores.before is not None else []
    charts += [_reliability] if scores.coverage is not None and scores.coverage.deciles else []

    columns = max(len(maps), len(charts))
    shape = scores.views.maps["truth"].shape
    # The height of a panel follows from its width and the scene's shape, within limits.
    map_height = _PANEL * min(max(scores.views.aspect * shape[0] / shape[1], 0.4), 1.4) + 0.6
    figure = Figure((columns * _PANEL, map_height + _PANEL + 0.9), dpi=_DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)  # inches
    canvas: Any = FigureCanvasAgg(figure)  # Any: matplotlib leaves its drawing calls untyped
    halves: Any = figure.subfigures(2, 1, height_ratios=[map_height + 0.4, _PANEL])
    upper, lower = halves
    upper.suptitle(_title(scores), fontsize=11, parse_math=False)
    _draw_maps(upper, maps, scores)
    for axes, chart in zip(np.atleast_1d(lower.subplots(1, len(charts))), charts, strict=True):
        chart(axes, scores)
        axes.tick_params(labelsize=_SMALL)
    atomic_write_bytes(path, png_of(canvas))


def png_of(canvas: Any) -> bytes:
    """A drawn canvas as a PNG without an alpha channel."""
    canvas.draw()
    # matplotlib's own PNG would hold an alpha channel.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _title(scores: SceneScores) -> str:
    names = {role: Path(facts["path"]).name for role, facts in scores.inputs.items()}
    text = f"{names[PREDICTION]} against {names['truth']}"
    beside = dict.fromkeys(names[role] for role in (BASELINE, BICUBIC, DEM_ALONE) if role in names)
    text += f", beside {' and '.join(beside)}" if beside else ""
    text += f": {scores.overall.pixels:,} pixels ({100 * scores.valid_share:.1f} % of the scene)"
    aligned = [f"{name} {alignment}" for name, alignment in scores.alignments.items() if alignment.fitted]
    return "\n".join([text, *aligned])


def _draw_maps(figure: Any, names: list[str], scores: SceneScores) -> None:
    """Errors on one colour scale with zero in its middle; relief under one light and exaggeration."""
    maps, aspect = scores.views.maps, scores.views.aspect
    errors = [name for name in names if name.startswith("error")]
    limit = _limit([maps[name] for name in errors], 99.0)
    steepness = _steepness(maps["truth"])
    cells = f", means of {scores.views.step} x {scores.views.step} pixels" if scores.views.step > 1 else ""
    # The bar gets a separate row: beside the errors' panels it would make them lower than the others.
    places = figure.add_gridspec(2, len(names), height_ratios=[1.0, 0.045])
    axes = {name: figure.add_subplot(places[0, column]) for column, name in enumerate(names)}
    drawn = None
    for name, panel in axes.items():
        panel.set_xticks([])
        panel.set_yticks([])
        if name in errors:
            drawn = _show(panel, maps[name], "RdBu_r", -limit, limit, aspect)
            panel.set_title(f"error of {scores.label(name.removeprefix('error of '))}{cells}", fontsize=_SMALL + 1)
        else:
            relief = hillshade(maps[name], _RELIEF_STEEPNESS / steepness) if min(maps[name].shape) > 1 else maps[name]
            _show(panel, relief, "gray", 0.0, 1.0, aspect)
            label = scores.label(name) if name in scores.alignments else name
            panel.set_title(f"{label}, relief{cells}", fontsize=_SMALL + 1)
    bar_axes = figure.add_subplot(places[1, : len(errors)])
    bar = figure.colorbar(drawn, cax=bar_axes, orientation="horizontal", extend="both", extendfrac=0.03)
    bar.set_label("prediction minus truth (m): red is too high, blue too low", fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)


def _show(axes: Any, values: NDArray[np.float64], colours: str, low: float, high: float, aspect: float) -> Any:
    palette = matplotlib.colormaps[colours].with_extremes(bad=_NO_DATA)
    # The nearest pixel is drawn: smoothing would hide steps between tiles, and smear the edge of the data.
    return axes.imshow(
        np.ma.masked_invalid(values), cmap=palette, vmin=low, vmax=high, aspect=aspect, interpolation="nearest"
    )


def _steepness(heights: NDArray[np.float64]) -> float:
    """Root mean square of the gradient, in height per cell; 1 for a map without any gradient."""
    if min(heights.shape) < 2:
        return 1.0
    south, east = np.gradient(heights)
    squares = np.square(south) + np.square(east)
    known = squares[np.isfinite(squares)]
    return math.sqrt(float(known.mean())) if known.any() else 1.0


def _limit(arrays: list[Any], percent: float) -> float:
    """The end of a symmetric scale, which a few outliers do not stretch; 1 where there is no error at all."""
    bounds = [float(np.percentile(np.abs(values[np.isfinite(values)]), percent)) for values in arrays]
    return max(bounds) or 1.0


def _histogram(axes: Any, scores: SceneScores) -> None:
    """Errors, their bias, and one NMAD to each side of their median."""
    errors = scores.views.errors
    limit = _limit(list(errors.values()), 99.5)
    edges = np.linspace(-limit, limit, _BINS + 1)
    for name, values in errors.items():
        shares = 100.0 * np.histogram(values, edges)[0] / values.size
        found, colour = scores.overall.scores[name], _COLOURS[name]
        if name == PREDICTION:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(shares, edges, color=colour, label=scores.label(name))
        axes.axvline(found["bias"], color=colour, label=f"bias {found['bias']:.3f} m")
        for side in (-1, 1):
            place = found["median_error"] + side * found["nmad"]
            label = f"median ± NMAD ({found['median_error']:.3f} ± {found['nmad']:.3f} m)" if side > 0 else None
            axes.axvline(place, color=colour, linestyle="--", linewidth=1.0, label=label)
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set_xlim(-limit, limit)
    # Room for the legend above the peak.
    axes.set_ylim(0.0, axes.get_ylim()[1] * (1.15 + 0.12 * len(errors)))
    axes.set_xlabel("prediction minus truth (m)", fontsize=_SMALL)
    axes.set_ylabel("pixels (%)", fontsize=_SMALL)
    axes.set_title("errors", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="upper left", framealpha=0.9)


def _density(axes: Any, scores: SceneScores) -> None:
    """A two-dimensional histogram of predicted against true heights."""
    truth, predicted = scores.views.pairs
    low, high = (float(np.percentile(scores.views.pairs, percent)) for percent in (0.05, 99.95))
    pad = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - pad, high + pad, _DENSITY_BINS + 1)
    counts = np.histogram2d(truth, predicted, bins=[edges, edges])[0].T
    shares = np.ma.masked_equal(100.0 * counts / truth.size, 0.0)
    scale = LogNorm() if shares.count() else None
    drawn = axes.pcolormesh(edges, edges, shares, cmap="viridis", norm=scale, rasterized=True)
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="black", linewidth=0.8, label="1:1")
    axes.set_aspect("equal")
    axes.set_xlabel("true height (m)", fontsize=_SMALL)
    axes.set_ylabel(f"{scores.label(PREDICTION)} (m)", fontsize=_SMALL)
    axes.set_title("predicted against true heights", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="upper left")
    bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.set_label("pixels (%)", fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)


def _slope_bars(axes: Any, scores: SceneScores) -> None:
    """RMSE as bars and NMAD as strokes, by slope class; the share of pixels below."""
    names = list(scores.alignments)
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = np.arange(len(scores.classes)) + (number - (len(names) - 1) / 2) * width
        found = [one.scores[name] for one in scores.classes]
        axes.bar(places, [row["rmse"] for row in found], width * 0.94, color=_COLOURS[name], label=scores.label(name))
        label = "NMAD" if number == len(names) - 1 else None
        heights = [row["nmad"] for row in found]
        axes.hlines(heights, places - 0.4 * width, places + 0.4 * width, color="black", linewidth=2.0, label=label)
    labels = [f"{one.label}°\n{100 * one.share:.1f} %" for one in scores.classes]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("true slope, share of the pixels", fontsize=_SMALL)
    axes.set_ylabel("RMSE (m)", fontsize=_SMALL)
    axes.set_ylim(0.0, axes.get_ylim()[1] * 1.15)
    axes.set_title("error by slope", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="upper left", reverse=True)


def _reliability(axes: Any, scores: SceneScores) -> None:
    """Observed RMSE against the stated sigma, a point for each decile of sigma."""
    assert scores.coverage is not None
    deciles = scores.coverage.deciles
    sigma, observed = ([row[key] for row in deciles] for key in ("rms_sigma", "rmse"))
    top = 1.1 * max(*sigma, *observed) or 1.0
    axes.plot([0.0, top], [0.0, top], color="black", linewidth=0.8, label="as stated")
    axes.plot(sigma, observed, "o-", color=_COLOURS[PREDICTION], markersize=4, label="observed")
    axes.set_xlim(0.0, top)
    axes.set_ylim(0.0, top)
    axes.set_aspect("equal")
    shares = (100 * scores.coverage.within_68, 100 * scores.coverage.within_95)
    axes.set_title(f"inside ±σ: {shares[0]:.1f} %, inside ±1.96 σ: {shares[1]:.1f} %", fontsize=_SMALL + 1)
    axes.set_xlabel("stated σ (m), by decile", fontsize=_SMALL)
    axes.set_ylabel("observed RMSE (m)", fontsize=_SMALL)
    axes.legend(fontsize=_SMALL - 1, loc="upper left")
