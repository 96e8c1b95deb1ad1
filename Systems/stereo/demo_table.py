"""The table of the stereo demo: networks beside controls, and whether they meet the demo's gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from Utils.core.tables import format_table, read_csv
from Utils.scoring.grouped import paired_group_change, summarise_groups
from Utils.scoring.stereo.stereo_scorer import StereoScorer

__all__ = ["write_demo_table"]

Scores = list[dict[str, float]]

_COLUMNS = ("stereo.mae", "stereo.median", "stereo.below_0_6m", "stereo.below_1m", "textureless.mae", "occluded.mae")
_PROTOCOLS = ("stereo", "textureless", "occluded")
_MAE = "stereo.mae"
_CONSTANT, _SWEEP = "control: constant", "control: NCC sweep"
_GATES = {_SWEEP: 0.5, _CONSTANT: 0.3}
"""Largest share of a baseline's MAE that a network may have."""
_JUDGED = ("plain", "guided")


def write_demo_table(path: Path, results: Path, titles: Mapping[str, str], satellite: tuple[str, str]) -> str:
    """Write the table as Markdown, and return it.

    Args:
        path: the file.
        results: folder of the evaluations.
        titles: what each evaluation of aerial scenes is called, by its folder; the first one holds the baselines.
        satellite: folder of the evaluation of satellite scenes, with baselines of its own, and what its network is
            called.
    """
    first = next(iter(titles))
    aerial = _rows(results / first / "tiles.csv")
    rows = {name: aerial[name] for name in (_CONSTANT, _SWEEP)}
    for folder, title in titles.items():
        found = _rows(results / folder / "tiles.csv")
        rows[title] = found[next(iter(found))]
    folder, network = satellite
    heights = _rows(results / folder / "tiles.csv")
    own = next(iter(heights))
    with_rpcs = {name: heights[name] for name in (_CONSTANT, _SWEEP)} | {network: heights[own]}
    text = "\n\n".join(
        [
            demo_table("depth, pinhole cameras", rows),
            *_compared(rows, titles),
            *(line for name in _JUDGED if name in titles for line in gate_lines(rows, titles[name])),
            demo_table("height, RPCs", with_rpcs),
            *gate_lines(with_rpcs, network),
        ]
    )
    path.write_text(text + "\n", encoding="utf-8")
    return text


def demo_table(what: str, rows: Mapping[str, Scores]) -> str:
    """Mean and standard error of each method's scores over the scenes, where they have any."""
    scorer = StereoScorer()
    count = len(next(iter(rows.values())))
    known = {metric.key: metric for metric in scorer.protocols[0].metrics}
    headings, lines = [f"{what}, {count} scenes, ± standard error"], []
    for key in _COLUMNS:
        protocol, _, name = key.partition(".")
        metric = known[name]
        prefix = "" if protocol == "stereo" else f", {protocol}"
        headings.append(f"{metric.heading}{prefix} {metric.arrow}")
    for title, scored in rows.items():
        summary = summarise_groups(scored, [str(place) for place in range(count)])
        cells = [title]
        for key in _COLUMNS:
            found, metric = summary.get(key, {"count": 0}), known[key.partition(".")[2]]
            seen = found["count"] > 0
            both = (metric.format(found[part]) for part in ("mean", "standard_error")) if seen else ()
            cells.append(" ± ".join(both) or "n/a")
        lines.append(cells)
    return format_table(headings, lines)


def gate_lines(rows: Mapping[str, Scores], network: str) -> list[str]:
    """Whether a network's MAE is small enough beside each baseline's."""
    lines = []
    mean = {name: sum(row[_MAE] for row in scored) / len(scored) for name, scored in rows.items()}
    for baseline, share in _GATES.items():
        ratio = mean[network] / mean[baseline]
        verdict = "met" if ratio <= share else "NOT met"
        lines.append(f"{network}: its MAE is {ratio:.2f} of that of '{baseline}' (gate {share:g}: {verdict}).")
    return lines


def _compared(rows: Mapping[str, Scores], titles: Mapping[str, str]) -> list[str]:
    """How relative depth compares with none and with maps of other scenes, paired by scene."""
    scenes = [str(place) for place in range(len(next(iter(rows.values()))))]
    lines = []
    for one, other in (("guided", "plain"), ("guided", "shuffled"), ("published", "plain"), ("shuffled", "plain")):
        if one not in titles or other not in titles:
            continue
        change = paired_group_change(rows[titles[other]], rows[titles[one]], scenes)[_MAE]
        lines.append(
            f"From '{titles[other]}' to '{titles[one]}' the MAE changes by {change['mean']:+.3f} ± "
            f"{change['standard_error']:.3f} m, paired over {change['count']:.0f} scenes."
        )
    lines.append("One seed tells nothing of the spread between trainings.")
    return lines


def _rows(path: Path) -> dict[str, Scores]:
    """The scores of each map of an evaluation, by its name, in order."""
    table: Sequence[Mapping[str, object]] = read_csv(path, text_columns=["id"])
    prefixes: dict[str, None] = {}
    for key in table[0]:
        # Where a single map was scored, its columns do not repeat its name.
        prefix, found, _ = key.partition("stereo.")
        if found and (not prefix or prefix.endswith(".")):
            prefixes[prefix] = None
    return {prefix.removesuffix("."): [_own(row, prefix) for row in table] for prefix in prefixes}


def _own(row: Mapping[str, object], prefix: str) -> dict[str, float]:
    """Scores of one map; NaN where there are none, as of occluded pixels where all are seen."""
    found = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix) and key != "id"}
    kept = {key: value for key, value in found.items() if key.partition(".")[0] in _PROTOCOLS}
    return {key: math.nan if value is None else float(str(value)) for key, value in kept.items()}
