"""Scores of relief pair by pair, and means over scenes: tiles of one scene resemble one another, and overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from Utils.core.tables import format_table, write_csv
from Utils.data.published_layout import TileFiles
from Utils.rasters.relief_tags import ReliefTags
from Utils.reports.evaluation import Evaluation, writing
from Utils.scoring.grouped import paired_group_change, summarise_groups
from Utils.scoring.relief import ReliefScorer
from Utils.scoring.scores import Metric, Summary

_PROTOCOL = "relief"


def write_pair_tables(
    found: Evaluation, files: Mapping[str, TileFiles], tags: Mapping[str, ReliefTags], folder: Path
) -> str:
    """Write ``pairs.csv`` (a row a pair and map) and ``pairs.md`` (the result's pairs, then means over scenes).

    A pair's tiles lie in one folder. A scene is what the dataset's table says, else the pair: all ground that touches.

    Returns:
        The table of means over scenes.
    """
    pairs = [files[tile].image.parent.name for tile in found.ids]
    scenes = [files[tile].scene or pair for tile, pair in zip(found.ids, pairs, strict=True)]
    rows = _rows(found, pairs, scenes, tags)
    means = _means_over_scenes(found, scenes)
    of_pairs = _pair_lines(found, [row for row in rows if row["map"] == found.predictions[-1]])
    with writing(folder / "pairs.csv"):
        write_csv(folder / "pairs.csv", rows)
        (folder / "pairs.md").write_text(f"{of_pairs}\n\n{means}\n", encoding="utf-8")
    return means


def _metrics(found: Evaluation) -> list[Metric]:
    """The scores of relief that could be taken."""
    (protocol,) = (each for each in found.scorer.protocols if each.name == _PROTOCOL)
    return [metric for metric in protocol.metrics if protocol.key(metric) in found.scorer.keys]


def _rows(
    found: Evaluation, pairs: Sequence[str], scenes: Sequence[str], tags: Mapping[str, ReliefTags]
) -> list[dict[str, object]]:
    places = defaultdict(list)
    for place, pair in enumerate(pairs):
        places[pair].append(place)
    scorer = found.scorer
    assert isinstance(scorer, ReliefScorer)
    rows: list[dict[str, object]] = []
    for name, every in found.rows.items():
        for pair, own in sorted(places.items()):
            chosen = [every[place] for place in own]
            references = sorted({tags[found.ids[place]].reference for place in own})
            scores = {key: each["mean"] for key, each in scorer.summarise(chosen).items()}
            facts = {"pair": pair, "scene": scenes[own[0]], "map": name, "tiles": len(own)}
            facts |= {"pixels": sum(scorer.pixels(row) for row in chosen), "height_reference": "/".join(references)}
            rows.append(facts | scores)
    return rows


def _pair_lines(found: Evaluation, rows: Sequence[Mapping[str, object]]) -> str:
    metrics = _metrics(found)
    headings = ["pair", "tiles", "pixels", "heights refer to", *(f"{each.heading} {each.arrow}" for each in metrics)]
    lines = []
    for row in rows:
        values = [float(str(row[f"{_PROTOCOL}.{metric.key}"])) for metric in metrics]
        cells = [metric.format(value) for metric, value in zip(metrics, values, strict=True)]
        lines.append([str(row[key]) for key in ("pair", "tiles", "pixels", "height_reference")] + cells)
    return format_table(headings, lines)


def _means_over_scenes(found: Evaluation, scenes: Sequence[str]) -> str:
    metrics, result = _metrics(found), found.predictions[-1]
    count = len(set(scenes))
    headings = [
        f"relief protocol, {len(found.ids)} tiles of {count} scenes, ± standard error over scenes",
        *(f"{metric.heading} {metric.arrow}" for metric in metrics),
    ]
    every = {name: found.tile_scores(name) for name in found.rows}
    lines = [_line(name, summarise_groups(rows, scenes), metrics) for name, rows in every.items()]
    for name, rows in every.items():
        if name != result:
            change = paired_group_change(rows, every[result], scenes)
            lines.append(_line(f"{result} - {name}, paired", change, metrics, sign="+"))
    return format_table(headings, lines)


def _line(name: str, summary: Summary, metrics: Sequence[Metric], sign: str = "") -> list[str]:
    cells = [name]
    for metric in metrics:
        score = summary[f"{_PROTOCOL}.{metric.key}"]
        cells.append(f"{score['mean']:{sign}.{metric.digits}f} ± {score['standard_error']:.{metric.digits}f}")
    return cells
