"""The tables of an evaluation: both protocols' means, and a row a tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from Utils.core.tables import format_table
from Utils.reports.evaluation import Evaluation, Row
from Utils.reports.items import Cell, Number, Table
from Utils.reports.page import MISSING
from Utils.scoring.metrics import ALIGNED, LPIPS, PAPER, Metric, paired_change, summarise

__all__ = ["RANKED_BY", "format_report", "summary_tables", "tile_table"]

RANKED_BY = "aligned.mae"
"""The score by which tiles are best and worst."""

# What a row a tile shows; tiles.csv has every score.
_SHOWN_ALIGNED = ("mae", "rmse", "ssim", "gradient_error", "slope_error_degrees")
_SHOWN_PAPER = ("mae", "psnr", "ssim", "lpips")


@dataclass(frozen=True)
class SummaryTable:
    """One protocol's means: a line a map; with two predictions, their paired change and its standard error."""

    title: str
    headings: list[str]
    lines: list[list[Cell]]


def summary_tables(found: Evaluation) -> list[SummaryTable]:
    """Both protocols' tables; a score that could not be taken, for want of weights or of a distance, is None."""
    return [
        _summary_table(found, "paper", "Paper protocol", (*PAPER, LPIPS)),
        _summary_table(found, "aligned", "Aligned protocol", ALIGNED),
    ]


def format_report(found: Evaluation) -> str:
    """Both tables as Markdown."""
    return "\n\n".join(
        format_table(table.headings, [[_text(cell) for cell in line] for line in table.lines])
        for table in summary_tables(found)
    )


def tile_table(found: Evaluation) -> Table:
    """A row a tile: the score that ranks, of each prediction, then the result's others."""
    names = found.predictions
    result = found.rows[names[-1]]
    ranked = next(metric for metric in ALIGNED if f"aligned.{metric.key}" == RANKED_BY)
    columns: list[tuple[str, list[Cell]]] = [("tile", list(found.ids))]

    def add(heading: str, metric: Metric, values: Sequence[float]) -> None:
        columns.append((heading, [_number(metric, value) for value in values]))

    for name in names:
        called = f", {name}" if len(names) > 1 else ""
        add(f"aligned {_heading(ranked)}{called}", ranked, [row[RANKED_BY] for row in found.rows[name]])
    if len(names) > 1:
        pairs = zip(found.rows[names[0]], result, strict=True)
        columns.append(("change", [_change(ranked, after[RANKED_BY] - before[RANKED_BY]) for before, after in pairs]))
    for protocol, metrics, shown in (
        ("aligned", ALIGNED, _SHOWN_ALIGNED),
        ("paper", (*PAPER, LPIPS), _SHOWN_PAPER),
    ):
        for metric in metrics:
            key = f"{protocol}.{metric.key}"
            if metric.key in shown and _is_taken(found, key) and key != RANKED_BY:
                add(f"{protocol} {_heading(metric)}", metric, [row[key] for row in result])
    note = f"Scores of the {names[-1]} map where no other is named; tiles.csv has all scores of all maps."
    headings = [heading for heading, _ in columns]
    return Table("", headings, list(zip(*(cells for _, cells in columns), strict=True)), sortable=True, note=note)


def _summary_table(found: Evaluation, protocol: str, title: str, metrics: Sequence[Metric]) -> SummaryTable:
    names = found.predictions
    lines: list[list[Cell]] = []

    def line(label: str, cell: Callable[[Metric, str], Number]) -> None:
        keyed = ((metric, f"{protocol}.{metric.key}") for metric in metrics)
        lines.append([label, *(cell(metric, key) if _is_taken(found, key) else None for metric, key in keyed)])

    def means(name: str) -> None:
        summary = summarise(found.rows[name])
        line(name, lambda metric, key: _number(metric, summary[key]["mean"]))

    for name in names:
        means(name)
    if len(names) > 1:
        change = paired_change(found.rows[names[0]], found.rows[names[-1]])
        line("change", lambda metric, key: _change(metric, change[key]["mean"]))
        line("± standard error", lambda metric, key: _number(metric, change[key]["standard_error"]))
    for name in found.rows:
        if name in found.references:
            means(name)
    counts = {_count(found.rows[name], f"{protocol}.mae") for name in names}
    scored = "/".join(str(count) for count in sorted(counts))
    corner = f"{title.lower()}, {scored} of {len(found.ids)} tiles"
    return SummaryTable(title, [corner, *(_heading(metric) for metric in metrics)], lines)


def _is_taken(found: Evaluation, key: str) -> bool:
    """Whether a score was taken at all; one that needs weights is absent without, and the slope is always NaN."""
    rows = next(iter(found.rows.values()))
    if key == "aligned.slope_error_degrees":
        return not all(math.isnan(row[key]) for row in rows)
    return key in rows[0]


def _count(rows: Sequence[Row], key: str) -> int:
    return int(summarise(rows)[key]["count"])


def _heading(metric: Metric) -> str:
    # An arrow alone on a line of its own says nothing; a table in Markdown gets a plain blank.
    return f"{metric.heading}\N{NO-BREAK SPACE}{'↑' if metric.higher_is_better else '↓'}"


def _number(metric: Metric, value: float) -> Number:
    return Number(value, metric.format(value))


def _change(metric: Metric, value: float) -> Number:
    text = metric.format(value)
    return Number(value, text if text.startswith("-") or math.isnan(value) else f"+{text}")


def _text(cell: Cell) -> str:
    if cell is None:
        return MISSING
    return cell.text if isinstance(cell, Number) else str(cell)
