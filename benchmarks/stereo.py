"""Seconds, memory and operations of the stereo networks, and of our cost volume beside the direct one.

python -m benchmarks.stereo --output FOLDER [--divide 2]

Each case runs once in a process of its own with one thread, after a small warm-up. Time is processor time, so that
other work on the machine does not count; on a GPU it is not meaningful. Memory is the peak above what was held before,
weights included. Finished cases in FOLDER are not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.measuring import Memory, count
from benchmarks.own_process import in_own_process, measure_all
from Modules.common.number_formats import DTYPES
from Modules.stereo import StereoNetwork, networks
from Modules.stereo.geometry import PinholeGeometry
from Modules.stereo.names import FUSIONS, NETWORKS, Fusion, NetworkName
from tests.direct_volume import direct_volume
from tests.Modules.stereo.cameras import row_of_cameras
from Utils.core.command_line import run_script
from Utils.core.tables import format_table

_GROUPS = ("volume", "training", "inference", "growth")
_NEAR, _FAR, _INTERVAL = 500.0, 600.0, 0.1
_FOCAL, _BASE = 5500.0, 58.0  # of WHU-MVS
_TRAINED: tuple[tuple[NetworkName, Fusion], ...] = (
    ("CasMVSNet", "none"),
    ("CasMVSNet", "concatenated"),
    ("UCSNet", "none"),
    ("CasRED", "none"),
)
_GROWN: tuple[NetworkName, ...] = ("CasMVSNet", "CasRED")


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        group: the table that it belongs to.
        network: which network.
        fusion: what it does with relative depth.
        step: inference; training, a forward and a backward pass; or volume, those of the first stage's volume alone.
        volume: ours, ours with every stage computed again in the backward pass, or the direct one.
        precision: number format of activations.
        width: pixels of an image.
        height: likewise.
        views: images.
        first: hypotheses of the first stage.
    """

    group: str
    network: NetworkName = "CasMVSNet"
    fusion: Fusion = "none"
    step: Literal["inference", "training", "volume"] = "inference"
    volume: Literal["ours", "recomputed", "direct"] = "ours"
    precision: Literal["fp32", "bf16"] = "fp32"
    width: int = 768
    height: int = 384
    views: int = 5
    first: int = 64

    @property
    def key(self) -> str:
        """A name that no other case of the group has."""
        return "/".join(str(value) for value in asdict(self).values())


