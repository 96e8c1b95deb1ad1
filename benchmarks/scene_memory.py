"""Memory and time of a whole scene with a model that costs next to nothing: what is left is the machinery.

The scene is made, then predicted three times, each time in a process of its own: relative heights, metres by a
reference, and classes of land cover with a preview and a page.

python -m benchmarks.scene_memory                                # 20,000 x 20,000 pixels
python -m benchmarks.scene_memory --size 8192 --cases classes    # one of them, on fewer pixels
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import logging
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rasterio.windows import Window

from benchmarks.machine import describe_machine, folder_name, summarise_machine
from benchmarks.measuring import Memory
from Utils.core.device import keep_freed_memory
from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes, replacing
from Utils.core.tables import format_table, write_json

logger = logging.getLogger("benchmarks")

LIMIT_BYTES = 3_000_000_000
"""The bar for 20,000 x 20,000 pixels, besides the model's own memory."""

RELATIVE, METRES, CLASSES = CASES = ("relative", "metres by a reference", "classes")
"""What is predicted."""

_RESULTS = Path(__file__).resolve().parent / "results"
_BLOCK = _TILE = 512
_SEED = 0
_CRS, _WEST, _NORTH, _METRES = "EPSG:32643", 452_400.0, 3_789_600.0, 10.0
# Seconds between two looks at the process, and the most points that are kept of what was seen.
_INTERVAL = 0.1
_CURVE_POINTS = 600
_COLOURS = ("#1b6ca8", "#c7772e", "#3f7d4e")
# The scene's three bytes; overlapping tiles, of one map of floats or of seven in half precision; the raster, as it
# grows and as it is finished.
_DISK_BYTES_A_PIXEL = 40
# Pixels of the scene to a cell of the reference, a side.
_FACTOR = 8


@dataclass(frozen=True)
class Measurement:
    """What one process took.

    Attributes:
        own_bytes: resident when Python, its libraries and the model were there and nothing was done yet.
        peak_bytes: most that was resident from then on, by the system's count, beyond ``own_bytes``.
        seconds: of the work.
        curve: seconds since the work began (negative before) and resident bytes, children's included, to the end of
            the work; the most of each of several hundred spans.
    """

    own_bytes: int
    peak_bytes: int
    seconds: float
    curve: list[tuple[float, int]]


# --- what is measured


def _import_model() -> None:
    """Load what a process holds before it has seen a scene: torch and the networks."""
    importlib.import_module("Modules.d3rsmde.pipeline")


def _predict(scene: Path, output: Path, reference: Path | None) -> None:
    """Make a height map of a scene as predict.py does, with its defaults."""
    # Imported here: what the machinery brings along is its own, not the model's.
    from Utils.scenes.options import SceneOptions
    from Utils.scenes.scene_run import predict_scene

    predict_scene(scene, output, _brightness, SceneOptions(reference=reference), {"name": "mean colour"})


def _brightness(images: torch.Tensor) -> torch.Tensor:
    """The trivial model: of images (B, 3, H, W) the mean colour (B, H, W)."""
    return images.mean(dim=1)


def _predict_classes(scene: Path, output: Path) -> None:
    """Make a class raster of a scene as predict.py does, with LoveDA's classes, a preview and a page."""
    from Utils.data.land_cover.class_table import LOVEDA
    from Utils.scenes.classes.class_model import ClassModel
    from Utils.scenes.classes.class_options import ClassOptions
    from Utils.scenes.classes.class_run import predict_class_scene

    model = ClassModel(_by_brightness, LOVEDA, False, _TILE, None, {"name": "brightness"})
    predict_class_scene(scene, output, model, ClassOptions(tile_size=_TILE, preview=True, report=True))


def _by_brightness(images: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
    """The trivial model: class probabilities (B, 7, H, W) of images (B, 3, H, W), by the nearest of seven greys."""
    greys = torch.linspace(0.2, 0.8, 7).view(1, 7, 1, 1)
    return (-200.0 * (images.mean(dim=1, keepdim=True) - greys).square()).softmax(dim=1)


# --- the scene


def write_scene(path: Path, size: int) -> None:
    """Write a GeoTIFF of ``size`` x ``size`` pixels, 8-bit RGB: hills of several wavelengths and noise.

    Block by block: the memory that it takes does not depend on the size.
    """
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": size, "width": size, "photometric": "rgb"}
    layout = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "interleave": "pixel", "bigtiff": "if_safer"}
    packing = {"compress": "deflate", "predictor": 2, "zlevel": 1, "num_threads": "all_cpus"}
    grid = from_origin(_WEST, _NORTH, _METRES, _METRES)
    noise = np.random.default_rng(_SEED).normal(0.0, 6.0, (3, _BLOCK, _BLOCK)).astype(np.float32)
    # Level 1: what the reader unpacks is the same, and writing takes a third of the time.
    with (
        # As it comes, GDAL's cache of blocks grows with the machine's memory.
        rasterio.Env(GDAL_CACHEMAX=64),
        rasterio.open(path, "w", **profile, **layout, **packing, crs=_CRS, transform=grid) as target,
    ):
        for number, window in enumerate(_windows(size)):
            target.write(_draw(window, np.roll(noise, 37 * number, axis=2)), window=window)


