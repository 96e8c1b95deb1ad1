"""What a scored raster of classes leaves: tables, numbers, a picture and a page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.land_cover.class_table import ClassTable
from Utils.data.sample import IGNORED_LABEL
from Utils.pictures.comparison import Panel, save_comparison
from Utils.pictures.legend import draw_legend
from Utils.reports.drawing import encode
from Utils.reports.evaluation_report import tile_rows
from Utils.reports.evaluation_tables import format_report, summary_tables
from Utils.reports.items import Picture, Section, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.classes.class_scoring import PREDICTION, ClassScores

__all__ = ["write_class_scores"]

_SIDE = 700
_WRONG, _RIGHT = (0.8, 0.1, 0.1), (0.85, 0.85, 0.85)


def write_class_scores(folder: Path, scores: ClassScores) -> str:
    """Write ``metrics.json``, ``table.md``, ``classes.csv``, ``blocks.csv``, ``figure.png`` and ``report.html``.

    Args:
        folder: an existing folder.
        scores: the scores.

    Returns:
        The tables.

    Raises:
        OSError: a file cannot be written.
    """
    found = scores.found
    summary = found.scorer.summarise(found.rows[PREDICTION])
    matrix, names = scores.confusion, list(scores.table.names)
    score = summary["pooled.miou"]
    said = (
        f"mIoU {100 * score['mean']:.2f} ± {100 * score['standard_error']:.2f} % (bootstrap over "
        f"{scores.facts['blocks']}), {int(matrix.sum()):,} pixels."
    )
    confusion = _confusion_lines(matrix, names)
    headings = ["truth, % of its pixels", *names, "pixels"]
    text = "\n\n".join([format_report(found), said, format_table(headings, confusion)])
    write_csv(folder / "classes.csv", _class_rows(matrix, names, summary))
    write_csv(folder / "blocks.csv", tile_rows(found))
    document = {
        "kind": "classes",
        "protocols": {each.name: each.definition for each in found.scorer.protocols},
        "summary": summary,
        "confusion": {"rows": "truth", "columns": "prediction", "classes": names, "pixels": matrix.tolist()},
        **scores.facts,
    }
    write_json(folder / "metrics.json", document)
    atomic_write_bytes(folder / "table.md", (text + "\n").encode("utf-8"))
    _figure(folder / "figure.png", *scores.maps, scores.table)
    legend = draw_legend({**dict(zip(names, scores.table.colours, strict=True)), "no class": (0, 0, 0)})
    prediction, truth = (Path(scores.facts[name]) for name in ("prediction", "truth"))
    sections = [
        Section("Result", [Text("", [said, *(f"{p.title}: {p.definition}." for p in found.scorer.protocols)])]),
        Section("Scores", [Table(each.title, each.headings, each.lines) for each in summary_tables(found)]),
        Section("Confusion", [Table("", headings, confusion, note="Of each row's pixels, how many got which class.")]),
        Section(
            "Map",
            [
                Picture("truth, prediction, and where they differ", (folder / "figure.png").read_bytes()),
                Picture("legend", encode(legend, _SIDE)),
            ],
        ),
    ]
    write_page(folder / "report.html", f"Classes of {prediction.name} against {truth.name}", sections, scores.facts)
    return text


def _confusion_lines(matrix: NDArray[np.int64], names: list[str]) -> list[list[str]]:
    """A line a true class: shares of its pixels by predicted class, in per cent."""
    lines = []
    for name, row in zip(names, matrix, strict=True):
        total = int(row.sum())
        shares = [f"{100 * count / total:.1f}" if total else "—" for count in row]
        lines.append([name, *shares, f"{total:,}"])
    return lines


def _class_rows(matrix: NDArray[np.int64], names: list[str], summary: Any) -> list[dict[str, Any]]:
    """A row a class: pixels of the truth and of the prediction, IoU with its standard error, precision and recall."""
    rows = []
    for number, name in enumerate(names):
        hits, true, drawn = (int(n) for n in (matrix[number, number], matrix[number].sum(), matrix[:, number].sum()))
        score = summary[f"classes.iou_{name}"]
        rows.append({
            "class": name,
            "true_pixels": true,
            "predicted_pixels": drawn,
            "iou": score["mean"],
            "iou_standard_error": score["standard_error"],
            "precision": hits / drawn if drawn else math.nan,
            "recall": hits / true if true else math.nan,
        })  # fmt: skip
    return rows


def _figure(path: Path, label: NDArray[np.uint8], guess: NDArray[np.uint8], table: ClassTable) -> None:
    """Truth, prediction, and where they differ, side by side."""
    known = (label != IGNORED_LABEL) & (guess != IGNORED_LABEL)
    wrong = np.where((label != guess)[..., None], _WRONG, _RIGHT) * known[..., None]
    panels = [
        Panel("truth", table.paint(label), "image"),
        Panel("prediction", table.paint(guess), "image"),
        Panel("wrong in red", wrong.astype(np.float32), "image"),
    ]
    save_comparison(path, panels, "classes", columns=3)
