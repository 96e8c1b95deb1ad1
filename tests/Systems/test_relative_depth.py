"""Maps of whole images: their values, what their JSON says, and going on where a run stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from Systems import relative_depth
from Systems.models import load_predictor
from tests.depth_models import write_depth_model
from tests.launching import launch
from Utils.core.predictor import Direction, Predictor


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of two sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number, size in enumerate([(40, 60), (40, 60), (50, 30), (40, 60)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_depth_model(tmp_path / "model")
    return tmp_path / "model"


def run(model: Path | str, images: Path, output: Path, *more: str) -> int:
    return relative_depth.main(["--model", str(model), "--input", str(images), "--output", str(output), *more])


def read(path: Path) -> NDArray[np.float64]:
    """A map in the unit that its JSON says."""
    stretch = json.loads(path.with_suffix(".json").read_text())["stretch"]
    levels = np.asarray(Image.open(path)).astype(np.float64)
    return stretch["low"] + (stretch["high"] - stretch["low"]) * levels / 65535


def test_one_map_an_image_of_its_size(images: Path, model: Path, tmp_path: Path) -> None:
    assert run(model, images, tmp_path / "maps") == 0
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.png")) == [f"{n}.png" for n in range(4)]
    for path in (tmp_path / "maps").glob("*.png"):
        with Image.open(path) as drawn, Image.open(images / path.name) as image:
            assert drawn.size == image.size and drawn.mode == "I;16"
            assert drawn.getextrema() == (0, 65535)
    document = json.loads((tmp_path / "maps" / "2.json").read_text())
    assert document["model"]["direction"] == "inverse depth" and document["model"]["type"] == "depth_anything"
    assert "higher ground" in document["polarity"] and document["side"] == 56
    assert document["image"] == str((images / "2.png").resolve())


def test_the_map_is_that_of_the_whole_image(images: Path, model: Path, tmp_path: Path) -> None:
    """At a side that leaves an image as it is, apart from multiples of 14, the map is the predictor's."""
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (56, 84, 3), np.uint8)).save(images / "3.png")
    assert run(model, images / "3.png", tmp_path / "maps", "--side", "56") == 0
    pixels = np.asarray(Image.open(images / "3.png")).astype(np.float32) / 255
    expected = load_predictor(model, torch.device("cpu"))(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    assert np.abs(read(tmp_path / "maps" / "3.png") - expected).max() < 1e-3 * np.ptp(expected)


def opened(monkeypatch: pytest.MonkeyPatch, direction: Direction) -> None:
    """In place of any model: one whose own maps are brightness."""

    def draw(images: Tensor) -> Tensor:
        return images.mean(dim=1)

    predictor = Predictor(draw, "relative height", direction, 1, 32, {"name": direction})
    monkeypatch.setattr("Systems.models.load_predictor", lambda *given: predictor)


@pytest.mark.parametrize(("direction", "sign"), [("height", 1), ("inverse depth", 1), ("depth", -1)])
def test_higher_values_are_higher_ground(
    direction: Direction, sign: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(monkeypatch, direction)
    assert run("any", images, tmp_path / "maps") == 0
    brightness = np.asarray(Image.open(images / "0.png")).mean(axis=2) / 255
    np.testing.assert_allclose(read(tmp_path / "maps" / "0.png"), sign * brightness, atol=2e-5)


def test_it_goes_on_where_it_stopped(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(monkeypatch, "height")
    maps = tmp_path / "maps"
    assert run("any", images, maps) == 0
    (maps / "1.png").unlink()
    before = (maps / "0.png").stat().st_mtime_ns
    capsys.readouterr()
    assert run("any", images, maps) == 0
    assert "1 maps written, 3 were there already" in capsys.readouterr().out
    assert (maps / "1.png").is_file() and (maps / "0.png").stat().st_mtime_ns == before
    opened(monkeypatch, "depth")
    assert run("any", images, maps) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("any", images, maps, "--overwrite") == 0


def test_several_processes_share_the_images(images: Path, model: Path, tmp_path: Path) -> None:
    assert run(model, images, tmp_path / "alone") == 0
    command = ["-m", "Systems.relative_depth", "--model", model, "--input", images, "--batch-size", "1"]
    done = launch(2, [*command, "--output", tmp_path / "shared"])
    assert done.returncode == 0 and done.stdout.count("4 maps written") == 1, done.stderr
    for path in (tmp_path / "alone").iterdir():
        if path.suffix == ".png":
            drawn = [
                np.asarray(Image.open(place / path.name)).astype(int) for place in (path.parent, tmp_path / "shared")
            ]
            assert np.abs(drawn[0] - drawn[1]).max() <= 2  # rounding differs with the size of a batch
    assert len(list((tmp_path / "shared").iterdir())) == 8


def test_flat_maps_are_said(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(monkeypatch, "height")
    Image.new("RGB", (20, 20), (9, 9, 9)).save(images / "flat.png")
    assert run("any", images, tmp_path / "maps") == 0
    assert "1 maps are flat, such as 'flat.png'" in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "maps" / "flat.png")).max() == 0


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--batch-size", "0"], "--batch-size"),
        (["--side", "3"], "--side"),
        (["--input", "absent"], "absent"),
        (["--model", "absent"], "absent"),
    ],
)
def test_mistakes_are_one_line(
    wrong: list[str], word: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("absent", images, tmp_path / "maps", *wrong) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and word in said[0]


def test_images_are_never_replaced(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(monkeypatch, "height")
    before = (images / "0.png").read_bytes()
    assert run("any", images, images, "--overwrite") == 2
    assert "give another folder" in capsys.readouterr().err and (images / "0.png").read_bytes() == before
    Image.open(images / "0.png").save(images / "0.jpg")
    assert run("any", images, tmp_path / "maps") == 2
    assert "would all be written to" in capsys.readouterr().err
