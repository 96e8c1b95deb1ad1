"""What an evaluation writes: the tables, a CSV with a row a tile, one JSON, and a page that shows all of it."""

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

from Utils.config.evaluation_keys import ScoringConfig
from Utils.core.device import pick_device
from Utils.core.errors import RasterError, UserError
from Utils.core.tables import write_csv, write_json
from Utils.data.dataset import SampleDataset
from Utils.pictures.comparison import Panel
from Utils.pictures.quantity import Quantity
from Utils.rasters.tile_files import read_height
from Utils.reports.controls import CONTROL
from Utils.reports.drawing import (
    ERROR_COLOURS,
    MAP_COLOURS,
    colours_of,
    draw_panel,
    draw_relief,
    drawn_range,
    encode,
    error_limit,
)
from Utils.reports.evaluation import Evaluation, Map, map_file, writing
from Utils.reports.evaluation_tables import format_report, summary_tables, tile_table
from Utils.reports.items import ColourScale, Curve, Gallery, Item, Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page
from Utils.reports.tile_panels import tile_panels
from Utils.reports.training_curves import training_curves
from Utils.scoring.scores import Row, ScoreProtocol, Scorer, Summary

__all__ = ["REPORT_FILE", "choose_examples", "evaluation_document", "tile_rows", "write_report"]

REPORT_FILE = "report.html"

# Most tiles that are shown as best, as median and as worst ones, each.
_EXAMPLES = 3
_PANEL_SIZE, _SLIDER_SIZE = 256, 512
# Number of points on a distribution's curve, whatever the number of tiles.
_CURVE_POINTS = 200
# Entries of the document that the page shows as tables and not among the facts.
_NOT_FACTS = ("summary", "change", "beside_controls")


def write_report(
    found: Evaluation,
    config: ScoringConfig,
    facts: Mapping[str, Any],
    dataset: SampleDataset,
    entries: Mapping[str, str] | None = None,
) -> str:
    """Write ``tiles.csv``, ``metrics.json``, ``table.md`` and ``report.html``; returns what is to be printed.

    Args:
        found: the scores.
        config: the evaluation's config, which goes into the JSON.
        facts: what else JSON and page should state, such as the model's path.
        dataset: the tiles that were scored; the files and maps of those that the page shows are read once more.
        entries: for each prediction but the last, the name of the sample's entry that holds it.

    Raises:
        UserError: a file that cannot be written, or a tile or map that can no longer be read.
    """
    folder = Path(config.output_dir)
    document = evaluation_document(found, config, facts)
    table = "\n\n".join([format_report(found), *_beside_controls(found, document)])
    with writing(folder / "metrics.json"):
        write_csv(folder / "tiles.csv", tile_rows(found))
        write_json(folder / "metrics.json", document)
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    sections = _sections(found, config, document, dataset, entries or {})
    shown = dict(facts) | {key: value for key, value in document.items() if key not in _NOT_FACTS}
    with writing(folder / REPORT_FILE):
        write_page(folder / REPORT_FILE, _title(found, config), sections, shown)
    return table


