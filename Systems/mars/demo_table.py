"""The table of the demo of Mars: a network beside its controls, with standard errors over scenes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from Utils.core.tables import format_table, read_csv
from Utils.scoring.grouped import paired_group_change, summarise_groups
from Utils.scoring.scores import Summary

_NETWORK, _SHUFFLED = "height", "control: shuffled heights"
_COLUMNS = {
    "relief.mae": ("MAE (m) ↓", 3),
    "relief.rmse": ("RMSE (m) ↓", 3),
    "relief.plane_removed_mae": ("MAE without plane (m) ↓", 3),
    "relief.slope_error_degrees": ("Slope error (deg) ↓", 2),
}

Scores = dict[str, float]


def write_demo_table(path: Path, results: Path, shuffled: Path, table: Path) -> str:
    """Write the table as Markdown, and return it.

    Args:
        path: the file.
        results: results of ``evaluateDepth.py`` for the network, with its controls.
        shuffled: the same of the network that learnt from other scenes' heights, on the same tiles.
        table: the dataset's table, whose column ``scene`` says which tiles belong together.
    """
    ids, rows = _rows(results / "tiles.csv")
    others, control = _rows(shuffled / "tiles.csv")
    assert ids == others, "both evaluations score the same tiles in the same order"
    with table.open(encoding="utf-8", newline="") as file:
        scenes = {row["id"]: row["scene"] for row in csv.DictReader(file)}
    text = demo_table(rows | {_SHUFFLED: control[""]}, [scenes[tile] for tile in ids])
    path.write_text(text + "\n", encoding="utf-8")
    return text


def demo_table(rows: Mapping[str, Sequence[Scores]], scenes: Sequence[str]) -> str:
    """The means of each map over scenes, then the network's paired differences from each control.

    Args:
        rows: the scores of each tile by name of the map; ``height`` is the network's.
        scenes: the scene of each tile.
    """
    corner = f"relief protocol, {len(scenes)} tiles of {len(set(scenes))} scenes, ± standard error over scenes"
    headings = [corner, *(name for name, _ in _COLUMNS.values())]
    lines = [
        _line("network" if name == _NETWORK else name, summarise_groups(own, scenes)) for name, own in rows.items()
    ]
    for name, own in rows.items():
        if name != _NETWORK:
            lines.append(_line(f"network - {name}, paired", paired_group_change(own, rows[_NETWORK], scenes), "+"))
    return format_table(headings, lines)


def _line(name: str, summary: Summary, sign: str = "") -> list[str]:
    return [name] + [
        f"{summary[key]['mean']:{sign}.{digits}f} ± {summary[key]['standard_error']:.{digits}f}"
        for key, (_, digits) in _COLUMNS.items()
    ]


def _rows(path: Path) -> tuple[list[str], dict[str, list[Scores]]]:
    """Ids of the tiles, and the scores of relief of each map by name; the name of the only map is empty."""
    read = read_csv(path, text_columns=["id"])
    names = list(dict.fromkeys(key.rpartition("relief.")[0].rstrip(".") for key in read[0] if "relief." in key))
    found = {
        name: [{key: float(str(row[f"{name}.{key}" if name else key])) for key in _COLUMNS} for row in read]
        for name in names
    }
    return [str(row["id"]) for row in read], found
