"""What an evaluation of land cover writes: tables, also beside published numbers, a CSV, one JSON, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Systems.segmentation.config import SegmentationEvaluationConfig
from Systems.segmentation.pictures import legend
from Systems.segmentation.tiles import TRAIN
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.land_cover.class_table import LOVEDA, ClassTable
from Utils.reports.drawing import encode
from Utils.reports.evaluation import Evaluation, writing
from Utils.reports.evaluation_report import REPORT_FILE, evaluation_document, tile_rows
from Utils.reports.evaluation_tables import format_report, summary_tables, tile_table
from Utils.reports.items import Gallery, Picture, Section, Table, Text
from Utils.reports.page import write_page
from Utils.reports.training_curves import training_curves
from Utils.scoring.land_cover.published import MEANS_THAT_DIFFER, published_rows
from Utils.scoring.scores import Summary

_NOT_FACTS = ("summary", "change", "beside_controls")
_CLASSES = "classes"


def write_class_report(
    found: Evaluation, config: SegmentationEvaluationConfig, facts: Mapping[str, Any], table: ClassTable
) -> str:
    """Write ``tiles.csv``, ``metrics.json``, ``table.md`` and ``report.html``; returns what is to be printed.

    Raises:
        UserError: a file that cannot be written.
    """
    folder = Path(config.output_dir)
    document = evaluation_document(found, config, facts)
    summary: Summary = document["summary"][_CLASSES]
    beside = published_table(summary, facts, config.domains, table)
    text = "\n\n".join([format_report(found), verdict(summary, facts), *([beside] if beside else [])])
    with writing(folder / "metrics.json"):
        write_csv(folder / "tiles.csv", tile_rows(found))
        write_json(folder / "metrics.json", document)
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    definitions = [f"{each.title}: {each.definition}." for each in found.scorer.protocols]
    tables = [Table(each.title, each.headings, each.lines) for each in summary_tables(found)]
    sections = [Section("Summary", [Text("", [*definitions, verdict(summary, facts)]), *tables])]
    pictures = sorted((folder / "pictures").glob("*.png"))
    shown = [Picture(path.stem, path.read_bytes()) for path in pictures if path.stem in found.ids]
    if shown:
        keyed = Picture("legend", encode(legend(table), 640))
        sections.append(Section("Tiles", [Gallery("Drawn by the seed, not chosen", [keyed, *shown], columns=1)]))
    sections.append(Section("All tiles", [tile_table(found)]))
    curves = training_curves(Path(config.checkpoint_path))
    if curves:
        sections.append(Section("Training", curves))
    title = f"{Path(config.dataset_path).resolve().name}: classes of {len(found.ids)} tiles of {facts['scored_on']}"
    known = dict(facts) | {key: value for key, value in document.items() if key not in _NOT_FACTS}
    with writing(folder / REPORT_FILE):
        write_page(folder / REPORT_FILE, title, sections, known)
    return text


def verdict(summary: Summary, facts: Mapping[str, Any]) -> str:
    """The mean IoU with its standard error, and whether labels of the target played a part."""
    score = summary["pooled.miou"]
    said = f"mIoU {100 * score['mean']:.2f} ± {100 * score['standard_error']:.2f} % (bootstrap over tiles)"
    trained = ", ".join(facts["trained_on"])
    if facts["selected_on"] == "oracle":
        how = "weights selected by labels of the target (oracle): not comparable with results without them"
    else:
        how = f"weights selected on {facts['selected_on']}, no label of the target"
    if facts["domain"] != "target" and str(facts["scored_on"]).startswith(TRAIN):
        how = "tiles that it may have learnt from: no result"
    elif facts["domain"] == "source":
        how = f"the domain that it was trained on; weights selected on {facts['selected_on']}"
    if facts["unlabelled_images"]:
        seen = ", ".join(facts["unlabelled_images"])
        how += f"; self-training on images of {seen} without labels: not comparable with results without such images"
    return f"{said}; trained on {trained}, scored on {facts['scored_on']}; {how}."


def published_table(summary: Summary, facts: Mapping[str, Any], scored: list[str], table: ClassTable) -> str:
    """Published IoUs of the same direction, in per cent, under these; empty where there are none."""
    trained = list(facts["trained_on"])
    rows = published_rows(trained[0], scored[0]) if len(trained) == len(scored) == 1 else []
    if not rows or table.names != LOVEDA.names:
        return ""

    def number(key: str) -> str:
        return f"{100 * summary[key]['mean']:.2f}"

    own = [number(f"classes.iou_{name}") for name in table.names]
    seen = "yes" if facts["unlabelled_images"] else "no"
    lines = [["this network", seen, *own, number("pooled.miou")]]
    for row in rows:
        assert row.ious is not None
        lines.append(
            [row.method, "no" if row.source_only else "yes", *(f"{iou:.2f}" for iou in row.ious), f"{row.mean:.2f}"]
        )
    headings = ["method", "target images", *table.names, "mean"]
    direction = f"{trained[0]} to {scored[0]}"
    wrong = [
        f"{method} {direction}: published {mean:.2f}, its columns give {own_mean:.2f}"
        for (method, where), (mean, own_mean) in MEANS_THAT_DIFFER.items()
        if where == direction
    ]
    note = "Published IoUs (%) are of the part Test, whose labels are not public; those of Val are not comparable."
    if wrong:
        note += f" Left out, since their means do not match their columns: {'; '.join(wrong)}."
    return f"{format_table(headings, lines)}\n\n{note}"
