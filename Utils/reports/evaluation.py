"""Score a model over tiles, writing maps and pictures meanwhile; evaluation_report writes the scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Utils.config.evaluation_keys import EvaluationConfig, ScoringConfig
from Utils.core.errors import RasterError, UserError, write_error
from Utils.core.processes import everywhere, gather, gather_in_turn, on_main, progress_bar
from Utils.core.seeds import named_generator
from Utils.data.dataset import SampleDataset
from Utils.data.loaders import make_loader, on_device
from Utils.data.sample import Batch, item
from Utils.pictures.comparison import Panel, save_comparison, save_overview
from Utils.pictures.quantity import HEIGHT, Quantity
from Utils.rasters.tile_files import write_map_16bit, write_map_float
from Utils.reports.controls import control_maker
from Utils.reports.tile_panels import tile_panels
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.paper import stretch_to_255
from Utils.scoring.perceptual import HOW_TO_GET_LPIPS, LpipsScore, find_lpips_weights
from Utils.scoring.scores import Row, Scorer

logger = logging.getLogger(__name__)

Map = NDArray[np.float32]
Panels = tuple[list[Panel], NDArray[np.bool_]]
_OVERVIEW_TILES = 4


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for a batch.

    Attributes:
        maps: the maps to score, (B, 1, H, W) by name, such as ``coarse`` and ``refined``. The last is the model's
            result; one before it is what the result was made from.
        steps: maps of intermediate steps to look at, (B, 1, H, W) by title; empty unless asked for.
    """

    maps: dict[str, Tensor]
    steps: dict[str, Tensor] = field(default_factory=dict)


Predict = Callable[[Batch], Prediction]
# Maps (B, 1, H, W) by name that are scored beside the predictions but are not predictions; making them is not timed.
References = Callable[[Batch], dict[str, Tensor]]


