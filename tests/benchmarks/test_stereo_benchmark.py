"""The benchmark of the stereo networks, at a twelfth of its size."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import stereo
from benchmarks.stereo import Case, cases, main, tables


def test_every_network_and_fusion_is_measured_and_every_volume_beside_the_direct_one() -> None:
    found = cases()
    assert len({case.key for case in found}) == len(found)
    assert {(case.network, case.fusion) for case in found if case.group == "inference"} == {
        (network, fusion) for network in stereo.NETWORKS for fusion in stereo.FUSIONS
    }
    training = [case for case in found if case.group in ("training", "volume")]
    assert {replace(case, volume="ours") for case in training} == {case for case in training if case.volume == "ours"}


def test_cases_are_measured_once_and_told_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [case for case in cases(12) if case.group == "volume"][:2]
    monkeypatch.setattr(stereo, "cases", lambda divide: chosen)
    monkeypatch.setattr(stereo, "in_own_process", lambda measure, case: measure(case))
    # What measuring the direct volume puts in its place is taken back.
    monkeypatch.setattr(stereo.networks, "variance_volume", stereo.networks.variance_volume)
    assert main(["--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["case"]["volume"] for entry in results.values()] == ["ours", "direct"]
    assert all(entry["found"]["seconds"] > 0 for entry in results.values())
    before = (tmp_path / "results.json").read_text()
    assert main(["--output", str(tmp_path)]) == 0
    assert (tmp_path / "results.json").read_text() == before
    table = (tmp_path / "table.md").read_text()
    assert "volume (network CasMVSNet" in table and "| direct" in table


def test_a_case_that_died_is_told_beside_others_that_differ_in_a_number() -> None:
    found = {"seconds": 1.0, "peak_bytes": 2.0**30, "parameters": 5.0}
    both = {"a": (Case("growth", views=2), found), "b": (Case("growth", views=9), {"died": 1.0})}
    told = tables({name: {"case": asdict(case), "found": numbers} for name, (case, numbers) in both.items()})
    assert "died" in told and "1.00" in told and "views" in told