def choose_examples(found: Evaluation) -> dict[str, list[str]]:
    """Choose the best, median and worst tiles by the ranking score of the result, each tile once.

    Tiles without that score, such as those without a valid pixel, are left out; equal tiles keep their order.

    Returns:
        Tile ids under ``best``, ``median`` and ``worst``, best first in each; up to three each, or fewer.
    """
    ranked_by, rows = found.scorer.ranked_by, found.tile_scores(found.predictions[-1])
    sign = -1.0 if found.scorer.metric(ranked_by).better == "higher" else 1.0
    scores = {tile: sign * row[ranked_by] for tile, row in zip(found.ids, rows, strict=True)}
    order = sorted((tile for tile in found.ids if not math.isnan(scores[tile])), key=lambda tile: scores[tile])
    count = max(1, min(_EXAMPLES, len(order) // 3))
    best = order[:count]
    worst = order[count:][-count:]
    rest = order[count : len(order) - len(worst)]
    middle = max(0, (len(rest) - count) // 2)
    return {"best": best, "median": rest[middle : middle + count], "worst": worst}


def tile_rows(found: Evaluation) -> list[dict[str, object]]:
    """What ``tiles.csv`` holds: the scores of each tile."""
    # One map needs no prefix in its columns.
    prefix = {name: "" if len(found.rows) == 1 else f"{name}." for name in found.rows}
    by_name = {name: found.tile_scores(name) for name in found.rows}
    return [
        {"id": tile}
        | {prefix[name] + key: value for name, scores in by_name.items() for key, value in scores[place].items()}
        for place, tile in enumerate(found.ids)
    ]


def evaluation_document(found: Evaluation, config: ScoringConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``metrics.json`` holds."""
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiles": len(found.ids),
        "protocols": {protocol.name: protocol.definition for protocol in found.scorer.protocols},
        "summary": {name: found.scorer.summarise(rows) for name, rows in found.rows.items()},
        "seconds_per_tile": found.seconds / max(len(found.ids), 1),
        "batch_size": config.batch_size,
        "software": {name: version(name) for name in ("torch", "timm", "diffusers")},
        "machine": _machine(),
        "config": config.model_dump(mode="json"),
        **facts,
    }
    names = found.predictions
    if len(names) > 1:
        document["change"] = found.scorer.change(found.rows[names[0]], found.rows[names[-1]])
    beside = {name: found.scorer.change(rows, found.rows[names[-1]]) for name, rows in _controls(found).items()}
    return document | ({"beside_controls": beside} if beside else {})


def _controls(found: Evaluation) -> dict[str, list[Row | None]]:
    return {name: rows for name, rows in found.rows.items() if name.startswith(CONTROL)}


def _machine() -> dict[str, Any]:
    """A description of the machine that names neither it nor its user."""
    device = pick_device()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _title(found: Evaluation, config: ScoringConfig) -> str:
    tiles = f"{len(found.ids)} test {'tile' if len(found.ids) == 1 else 'tiles'}"
    return f"{Path(config.dataset_path).resolve().name}: {_shown(found)} of {tiles}"


def _shown(found: Evaluation) -> str:
    """What is shown, such as ``coarse and refined heights``; ``depth`` where that is the map's name already."""
    names, plural = " and ".join(found.predictions), found.quantity.plural
    return names if names in (found.quantity.name, plural) else f"{names} {plural}"


def _sections(
    found: Evaluation,
    config: ScoringConfig,
    document: Mapping[str, Any],
    dataset: SampleDataset,
    entries: Mapping[str, str],
) -> list[Section]:
    tables = [Table(table.title, table.headings, table.lines) for table in summary_tables(found)]
    sections = [Section("Summary", [_reading(found, document), *tables])]
    distributions = _distributions(found)
    if distributions:
        sections.append(Section("Distribution", distributions))
    for kind, tiles in choose_examples(found).items():
        if tiles:
            items = [item for tile in tiles for item in _example(found, config, dataset, entries, tile)]
            sections.append(Section(f"{kind.capitalize()} {'tile' if len(tiles) == 1 else 'tiles'}", items))
    sections.append(Section("All tiles", [tile_table(found)]))
    curves = training_curves(Path(config.checkpoint_path)) if config.checkpoint_path else []
    if curves:
        sections.append(Section("Training", curves))
    return sections


def _reading(found: Evaluation, document: Mapping[str, Any]) -> Text:
    """How to read the tables, and what they say about the change."""
    scorer = found.scorer
    pooled = any(protocol.pooled for protocol in scorer.protocols)
    how = "over all tiles together" if pooled else "the mean over the tiles that have that score"
    paragraphs = [
        " ".join([f"Every number is {how}.", *(f"{each.title}: {each.definition}." for each in scorer.protocols)])
    ]
    if len(found.predictions) > 1:
        paragraphs += _verdict(scorer, found.predictions[0], found.predictions[-1], document["change"])
    return Text("", paragraphs + _beside_controls(found, document))


def _beside_controls(found: Evaluation, document: Mapping[str, Any]) -> list[str]:
    """A sentence a control: whether the result is better than it."""
    changes = document.get("beside_controls", {})
    return [line for name in changes for line in _verdict(found.scorer, name, found.predictions[-1], changes[name])]


def _verdict(scorer: Scorer, before: str, after: str, changes: Summary) -> list[str]:
    """What the paired change of the ranking score says; nothing where there is none."""
    change = changes[scorer.ranked_by]
    mean, error = change["mean"], change["standard_error"]
    if not (math.isfinite(mean) and math.isfinite(error)):
        return []
    digits = scorer.metric(scorer.ranked_by).digits
    verdict = (
        f"{'lower' if mean < 0 else 'higher'} by more than two standard errors"
        if abs(mean) > 2.0 * error
        else "within two standard errors, so no result"
    )
    return [
        f"From {before} to {after} the {_called(scorer, scorer.ranked_by)} changes by {mean:+.{digits}f} "
        f"± {error:.{digits}f}: {verdict}."
    ]


def _called(scorer: Scorer, key: str) -> str:
    """A score with its protocol, such as ``aligned MAE``."""
    return f"{key.partition('.')[0]} {scorer.metric(key).name}"


def _higher_is_better(scorer: Scorer, protocol: ScoreProtocol) -> list[str]:
    """Keys of a protocol's scores that single tiles show and that are better when higher."""
    shown = [metric for name in protocol.shown_per_tile for metric in protocol.metrics if metric.key == name]
    keys = [protocol.key(metric) for metric in shown if metric.better == "higher"]
    return [key for key in keys if key not in scorer.absent and key != scorer.ranked_by]


def _distributions(found: Evaluation) -> list[Curve]:
    """For the ranking score, and one that is better when higher, the share of tiles up to each value."""
    scorer = found.scorer
    ranking = next(each for each in scorer.protocols if scorer.ranked_by.startswith(f"{each.name}."))
    curves = []
    for key in (scorer.ranked_by, *_higher_is_better(scorer, ranking)[:1]):
        title = _called(scorer, key)
        series = {name: _shares([row[key] for row in found.tile_scores(name)]) for name in found.predictions}
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


def _example(
    found: Evaluation, config: ScoringConfig, dataset: SampleDataset, entries: Mapping[str, str], tile: str
) -> list[Item]:
    """A tile: with two predictions a slider between them, and all its panels."""
    item = dataset[dataset.ids.index(tile)]
    maps = _read_maps(found, config, item, entries)
    panels, valid = tile_panels(item, maps, found.quantity)
    scored = _scored(found, tile)
    if len(maps) == 1:
        return [_gallery(f"Tile {tile}: {scored}", panels, valid, found.quantity)]
    names = found.predictions[0], found.predictions[-1]
    before, after = (encode(draw_relief(maps[name], valid), _SLIDER_SIZE) for name in names)
    caption = (
        f"{found.quantity.plural.capitalize()} in colour, lit from the north-west. "
        "To move the line: drag, tap, or arrow keys."
    )
    return [Slider(f"Tile {tile}", before, after, *names, caption), _gallery(scored, panels, valid, found.quantity)]


def _scored(found: Evaluation, tile: str) -> str:
    """A tile's ranking score and, from every other protocol, one that is better when higher."""
    scorer = found.scorer
    scores = found.tile_scores(found.predictions[-1])[found.ids.index(tile)]
    others = [each for each in scorer.protocols if not scorer.ranked_by.startswith(f"{each.name}.")]
    keys = [scorer.ranked_by, *(key for each in others for key in _higher_is_better(scorer, each)[:1])]
    return ", ".join(f"{_called(scorer, key)} {scores[key]:.4g} {scorer.metric(key).unit}".rstrip() for key in keys)


def _read_maps(
    found: Evaluation, config: ScoringConfig, item: Mapping[str, Any], entries: Mapping[str, str]
) -> dict[str, Map]:
    """A tile's predicted maps: the result from its file, and the map that it was made from, from the dataset."""
    *before, result = found.predictions
    path = map_file(Path(config.output_dir), item["id"], config.map_format)
    try:
        values = read_height(path).values
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    return {name: item[entries[name]][0].numpy() for name in before} | {result: values}


def _gallery(title: str, panels: Sequence[Panel], valid: Any, quantity: Quantity) -> Gallery:
    """Panels in a grid: a column for the truth, and one for each prediction above its error and its relief."""
    of_kind = {
        kind: [panel for panel in panels if panel.kind == kind] for kind in ("image", "height", "error", "relief")
    }
    truth, *predicted = of_kind["height"]
    limit = error_limit(panels, whole=not quantity.unit)
    span = quantity.fixed_range or drawn_range(of_kind["height"], valid)
    ordered = [*of_kind["image"], *predicted, truth, *of_kind["error"], *of_kind["relief"]]
    pictures = [Picture(panel.title, encode(draw_panel(panel, valid, limit, span), _PANEL_SIZE)) for panel in ordered]
    low, high = (f"{end:.3g} {quantity.unit}".rstrip() for end in span)
    scales = [
        ColourScale(quantity.name, low, high, colours_of(MAP_COLOURS)),
        ColourScale("error", f"-{limit:g}", f"+{limit:g} {quantity.unit}".rstrip(), colours_of(ERROR_COLOURS)),
    ]
    return Gallery(title, pictures, columns=1 + len(predicted), scales=scales)
