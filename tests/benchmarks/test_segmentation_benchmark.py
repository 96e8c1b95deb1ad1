"""The benchmark of the networks of land cover, on the smallest image and with two of its networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import segmentation
from benchmarks.segmentation import NETWORKS, Case, Entry, cases, main, measure, tables


def test_every_network_stands_at_every_side_beside_peers() -> None:
    found = cases([512, 1024])
    assert len({case.key for case in found}) == len(found) == 2 * len(NETWORKS)
    assert {case.side for case in found} == {512, 1024}
    assert {name for name, entry in NETWORKS.items() if entry.peer} == {
        "segformer_b2",
        "segformer_b5",
        "upernet_convnext_b",
    }


class Pointwise(torch.nn.Module):
    """Two layers, of which the second learns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 7, 1)
        self.first.requires_grad_(False)

    def forward(self, image: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
        return self.second(self.first(image))


@pytest.mark.parametrize(
    ("name", "millions"),
    # SegFormer's are published with 150 classes: 27.5 and 84.7 million.
    [("segformer_b2", 27.35), ("segformer_b5", 84.60), ("upernet_convnext_b", 120.81)],
)
def test_peers_have_their_published_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = NETWORKS[name].build()
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_operations_and_parameters_are_those_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "NETWORKS", {"toy": Entry("toy", Pointwise)})
    found = measure(Case("toy", 96))
    assert found["flops"] == 2 * 96 * 96 * (3 * 4 + 4 * 7)
    assert (found["parameters"], found["learns"]) == (4 * 4 + 7 * 5, 7 * 5)
    assert found["seconds"] > 0 and found["peak_bytes"] >= 0


def test_results_are_completed_and_told_in_a_table_a_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "in_own_process", lambda measure, case: measure(case))
    monkeypatch.setattr(segmentation, "NETWORKS", {"toy": Entry("a toy", Pointwise)})
    chosen = ["--output", str(tmp_path), "--sides", "32", "64"]
    assert main(chosen) == 0
    before = json.loads((tmp_path / "results.json").read_text())
    assert before.keys() == {"toy/32", "toy/64"}
    assert before["toy/64"]["found"]["flops"] == 4 * before["toy/32"]["found"]["flops"]
    assert main(chosen) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == before
    told = tables(before | {"toy/128": {"case": {"network": "toy", "side": 128}, "found": {"died": 1.0}}})
    assert "64 x 64" in told and "a toy" in told and "died" in told.partition("128 x 128")[2]