def cases(divide: int = 1) -> list[Case]:
    """All cases, with sides of images divided by a number."""
    # Half of the published sides: memory and time grow with the number of pixels, as the table of growth shows.
    half = Case("training", step="training", width=384, height=192)
    fusions: tuple[Fusion, ...] = ("none", "concatenated")
    found: list[Case] = []
    for fusion in fusions:
        ours = Case("volume", fusion=fusion, step="volume")
        found += [ours, replace(ours, volume="direct")]
    for network, fusion in _TRAINED:
        ours = replace(half, network=network, fusion=fusion)
        found += [ours, replace(ours, volume="recomputed"), replace(ours, volume="direct")]
    found += [Case("inference", network, fusion) for network in NETWORKS for fusion in FUSIONS]
    found += [Case("inference", network, precision="bf16") for network in NETWORKS]
    for network in _GROWN:
        base = Case("growth", network, width=384, height=192)
        found += [replace(base, views=views) for views in (2, 5, 9)]
        found += [replace(base, first=first) for first in (32, 128, 256)]
        found += [replace(base, width=width, height=width // 2) for width in (192, 768)]
    return list(dict.fromkeys(replace(c, width=c.width // divide, height=c.height // divide) for c in found))


def measure(case: Case) -> dict[str, float]:
    """Processor seconds, peak memory in bytes and floating point operations of one case."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if case.volume == "direct":
        networks.variance_volume = direct_volume  # type: ignore[assignment]
    if case.step == "volume":
        return _measure_volume(case)
    network = StereoNetwork(case.network, case.fusion, hypotheses=(case.first, 32, 8))
    network.train(case.step == "training")
    network.recompute = case.volume == "recomputed"
    _step(network, replace(case, width=64, height=32, views=2))  # what torch sets up at the first call
    memory = Memory(torch.device("cpu"))
    memory.restart()
    started = time.process_time()
    _step(network, case)
    seconds, peak = time.process_time() - started, memory.peak()["peak_bytes"]
    work = count(lambda: _step(network, case), {}) if case.group == "inference" else None
    weights = sum(value.numel() for value in network.parameters())
    return {"seconds": seconds, "peak_bytes": float(peak), "parameters": float(weights)} | (
        {} if work is None else {"flops": float(work.whole.flops)}
    )


def _measure_volume(case: Case) -> dict[str, float]:
    """The first stage's volume and the gradients of its features: 32 channels, or 64 with the published fusion."""
    build = direct_volume if case.volume == "direct" else networks.variance_volume
    size = (case.height // 4, case.width // 4)
    channels = 64 if case.fusion == "concatenated" else 32
    features = [torch.randn(1, channels, *size, requires_grad=True) for _ in range(case.views)]
    values = torch.linspace(_NEAR, _FAR, case.first).view(1, -1, 1, 1).expand(1, -1, *size)
    cameras = PinholeGeometry(row_of_cameras(case.views, (case.height, case.width), base=_BASE, focal=_FOCAL))
    positions = [cameras.positions(view, values, 4, size) for view in range(1, case.views)]
    memory = Memory(torch.device("cpu"))
    memory.restart()
    started = time.process_time()
    volume = build(features[0], features[1:], positions)
    volume.backward(torch.ones_like(volume))
    return {"seconds": time.process_time() - started, "peak_bytes": float(memory.peak()["peak_bytes"])}


def _step(network: StereoNetwork, case: Case) -> None:
    """Estimate, and in training the gradients of the stages' sum."""
    size = (case.height, case.width)
    images = torch.randn(1, case.views, 3, *size)
    maps = None if case.fusion == "none" else torch.randn(1, case.views, 3, *size)
    cameras = PinholeGeometry(row_of_cameras(case.views, size, base=_BASE, focal=_FOCAL * case.width / 768))
    with (
        torch.set_grad_enabled(case.step == "training"),
        torch.autocast("cpu", DTYPES[case.precision], enabled=case.precision != "fp32"),
    ):
        stages = network(images, cameras, torch.tensor([[_NEAR, _FAR]]), torch.tensor([_INTERVAL]), maps)
    if case.step == "training":
        torch.stack([stage.values.mean() for stage in stages]).sum().backward()
        network.zero_grad()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and write the tables; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stereo", description="measure the stereo networks")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for results.json and table.md")
    parser.add_argument("--groups", nargs="+", choices=_GROUPS, help="default all")
    parser.add_argument("--divide", type=int, default=1, metavar="N", help="divide the sides of images, default 1")
    given = parser.parse_args(arguments)
    wanted = [case for case in cases(given.divide) if not given.groups or case.group in given.groups]
    return run_script(lambda: measure_all(given.output, wanted, partial(in_own_process, measure), tables))


def tables(found: Mapping[str, dict[str, Any]]) -> str:
    """The results as Markdown, a table a group."""
    shown = ("network", "fusion", "step", "volume", "precision", "width", "height", "views", "first")
    parts = []
    for group in _GROUPS:
        entries = [entry for entry in found.values() if entry["case"]["group"] == group]
        if not entries:
            continue
        # A column that says the same in every row goes into the heading.
        varying = [name for name in shown if len({entry["case"][name] for entry in entries}) > 1]
        same = ", ".join(f"{name} {entries[0]['case'][name]}" for name in shown if name not in varying)
        rows = [[*(str(entry["case"][name]) for name in varying), *_numbers(entry["found"])] for entry in entries]
        heading = [*varying, "processor seconds", "peak GiB", "TFLOP"]
        parts.append(f"{group} ({same})\n\n{format_table(heading, rows)}")
    return "\n\n".join(parts)


def _numbers(found: dict[str, float]) -> list[str]:
    if "died" in found:
        return ["died", "died", ""]
    operations = f"{found['flops'] / 1e12:.3f}" if "flops" in found else ""
    return [f"{found['seconds']:.1f}", f"{found['peak_bytes'] / 2**30:.2f}", operations]


if __name__ == "__main__":
    raise SystemExit(main())
