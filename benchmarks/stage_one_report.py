"""The tables of ``benchmarks.stage_one``: scores of each seed, and of all seeds with standard errors over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from Utils.core.tables import format_table
from Utils.scoring.aligned import ALIGNED
from Utils.scoring.paper import PAPER
from Utils.scoring.scores import Metric, paired_change, summarise

CONTROL = "mean of the training tiles"
_SHOWN: dict[str, Metric] = {f"paper.{m.key}": m for m in PAPER if m.key in ("mae", "ssim")}
_SHOWN |= {f"aligned.{m.key}": m for m in ALIGNED if m.key in ("mae", "ssim", "gradient_error")}
# Before and after: each change is the second minus the first, tile by tile.
_CHANGES = (
    ("DPT coarse", "DPT refined"),
    ("EncDec coarse", "EncDec refined"),
    ("DPT coarse", "EncDec coarse"),
    ("DPT refined", "EncDec refined"),
)

Result = Mapping[str, Any]


def format_report(results: Sequence[Result]) -> str:
    """All tables, one below the other.

    Args:
        results: what ``run_seed`` gives, one for each seed.
    """
    parts = [_costs(results)]
    parts += [_seed_table(result) for result in results]
    if len(results) > 1:
        parts.append(_seeds_table(results))
    return "\n\n".join(parts)


def _costs(results: Sequence[Result]) -> str:
    headings = [
        "seed",
        "stage 1",
        "parameters (M)",
        "steps a stage",
        "s a step",
        "training of stage 1 (s)",
        "stage 2 (s)",
    ]
    rows = [
        [
            str(result["seed"]),
            arm,
            f"{facts['parameters'] / 1e6:.2f}",
            str(facts["steps"]),
            f"{facts['step_seconds']:.3f}",
            f"{facts['stage_1_seconds']:.0f}",
            f"{facts['stage_2_seconds']:.0f}",
        ]
        for result in results
        for arm, facts in result["arms"].items()
    ]
    return format_table(headings, rows)


def _seed_table(result: Result) -> str:
    """Means over the test tiles, and changes tile by tile, with standard errors over tiles."""
    found = {name: _scores(rows) for name, rows in result["rows"].items()}
    count = len(next(iter(found.values())))
    rows = [[name, *_cells(summarise(scores))] for name, scores in found.items()]
    rows += [[f"{b} - {a}", *_cells(paired_change(found[a], found[b]), "+")] for a, b in _CHANGES]
    return format_table([f"seed {result['seed']}, {count} test tiles", *_headings()], rows)


def _seeds_table(results: Sequence[Result]) -> str:
    """Means of the seeds' means, with standard errors over seeds."""
    means = [{name: summarise(_scores(rows)) for name, rows in result["rows"].items()} for result in results]
    rows = []
    for name in means[0]:
        rows.append([name, *(_over([one[name][key]["mean"] for one in means], m) for key, m in _SHOWN.items())])
    for a, b in _CHANGES:
        cells = [_over([one[b][k]["mean"] - one[a][k]["mean"] for one in means], m, "+") for k, m in _SHOWN.items()]
        rows.append([f"{b} - {a}", *cells])
    return format_table([f"{len(results)} seeds, ± over seeds", *_headings()], rows)


def _headings() -> list[str]:
    protocols = (key.split(".")[0] for key in _SHOWN)
    return [
        f"{metric.heading} {metric.arrow} ({name})" for name, metric in zip(protocols, _SHOWN.values(), strict=True)
    ]


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    return [{key: float(row[key]) for key in _SHOWN} for row in rows]


def _cells(summary: Mapping[str, Mapping[str, float]], sign: str = "") -> list[str]:
    return [_cell(summary[key]["mean"], summary[key]["standard_error"], metric, sign) for key, metric in _SHOWN.items()]


def _over(values: Sequence[float], metric: Metric, sign: str = "") -> str:
    return _cell(statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)), metric, sign)


def _cell(mean: float, error: float, metric: Metric, sign: str) -> str:
    return f"{mean:{sign}.{metric.digits}f} ± {error:.{metric.digits}f}"
