"""Height maps ranked over several scored scenes: a randomised complete block design, as DEMIX ranks DEMs (2023).

Each scene is a block, in which every map has one value of a criterion. Ranks within blocks do not mind that mountains
have larger errors than plains. Friedman's test says whether the mean ranks differ by more than chance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import friedmanchisquare, rankdata

from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table, write_json

__all__ = ["CRITERIA", "Ranking", "rank_results", "write_ranking"]

CRITERIA = {
    "rmse": "RMSE",
    "mae": "MAE",
    "nmad": "NMAD",
    "le90": "LE90",
    "slope_error_degrees": "Slope error",
    "slope": "FUV of slope",
    "curvature": "FUV of curvature",
    "roughness": "FUV of roughness",
}
"""The criteria by which maps are ranked, lower is better, and their names."""

_FEWEST = 3  # scenes that Friedman's test needs to say anything


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of maps over scenes.

    Attributes:
        maps: their names.
        scenes: the results that were ranked.
        mean_ranks: by criterion, (maps,): 1 is best.
        values: by criterion, (scenes, maps).
        chance: by criterion, the probability of such ranks if all maps were alike; NaN where it cannot be said.
    """

    maps: list[str]
    scenes: list[str]
    mean_ranks: dict[str, list[float]]
    values: dict[str, list[list[float]]]
    chance: dict[str, float]

    def text(self) -> str:
        """Table and notes."""
        rows = []
        for key, ranks in self.mean_ranks.items():
            wins = [sum(row[place] == min(row) for row in self.values[key]) for place in range(len(self.maps))]
            cells = [f"{rank:.2f} ({won})" for rank, won in zip(ranks, wins, strict=True)]
            chance = self.chance[key]
            rows.append([CRITERIA[key], *cells, "—" if math.isnan(chance) else f"{chance:.3f}"])
        heading = [f"mean rank over {len(self.scenes)} scenes (times best)", *self.maps, "p of chance"]
        notes = ["Ranks within each scene; 1 is best. p: Friedman's test over the scenes as blocks."]
        if len(self.scenes) < _FEWEST or len(self.maps) < 3:
            notes.append(f"p needs at least 3 maps and {_FEWEST} scenes.")
        return format_table(heading, rows) + "\n\n" + "  \n".join(notes)


def rank_results(folders: Sequence[Path]) -> Ranking:
    """Rank the maps of several results of evaluateScene.py.

    Args:
        folders: result folders, or their metrics.json, a scene each.

    Raises:
        UserError: fewer than two scenes, no such results, or fewer than two maps that all of them have.
    """
    if len(folders) < 2:
        raise UserError("--several: give the result folders of at least two scenes")
    documents = {str(folder): _document(folder) for folder in folders}
    if len(documents) < len(folders):
        raise UserError("--several: a result folder is given twice; each scene counts once")
    first = next(iter(documents.values()))
    maps = [name for name in first["scores"] if all(name in one["scores"] for one in documents.values())]
    if len(maps) < 2:
        raise UserError("--several: the results share fewer than two maps; score each scene with the same --baseline")
    mean_ranks, values, chance = {}, {}, {}
    for key in CRITERIA:
        table = np.array([[_value(one, name, key) for name in maps] for one in documents.values()])
        table = table[np.isfinite(table).all(axis=1)]
        if len(table) < 2:
            continue
        mean_ranks[key] = rankdata(table, axis=1).mean(axis=0).tolist()
        values[key] = table.tolist()
        tells = len(maps) >= 3 and len(table) >= _FEWEST and bool(np.ptp(table, axis=1).any())
        chance[key] = float(friedmanchisquare(*table.T).pvalue) if tells else math.nan
    return Ranking(maps, list(documents), mean_ranks, values, chance)


def write_ranking(folder: Path, ranking: Ranking) -> str:
    """Write ranking.md and ranking.json into an existing folder; gives the table.

    Raises:
        OSError: a file cannot be written.
    """
    text = ranking.text()
    atomic_write_bytes(folder / "ranking.md", (text + "\n").encode("utf-8"))
    write_json(folder / "ranking.json", vars(ranking))
    return text


def _document(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json" if folder.is_dir() else folder
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--several '{folder}': no result of evaluateScene.py ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("scores"), dict) or "order_statistics" not in found:
        raise UserError(f"--several '{folder}': no result of evaluateScene.py against a true raster")
    return found


def _value(document: dict[str, Any], name: str, key: str) -> float:
    part = "unexplained_variance" if key in ("slope", "curvature", "roughness") else "scores"
    value = document.get(part, {}).get(name, {}).get(key)
    return float(value) if isinstance(value, int | float) else math.nan
