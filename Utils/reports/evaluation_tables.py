"""The tables of an evaluation: the means of every protocol, and a table with a row a tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from Utils.core.tables import format_table
from Utils.reports.evaluation import Evaluation
from Utils.reports.items import Cell, Number, Table
from Utils.reports.page import MISSING
from Utils.scoring.scores import Metric, ScoreProtocol

__all__ = ["format_report", "summary_tables", "tile_table"]


@dataclass(frozen=True)
class SummaryTable:
    """One protocol's means: a line a map; with two predictions, their paired change and its standard error."""

    title: str
    headings: list[str]
    lines: list[list[Cell]]


def summary_tables(found: Evaluation) -> list[SummaryTable]:
    """A table for each protocol of the scorer; a score that could not be taken is None."""
    return [_summary_table(found, protocol) for protocol in found.scorer.protocols]


def format_report(found: Evaluation) -> str:
    """All tables as Markdown."""
    return "\n\n".join(
        format_table(table.headings, [[_text(cell) for cell in line] for line in table.lines])
        for table in summary_tables(found)
    )


def tile_table(found: Evaluation) -> Table:
    """A row a tile: the ranking score of each prediction, then the other scores of the result."""
    names, scorer = found.predictions, found.scorer
    result = found.tile_scores(names[-1])
    ranked = scorer.metric(scorer.ranked_by)
    protocol_of_ranked = scorer.ranked_by.partition(".")[0]
    columns: list[tuple[str, list[Cell]]] = [("tile", list(found.ids))]

    def add(heading: str, metric: Metric, values: Sequence[float]) -> None:
        columns.append((heading, [_number(metric, value) for value in values]))

    for name in names:
        called = f", {name}" if len(names) > 1 else ""
        scores = [row[scorer.ranked_by] for row in found.tile_scores(name)]
        add(f"{protocol_of_ranked} {_heading(ranked)}{called}", ranked, scores)
    if len(names) > 1:
        pairs = zip(found.tile_scores(names[0]), result, strict=True)
        changes = [after[scorer.ranked_by] - before[scorer.ranked_by] for before, after in pairs]
        columns.append(("change", [_change(ranked, change) for change in changes]))
    for protocol in sorted(scorer.protocols, key=lambda each: each.name != protocol_of_ranked):
        for metric in protocol.metrics:
            key = protocol.key(metric)
            if metric.key in protocol.shown_per_tile and key not in scorer.absent and key != scorer.ranked_by:
                add(f"{protocol.name} {_heading(metric)}", metric, [row[key] for row in result])
    note = f"Scores of the {names[-1]} map where no other is named; tiles.csv has all scores of all maps."
    headings = [heading for heading, _ in columns]
    return Table("", headings, list(zip(*(cells for _, cells in columns), strict=True)), sortable=True, note=note)


def _summary_table(found: Evaluation, protocol: ScoreProtocol) -> SummaryTable:
    names, scorer = found.predictions, found.scorer
    lines: list[list[Cell]] = []

    def line(label: str, cell: Callable[[Metric, str], Number]) -> None:
        keyed = ((metric, protocol.key(metric)) for metric in protocol.metrics)
        lines.append([label, *(None if key in scorer.absent else cell(metric, key) for metric, key in keyed)])

    summaries = {name: scorer.summarise(rows) for name, rows in found.rows.items()}

    def means(name: str) -> None:
        line(name, lambda metric, key: _number(metric, summaries[name][key]["mean"]))

    for name in names:
        means(name)
    if len(names) > 1:
        change = scorer.change(found.rows[names[0]], found.rows[names[-1]])
        line("change", lambda metric, key: _change(metric, change[key]["mean"]))
        line("± standard error", lambda metric, key: _number(metric, change[key]["standard_error"]))
    for name in found.rows:
        if name in found.references:
            means(name)
    counted = next(key for key in (protocol.key(metric) for metric in protocol.metrics) if key not in scorer.absent)
    scored = "/".join(str(count) for count in sorted({int(summaries[name][counted]["count"]) for name in names}))
    corner = f"{protocol.title.lower()}, {scored} of {len(found.ids)} tiles"
    return SummaryTable(protocol.title, [corner, *(_heading(metric) for metric in protocol.metrics)], lines)


def _heading(metric: Metric) -> str:
    # An arrow alone on a line of its own says nothing; a table in Markdown gets a plain blank.
    return f"{metric.heading}\N{NO-BREAK SPACE}{metric.arrow}".rstrip()


def _number(metric: Metric, value: float) -> Number:
    return Number(value, metric.format(value))


def _change(metric: Metric, value: float) -> Number:
    text = metric.format(value)
    return Number(value, text if text.startswith("-") or math.isnan(value) else f"+{text}")


def _text(cell: Cell) -> str:
    if cell is None:
        return MISSING
    return cell.text if isinstance(cell, Number) else str(cell)
