"""Parameters, operations, time and memory of the networks of land cover, beside SegFormer and UPerNet of transformers.

python -m benchmarks.segmentation --output FOLDER [--sides 512 1024]

All have random weights, seven classes, one image of 3 bands (and a map where they see one), and give scores at the
image's size. Each case runs once in a process of its own with one thread, after a pass at 64 x 64 pixels. Time is
processor time, so that other work on the machine does not count; of one run, since the largest take minutes. Memory is
the peak above what was held before the network was built, weights included. Operations are counted without computing
(from shapes alone): two a multiply-add of matrix products, convolutions and attention. Finished cases in FOLDER
are not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from benchmarks.measuring import Memory, count, parameter_count
from benchmarks.own_process import in_own_process, measure_all
from Modules.segmentation import SegmentationNetwork
from Utils.core.command_line import run_script
from Utils.core.tables import format_table

_CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")  # of LoveDA
_SIDES = (512, 1024)
_WARM_UP = 64


@dataclass(frozen=True)
class Case:
    """One measurement: a network of ``NETWORKS``, and the side of the image in pixels."""

    network: str
    side: int

    @property
    def key(self) -> str:
        """A name that no other case has."""
        return f"{self.network}/{self.side}"


@dataclass(frozen=True)
class Entry:
    """A network that is measured.

    Attributes:
        title: its row.
        build: makes it, with random weights.
        peer: whether it is not this project's own.
    """

    title: str
    build: Callable[[], nn.Module]
    peer: bool = False


class _Sized(nn.Module):
    """A network of transformers whose scores are brought to the image's size, as ours are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, depth: Tensor | None = None) -> Tensor:
        scores: Tensor = self.network(image).logits
        return functional.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)


def _ours(backbone: str, depth_backbone: str | None = None, **more: Any) -> SegmentationNetwork:
    seen: dict[str, Any] = {"fusion": "none"} if depth_backbone is None else {"depth_backbone": depth_backbone}
    return SegmentationNetwork(backbone, classes=_CLASSES, **seen, **more)


def _segformer(depths: Sequence[int]) -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=list(depths), hidden_sizes=[64, 128, 320, 512], decoder_hidden_size=768, num_labels=len(_CLASSES)
    )
    return _Sized(SegformerForSemanticSegmentation(config))


def _upernet() -> nn.Module:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = [f"stage{number}" for number in range(1, 5)]
    encoder = ConvNextConfig(depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024], out_features=stages)
    config = UperNetConfig(backbone_config=encoder, use_auxiliary_head=False, num_labels=len(_CLASSES))
    return _Sized(UperNetForSemanticSegmentation(config))


def _adapted() -> SegmentationNetwork:
    return _ours("vit_large_patch14_dinov2", adapter_width=32, options={"patch_size": 16})


NETWORKS: Mapping[str, Entry] = {
    "convnext_b": Entry("ConvNeXt-B, image alone", partial(_ours, "convnext_base")),
    "convnext_b_s": Entry("ConvNeXt-B + S", partial(_ours, "convnext_base", "convnext_small")),
    "convnext_b_b": Entry("ConvNeXt-B + B", partial(_ours, "convnext_base", "convnext_base")),
    "convnext_xl_b": Entry("ConvNeXt-XL + B", partial(_ours, "convnext_xlarge", "convnext_base")),
    "convnext_b_s_upernet": Entry(
        "ConvNeXt-B + S, UPerNet head", partial(_ours, "convnext_base", "convnext_small", head="upernet")
    ),
    "dinov2_l_adapters": Entry("frozen DINOv2-L with adapters, image alone", _adapted),
    "segformer_b2": Entry("SegFormer-B2 (transformers)", partial(_segformer, (3, 4, 6, 3)), peer=True),
    "segformer_b5": Entry("SegFormer-B5 (transformers)", partial(_segformer, (3, 6, 40, 3)), peer=True),
    "upernet_convnext_b": Entry("UPerNet on ConvNeXt-B (transformers)", _upernet, peer=True),
}
"""What is measured, by name."""


def cases(sides: Sequence[int] = _SIDES) -> list[Case]:
    """All cases, the small ones first."""
    return [Case(name, side) for side in sorted(sides) for name in NETWORKS]


def measure(case: Case) -> dict[str, float]:
    """Processor seconds and peak memory in bytes of one pass, parameters, those that learn, and operations."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    memory = Memory(torch.device("cpu"))
    network = NETWORKS[case.network].build().eval()
    run_once(network, _WARM_UP)
    memory.restart()
    started = time.process_time()
    run_once(network, case.side)
    seconds, peak = time.process_time() - started, memory.peak()["peak_bytes"]
    learns = sum(value.numel() for value in network.parameters() if value.requires_grad)
    every = parameter_count([network])
    # Operations follow from the shapes: nothing is computed again.
    with FakeTensorMode(allow_non_fake_inputs=True):
        work = count(lambda: run_once(network, case.side), {})
    return {
        "seconds": seconds,
        "peak_bytes": float(peak),
        "parameters": float(every),
        "learns": float(learns),
        "flops": float(work.whole.flops),
    }


@torch.no_grad()
def run_once(network: nn.Module, side: int) -> Tensor:
    """The class scores (1, classes, side, side) of a random image and, where the network sees one, a random map."""
    image = torch.rand(1, 3, side, side)
    depth = torch.rand(1, 1, side, side) if getattr(network, "uses_depth", False) else None
    scores: Tensor = network(image, depth)
    return scores


def tables(found: Mapping[str, dict[str, Any]]) -> str:
    """The results as Markdown, a table a side."""
    parts = []
    for side in sorted({entry["case"]["side"] for entry in found.values()}):
        rows = [
            [NETWORKS[entry["case"]["network"]].title, *_numbers(entry["found"])]
            for entry in found.values()
            if entry["case"]["side"] == side
        ]
        heading = ["network", "parameters (million)", "that learn", "TFLOP", "processor ms", "peak GiB"]
        parts.append(f"One image of {side} x {side} pixels, fp32, one thread, one run\n\n{format_table(heading, rows)}")
    return "\n\n".join(parts)


def _numbers(found: Mapping[str, float]) -> list[str]:
    if "died" in found:
        return ["died", "", "", "", ""]
    return [
        f"{found['parameters'] / 1e6:.1f}",
        f"{found['learns'] / 1e6:.1f}",
        f"{found['flops'] / 1e12:.3f}",
        f"{1000 * found['seconds']:,.0f}",
        f"{found['peak_bytes'] / 2**30:.2f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and write the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.segmentation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for results.json and table.md")
    parser.add_argument("--sides", type=int, nargs="+", default=list(_SIDES), metavar="N", help="pixels (512 1024)")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="rows of the tables (all)")
    given = parser.parse_args(arguments)
    wanted = [case for case in cases(given.sides) if not given.networks or case.network in given.networks]
    return run_script(lambda: measure_all(given.output, wanted, partial(in_own_process, measure), tables))


if __name__ == "__main__":
    raise SystemExit(main())
