"""Trained depth networks as predictors: what they predict, in which direction, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import predict
from Modules.depth import EncDec
from Modules.segmentation.networks import SegmentationNetwork
from Systems.models import load_predictor
from Systems.segmentation.build import table_of
from Utils.core.errors import UserError

CPU = torch.device("cpu")
IMAGES = torch.rand(2, 3, 40, 72, generator=torch.Generator().manual_seed(0))


def saved(folder: Path, **settings: Any) -> tuple[Path, EncDec]:
    """A run's folder with the model of a random network, and that network."""
    torch.manual_seed(0)
    network = EncDec("test_resnet", widths=(8,), tile_size=64, **settings).eval()
    network.save_pretrained(folder / "model")
    return folder, network


@pytest.mark.parametrize(
    ("settings", "predicts", "direction", "sign"),
    [
        ({"direction": "height"}, "relative height", "height", 1),
        ({"direction": "depth"}, "relative height", "depth", -1),
        ({"direction": "inverse depth"}, "relative height", "inverse depth", 1),
        ({"target": "metres", "max_depth": 50.0, "direction": "height"}, "height", "height", 1),
        ({"target": "metres", "max_depth": 50.0, "direction": "depth"}, "height", "depth", -1),
        ({"target": "summit", "max_depth": 50.0}, "height", "depth", -1),
    ],
)
def test_it_says_what_it_predicts_and_its_maps_rise_with_the_ground(
    settings: dict[str, Any],
    predicts: str,
    direction: str,
    sign: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folder, network = saved(tmp_path / "run", **settings)
    for path in (folder, folder / "model"):
        found = load_predictor(path, CPU)
        assert (found.predicts, found.direction, found.multiple, found.tile_size) == (predicts, direction, 32, 64)
        assert found.facts["name"] == "run"
        with torch.no_grad():
            np.testing.assert_allclose(found(IMAGES), sign * network(IMAGES)[:, 0], rtol=1e-4, atol=1e-4)
        assert found.side is None
    said = caplog.messages[-1]
    assert ("metres whose level is unknown" in said) == (predicts == "height")
    assert ("below each tile's highest ground" in said) == (network.config["target"] == "summit")


def test_an_unknown_direction_is_asked_for(tmp_path: Path) -> None:
    folder, network = saved(tmp_path / "run")
    with pytest.raises(UserError, match="what rises in its maps, height, depth or inverse depth") as refused:
        load_predictor(folder, CPU)
    assert "--polarity" in str(refused.value) and "\n" not in str(refused.value)
    with torch.no_grad():
        np.testing.assert_allclose(
            load_predictor(folder, CPU, polarity="depth")(IMAGES), -network(IMAGES)[:, 0], atol=1e-4
        )


def test_what_contradicts_the_training_is_refused(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "run", direction="height")
    with pytest.raises(UserError, match="was trained to draw height"):
        load_predictor(folder, CPU, polarity="depth")
    with pytest.raises(UserError, match="--steps 2: this model takes none"):
        load_predictor(folder, CPU, steps=2)
    metres, _ = saved(tmp_path / "metres", target="metres", max_depth=9.0)
    with pytest.raises(UserError, match="inverse depth has none"):
        load_predictor(metres, CPU, polarity="inverse depth")


def test_whole_images_are_drawn_at_the_size_of_the_training(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "run", direction="depth", image_size=[240, 320])
    assert load_predictor(folder, CPU).side == 240


def test_a_run_that_has_not_finished_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no finished model"):
        load_predictor(tmp_path / "run", CPU)


def test_predict_writes_metres_of_a_summit_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, network = saved(tmp_path / "run", target="summit", max_depth=50.0)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    place = {"crs": "EPSG:32643", "transform": rasterio.Affine(30, 0, 4e5, 0, -30, 3e6)}
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", **place
    ) as target:
        target.write(pixels)
    arguments = ["--model", folder, "--input", tmp_path / "scene.tif", "--output", tmp_path / "h.tif"]
    assert predict.main([*map(str, arguments), "--stretch", "none"]) == 0
    with rasterio.open(tmp_path / "h.tif") as source:
        found = source.read(1)
        assert source.units[0] == "metre" and source.tags()["D3RSMDE_KIND"] == "offset"
    with torch.no_grad():
        below = network(torch.from_numpy(pixels)[None].float() / 255)[0, 0].numpy()
    np.testing.assert_allclose(found, below.max() - below, atol=1e-3)
    document = json.loads((tmp_path / "h.json").read_text())
    assert (document["kind"], document["model"]["predicts"]) == ("offset", "height")
    assert "level is unknown" in capsys.readouterr().err


def test_classes_without_colours_of_their_own_can_be_told_apart() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork("test_resnet", "test_resnet", "none", classes=tuple("abcdefgh"), channels=8)
    colours = np.array(table_of(network).colours, float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    assert apart[~np.eye(len(colours), dtype=bool)].min() > 40
