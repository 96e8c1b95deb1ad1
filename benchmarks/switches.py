"""What each switch of inference gains and what it changes: seconds an image, and the largest difference of the maps.

python -m benchmarks.switches --model output/Demo/diffusion --dataset Dataset/BASE_DATA_DIR/Demo
python -m benchmarks.switches --published AutoencoderTiny --size 512     # seconds only: random weights exaggerate

Differences are in steps of an 8-bit map, 1/255 of its range, from the model as it is loaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import describe_machine, summarise_machine
from benchmarks.measuring import WHOLE, summarise, time_runs
from benchmarks.models.ours import VAE_CLASSES, build_model
from benchmarks.models.sizes import PUBLISHED
from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.build import load_model
from Utils.core.device import keep_freed_memory, pick_device
from Utils.core.tables import format_table
from Utils.data.published_layout import TEST_PART
from Utils.data.tile_dataset import read_tile
from Utils.data.tile_sources import part_tiles

Change = Callable[[D3RSMDE], D3RSMDE]
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
        coarse: |difference| of stage 1's maps, in 8-bit steps; None for random weights.
        refined: likewise of both stages' maps.
    """

    seconds: list[float]
    coarse: Tensor | None
    refined: Tensor | None


@torch.no_grad()
def compare(
    load: Callable[[], D3RSMDE], images: Tensor, names: Sequence[str], repeats: int, trained: bool
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
        return {name: Outcome(seconds[name], None, None) for name in names}
    drawn = {name: (model.predict_coarse(images), model(images)) for name, model in models.items()}
    coarse, refined = drawn[names[0]]
    return {
        name: Outcome(
            seconds[name],
            (own_coarse - coarse).abs() * _STEPS_OF_8_BITS,
            (own_refined - refined).abs() * _STEPS_OF_8_BITS,
        )
        for name, (own_coarse, own_refined) in drawn.items()
    }


def format_outcomes(outcomes: dict[str, Outcome]) -> str:
    """The table, a line a switch."""
    reference = summarise(next(iter(outcomes.values())).seconds)["median"]
    rows = []
    for name, outcome in outcomes.items():
        time = summarise(outcome.seconds)
        spread = f"{time['low']:.3f}-{time['high']:.3f}"
        row = [name, f"{time['median']:.3f} ({spread})", f"{reference / time['median']:.2f}"]
        for maps in (outcome.coarse, outcome.refined):
            row.append("—" if maps is None else f"{float(maps.max()):.2f} ({float(maps.mean()):.3f})")
        rows.append(row)
    headings = ["switch", "s/image (quartiles)", "times faster", "stage 1: largest (mean) difference", "both stages"]
    return format_table(headings, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.switches", description=__doc__, formatter_class=text)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="a trained model, or its run")
    random = "the published sizes with this VAE, random weights"
    what.add_argument("--published", choices=sorted(VAE_CLASSES), help=random)
    parser.add_argument("--dataset", type=Path, help="its test tiles are drawn (with --model); a folder or a CSV")
    parser.add_argument("--root", type=Path, help="where the paths in a table start (its own folder)")
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--size", type=int, default=512, help="pixels of a side (with --published)")
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

        def load() -> D3RSMDE:
            return load_model(given.model).to(device)
    else:
        images = torch.rand(1, 3, given.size, given.size, generator=torch.Generator().manual_seed(0)).to(device)

        def load() -> D3RSMDE:
            torch.manual_seed(0)
            return build_model(given.published, PUBLISHED, PUBLISHED.coarse).to(device)

    outcomes = compare(load, images, names, given.repeats, trained=given.model is not None)
    print(f"{summarise_machine(describe_machine(device.type))}; {tuple(images.shape)}\n")
    print(format_outcomes(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
