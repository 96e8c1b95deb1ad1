"""What each switch of inference gains and what it changes: seconds an image, and the largest difference of the maps.

python -m benchmarks.switches --model output/Demo/diffusion --dataset Dataset/BASE_DATA_DIR/Demo
python -m benchmarks.switches --published AutoencoderTiny --size 512     # seconds only: random weights exaggerate
python -m benchmarks.switches --model output/Depth/run --dataset FOLDER  # a depth network
python -m benchmarks.switches --published EncDecIRv2 --size 240x320

Differences are in steps of an 8-bit map, 1/255 of its range, from the model as it is loaded. The range of a depth
network's map is what it could draw.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from benchmarks.machine import describe_machine, summarise_machine
from benchmarks.measuring import WHOLE, summarise, time_runs
from benchmarks.models.ours import VAE_CLASSES, build_model
from benchmarks.models.sizes import PUBLISHED
from benchmarks.models.subject import sides
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth.enc_dec import EncDec, EncDecIRv2
from Modules.depth.names import DEPTH_TASK, PUBLISHED_NETWORK
from Systems.d3rsmde.build import load_model
from Systems.depth.build import load_depth
from Utils.core.device import keep_freed_memory, pick_device
from Utils.core.tables import format_table
from Utils.data.published_layout import TEST_PART
from Utils.data.tile_dataset import read_tile
from Utils.data.tile_sources import part_tiles
from Utils.training.checkpointed_network import holds_network

Model: TypeAlias = D3RSMDE | EncDec
Change = Callable[[Model], Model]
_STEPS_OF_8_BITS = 255.0

SWITCHES: dict[str, Change] = {
    "as it is loaded (fp32)": lambda model: model,
    "fp32, channels_last": lambda model: model.optimise("fp32"),
    "bf16": lambda model: model.optimise("bf16", channels_last=False),
    "bf16, channels_last": lambda model: model.optimise("bf16"),
    "fp16, channels_last": lambda model: model.optimise("fp16"),
    "fp32, channels_last, compile": lambda model: model.optimise("fp32", compile=True),
    "bf16, channels_last, compile": lambda model: model.optimise("bf16", compile=True),
}
_COMPILED = ", compile"


@dataclass(frozen=True)
class Outcome:
    """One switch.

    Attributes:
        seconds: of each timed run on one image.
        differences: of each kind of map by name, |difference| in 8-bit steps; none for random weights.
    """

    seconds: list[float]
    differences: Mapping[str, Tensor]


@torch.no_grad()
def compare(
    load: Callable[[], Model], images: Tensor, names: Sequence[str], repeats: int, trained: bool
) -> dict[str, Outcome]:
    """Measure the switches, taking turns, so that a machine that slows down slows all of them.

    Args:
        load: gives the model anew, on its device.
        images: (B, 3, H, W) in [0, 1], on that device; the first one is timed.
        names: of the switches, the first of them the reference.
        repeats: timed runs of each.
        trained: whether differences mean something.
    """
    models = {name: SWITCHES[name](load()) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name, model in models.items():
            (run,) = time_runs(lambda model=model: model(images[:1]), {}, images.device, 1)  # type: ignore[misc]
            seconds[name] += run[WHOLE] if turn else []  # the first warms up
    if not trained:
        return {name: Outcome(seconds[name], {}) for name in names}
    drawn = {name: _maps(model, images) for name, model in models.items()}
    reference = drawn[names[0]]
    return {
        name: Outcome(seconds[name], {kind: (own[kind] - reference[kind]).abs() * _STEPS_OF_8_BITS for kind in own})
        for name, own in drawn.items()
    }


def _maps(model: Model, images: Tensor) -> dict[str, Tensor]:
    """What a model draws, by kind, each in [0, 1]."""
    if isinstance(model, EncDec):
        return {"map": model(images) / (model.config["max_depth"] or 1.0)}
    return {"stage 1": model.predict_coarse(images), "both stages": model(images)}


def format_outcomes(outcomes: dict[str, Outcome]) -> str:
    """The table, a line a switch."""
    first = next(iter(outcomes.values()))
    reference = summarise(first.seconds)["median"]
    rows = []
    for name, outcome in outcomes.items():
        time = summarise(outcome.seconds)
        spread = f"{time['low']:.3f}-{time['high']:.3f}"
        row = [name, f"{time['median']:.3f} ({spread})", f"{reference / time['median']:.2f}"]
        row += [f"{float(maps.max()):.2f} ({float(maps.mean()):.3f})" for maps in outcome.differences.values()]
        rows.append(row)
    headings = ["switch", "s/image (quartiles)", "times faster"]
    headings += [f"{kind}: largest (mean) difference" for kind in first.differences]
    return format_table(headings, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.switches", description=__doc__, formatter_class=text)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="a trained model, or its run")
    random = "the published sizes with this VAE, or the published depth network; random weights"
    what.add_argument("--published", choices=[*sorted(VAE_CLASSES), PUBLISHED_NETWORK], help=random)
    parser.add_argument("--dataset", type=Path, help="its test tiles are drawn (with --model); a folder or a CSV")
    parser.add_argument("--root", type=Path, help="where the paths in a table start (its own folder)")
    parser.add_argument("--tiles", type=int, default=24)
    sizes = "pixels of a side, or height and width as in 240x320 (with --published)"
    parser.add_argument("--size", type=_size, default=(512, 512), help=sizes)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well, which takes minutes")
    given = parser.parse_args(arguments)
    if given.model and not given.dataset:
        parser.error("--model needs --dataset")
    keep_freed_memory()
    device = pick_device()
    names = [name for name in SWITCHES if given.compile or not name.endswith(_COMPILED)]
    if given.model:
        files = part_tiles(given.dataset, TEST_PART, root=given.root)
        images = torch.stack([read_tile(tile, files[tile])["image"] for tile in list(files)[: given.tiles]]).to(device)

        def load() -> Model:
            is_depth = holds_network(given.model, EncDec, DEPTH_TASK)
            return (load_depth if is_depth else load_model)(given.model).to(device)
    else:
        images = torch.rand(1, 3, *given.size, generator=torch.Generator().manual_seed(0)).to(device)

        def load() -> Model:
            torch.manual_seed(0)
            if given.published == PUBLISHED_NETWORK:
                return EncDecIRv2().eval().to(device)
            return build_model(given.published, PUBLISHED, PUBLISHED.coarse).to(device)

    outcomes = compare(load, images, names, given.repeats, trained=given.model is not None)
    print(f"{summarise_machine(describe_machine(device.type))}; {tuple(images.shape)}\n")
    print(format_outcomes(outcomes))
    return 0


def _size(text: str) -> tuple[int, int]:
    """Height and width of ``512`` or ``240x320``."""
    numbers = [int(part) for part in text.split("x")]
    if not 1 <= len(numbers) <= 2 or min(numbers) < 1:
        raise ValueError(text)
    return sides(numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


if __name__ == "__main__":
    sys.exit(main())
