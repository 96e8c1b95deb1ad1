"""The audit of a dataset of views: a clean one has nothing wrong, and each mistake is named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from Systems.audit import main
from tests.stereo_sets import copy_set
from Utils.rasters.pfm import read_pfm, write_pfm

FIRST = "town0000_0000"


@pytest.fixture
def audit(tmp_path, capsys):
    def run(dataset, *arguments: object, **keys: object):
        config = tmp_path / "config.json"
        model = {"relative_depth": "guided"} if keys.get("relative_depth_folder") else {}
        document = {"dataset_path": "elsewhere", "views": 3, "model": model, "batch_size": 2} | keys
        config.write_text(json.dumps(document), encoding="utf-8")
        output = tmp_path / "audit"
        given = ["--dataset", dataset, "--config", config, "--output", output, "--workers", 1, *arguments]
        status = main([str(argument) for argument in given])
        said = capsys.readouterr()
        path = output / "audit.json"
        return status, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None, said.out + said.err

    return run


def codes(summary) -> set[tuple[str, str]]:
    return {(finding["level"], finding["code"]) for finding in summary["findings"]}


@pytest.mark.parametrize("cameras", ["pinhole", "rpc"])
def test_a_clean_dataset_has_nothing_wrong(tmp_path, audit, cameras) -> None:
    folder = copy_set(tmp_path, cameras, size=(64, 64))
    keys = {"interval": 0.5, "relative_depth_folder": "depthAnything"}
    status, summary, said = audit(folder, **keys)
    assert status == 0 and summary["findings"] == [] and "training would start (no errors and no warnings)" in said
    part = summary["parts"]["train"]
    assert part["samples"] == 2 and part["views"] == [3] and part["cameras"] == {"told": 2, "fit": 2}
    assert (tmp_path / "audit" / "samples.csv").read_text(encoding="utf-8").count("\n") == 4


def test_cameras_of_the_wrong_convention_are_told_by_the_images(tmp_path, audit) -> None:
    folder = copy_set(tmp_path, size=(64, 64))
    for path in folder.rglob("camera/*/*.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        # Turned by 6 degrees about the optical axis, each view the other way: the layout is in order, the image is not.
        sign = -1.0 if path.parent.name == "1" else 1.0
        turn = np.radians(6.0 * sign)
        matrix = np.array([[float(word) for word in line.split()] for line in lines[:4]])
        matrix[:3, :3] = matrix[:3, :3] @ np.array(
            [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
        )
        rows = [" ".join(map(repr, map(float, row))) for row in matrix]
        path.write_text("\n".join([*rows, *lines[4:]]) + "\n", encoding="utf-8")
    _, summary, _ = audit(folder)
    assert ("warning", "cameras_do_not_fit") in codes(summary)


def test_each_mistake_has_a_finding(tmp_path, audit) -> None:
    folder = copy_set(tmp_path)
    depth = folder / "train" / "depth" / "1" / f"{FIRST}.pfm"
    write_pfm(depth, read_pfm(depth) + 500.0)
    (folder / "train" / "image" / "2" / "town0001_0000.png").write_bytes(b"no image")
    shutil.copy(
        folder / "train" / "image" / "1" / f"{FIRST}.png", folder / "test" / "image" / "1" / "town5000_0000.png"
    )
    status, summary, said = audit(folder)
    assert status == 2 and not summary["training_would_start"]
    # The image that was copied over another one does not fit that one's camera, either.
    found = {("error", "unreadable"), ("error", "out_of_range"), ("warning", "leak"), ("warning", "cameras_do_not_fit")}
    assert codes(summary) == found
    assert "100% outside" in said and "test town5000_0000-1 is train" in said


def test_relative_maps_of_the_wrong_polarity_are_named(tmp_path, audit) -> None:
    folder = copy_set(tmp_path)
    status, summary, _ = audit(folder, relative_depth_folder="depthAnything", relative_depth_rises="height")
    assert status == 0 and codes(summary) == {("warning", "turned_relative_depth")}
    assert audit(folder, "--strict", relative_depth_folder="depthAnything", relative_depth_rises="height")[0] == 2


def test_a_part_that_is_missing_and_options_that_do_not_fit(tmp_path, audit) -> None:
    folder = copy_set(tmp_path)
    shutil.rmtree(folder / "test")
    status, summary, said = audit(folder)
    assert status == 0 and codes(summary) == {("warning", "unusable_part")} and "test' not found" in said
    status, _, said = audit(folder, "--priors", tmp_path)
    assert status == 2 and "--priors is for single images" in said
