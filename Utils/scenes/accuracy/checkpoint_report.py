"""The files that scored checkpoints leave: table, numbers, points, figure and page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from Utils.core.files import atomic_write_bytes
from Utils.core.tables import write_csv, write_json
from Utils.reports.items import Item, Picture, Section, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.accuracy.accuracy_figure import png_of
from Utils.scenes.accuracy.checkpoint_scores import CheckpointScores
from Utils.scenes.accuracy.scene_scores import PREDICTION

__all__ = ["write_checkpoints"]

_SMALL = 8


def write_checkpoints(folder: Path, scores: CheckpointScores) -> str:
    """Write table.md, metrics.json, points.csv, figure.png and report.html into an existing folder; gives the table.

    Raises:
        OSError: a file cannot be written.
    """
    text = scores.text()
    atomic_write_bytes(folder / "table.md", (text + "\n").encode("utf-8"))
    write_json(folder / "metrics.json", scores.to_document())
    write_csv(folder / "points.csv", _rows(scores))
    save_figure(folder / "figure.png", scores)
    shown: list[Item] = [Text("", scores.notes()), Table("", *scores.table())]
    if scores.before is not None:
        shown.insert(0, Text("", ["After coregistration with the checkpoints; below, as the files lie."]))
        shown += [Text("As the files lie", scores.before.notes()), Table("", *scores.before.table())]
    pictures: list[Item] = [Picture("", (folder / "figure.png").read_bytes())]
    sections = [Section("Scores", shown), Section("Errors", pictures)]
    write_page(folder / "report.html", "Accuracy at checkpoints", sections, scores.to_document())
    return text


def _rows(scores: CheckpointScores) -> list[dict[str, object]]:
    points = scores.points
    rows: list[dict[str, object]] = []
    for number in range(len(points.truth)):
        row: dict[str, object] = {
            "row": round(float(points.rows[number]), 3),
            "column": round(float(points.columns[number]), 3),
            "height": float(points.truth[number]),
        }
        row |= {f"error_of_{name}": round(float(errors[number]), 4) for name, errors in points.errors.items()}
        row |= {} if points.sigma is None else {"sigma": float(points.sigma[number])}
        row |= {} if points.labels is None else {"class": str(points.labels[number])}
        rows.append(row)
    return rows


def save_figure(path: Path, scores: CheckpointScores) -> None:
    """Draw where the errors lie, how they are distributed, and the worst ones by class.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure((13.2, 4.8), dpi=100, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)  # inches
    canvas: Any = FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, 3)
    _map(axes[0], scores)
    _histogram(axes[1], scores)
    _groups(axes[2], scores)
    for one in axes:
        one.tick_params(labelsize=_SMALL)
    atomic_write_bytes(path, png_of(canvas))


def _map(axes: Any, scores: CheckpointScores) -> None:
    points = scores.points
    errors = points.errors[PREDICTION]
    limit = float(np.percentile(np.abs(errors), 95.0)) or 1.0
    wooded = points.vegetated
    for chosen, marker, label in ((~wooded, "o", "not vegetated"), (wooded, "^", "vegetated")):
        if chosen.any():
            drawn = axes.scatter(
                points.columns[chosen], points.rows[chosen], c=errors[chosen], cmap="RdBu_r", vmin=-limit, vmax=limit,
                marker=marker, s=32, edgecolors="black", linewidths=0.4, label=label,
            )  # fmt: skip
    facts = scores.inputs[PREDICTION]
    axes.set_xlim(0, facts["width"])
    axes.set_ylim(facts["height"], 0)
    size = facts["metres_per_pixel"] or (1.0, 1.0)
    axes.set_aspect(size[0] / size[1])
    axes.set_title("errors at checkpoints", fontsize=_SMALL + 1)
    axes.set_xlabel("column", fontsize=_SMALL)
    axes.set_ylabel("row", fontsize=_SMALL)
    axes.legend(fontsize=_SMALL - 1, loc="upper right", framealpha=0.9)
    bar = axes.figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.9, extend="both")
    bar.set_label("prediction minus checkpoint (m): red is too high", fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)


def _histogram(axes: Any, scores: CheckpointScores) -> None:
    all_errors = np.concatenate(list(scores.points.errors.values()))
    limit = float(np.percentile(np.abs(all_errors), 99.0)) or 1.0
    edges = np.linspace(-limit, limit, 2 * max(4, round(math.sqrt(scores.points.truth.size))) + 1)
    for (name, errors), colour in zip(scores.points.errors.items(), ("#0072b2", "#e69f00"), strict=False):
        found = scores.figures()[name]["all"]
        axes.hist(errors, edges, color=colour, alpha=0.4, label=f"{name}: RMSEz {found['rmse_z']:.3f} m")
        axes.axvline(found["mean"], color=colour, label=f"mean {found['mean']:+.3f} m")
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set_xlabel("map minus checkpoint (m)", fontsize=_SMALL)
    axes.set_ylabel("checkpoints", fontsize=_SMALL)
    axes.set_title("distribution", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1, loc="upper left")


def _groups(axes: Any, scores: CheckpointScores) -> None:
    found = scores.figures()
    names, groups = list(found), list(found[PREDICTION])
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, ("#0072b2", "#e69f00"), strict=False)):
        places = np.arange(len(groups)) + (number - (len(names) - 1) / 2) * width
        axes.bar(places, [found[name][group]["rmse_v"] for group in groups], width * 0.94, color=colour, label=name)
    axes.set_xticks(
        range(len(groups)), [f"{group}\nn = {found[PREDICTION][group]['count']}" for group in groups], rotation=30
    )
    axes.set_ylim(0.0, (axes.get_ylim()[1] or 1.0) * 1.2)
    axes.set_ylabel("RMSE_V (m)", fontsize=_SMALL)
    axes.set_title("vertical accuracy", fontsize=_SMALL + 1)
    axes.legend(fontsize=_SMALL - 1)
