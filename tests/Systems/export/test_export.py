"""Exported files draw what torch draws, say what Deepness reads, and are not kept where they differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks import exported
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.depth.enc_dec import EncDec
from Modules.segmentation.networks import SegmentationNetwork
from Systems.export import command
from Systems.models import load_predictor
from tests.toys import toy_coarse, toy_unet, toy_vae

CPU = torch.device("cpu")


def write_depth(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    EncDec("test_resnet", widths=[16, 8], direction="depth", tile_size=64).save_pretrained(folder)
    return folder


def export(model: Path, output: Path, *more: str) -> int:
    return command.main(["--model", str(model), "--output", str(output), *more])


def drawn(path: Path, *inputs: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = zip(session.get_inputs(), inputs, strict=True)
    return session.run(None, {each.name: values.numpy() for each, values in named})[0]


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depth network, and its file for tiles of 64 pixels beside it."""
    folder = tmp_path_factory.mktemp("exported")
    write_depth(folder / "depth")
    assert export(folder / "depth", folder / "depth.onnx", "--side", "64", "--resolution", "0.5") == 0
    return folder


def test_a_file_draws_what_predict_draws_and_says_how_it_is_used(depth: Path) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    expected = load_predictor(depth / "depth", CPU)(images)  # rises with the ground, though the network draws depth
    # Other kernels: sums in another order.
    np.testing.assert_allclose(drawn(depth / "depth.onnx", images)[:, 0], expected, atol=1e-5)
    session = onnxruntime.InferenceSession(str(depth / "depth.onnx"), providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    read = {name: json.loads(entries[name]) for name in entries if not name.startswith("d3_")}
    assert read == {
        "model_type": "Regressor",
        "tiles_size": 64,
        "tiles_overlap": 25,
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "resolution": 50.0,  # centimetres a pixel
        "reg_output_scaling": 1.0,
    }
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 64]
    record = json.loads((depth / "depth.json").read_text(encoding="utf-8"))
    assert [each["size"] for each in record["differences"]] == [[1, 64, 64], [3, 64, 64]]
    assert all(0 <= each["largest"] < record["limit"] for each in record["differences"])


def test_a_file_that_draws_something_else_is_not_kept(
    depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_depth(tmp_path / "other", seed=1)
    monkeypatch.setattr(
        "Systems.export.onnx_file.write_onnx", lambda subject, path, *_: shutil.copy(depth / "depth.onnx", path)
    )
    assert export(other, tmp_path / "other.onnx", "--side", "64") == 2
    assert "onnxruntime differs from torch by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--side", "8"), "--side 8: give 16 to"),
        (("--steps", "2"), "--steps: .* is a depth network, which has no such option"),
        (("--polarity", "height"), "was trained to draw depth"),
        (("--limit", "0"), "--limit 0.0"),
        (("--resolution", "-1"), "--resolution -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    depth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    import re

    assert export(depth / "depth", tmp_path / "no.onnx", *more) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_speed_is_measured_beside_torch(depth: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = ["--model", str(depth / "depth"), "--onnx", str(depth / "depth.onnx"), "--repeats", "2"]
    assert exported.main([*where, "--size", "2x64x64", "--output", str(tmp_path / "runs.json")]) == 0
    assert "onnxruntime" in capsys.readouterr().out
    runs = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))["runs"]
    assert [run["way"] for run in runs] == ["torch", "onnxruntime"]
    assert all(len(run["wall"]) == 2 and min(run["wall"]) > 0 for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stage 1", "d3", "depth", "land cover", "land cover and depth"])
def test_sizes_are_free(kind: str, tmp_path: Path) -> None:
    """The command itself compares unequal sizes and several images; here are others."""
    torch.manual_seed(0)
    shapes: list[tuple[int, int, int]] = [(1, 71, 90), (4, 130, 77)]
    match kind:
        case "stage 1":
            D3RSMDE(coarse=toy_coarse(), tile_size=64).save_pretrained(tmp_path / "model")
        case "d3":
            vae = toy_vae()
            # Drawn at random it decodes far beyond [0, 1], and magnifies what two libraries round otherwise.
            with torch.no_grad():
                vae.decoder.conv_out.weight.mul_(0.1)
            model = D3RSMDE(toy_coarse(), vae, toy_unet(vae), PLBRScheduler(), 3, margin=4, tile_size=64)
            model.save_pretrained(tmp_path / "model")
            shapes = [(1, 64, 96), (4, 96, 64)]
        case "depth":
            write_depth(tmp_path / "model")
        case _:
            fusion = "none" if kind == "land cover" else "gate"
            network = SegmentationNetwork(
                "test_resnet", "test_resnet", fusion, classes=("a", "b", "c"), channels=8, tile_size=64
            )
            network.save_pretrained(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "free.onnx") == 0
    draw = torch.Generator().manual_seed(3)
    for count, height, width in shapes:
        images = torch.rand(count, 3, height, width, generator=draw)
        if kind.startswith("land cover"):
            maps = [torch.rand(count, 1, height, width, generator=draw)] if "depth" in kind else []
            with torch.no_grad():
                expected = network.eval()(images, *maps).softmax(1)
            found = drawn(tmp_path / "free.onnx", images, *maps)
        else:
            expected, found = (
                load_predictor(tmp_path / "model", CPU)(images),
                drawn(tmp_path / "free.onnx", images)[:, 0],
            )
        np.testing.assert_allclose(found, expected, atol=1e-4)