def _windows(size: int) -> Iterator[Window]:
    for row in range(0, size, _BLOCK):
        for column in range(0, size, _BLOCK):
            yield Window(column, row, min(_BLOCK, size - column), min(_BLOCK, size - row))


def _draw(window: Window, noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The pixels (3, H, W) of a window; they depend on where it lies in the scene."""
    rows = np.arange(window.row_off, window.row_off + window.height, dtype=np.float32)
    columns = np.arange(window.col_off, window.col_off + window.width, dtype=np.float32)
    bands = 120 + np.array([1.0, 0.8, 0.6], np.float32)[:, None, None] * _hills(rows, columns)
    bands += noise[:, : window.height, : window.width]
    return np.clip(np.rint(bands), 0, 255).astype(np.uint8)


def _hills(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """What image and reference have in common (H, W), -57 .. 57, at (H,) rows and (W,) columns of the scene."""
    rows, columns = rows[:, None], columns[None, :]
    hills = 30 * np.sin(rows / 400 + 0.5) * np.cos(columns / 310) + 18 * np.sin(columns / 57) * np.cos(rows / 71)
    return hills + 9 * np.sin((rows + 2 * columns) / 23)


def write_reference(path: Path, size: int) -> None:
    """Write a DEM of the scene's place, eight times as coarse, in metres; a strip of rows at a time."""
    cells = -(-size // _FACTOR)
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": cells, "width": cells, "nodata": -32768}
    grid = from_origin(_WEST, _NORTH, _FACTOR * _METRES, _FACTOR * _METRES)
    middles = (np.arange(cells, dtype=np.float32) + 0.5) * _FACTOR - 0.5
    with rasterio.open(path, "w", **profile, crs=_CRS, transform=grid) as target:
        for row in range(0, cells, _BLOCK):
            strip = 1500 + 10 * _hills(middles[row : row + _BLOCK], middles)
            target.write(strip[None], window=Window(0, row, cells, len(strip)))


# --- the measurement


def measure(prepare: Callable[[], object], work: Callable[[], object]) -> Measurement:
    """Run ``work`` in a new process and watch its memory.

    Args:
        prepare: called there first; what is resident after it is the process's own.
        work: what is measured. Both must be importable by name, or a `functools.partial` of what is.

    Raises:
        RuntimeError: the process failed; the message is the last line that it said.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(prepare, work, sender))
    process.start()
    sender.close()  # the child holds the only other end: when it dies, the receiver sees the end of the file
    try:
        with _Watch(process.pid or 0) as watch:
            try:
                said = receiver.recv()
            except EOFError:
                said = None
            process.join()
    finally:  # an interrupted run leaves no process behind
        process.kill()
        process.join()
    if said is None:
        raise RuntimeError(f"the process ended with status {process.exitcode} and without a word")
    if "failure" in said:
        raise RuntimeError(f"the process failed: {said['failure']}")
    began = said.pop("began")
    # After the work the process takes itself apart, which is not measured.
    curve = [(at - began, held) for at, held in watch.samples if at <= began + said["seconds"]]
    return Measurement(**said, curve=_thinned(curve))


def _child(prepare: Callable[[], object], work: Callable[[], object], sender: Any) -> None:
    """Do the work, and send what it took."""
    try:
        keep_freed_memory()  # as the scripts do
        prepare()
        memory = Memory(torch.device("cpu"))
        own = psutil.Process().memory_info().rss
        memory.restart()
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        # The clock is the system's, the same for all processes.
        sender.send({"own_bytes": own, "seconds": seconds, "began": began, **memory.peak()})
    except BaseException as error:
        traceback.print_exc()
        sender.send({"failure": traceback.format_exception_only(error)[-1].strip()})
        sys.exit(1)


class _Watch:
    """A thread that notes what a process and its children hold in memory, as long as the process lives.

    Attributes:
        samples: moments by the system's clock, and resident bytes.
    """

    def __init__(self, pid: int) -> None:
        self.samples: list[tuple[float, int]] = []
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(_INTERVAL):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                held = sum(member.memory_info().rss for member in family)
            except psutil.Error:
                continue  # one of them has just ended
            if held:  # a process that has ended and was not yet waited for holds nothing
                self.samples.append((time.monotonic(), held))


def _thinned(samples: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most ``_CURVE_POINTS`` samples: of each span the one that held most."""
    span = -(-len(samples) // _CURVE_POINTS) or 1
    groups = (samples[start : start + span] for start in range(0, len(samples), span))
    return [(round(at, 2), held) for at, held in (max(group, key=lambda one: one[1]) for group in groups)]


# --- the results


def _report(found: Mapping[str, Measurement], size: int, machine: dict[str, Any], date: str, folder: Path) -> str:
    """Write JSON, Markdown and the picture into ``folder``; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"scene_memory_{size}"
    about = {"date": date, "machine": machine, "size": size, "limit_bytes": LIMIT_BYTES}
    write_json(folder / f"{name}.json", about | {"cases": {case: asdict(one) for case, one in found.items()}})
    headings = ["map", "besides the model's own (GB)", "torch and networks (GB)", "s", "Mpixel/s"]
    rows = [
        [
            case,
            f"{one.peak_bytes / 1e9:.2f}",
            f"{one.own_bytes / 1e9:.2f}",
            f"{one.seconds:.1f}",
            f"{size**2 / 1e6 / one.seconds:.2f}",
        ]
        for case, one in found.items()
    ]
    heading = f"{size:,} x {size:,} pixels, 8-bit RGB, {date}, {summarise_machine(machine)}"
    table = f"{heading}\n\n{format_table(headings, rows)}"
    atomic_write_bytes(folder / f"{name}.md", f"{table}\n\n![Memory over the run]({name}.png)\n".encode())
    _save_curves(found, size, folder / f"{name}.png")
    return table


def _save_curves(found: Mapping[str, Measurement], size: int, path: Path) -> None:
    """Draw memory beyond the process's own over time, with the limit."""
    # Imported here: the process that is measured imports this module, and would hold it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (case, one), colour in zip(found.items(), _COLOURS, strict=False):
        points = [(at, (held - one.own_bytes) / 1e9) for at, held in one.curve if at >= 0]
        peak = one.peak_bytes / 1e9
        axes.plot(*zip(*points, strict=True) if points else ([], []), color=colour, label=f"{case}: peak {peak:.2f} GB")
        axes.axhline(peak, color=colour, linewidth=0.8, linestyle="--")
    axes.axhline(LIMIT_BYTES / 1e9, color="black", linewidth=0.8, label=f"limit: {LIMIT_BYTES / 1e9:g} GB")
    axes.set_xlim(left=0.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(f"seconds since the work on {size:,} x {size:,} pixels began")
    axes.set_ylabel("GB besides torch and the networks")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


# --- the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 for a mistake in its arguments."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    parser = argparse.ArgumentParser(
        "python -m benchmarks.scene_memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=20_000, help="pixels of the scene's side, default %(default)s")
    parser.add_argument("--output", type=Path, help="folder for results (benchmarks/results/<date>-<machine>)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="what is predicted (all)")
    scratch = "folder for the scene and its maps, some 40 bytes a pixel, which are deleted (the system's)"
    parser.add_argument("--scratch", type=Path, help=scratch)
    options = parser.parse_args(arguments)
    try:
        print(run(options.size, options.output, options.scratch, options.cases))
    except (UserError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(size: int, output: Path | None = None, scratch: Path | None = None, cases: Sequence[str] = ()) -> str:
    """Make a scene, predict it in processes of their own, write what that took; returns a table.

    Args:
        size: pixels of the scene's side.
        output: folder for the results; None for one below ``benchmarks/results``.
        scratch: folder for the scene and its maps; None for the system's.
        cases: of ``CASES``; none for all.

    Raises:
        UserError: no such size, or no room for the scene.
        RuntimeError: the prediction failed.
        OSError: a file cannot be written.
    """
    if size < 1:
        raise UserError(f"--size {size}: give a number of pixels above 0")
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        needed, free = _DISK_BYTES_A_PIXEL * size**2, shutil.disk_usage(name).free
        if free < needed:
            wanted = f"--size {size} takes {needed / 1e9:.1f} GB of disk, and '{name}' has {free / 1e9:.1f}"
            raise UserError(f"{wanted}; name another folder with --scratch")
        scene, reference, drawn = (Path(name) / f"{part}.tif" for part in ("scene", "reference", "drawn"))
        started = time.monotonic()
        write_scene(scene, size)
        write_reference(reference, size)
        logger.info("made the scene (%.0f s)", time.monotonic() - started)
        found = {}
        works: Mapping[str, Callable[[], object]] = {
            RELATIVE: functools.partial(_predict, scene, drawn, None),
            METRES: functools.partial(_predict, scene, drawn, reference),
            CLASSES: functools.partial(_predict_classes, scene, drawn),
        }
        for case in cases or CASES:
            found[case] = measure(_import_model, works[case])
            logger.info("%s: %.0f s", case, found[case].seconds)
            _check(drawn, size, "uint8" if case == CLASSES else "float32")
            drawn.unlink()
    machine, date = describe_machine("cpu"), datetime.date.today().isoformat()
    folder = output or _RESULTS / folder_name(date, machine)
    table = _report(found, size, machine, date, folder)
    logger.info("written to %s", folder)
    return table


def _check(drawn: Path, size: int, dtype: str) -> None:
    """Make sure that there is a map of the whole scene: the memory for half the work would be a wrong number."""
    with rasterio.open(drawn) as source:
        if source.shape != (size, size) or source.dtypes[0] != dtype:
            raise RuntimeError(f"the prediction's map has {source.shape} pixels of {source.dtypes[0]}")
        corner = source.read(1, window=Window(max(0, size - 8), max(0, size - 8), min(8, size), min(8, size)))
        if not np.isfinite(corner).all() or source.nodata in corner:
            raise RuntimeError("the prediction's map is not filled to its last corner")


if __name__ == "__main__":
    sys.exit(main())
