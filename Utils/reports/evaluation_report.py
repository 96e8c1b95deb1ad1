"""What an evaluation leaves behind: the table, a CSV row a tile, one JSON, and a page that shows all of it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from Utils.config.settings import EvaluationConfig
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.tables import write_csv, write_json
from Utils.data.tiles import TileDataset
from Utils.pictures.comparison import Panel
from Utils.rasters.tile_files import RasterError, read_height
from Utils.reports.drawing import (
    ERROR_COLOURS,
    HEIGHT_COLOURS,
    colours_of,
    draw_panel,
    draw_relief,
    encode,
    error_limit,
)
from Utils.reports.evaluation import Evaluation, Map, map_file, tile_panels, writing
from Utils.reports.evaluation_tables import RANKED_BY, format_report, summary_tables, tile_table
from Utils.reports.items import ColourScale, Curve, Gallery, Item, Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page
from Utils.reports.training_curves import training_curves
from Utils.scoring.metrics import ALIGNED, paired_change, summarise

__all__ = ["REPORT_FILE", "choose_examples", "write_report"]

REPORT_FILE = "report.html"

# Best, median and worst tiles, of each at most.
_EXAMPLES = 3
_PANEL_SIZE, _SLIDER_SIZE = 256, 512
# Points of a distribution's curve, however many tiles there are.
_CURVE_POINTS = 200
# What the page shows as tables, not as facts.
_NOT_FACTS = ("summary", "change")


def write_report(found: Evaluation, config: EvaluationConfig, facts: Mapping[str, Any], dataset: TileDataset) -> str:
    """Write ``tiles.csv``, ``metrics.json``, ``table.md`` and ``report.html``; returns the table.

    Args:
        found: the scores.
        config: the evaluation's config, which goes into the JSON.
        facts: what else JSON and page should say, as the model's path.
        dataset: the tiles that were scored; of those that the page shows, files and maps are read once more.

    Raises:
        UserError: a file that cannot be written, or a tile or map that can no longer be read.
    """
    folder = Path(config.output_dir)
    table = format_report(found)
    document = _document(found, config, facts)
    with writing(folder / "metrics.json"):
        write_csv(folder / "tiles.csv", _tile_rows(found))
        write_json(folder / "metrics.json", document)
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    sections = _sections(found, config, document, dataset)
    shown = dict(facts) | {key: value for key, value in document.items() if key not in _NOT_FACTS}
    with writing(folder / REPORT_FILE):
        write_page(folder / REPORT_FILE, _title(found, config), sections, shown)
    return table


def choose_examples(found: Evaluation) -> dict[str, list[str]]:
    """The best, median and worst tiles by the result's aligned MAE, each tile once.

    Tiles without that score, having no valid height, are none of them; equal ones keep the order of the tiles.

    Returns:
        Tile ids under ``best``, ``median`` and ``worst``, best first in each; up to three each, fewer of few tiles.
    """
    rows = found.rows[found.predictions[-1]]
    scores = {tile: row[RANKED_BY] for tile, row in zip(found.ids, rows, strict=True)}
    order = sorted((tile for tile in found.ids if not math.isnan(scores[tile])), key=lambda tile: scores[tile])
    count = max(1, min(_EXAMPLES, len(order) // 3))
    best = order[:count]
    worst = order[count:][-count:]
    rest = order[count : len(order) - len(worst)]
    middle = max(0, (len(rest) - count) // 2)
    return {"best": best, "median": rest[middle : middle + count], "worst": worst}


def _tile_rows(found: Evaluation) -> list[dict[str, object]]:
    # One map needs no prefix in its columns.
    prefix = {name: "" if len(found.rows) == 1 else f"{name}." for name in found.rows}
    return [
        {"id": tile}
        | {prefix[name] + key: value for name, scores in found.rows.items() for key, value in scores[place].items()}
        for place, tile in enumerate(found.ids)
    ]


def _document(found: Evaluation, config: EvaluationConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` holds."""
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiles": len(found.ids),
        "protocols": {
            "paper": "target and prediction each stretched to 0..255 by their own extremes and rounded",
            "aligned": "float, prediction fitted to the target by least-squares scale (>= 0) and shift per tile",
        },
        "summary": {name: summarise(rows) for name, rows in found.rows.items()},
        "seconds_per_tile": found.seconds / max(len(found.ids), 1),
        "batch_size": config.batch_size,
        "software": {name: version(name) for name in ("torch", "timm", "diffusers")},
        "machine": _machine(),
        "config": config.model_dump(mode="json"),
        **facts,
    }
    names = found.predictions
    if len(names) > 1:
        document["change"] = paired_change(found.rows[names[0]], found.rows[names[-1]])
    return document


def _machine() -> dict[str, Any]:
    """Where the networks ran, in words that name neither the machine nor its user."""
    device = pick_device()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _title(found: Evaluation, config: EvaluationConfig) -> str:
    tiles = f"{len(found.ids)} test {'tile' if len(found.ids) == 1 else 'tiles'}"
    return f"{Path(config.dataset_path).resolve().name}: {' and '.join(found.predictions)} heights of {tiles}"


