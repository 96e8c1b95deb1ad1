"""The table of the demo: a network beside controls that know nothing, with standard errors over scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from Utils.core.tables import format_table, read_csv
from Utils.data.published_layout import TEST_PART, TRAINING_PART, TileFiles
from Utils.data.tile_dataset import read_truth
from Utils.data.tile_sources import part_tiles
from Utils.reports.controls import MEAN_MAP, MEAN_NUMBER
from Utils.scoring.depth.depth_metrics import DEPTH
from Utils.scoring.depth.depth_scorer import DepthScorer
from Utils.scoring.grouped import paired_group_change, summarise_groups
from Utils.scoring.mean_map import MeanMap
from Utils.scoring.scores import Metric, Summary

_NETWORK, _SHUFFLED = "network", "control: shuffled truths"
_BY_KIND = "control: mean map of its kind"
_MAP = "depth"  # what evaluateDepth calls the network's map
_PROTOCOL = "metric."
_KEYS = ("rmse", "abs_rel", "rmse_log", "delta1")

Scores = dict[str, float]


def write_control_table(path: Path, results: Path, shuffled: Path, table: Path) -> str:
    """Write the table as Markdown, and return it.

    Args:
        path: the file.
        results: results of ``evaluateDepth.py`` for the network, with the controls ``mean`` and ``mean_map``.
        shuffled: the same of the network with shuffled truths, on the same frames.
        table: the dataset's table, whose column ``scene`` says which frames belong together.
    """
    ids, rows = _rows(results / "tiles.csv", {_NETWORK: _MAP, MEAN_MAP: MEAN_MAP, MEAN_NUMBER: MEAN_NUMBER})
    others, control = _rows(shuffled / "tiles.csv", {_SHUFFLED: ""})
    assert ids == others, "both evaluations score the same frames in the same order"
    training, test = (part_tiles(table, part) for part in (TRAINING_PART, TEST_PART))
    rows |= {_BY_KIND: _mean_of_its_kind(training.values(), [test[tile] for tile in ids])}
    text = control_table(rows | control, [str(test[tile].scene) for tile in ids])
    path.write_text(text + "\n", encoding="utf-8")
    return text


def _mean_of_its_kind(training: Iterable[TileFiles], test: Iterable[TileFiles]) -> list[Scores]:
    """The scores of a control that knows one thing, which kind of scene it sees: the mean map of that kind."""
    means: dict[str, MeanMap] = defaultdict(MeanMap)
    for files in training:
        truth = read_truth(files.height, files.coding)
        means[_kind(str(files.scene))].add(truth["target"][0].numpy(), truth["valid"][0].numpy())
    maps = {kind: mean.by_pixel() for kind, mean in means.items()}
    scorer, rows = DepthScorer(), []
    for files in test:
        truth, drawn = read_truth(files.height, files.coding), maps[_kind(str(files.scene))]
        rows.append(scorer.score(truth["target"][0].numpy(), drawn, truth["valid"][0].numpy()))
    return rows


def _kind(scene: str) -> str:
    """What stands in front of a scene's first hyphen: room or street."""
    return scene.partition("-")[0]


def control_table(rows: Mapping[str, Sequence[Scores]], scenes: Sequence[str]) -> str:
    """The table, and a line that says by how much the first of some maps is better than the others.

    Args:
        rows: the scores of each frame, such as ``metric.rmse``, by name of the map.
        scenes: the scene of each frame; the kind of a scene stands in front of its first hyphen.
    """
    metrics = [metric for key in _KEYS for metric in DEPTH if metric.key == key]
    kinds = sorted({_kind(scene) for scene in scenes})
    corner = f"metric protocol, {len(scenes)} frames of {len(set(scenes))} scenes, ± standard error over scenes"
    headings = [corner, *(f"{metric.heading} {metric.arrow}" for metric in metrics)]
    headings += [f"{metrics[0].heading}, {kind}s {metrics[0].arrow}" for kind in kinds]
    lines = []
    for name, scored in rows.items():
        whole = summarise_groups(scored, scenes)
        cells = [_cell(metric, whole) for metric in metrics]
        for kind in kinds:
            own = [place for place, scene in enumerate(scenes) if _kind(scene) == kind]
            part = summarise_groups([scored[place] for place in own], [scenes[place] for place in own])
            cells.append(_cell(metrics[0], part))
        lines.append([name, *cells])
    return "\n\n".join([format_table(headings, lines), *_comparisons(rows, scenes, metrics[0])])


def _comparisons(rows: Mapping[str, Sequence[Scores]], scenes: Sequence[str], metric: Metric) -> list[str]:
    """How the errors of the networks compare with those of the means, paired by scene."""
    key = _PROTOCOL + metric.key
    lines = []
    for name, base in ((_NETWORK, MEAN_MAP), (_NETWORK, _BY_KIND), (_SHUFFLED, MEAN_MAP)):
        if base not in rows:
            continue
        own, other = (summarise_groups(rows[each], scenes)[key]["mean"] for each in (name, base))
        change = paired_group_change(rows[base], rows[name], scenes)[key]
        lines.append(
            f"{name}: its {metric.name} is that of '{base}' divided by {other / own:.2f}; the difference is "
            f"{change['mean']:+.{metric.digits}f} ± {change['standard_error']:.{metric.digits}f} {metric.unit}, "
            f"paired over {change['count']:.0f} scenes."
        )
    return lines


def _cell(metric: Metric, summary: Summary) -> str:
    score = summary[_PROTOCOL + metric.key]
    return f"{metric.format(score['mean'])} ± {metric.format(score['standard_error'])}"


def _rows(path: Path, names: Mapping[str, str]) -> tuple[list[str], dict[str, list[Scores]]]:
    """The ids of an evaluation's frames, and the scores of the maps that are named, by what they are called here."""
    table = read_csv(path, text_columns=["id"])
    found: dict[str, list[Scores]] = {}
    for called, name in names.items():
        prefix = f"{name}." if name else ""
        keys = {key: key.removeprefix(prefix) for key in table[0] if key.startswith(f"{prefix}{_PROTOCOL}")}
        found[called] = [{short: float(str(row[key])) for key, short in keys.items()} for row in table]
    return [str(row["id"]) for row in table], found