@dataclass
class Evaluation:
    """Scores of all tiles.

    Attributes:
        scorer: the scorer that gave the scores, which also describes them.
        ids: tile ids in order.
        rows: for each map by name, the scorer's row of every tile.
        references: the names in ``rows`` that are not predictions.
        seconds: time that prediction took, batch by batch, without reading and scoring; of all processes together.
        quantity: what the maps show.
    """

    scorer: Scorer
    ids: list[str] = field(default_factory=list)
    rows: dict[str, list[Row | None]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    seconds: float = 0.0
    quantity: Quantity = HEIGHT

    @property
    def predictions(self) -> list[str]:
        """Names of the scored predictions, the model's result last."""
        return [name for name in self.rows if name not in self.references]

    def tile_scores(self, name: str) -> list[dict[str, float]]:
        """The scores of every tile for the map with this name."""
        return [self.scorer.tile_scores(row) for row in self.rows[name]]


def make_height_scorer(config: EvaluationConfig, metres: bool = False) -> HeightScorer:
    """The scorer of heights that an evaluation config asks for; without LPIPS, one line says how to get it.

    ``metres`` says whether predictions are in metres; see ``HeightScorer``.
    """
    try:
        weights = find_lpips_weights(Path(config.lpips_weights) if config.lpips_weights else None)
        lpips = None if weights is None else LpipsScore(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"lpips_weights: {error}") from error
    if lpips is None:
        logger.info(HOW_TO_GET_LPIPS)
    return HeightScorer(config.ground_sample_distance, config.metres_per_unit, lpips, metres)


@torch.no_grad()
def evaluate(
    predict: Predict,
    dataset: SampleDataset,
    config: ScoringConfig,
    device: torch.device,
    scorer: Scorer,
    on_maps: Callable[[str, Mapping[str, Map]], None] = lambda tile, maps: None,
    references: References = lambda batch: {},
    within_one: bool = True,
    quantity: Quantity = HEIGHT,
    holes: bool = False,
) -> Evaluation:
    """Predict and score every tile, writing maps and pictures into ``config.output_dir`` on the way.

    The processes of a launch share the tiles; each gets the scores of all of them.

    Args:
        predict: the model, a function from a batch to its prediction.
        dataset: the tiles.
        config: where to write, and how many pictures.
        device: where the model is.
        scorer: scores the predictions.
        on_maps: called with each tile's id and its predicted maps (H, W).
        references: further maps to score, such as the autoencoder's reconstruction of the truth.
        within_one: whether maps lie in [0, 1], so that a 16-bit picture can hold them beside the floats.
        quantity: what the maps show.
        holes: whether maps may be NaN where nothing was predicted.

    Raises:
        UserError: a file that cannot be read or written.
    """
    folder = Path(config.output_dir)
    controls = control_maker(config, dataset, scorer)
    pictured = choose_pictures(dataset.ids, config.pictures, config.seed)
    shown_in_overview = _spread([tile for tile in dataset.ids if tile in pictured])
    gallery: dict[str, Panels] = {}

    def score() -> list[_Part]:
        parts = []
        loader = make_loader(dataset, config.batch_size, config.num_workers, shared=True)
        for batch in progress_bar(on_device(loader, device), total=len(loader), desc="evaluating", unit="batch"):
            started = time.perf_counter()
            prediction = predict(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - started
            beside = references(batch) | controls(batch)
            maps_by_name = prediction.maps | beside
            rows = {name: scorer.score_batch(batch, values) for name, values in maps_by_name.items()}
            parts.append(_Part(list(batch["id"]), rows, set(beside), seconds))
            for place, tile in enumerate(batch["id"]):
                maps = {name: _map(values, place) for name, values in prediction.maps.items()}
                on_maps(tile, maps)
                _write_maps(folder, tile, maps, config.map_format, within_one, holes)
                if tile in pictured:
                    panels, valid = tile_panels(item(batch, place), maps, quantity)
                    if tile in shown_in_overview:
                        gallery[tile] = panels, valid
                    _picture(folder, tile, panels, valid, quantity)
                    steps = {title: _map(values, place) for title, values in prediction.steps.items()}
                    if steps:
                        _steps_picture(folder, tile, panels, steps, valid)
        return parts

    found = _joined(Evaluation(scorer, quantity=quantity), gather_in_turn(everywhere(score)))
    panels_by_tile = {tile: shown for share in gather([gallery]) for tile, shown in share.items()}
    if panels_by_tile:
        on_main(lambda: _overview(folder, {tile: panels_by_tile[tile] for tile in shown_in_overview}, quantity))
    return found


@dataclass(frozen=True)
class _Part:
    """The results of one batch; ``Evaluation`` describes them."""

    ids: list[str]
    rows: dict[str, list[Row | None]]
    references: set[str]
    seconds: float


def _joined(whole: Evaluation, parts: Sequence[_Part]) -> Evaluation:
    """An evaluation with the scores of batches added, one after another."""
    for part in parts:
        whole.ids += part.ids
        for name, rows in part.rows.items():
            whole.rows.setdefault(name, []).extend(rows)
        whole.references |= part.references
        whole.seconds += part.seconds
    return whole


def _overview(folder: Path, shown: Mapping[str, Panels], quantity: Quantity) -> None:
    path = folder / "overview.png"
    with writing(path):
        items = list(shown.values())
        rows, valids = [panels for panels, _ in items], [valid for _, valid in items]
        save_overview(path, rows, list(shown), valids=valids, quantity=quantity)


def choose_pictures(ids: Sequence[str], count: int, seed: int) -> set[str]:
    """The tiles that get pictures: ``count`` of them, drawn by the seed and so not chosen by their looks."""
    order = torch.randperm(len(ids), generator=named_generator(seed, "pictures")).tolist()
    return {ids[place] for place in order[:count]}


def _spread(tiles: Sequence[str]) -> list[str]:
    """The tiles of the overview, spread over all: neighbours are often of one place or kind."""
    count = min(_OVERVIEW_TILES, len(tiles))
    return [tiles[place * len(tiles) // count] for place in range(count)]


def _map(values: Tensor, place: int) -> Map:
    return values[place, 0].float().cpu().numpy()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written inside; a write that fails becomes a ``UserError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RasterError) as error:
        raise write_error(path, error, "what was written before is whole") from error


def map_file(folder: Path, tile: str, suffix: str) -> Path:
    """Where ``evaluate``, writing into ``folder``, puts a tile's map as floats."""
    return folder / "maps" / f"tile_{tile}.{suffix}"


def _write_maps(folder: Path, tile: str, maps: Mapping[str, Map], suffix: str, within_one: bool, holes: bool) -> None:
    """The model's result, as floats and, where it lies in [0, 1], as a 16-bit PNG."""
    values = list(maps.values())[-1]
    path = map_file(folder, tile, suffix)
    with writing(path):
        write_map_float(path, values, holes)
        if within_one:
            write_map_16bit(path.with_suffix(".png"), values)


def _picture(folder: Path, tile: str, panels: Sequence[Panel], valid: NDArray[np.bool_], quantity: Quantity) -> None:
    path = folder / "pictures" / f"tile_{tile}.png"
    flat = [panel for panel in panels if panel.kind != "relief"]
    with writing(path):
        save_comparison(path, panels, f"tile {tile}", valid, columns=len(flat), quantity=quantity)


def _steps_picture(
    folder: Path, tile: str, panels: Sequence[Panel], steps: Mapping[str, Map], valid: NDArray[np.bool_]
) -> None:
    path = folder / "steps" / f"tile_{tile}.png"
    shown = [Panel(title, stretch_to_255(values, valid), "height") for title, values in steps.items()]
    with writing(path):
        save_comparison(path, [*panels[:2], *shown], f"tile {tile}, step by step", valid, columns=len(shown) + 2)