def _sections(
    found: Evaluation, config: EvaluationConfig, document: Mapping[str, Any], dataset: TileDataset
) -> list[Section]:
    tables = [Table(table.title, table.headings, table.lines) for table in summary_tables(found)]
    sections = [Section("Summary", [_reading(found, document), *tables])]
    distributions = _distributions(found)
    if distributions:
        sections.append(Section("Distribution", distributions))
    for kind, tiles in choose_examples(found).items():
        if tiles:
            items = [item for tile in tiles for item in _example(found, config, dataset, tile)]
            sections.append(Section(f"{kind.capitalize()} {'tile' if len(tiles) == 1 else 'tiles'}", items))
    sections.append(Section("All tiles", [tile_table(found)]))
    curves = training_curves(Path(config.checkpoint_path))
    if curves:
        sections.append(Section("Training", curves))
    return sections


def _reading(found: Evaluation, document: Mapping[str, Any]) -> Text:
    """How to read the tables, and what they say about the change."""
    protocols = document["protocols"]
    paragraphs = [
        "Every number is the mean over the tiles that have that score. "
        f"Paper protocol: {protocols['paper']}. Aligned protocol: {protocols['aligned']}."
    ]
    if len(found.predictions) > 1:
        before, after = found.predictions[0], found.predictions[-1]
        change = document["change"][RANKED_BY]
        mean, error = change["mean"], change["standard_error"]
        metric = next(metric for metric in ALIGNED if f"aligned.{metric.key}" == RANKED_BY)
        if math.isfinite(mean) and math.isfinite(error):
            verdict = (
                f"{'lower' if mean < 0 else 'higher'} by more than two standard errors"
                if abs(mean) > 2.0 * error
                else "within two standard errors, so no result"
            )
            paragraphs.append(
                f"From {before} to {after} the aligned MAE changes by {mean:+.{metric.digits}f} "
                f"± {error:.{metric.digits}f}: {verdict}."
            )
    return Text("", paragraphs)


def _distributions(found: Evaluation) -> list[Curve]:
    """For chosen scores of every prediction, the share of tiles up to each value."""
    curves = []
    for key, title in ((RANKED_BY, "aligned MAE"), ("aligned.ssim", "aligned SSIM")):
        series = {name: _shares([row[key] for row in found.rows[name]]) for name in found.predictions}
        if any(series.values()):
            curves.append(Curve(f"Tiles by {title}", title, "tiles up to there (%)", series))
    return curves


def _shares(values: Sequence[float]) -> list[tuple[float, float]]:
    """(value, per cent of the tiles with at most that value)."""
    ordered = sorted(value for value in values if math.isfinite(value))
    places = range(len(ordered))
    if len(ordered) > _CURVE_POINTS:
        places = np.linspace(0, len(ordered) - 1, _CURVE_POINTS).round().astype(int).tolist()
    shares = [(ordered[place], 100.0 * (place + 1) / len(ordered)) for place in places]
    return [(ordered[0], 0.0), *shares] if ordered else []


def _example(found: Evaluation, config: EvaluationConfig, dataset: TileDataset, tile: str) -> list[Item]:
    """A tile: with two predictions a slider between them, and all its panels."""
    item = dataset[dataset.ids.index(tile)]
    maps = _read_maps(found, config, item)
    panels, valid = tile_panels(item, maps)
    scores = found.rows[found.predictions[-1]][found.ids.index(tile)]
    scored = f"aligned MAE {scores[RANKED_BY]:.4g}, paper PSNR {scores['paper.psnr']:.4g} dB"
    if len(maps) == 1:
        return [_gallery(f"Tile {tile}: {scored}", panels, valid)]
    names = found.predictions[0], found.predictions[-1]
    before, after = (encode(draw_relief(maps[name], valid), _SLIDER_SIZE) for name in names)
    caption = "Heights in colour, lit from the north-west. To move the line: drag, tap, or arrow keys."
    return [Slider(f"Tile {tile}", before, after, *names, caption), _gallery(scored, panels, valid)]


def _read_maps(found: Evaluation, config: EvaluationConfig, item: Mapping[str, Any]) -> dict[str, Map]:
    """A tile's predicted maps: the result from its file, the one it was made of from the dataset."""
    *before, result = found.predictions
    path = map_file(Path(config.output_dir), item["id"], config.map_format)
    try:
        values = read_height(path).values
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    return {name: item["prior"][0].numpy() for name in before} | {result: values}


def _gallery(title: str, panels: Sequence[Panel], valid: Any) -> Gallery:
    """Panels in a grid: a column for the truth, and one for each prediction above its error and its relief."""
    of_kind = {
        kind: [panel for panel in panels if panel.kind == kind] for kind in ("image", "height", "error", "relief")
    }
    truth, *predicted = of_kind["height"]
    limit = error_limit(panels)
    ordered = [*of_kind["image"], *predicted, truth, *of_kind["error"], *of_kind["relief"]]
    pictures = [Picture(panel.title, encode(draw_panel(panel, valid, limit), _PANEL_SIZE)) for panel in ordered]
    scales = [
        ColourScale("height", "0", "255", colours_of(HEIGHT_COLOURS)),
        ColourScale("error", f"-{limit:g}", f"+{limit:g}", colours_of(ERROR_COLOURS)),
    ]
    return Gallery(title, pictures, columns=1 + len(predicted), scales=scales)
