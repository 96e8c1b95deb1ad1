"""The table of an ablation: means and spread over seeds, what beats what beyond the spread, and pictures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from Systems.segmentation.ablation_plan import ALONE, SELF_TRAINED, TRUE, Ablation
from Systems.segmentation.pictures import legend
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.land_cover.land_cover_dataset import HowRead, read_land_cover
from Utils.data.land_cover.listing import list_land_cover
from Utils.data.sample import IGNORED_LABEL
from Utils.pictures.comparison import Panel, save_comparison

if TYPE_CHECKING:
    from Utils.data.land_cover.class_table import ClassTable

__all__ = ["Row", "ablation_rows", "ablation_text", "write_ablation"]

_TILES = 3


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        name: its name.
        title: its title.
        control: whether it has the parameters of the network with depth, and knows nothing of heights.
        miou: mean IoU on the target, by seed, in [0, 1].
        at_home: mean IoU on the source's validation tiles at the selected weights, by seed; NaN without validation.
        ious: mean over the seeds of each class's IoU on the target.
        parameters: how many numbers the network learns.
    """

    name: str
    title: str
    control: bool
    miou: tuple[float, ...]
    at_home: tuple[float, ...]
    ious: Mapping[str, float]
    parameters: int


def write_ablation(ablation: Ablation) -> str:
    """Write ``ablation.md``, ``ablation.csv``, ``ablation.json`` and ``pictures``; returns the table.

    Raises:
        OSError: a file cannot be written.
    """
    rows, folder = ablation_rows(ablation), ablation.output
    text = ablation_text(rows, ablation.seeds)
    (folder / "ablation.md").write_text(text + "\n", encoding="utf-8")
    flat = [
        {"variant": row.name, "seed": seed, "miou": row.miou[place], "miou_source": row.at_home[place]}
        for row in rows
        for place, seed in enumerate(ablation.seeds)
    ]
    write_csv(folder / "ablation.csv", flat)
    document = {row.name: vars(row) | {"seeds": list(ablation.seeds)} for row in rows}
    write_json(folder / "ablation.json", document)
    _pictures(ablation)
    return text


def ablation_rows(ablation: Ablation) -> list[Row]:
    """The numbers of all variants, from the files that the evaluations wrote."""
    rows = []
    for variant in ablation.variants:
        found = [_read(ablation.scores(variant, seed) / "metrics.json") for seed in ablation.seeds]
        scores = [document["summary"]["classes"] for document in found]
        classes = [key.removeprefix("classes.iou_") for key in scores[0] if key.startswith("classes.iou_")]
        ious = {name: _mean([score[f"classes.iou_{name}"]["mean"] for score in scores]) for name in classes}
        home = tuple(_best(ablation.run(variant, seed)) for seed in ablation.seeds)
        miou = tuple(score["pooled.miou"]["mean"] for score in scores)
        rows.append(Row(variant.name, variant.title, variant.control, miou, home, ious, found[0]["parameters"]))
    return rows


def ablation_text(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """The table, and under it what beats what beyond the spread over the seeds."""
    classes = list(rows[0].ious)
    headings = ["IoU (%) on the target", "mean IoU", *(f"seed {seed}" for seed in seeds), *classes]
    headings += ["mean IoU, source", "parameters"]
    lines = [
        [
            row.title,
            _spread(row.miou),
            *(f"{100 * value:.2f}" for value in row.miou),
            *(_percent(row.ious[name], 1) for name in classes),
            _percent(_mean(row.at_home), 2),
            f"{row.parameters:,}",
        ]
        for row in rows
    ]
    known = {row.name: row for row in rows}
    said = []
    if TRUE in known:
        others = [row for row in rows if row.name == ALONE or row.control]
        said = [_compared(known[TRUE], other) for other in others]
    if ALONE in known:
        said += [_compared(row, known[ALONE]) for row in rows if row.control]
    taught = [known[variant.name] for variant in SELF_TRAINED if variant.name in known]
    without = {variant.name: variant.without for variant in SELF_TRAINED}
    said += [_compared(row, known[without[row.name]]) for row in taught if without[row.name] in known]
    if len(taught) == len(SELF_TRAINED):
        said.append(_compared(taught[1], taught[0]))
    note = (
        f"Mean ± standard deviation over {len(seeds)} seeds. The controls have the parameters of the network with "
        "depth. Beyond the spread: the lowest seed of one lies above the highest of the other."
    )
    if taught:
        note += " Self-trained rows have seen images of the target, without labels; the other rows have seen none."
    return "\n\n".join([format_table(headings, lines), note, "\n".join(f"- {line}" for line in said)])


def _compared(one: Row, other: Row) -> str:
    """How two variants differ, with the spread over seeds."""
    change = 100 * (statistics.fmean(one.miou) - statistics.fmean(other.miou))
    if min(one.miou) > max(other.miou):
        verdict = "beyond the spread"
    elif max(one.miou) < min(other.miou):
        verdict = "below it, beyond the spread"
    else:
        verdict = "within the spread"
    return f"{one.title} against {other.title}: {change:+.2f} points, {verdict}"


def _mean(values: Sequence[float | None]) -> float:
    """The mean of what is known; JSON has null for a class that neither truth nor prediction has."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _percent(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _spread(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def _best(run: Path) -> float:
    """The validation score of the weights that a run has kept."""
    lines = (run / "final" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    scores = [row["validation/pooled.miou"] for row in map(json.loads, lines) if "validation/pooled.miou" in row]
    return max(scores, default=float("nan"))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _pictures(ablation: Ablation) -> None:
    """A picture of each of the first tiles: image, map, truth, and what the variants draw with the first seed."""
    from Systems.segmentation.config import SegmentationEvaluationConfig
    from Systems.segmentation.tiles import class_table

    seed = ablation.seeds[0]
    config = SegmentationEvaluationConfig(
        **_read(ablation.scores(ablation.variants[0], seed) / "metrics.json")["config"]
    )
    table = class_table(config)
    root = None if config.root is None else Path(config.root)
    tiles = list_land_cover(
        Path(config.dataset_path), config.part, config.domains, config.relative_depth_folder, True, root
    )
    folder = ablation.output / "pictures"
    folder.mkdir(exist_ok=True)
    Image.fromarray(legend(table)).save(folder / "legend.png")
    for name in list(tiles)[:: max(1, len(tiles) // _TILES)][:_TILES]:
        sample = read_land_cover(name, tiles[name], HowRead(table, full_scale=config.image_full_scale))
        label = sample["label"].numpy()
        panels = [
            Panel("image", sample["image"].numpy(), "image"),
            Panel("relative depth", np.repeat(sample["depth"].numpy(), 3, axis=0), "image"),
            Panel("truth", table.paint(label), "image"),
        ]
        for variant in ablation.variants:
            drawn = np.asarray(Image.open(ablation.scores(variant, seed) / "classes" / f"{name}.png"))
            panels.append(Panel(f"{variant.name}, {_right(drawn, label, table)}", table.paint(drawn), "image"))
        save_comparison(folder / f"{name}.png", panels, f"tile {name}, seed {seed}", columns=3)


def _right(drawn: Any, label: Any, table: ClassTable) -> str:
    known = label != IGNORED_LABEL
    return f"{100 * (drawn == label)[known].mean():.0f} % right" if known.any() else "no truth"
