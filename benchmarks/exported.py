"""How fast an exported model is: onnxruntime beside torch, in turn, on the same images and as many threads.

python -m benchmarks.exported --model output/Demo/diffusion/model --onnx height.onnx --size 1x128x128 --size 4x128x128

torch runs as ``predict.py`` does (``optimise``: channels last, fp32), and with --compile also compiled.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import describe_machine, summarise_machine
from Systems.export.comparison import open_session
from Systems.models import load_predictor
from Utils.core.errors import UserError
from Utils.core.tables import format_table, write_json

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Timing:
    """Runs of one way at one size.

    Attributes:
        way: torch, torch compiled or onnxruntime.
        size: images, height and width.
        wall: seconds of each run.
        processor: seconds that the processor worked in each run, which other work on the machine changes less.
    """

    way: str
    size: Size
    wall: list[float]
    processor: list[float]


def compare_speed(model: str, file: Path, sizes: Sequence[Size], repeats: int, compiled: bool = False) -> list[Timing]:
    """Run every way once to warm up, then all in turn, ``repeats`` times.

    Raises:
        UserError: a model or file that cannot be opened, or a size that it does not take.
    """
    device = torch.device("cpu")
    session = open_session(file)
    name = session.get_inputs()[0].name
    predictors = {"torch": load_predictor(model, device)}
    if compiled:
        predictors["torch compiled"] = load_predictor(model, device, compile=True)
    timings = []
    for size in sizes:
        count, height, width = size
        images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
        ways: dict[str, Callable[[], object]] = {
            way: lambda predictor=predictor, images=images: predictor(images) for way, predictor in predictors.items()
        }
        ways["onnxruntime"] = lambda images=images: session.run(None, {name: images.numpy()})
        found = {way: Timing(way, size, [], []) for way in ways}
        for number in range(repeats + 1):
            for way, run in ways.items():
                wall, processor = time.perf_counter(), time.process_time()
                with torch.no_grad():
                    run()
                if number:  # the first warms up
                    found[way].wall.append(time.perf_counter() - wall)
                    found[way].processor.append(time.process_time() - processor)
        timings += found.values()
    return timings


def table(timings: Sequence[Timing]) -> str:
    """Milliseconds an image: medians, and the span of the runs."""
    rows = []
    for each in timings:
        wall, work = ([1e3 * seconds / each.size[0] for seconds in times] for times in (each.wall, each.processor))
        rows.append(
            [
                " x ".join(map(str, each.size)),
                each.way,
                f"{statistics.median(wall):.1f}",
                f"{min(wall):.1f} to {max(wall):.1f}",
                f"{statistics.median(work):.1f}",
            ]
        )
    return format_table(["images", "way", "ms an image", "all runs", "ms of processor"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.exported", description=__doc__, formatter_class=text)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", required=True, type=Path, help="what python -m Systems.export made of it")
    parser.add_argument("--size", action="append", type=_size, metavar="BxHxW", help="may be given several times")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON with all runs")
    given = parser.parse_args(arguments)
    try:
        timings = compare_speed(given.model, given.onnx, given.size or [(1, 128, 128)], given.repeats, given.compile)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    machine = describe_machine("cpu")
    print(f"{summarise_machine(machine)}\n\n{table(timings)}")
    if given.output:
        write_json(given.output, {"machine": machine, "runs": [vars(each) for each in timings]})
    return 0


def _size(text: str) -> Size:
    try:
        count, height, width = map(int, text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not BxHxW, such as 1x128x128") from error
    return count, height, width


if __name__ == "__main__":
    raise SystemExit(main())
