"""Score a model over tiles and write what people read: tables, per-tile CSV, one JSON, maps and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from Utils.config import EvaluationConfig
from Utils.errors import UserError, write_error
from Utils.loading import make_loader
from Utils.metrics import ALIGNED, LPIPS, PAPER, Metric, paired_change, stretch_to_255, summarise
from Utils.perceptual import HOW_TO_GET_LPIPS, LpipsScore, find_lpips_weights
from Utils.pictures import Panel, save_comparison, save_overview
from Utils.rasters import RasterError, write_map_16bit, write_map_float
from Utils.scoring import Scorer, on_device
from Utils.seeds import named_generator
from Utils.splits import select
from Utils.tables import format_table, write_csv, write_json
from Utils.tiles import TEST_PART, Batch, TileDataset, TileFiles, list_tiles

logger = logging.getLogger(__name__)

Row = dict[str, float]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a batch.

    Attributes:
        maps: (B, 1, H, W) in [0, 1] by name, as ``coarse`` and ``refined``; the last is the model's result.
        steps: intermediate maps, (B, 1, H, W) each; empty unless asked for.
    """

    maps: dict[str, Tensor]
    steps: list[Tensor] = field(default_factory=list)


Predict = Callable[[Batch], Prediction]
# Maps (B, 1, H, W) by name that are scored beside the predictions and are none, nor part of the time they take.
References = Callable[[Batch], dict[str, Tensor]]


@dataclass
class Evaluation:
    """Scores of all tiles.

    Attributes:
        ids: tile ids in order.
        rows: by name of the map, a row of scores a tile.
        references: the names in ``rows`` that are no predictions.
        seconds: time that prediction took, batch by batch, without reading and scoring.
    """

    ids: list[str] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def predictions(self) -> list[str]:
        """Names of the scored predictions, the model's result last."""
        return [name for name in self.rows if name not in self.references]


def test_tiles(config: EvaluationConfig) -> tuple[Mapping[str, TileFiles], list[str]]:
    """The test part's tiles, and the ids to evaluate."""
    files = list_tiles(Path(config.dataset_path), TEST_PART)
    return files, select(list(files), config.test_split_text, config.dataset_path)


def make_scorer(config: EvaluationConfig) -> Scorer:
    """The scorer that an evaluation config asks for; says once how to get LPIPS where it cannot be had."""
    try:
        weights = find_lpips_weights(Path(config.lpips_weights) if config.lpips_weights else None)
        lpips = None if weights is None else LpipsScore(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"lpips_weights: {error}") from error
    if lpips is None:
        logger.info(HOW_TO_GET_LPIPS)
    return Scorer(config.ground_sample_distance, config.metres_per_unit, lpips)


