"""What VAEs make of true height maps, and what they cost: the ceiling of stage 2 with each of them.

python -m benchmarks.reconstruction --dataset D --vae large=output/A/frozen_vae --vae light=output/B/frozen_vae

Each map of the dataset's test part goes through each VAE and back, and is scored against itself.  The work is counted
on one image of 512 x 512, a multiplication and an addition as two operations.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    decode,
    encode,
    family,
    latent_channels,
    latent_stride,
    load_folder,
)
from Modules.d3rsmde.pipeline import reconstruct_maps
from Systems.d3rsmde.targets import relative_height
from Utils.core.command_line import run_script
from Utils.core.device import pick_device
from Utils.core.errors import UserError, write_error
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.published_layout import TEST_PART, TileFiles
from Utils.data.sample import Batch
from Utils.data.tile_dataset import read_tile
from Utils.data.tile_sources import part_tiles
from Utils.pictures.comparison import Panel, save_comparison
from Utils.reports.evaluation import choose_pictures
from Utils.scoring.aligned import ALIGNED
from Utils.scoring.height_scorer import HeightScorer
from Utils.scoring.paper import PAPER, stretch_to_255
from Utils.scoring.scores import Metric, paired_change, summarise

_COUNTED_SIZE = 512
# What the table shows, by key in a row of scores; the files hold every score.
_SHOWN: dict[str, Metric] = {f"paper.{metric.key}": metric for metric in PAPER if metric.key in ("psnr", "mae", "ssim")}
_SHOWN |= {f"aligned.{metric.key}": metric for metric in ALIGNED if metric.key == "gradient_error"}

Row = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """What a VAE costs.

    Attributes:
        parameters: how many.
        encode: floating-point operations of encoding one image of 512 x 512.
        decode: those of decoding it.
    """

    parameters: int
    encode: int
    decode: int


@dataclass
class Reconstructions:
    """Scores of all tiles.

    Attributes:
        ids: tile ids in order.
        rows: by name of the VAE, a row of scores a tile.
    """

    ids: list[str] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)


def count_cost(vae: Autoencoder) -> Cost:
    """Parameters and operations of a VAE; nothing is computed, as the counting runs on shapes alone."""
    shapes = nn.Module.to(copy.deepcopy(vae), "meta")
    side = _COUNTED_SIZE // latent_stride(vae)
    image = torch.empty(1, 3, _COUNTED_SIZE, _COUNTED_SIZE, device="meta")
    latent = torch.empty(1, latent_channels(vae), side, side, device="meta")

    def operations(work: Callable[[], object]) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    parameters = sum(parameter.numel() for parameter in vae.parameters())
    return Cost(parameters, operations(lambda: encode(shapes, image)), operations(lambda: decode(shapes, latent)))


def load_vaes(named: Sequence[str]) -> dict[str, Autoencoder]:
    """The VAEs of ``NAME=FOLDER`` arguments, by name.

    Raises:
        UserError: another form, a name that is given twice, a folder that holds no VAE.
    """
    vaes: dict[str, Autoencoder] = {}
    for argument in named:
        name, _, folder = argument.partition("=")
        if not (name and folder):
            raise UserError(f"--vae '{argument}': write NAME=FOLDER, for example --vae light=output/Light/frozen_vae")
        if name in vaes:
            raise UserError(f"--vae '{argument}': the name '{name}' is given twice; choose another")
        try:
            vaes[name] = load_folder(Path(folder)).requires_grad_(False).eval()
        except ValueError as error:
            raise UserError(f"--vae '{argument}': {error}; give the frozen_vae of a run") from error
    return vaes


@torch.no_grad()
def reconstruct_tiles(
    vaes: Mapping[str, Autoencoder],
    files: Mapping[str, TileFiles],
    margin: int = 0,
    pictured: Collection[str] = (),
    folder: Path = Path(),
) -> Reconstructions:
    """Score every VAE's reconstruction of every tile that has a valid height.

    Args:
        vaes: by name.
        files: the tiles.
        margin: as a model's: pixels that the VAEs see beyond each border.
        pictured: ids of the tiles that are drawn.
        folder: where to draw them.

    Raises:
        UserError: a tile that cannot be read.
    """
    device, scorer = pick_device(), HeightScorer()
    for vae in vaes.values():
        nn.Module.to(vae, device)
    found = Reconstructions(rows={name: [] for name in vaes})
    for tile in tqdm(files, desc="reconstructing", unit="tile", leave=False, disable=None):
        item = read_tile(tile, files[tile])
        if not item["valid"].any():
            continue
        height = relative_height(item)["height"][None].to(device)
        maps = {name: reconstruct_maps(vae, height, margin)[0, 0].cpu().numpy() for name, vae in vaes.items()}
        target, valid = item["target"][0].numpy(), item["valid"][0].numpy()
        found.ids.append(tile)
        for name, values in maps.items():
            found.rows[name].append(scorer.score(target, values, valid))
        if tile in pictured:
            _draw(folder / f"tile_{tile}.png", item, maps)
    return found


def _draw(path: Path, item: Batch, maps: Mapping[str, NDArray[np.float32]]) -> None:
    """The true map and every reconstruction of it, with errors and relief, on the paper protocol's scale."""
    valid = item["valid"][0].numpy()
    truth = stretch_to_255(item["target"][0].numpy(), valid)
    drawn = {name: stretch_to_255(values, valid) for name, values in maps.items()}
    panels = [Panel("image", item["image"].numpy(), "image"), Panel("truth", truth, "height")]
    panels += [Panel(name, values, "height") for name, values in drawn.items()]
    panels += [Panel(f"error, {name}", values - truth, "error") for name, values in drawn.items()]
    reliefs = [Panel("truth, relief", truth, "relief")]
    reliefs += [Panel(f"{name}, relief", values, "relief") for name, values in drawn.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_comparison(path, panels + reliefs, f"tile {item['id']}", valid, columns=len(panels))


def format_report(vaes: Mapping[str, Autoencoder], costs: Mapping[str, Cost], found: Reconstructions) -> str:
    """The tables: cost, then scores with their standard errors and their paired change against the first VAE."""
    cost_rows = [
        [
            name,
            family(vae),
            f"{costs[name].parameters / 1e6:.2f}",
            f"{costs[name].encode / 1e12:.4f}",
            f"{costs[name].decode / 1e12:.4f}",
        ]
        for name, vae in vaes.items()
    ]
    headings = [f"{metric.heading} {metric.arrow}" for metric in _SHOWN.values()]
    score_rows = [[name, *_cells(summarise(rows))] for name, rows in found.rows.items()]
    first, *others = found.rows
    changes = {name: paired_change(found.rows[first], found.rows[name]) for name in others}
    score_rows += [[f"{name} - {first}", *_cells(change, "+")] for name, change in changes.items()]
    size = f"TFLOP at {_COUNTED_SIZE} x {_COUNTED_SIZE}"
    return "\n\n".join(
        [
            format_table(["VAE", "type", "parameters (M)", f"encode ({size})", f"decode ({size})"], cost_rows),
            format_table([f"true maps reconstructed, {len(found.ids)} tiles", *headings], score_rows),
        ]
    )


def _cells(summary: Mapping[str, Mapping[str, float]], sign: str = "") -> list[str]:
    """Mean and standard error of the shown scores, as cells."""
    return [
        f"{summary[key]['mean']:{sign}.{metric.digits}f} ± {summary[key]['standard_error']:.{metric.digits}f}"
        for key, metric in _SHOWN.items()
    ]


def write_report(folder: Path, table: str, costs: Mapping[str, Cost], found: Reconstructions, facts: Any) -> None:
    """Write ``table.md``, ``tiles.csv`` (a row a tile and VAE) and ``reconstruction.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(f"{table}\n", encoding="utf-8")
    lines = [
        {"id": tile, "vae": name} | row
        for name, rows in found.rows.items()
        for tile, row in zip(found.ids, rows, strict=True)
    ]
    write_csv(folder / "tiles.csv", lines)
    summary = {name: summarise(rows) for name, rows in found.rows.items()}
    document = {**facts, "cost": {name: asdict(cost) for name, cost in costs.items()}, "summary": summary}
    write_json(folder / "reconstruction.json", document)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reconstruction", description="compare VAEs")
    parser.add_argument("--dataset", type=Path, required=True, help="folder in the published layout, or a CSV table")
    parser.add_argument("--root", type=Path, help="where the paths in a table start (its own folder)")
    parser.add_argument("--vae", metavar="NAME=FOLDER", action="append", required=True, help="as often as you like")
    parser.add_argument("--margin", type=int, default=0, help="pixels beyond each border, default %(default)s")
    parser.add_argument("--output", type=Path, help="folder for table, scores and pictures")
    parser.add_argument("--pictures", type=int, default=0, help="tiles to draw, default %(default)s; needs --output")
    given = parser.parse_args(arguments)
    if given.margin < 0 or given.pictures < 0 or (given.pictures and given.output is None):
        parser.error("--margin and --pictures are 0 or more, and --pictures needs --output")

    def work() -> None:
        vaes, files = load_vaes(given.vae), part_tiles(given.dataset, TEST_PART, root=given.root)
        costs = {name: count_cost(vae) for name, vae in vaes.items()}
        pictured = choose_pictures(list(files), given.pictures, seed=0)
        try:
            found = reconstruct_tiles(vaes, files, given.margin, pictured, (given.output or Path()) / "pictures")
            if not found.ids:
                raise UserError(f"no test tile of '{given.dataset}' has a valid height")
            table = format_report(vaes, costs, found)
            print(table)
            if given.output is not None:
                facts = {"dataset": given.dataset, "vaes": given.vae, "margin": given.margin}
                write_report(given.output, table, costs, found, facts)
        except OSError as error:
            raise write_error(given.output, error, "choose another folder with --output") from error

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
