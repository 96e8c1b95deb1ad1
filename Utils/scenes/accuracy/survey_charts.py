"""Charts of surveyors for the picture of a scene's accuracy: variogram, and how a map was moved."""

from __future__ import annotations

from typing import Any

import numpy as np

from Utils.scenes.accuracy.scene_scores import PREDICTION, SceneScores

__all__ = ["draw_before_after", "draw_variogram", "draw_vectors"]

_SMALL = 8
_BLUE, _GREY = "#0072b2", "#7f7f7f"


def draw_variogram(axes: Any, scores: SceneScores) -> None:
    """Half the mean squared difference of errors against distance, with the fitted model and its ranges."""
    found = scores.variogram
    assert found is not None
    axes.plot(found.distances, found.values, "o", color=_BLUE, markersize=4, label="measured")
    if found.effective > 0.0:
        smooth = np.geomspace(found.distances.min(), found.distances.max(), 200)
        label = f"two spherical ranges; worth {found.effective:,.0f} errors"
        axes.plot(smooth, found.model(smooth), color="black", linewidth=0.9, label=label)
        for reach, sill in zip(found.ranges, found.sills, strict=True):
            if sill > 0.0:
                axes.axvline(reach, color=_GREY, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(0.0, None)
    unit = "m" if scores.inputs[PREDICTION]["metres_per_pixel"] else "pixels"
    axes.set_xlabel(f"distance ({unit})", fontsize=_SMALL)
    axes.set_ylabel("half mean squared difference (m²)", fontsize=_SMALL)
    axes.set_title("how far errors are alike (variogram)", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="lower right")


def draw_before_after(axes: Any, scores: SceneScores) -> None:
    """Errors of the prediction where it lay, and after it was moved."""
    assert scores.before is not None
    errors = {"as it lies": scores.before, "after coregistration": scores}
    values = {name: one.views.errors[PREDICTION] for name, one in errors.items()}
    limit = max(float(np.percentile(np.abs(one), 99.0)) for one in values.values()) or 1.0
    edges = np.linspace(-limit, limit, 122)
    for (name, one), colour in zip(values.items(), (_GREY, _BLUE), strict=True):
        found = errors[name].overall.scores[PREDICTION]
        label = f"{name}: median {found['median_error']:+.3f}, NMAD {found['nmad']:.3f} m"
        shares = 100.0 * np.histogram(one, edges)[0] / one.size
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45, label=label)
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set_ylim(0.0, axes.get_ylim()[1] * 1.25)
    axes.set_xlabel("prediction minus truth (m)", fontsize=_SMALL)
    axes.set_ylabel("pixels (%)", fontsize=_SMALL)
    axes.set_title("errors before and after", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="upper left")


def draw_vectors(axes: Any, scores: SceneScores) -> None:
    """The shift of the prediction, and what each part of the scene says by itself, all as moves of the map."""
    shift = scores.shifts[PREDICTION]
    facts = scores.inputs[PREDICTION]
    height, width = facts["height"], facts["width"]
    longest = max(np.hypot(shift.columns, shift.rows), 0.25)
    scale = 0.12 * max(height, width) / longest
    # Rows count downwards, as the axis does.
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0 / scale}
    if shift.vectors:
        columns, rows, right, down = np.array(shift.vectors).T
        axes.quiver(columns, rows, right, down, color=_GREY, width=0.004, label="parts of the scene", **options)
    middle = ([width / 2], [height / 2])
    axes.quiver(*middle, [shift.columns], [shift.rows], color=_BLUE, width=0.012, label="the whole scene", **options)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect(scores.views.aspect)
    metres = f"{shift.east:+.2f} m east, {shift.north:+.2f} m north, " if np.isfinite(shift.east) else ""
    axes.set_title(
        f"moved by {shift.columns:+.2f} columns, {shift.rows:+.2f} rows\n({metres}{shift.metres:+.2f} m up)",
        fontsize=_SMALL + 1,
    )
    axes.set_xlabel(f"column; arrows {scale:,.0f} times as long", fontsize=_SMALL)
    axes.set_ylabel("row", fontsize=_SMALL)
    axes.legend(fontsize=_SMALL - 1, loc="upper right")