@torch.no_grad()
def evaluate(
    predict: Predict,
    dataset: TileDataset,
    config: EvaluationConfig,
    device: torch.device,
    on_maps: Callable[[str, Mapping[str, Map]], None] = lambda tile, maps: None,
    references: References = lambda batch: {},
) -> Evaluation:
    """Predict and score every tile, writing maps and pictures into ``config.output_dir`` on the way.

    Args:
        predict: the model.
        dataset: the tiles.
        config: where to write, how many pictures, and the scorer's settings.
        device: where the model is.
        on_maps: called with each tile's id and its predicted maps (H, W).
        references: what else to score, as the autoencoder's reconstruction of the truth.

    Raises:
        UserError: a file that cannot be read or written.
    """
    scorer = make_scorer(config)
    folder = Path(config.output_dir)
    pictured = choose_pictures(dataset.ids, config.pictures, config.seed)
    found = Evaluation()
    gallery: list[tuple[str, list[Panel], NDArray[np.bool_]]] = []
    loader = make_loader(dataset, config.batch_size, config.num_workers)
    bar = tqdm(on_device(loader, device), total=len(loader), desc="evaluating", unit="batch", leave=False, disable=None)
    for batch in bar:
        started = time.perf_counter()
        prediction = predict(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.seconds += time.perf_counter() - started
        found.ids.extend(batch["id"])
        beside = references(batch)
        for name, values in (prediction.maps | beside).items():
            found.rows.setdefault(name, []).extend(scorer.score_batch(batch, values))
        found.references |= set(beside)
        for place, tile in enumerate(batch["id"]):
            maps = {name: _map(values, place) for name, values in prediction.maps.items()}
            on_maps(tile, maps)
            _write_maps(folder / "maps", tile, maps, config.map_format)
            if tile in pictured:
                panels, valid = _panels(batch, place, maps)
                gallery.append((tile, panels, valid))
                _picture(folder, tile, panels, valid)
                steps = [_map(values, place) for values in prediction.steps]
                if steps:
                    _steps_picture(folder, tile, panels, [maps["coarse"], *steps], valid)
    if gallery:
        shown = gallery[:4]
        with _writing(folder / "overview.png"):
            save_overview(
                folder / "overview.png",
                [panels for _, panels, _ in shown],
                [tile for tile, _, _ in shown],
                valids=[valid for _, _, valid in shown],
            )
    return found


def choose_pictures(ids: Sequence[str], count: int, seed: int) -> set[str]:
    """The tiles that get pictures: ``count`` of them, drawn by the seed, so that nobody picks the pretty ones."""
    order = torch.randperm(len(ids), generator=named_generator(seed, "pictures")).tolist()
    return {ids[place] for place in order[:count]}


def _map(values: Tensor, place: int) -> Map:
    return values[place, 0].float().cpu().numpy()


class _writing:
    """Turns a failed write inside it into a ``UserError``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error, "what was written before is whole") from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, RasterError)):
            raise write_error(self.path, error, "what was written before is whole") from error


def _write_maps(folder: Path, tile: str, maps: Mapping[str, Map], suffix: str) -> None:
    """The model's result, as floats and as a 16-bit PNG."""
    values = list(maps.values())[-1]
    stem = folder / f"tile_{tile}"
    with _writing(stem):
        write_map_float(f"{stem}.{suffix}", values)
        write_map_16bit(f"{stem}.png", values)


def _panels(batch: Batch, place: int, maps: Mapping[str, Map]) -> tuple[list[Panel], NDArray[np.bool_]]:
    """Image, truth, predictions and their errors, on the paper protocol's 0..255 scale."""
    valid = batch["valid"][place, 0].cpu().numpy()
    truth = stretch_to_255(batch["target"][place, 0].cpu().numpy(), valid)
    panels = [Panel("image", batch["image"][place].cpu().numpy(), "image"), Panel("truth", truth, "height")]
    stretched = {name: stretch_to_255(values, valid) for name, values in maps.items()}
    panels += [Panel(name, values, "height") for name, values in stretched.items()]
    panels += [Panel(f"error, {name}", values - truth, "error") for name, values in stretched.items()]
    panels += [Panel("truth, relief", truth, "relief")]
    panels += [Panel(f"{name}, relief", values, "relief") for name, values in stretched.items()]
    return panels, valid


def _picture(folder: Path, tile: str, panels: Sequence[Panel], valid: NDArray[np.bool_]) -> None:
    path = folder / "pictures" / f"tile_{tile}.png"
    flat = [panel for panel in panels if panel.kind != "relief"]
    with _writing(path):
        save_comparison(path, panels, f"tile {tile}", valid, columns=len(flat))


def _steps_picture(
    folder: Path, tile: str, panels: Sequence[Panel], steps: Sequence[Map], valid: NDArray[np.bool_]
) -> None:
    path = folder / "steps" / f"tile_{tile}.png"
    shown = [Panel("prior", stretch_to_255(steps[0], valid), "height")]
    shown += [
        Panel(f"step {number}", stretch_to_255(values, valid), "height")
        for number, values in enumerate(steps[1:], start=1)
    ]
    with _writing(path):
        save_comparison(path, [*panels[:2], *shown], f"tile {tile}, step by step", valid, columns=len(shown) + 2)


def write_report(found: Evaluation, config: EvaluationConfig, facts: Mapping[str, Any]) -> str:
    """Write ``tiles.csv``, ``metrics.json`` and ``table.md``; returns the table.

    Args:
        found: the scores.
        config: the evaluation's config, which goes into the JSON.
        facts: what else the JSON should say, as the model's path.

    Raises:
        UserError: a file that cannot be written.
    """
    folder = Path(config.output_dir)
    table = format_report(found, has_lpips="paper.lpips" in next(iter(found.rows.values()))[0])
    # One map needs no prefix in its columns.
    prefix = {name: "" if len(found.rows) == 1 else f"{name}." for name in found.rows}
    rows = [
        {"id": tile}
        | {prefix[name] + key: value for name, scores in found.rows.items() for key, value in scores[place].items()}
        for place, tile in enumerate(found.ids)
    ]
    document = {
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
        "config": config.model_dump(mode="json"),
        **facts,
    }
    names = found.predictions
    if len(names) > 1:
        document["change"] = paired_change(found.rows[names[0]], found.rows[names[-1]])
    with _writing(folder / "metrics.json"):
        write_csv(folder / "tiles.csv", rows)
        write_json(folder / "metrics.json", document)
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    return table


def format_report(found: Evaluation, has_lpips: bool) -> str:
    """Both protocols' tables: a line a map; with two predictions, their paired change and its standard error."""
    lpips = (LPIPS,)
    paper = _table(found, "paper", "paper protocol", PAPER + lpips, () if has_lpips else lpips)
    no_slope = all(np.isnan(row["aligned.slope_error_degrees"]) for row in next(iter(found.rows.values())))
    slope = tuple(metric for metric in ALIGNED if metric.key == "slope_error_degrees") if no_slope else ()
    aligned = _table(found, "aligned", "aligned protocol", ALIGNED, slope)
    return f"{paper}\n\n{aligned}"


def _table(found: Evaluation, protocol: str, title: str, metrics: Sequence[Metric], absent: Sequence[Metric]) -> str:
    """One protocol's table; ``absent`` metrics get a dash."""
    names = found.predictions
    lines: list[list[str]] = []
    counts: set[int] = set()

    def line(label: str, cells: Callable[[Metric, str], str]) -> None:
        keyed = ((metric, f"{protocol}.{metric.key}") for metric in metrics)
        lines.append([label, *("—" if metric in absent else cells(metric, key) for metric, key in keyed)])

    for name in names:
        summary = summarise(found.rows[name])
        counts |= {int(summary[f"{protocol}.mae"]["count"])}
        line(name, lambda metric, key, summary=summary: metric.format(summary[key]["mean"]))  # type: ignore[misc]
    if len(names) > 1:
        change = paired_change(found.rows[names[0]], found.rows[names[-1]])
        line("change", lambda metric, key: _signed(metric, change[key]["mean"]))
        line("± standard error", lambda metric, key: metric.format(change[key]["standard_error"]))
    for name in found.rows:
        if name in found.references:
            summary = summarise(found.rows[name])
            line(name, lambda metric, key, summary=summary: metric.format(summary[key]["mean"]))  # type: ignore[misc]
    scored = "/".join(str(count) for count in sorted(counts))
    headings = [f"{title}, {scored} of {len(found.ids)} tiles", *(_heading(metric) for metric in metrics)]
    return format_table(headings, lines)


def _heading(metric: Metric) -> str:
    return f"{metric.heading} {'↑' if metric.higher_is_better else '↓'}"


def _signed(metric: Metric, value: float) -> str:
    text = metric.format(value)
    return text if text.startswith("-") or np.isnan(value) else f"+{text}"
