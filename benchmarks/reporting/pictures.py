"""A run's pictures.  Only matplotlib's objects are used, never pyplot: nothing needs a display."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.records import Results, Row, describe_run
from benchmarks.roofline import roofline_share
from Utils.core.files import replacing

_OURS, _PEERS = "#1b6ca8", "#c7772e"
_LINE = 0.3  # inches of a bar with its label
_DPI = 110


def save_pictures(results: Results, folder: Path) -> list[str]:
    """Draw what there is to be drawn; returns the files' names."""
    drawn = {
        "time_per_image": _times(results),
        "roofline": _roofline(results),
        "training": _training(results),
        "growth": _growth(results),
    }
    names = []
    for name, figure in drawn.items():
        if figure is not None:
            FigureCanvasAgg(figure)
            with replacing(folder / f"{name}.png") as path:
                figure.savefig(path, format="png", dpi=_DPI, bbox_inches="tight")
            names.append(f"{name}.png")
    return names


def _is_ours(label: str) -> bool:
    return label.startswith("ours")


def _bars_figure(count: int, width: float = 8.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 1.0 + _LINE * count))
    axes = figure.add_subplot()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.7, count - 0.3)
    return figure, axes


def _times(results: Results) -> Figure | None:
    """Seconds an image at batch 1, one bar a model and number of steps."""
    found = [
        (row, record.case.switches.precision)
        for record in results.of_kind("inference")
        for row in results.rows(record.case.name)
        if row["batch"] == 1
    ]
    if not found:
        return None
    found.sort(key=lambda pair: -pair[0]["seconds_per_image"])
    figure, axes = _bars_figure(len(found))
    for place, (row, _) in enumerate(found):
        colour = _OURS if _is_ours(row["label"]) else _PEERS
        value = row["seconds_per_image"]
        axes.barh(place, value, color="none" if row["computed"] else colour, edgecolor=colour)
        axes.text(value * 1.05, place, f"{value:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [f"{describe_run(row)} ({precision})" for row, precision in found], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("seconds an image, batch 1 (outlined: computed from measured parts)")
    return figure


def _roofline(results: Results) -> Figure | None:
    """Share of the roofline that each part reaches."""
    if results.rates is None:
        return None
    found = []
    for record in results.of_kind("inference"):
        precision = record.case.switches.precision
        for row in record.rows:
            for part, work in row.get("parts", {}).items():
                share = roofline_share(work, results.rates, precision)
                found.append((f"{row['label']}: {part} ({precision})", share, _is_ours(row["label"])))
    if not found:
        return None
    found.reverse()
    figure, axes = _bars_figure(len(found))
    for place, (_, share, ours) in enumerate(found):
        axes.barh(place, 100.0 * share["share"], color=_OURS if ours else _PEERS)
        axes.text(100.0 * share["share"] + 1.0, place, share["limit"], va="center", fontsize=7)
    axes.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=8)
    axes.axvline(100.0, color="black", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("% of the roofline, and what limits")
    return figure


def _training(results: Results) -> Figure | None:
    """Tiles a second of each way to train."""
    rows = [row for record in results.of_kind("training") for row in results.rows(record.case.name)]
    if not rows:
        return None
    rows.reverse()
    figure, axes = _bars_figure(len(rows))
    for place, row in enumerate(rows):
        axes.barh(place, row["tiles_per_second"], color=_OURS)
        axes.text(row["tiles_per_second"], place, f" {row['tiles_per_second']:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{row['label']}, batch {row['batch']}" for row in rows], fontsize=8)
    axes.margins(x=0.12)
    axes.set_xlabel("tiles a second in training")
    return figure


def _growth(results: Results) -> Figure | None:
    """Time and memory, by image size and by batch."""
    curves: dict[str, list[Row]] = {}
    for record in results.of_kind("growth"):
        for row in results.rows(record.case.name):
            curves.setdefault(f"{describe_run(row)} ({record.case.switches.precision})", []).append(row)
    if not curves:
        return None
    figure = Figure(figsize=(10.0, 7.5), layout="constrained")
    grid = figure.subplots(2, 2)
    quantities = {"seconds_per_image": "seconds an image", "peak_bytes": "peak GB"}
    for column, axis in enumerate(("size", "batch")):
        for line, (quantity, label) in enumerate(quantities.items()):
            axes = grid[line][column]
            for name, rows in curves.items():
                points = _points(rows, axis, quantity)
                axes.plot(*zip(*points, strict=True), marker="o", label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            ticks = sorted({point for rows in curves.values() for point, _ in _points(rows, axis, quantity)})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlabel("pixels of a side, batch 1" if axis == "size" else "batch, at the smallest size")
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=8)
    return figure


def _points(rows: list[Row], axis: str, quantity: str) -> list[tuple[int, float]]:
    """One curve; that of the batches begins with the smallest image's row at batch 1."""
    smallest = min(row["size"] for row in rows)
    wanted = [row for row in rows if (row["batch"] == 1 if axis == "size" else row["size"] == smallest)]
    scale = 1e-9 if quantity == "peak_bytes" else 1.0
    return sorted((row[axis], row[quantity] * scale) for row in wanted)
