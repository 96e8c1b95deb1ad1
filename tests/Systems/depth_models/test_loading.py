"""Depth models of transformers: what rises in their maps, and what they do with an image."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from torch import Tensor

from Modules.common import hub
from Systems.depth_models.directions import direction_of
from Systems.models import load_predictor
from tests.depth_models import KINDS, write_depth_model
from Utils.core.errors import UserError
from Utils.core.predictor import Predictor

CPU = torch.device("cpu")
EXPECTED = {
    "depth_anything": ("inverse depth", 14, 56),
    "dpt": ("inverse depth", 16, 32),
    "dpt_of_dinov2": ("depth", 14, 56),
    "glpn": ("depth", 32, 512),
    "zoedepth": ("depth", 32, 64),
    "depth_pro": ("inverse depth", 1, 64),
}


def changed(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_is_a_predictor(kind: str, tmp_path: Path) -> None:
    network = write_depth_model(tmp_path, kind)
    predictor = load_predictor(tmp_path, CPU)
    assert predictor.predicts == "relative height"
    assert (predictor.direction, predictor.multiple, predictor.tile_size) == EXPECTED[kind]
    images = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    heights = predictor(images)
    assert heights.shape == (2, 70, 90) and heights.dtype == torch.float32
    assert heights.std() > 0
    # On images that need no padding, the network's own map, turned where it is a distance.
    size = (64, 64) if kind == "depth_pro" else (max(predictor.multiple, 64 if kind == "zoedepth" else 0),) * 2
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    mean = torch.tensor(processor.get("image_mean", [0.0] * 3)).view(3, 1, 1)
    deviation = torch.tensor(processor.get("image_std", [1.0] * 3)).view(3, 1, 1)
    with torch.no_grad():
        own = network(pixel_values=(images - mean) / deviation).predicted_depth
    assert own.std() > 0
    if own.shape[-2:] == size:
        sign = -1 if predictor.direction == "depth" else 1
        torch.testing.assert_close(predictor(images), sign * own, rtol=1e-4, atol=1e-5)


def own_map(images: Tensor) -> Tensor:
    return images[:, 0]


@pytest.mark.parametrize(("direction", "sign"), [("height", 1), ("inverse depth", 1), ("depth", -1)])
def test_what_is_nearer_to_the_camera_is_higher(direction: Any, sign: int) -> None:
    images = torch.rand(1, 3, 8, 8)
    predictor = Predictor(own_map, "relative height", direction, 1, 8, {})
    assert torch.equal(predictor(images), sign * images[:, 0])


@pytest.mark.parametrize(
    ("config", "direction"),
    [
        ({"model_type": "depth_anything"}, "inverse depth"),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "depth"),
        ({"model_type": "depth_anything", "depth_estimation_type": "other"}, None),
        ({"model_type": "dpt"}, "inverse depth"),
        ({"model_type": "dpt", "is_hybrid": True, "backbone_config": {"model_type": "bit"}}, "inverse depth"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}, "add_projection": True}, "depth"),
        ({"model_type": "dpt", "backbone_config": {"model_type": "dinov2"}}, None),
        ({"model_type": "dpt", "add_projection": True}, None),
        ({"model_type": "glpn"}, "depth"),
        ({"model_type": "chmv2"}, "height"),
        ({"model_type": "prompt_depth_anything"}, None),
        ({"model_type": "newcomer"}, None),
        ({}, None),
    ],
)
def test_the_direction_is_known_or_nobody_knows(config: dict[str, Any], direction: str | None) -> None:
    assert direction_of(config) == direction


def test_a_metric_model_is_turned(tmp_path: Path) -> None:
    write_depth_model(tmp_path, depth_estimation_type="metric", max_depth=80)
    predictor = load_predictor(tmp_path, CPU)
    assert predictor.direction == "depth" and predictor(torch.rand(1, 3, 56, 56)).max() < 0


def test_an_unknown_polarity_is_refused_until_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_depth_model(tmp_path, "dpt_of_dinov2", add_projection=False)
    with pytest.raises(UserError, match=r"--polarity") as raised:
        load_predictor(tmp_path, CPU)
    assert "dpt" in str(raised.value) and "inverse depth" in str(raised.value)
    assert load_predictor(tmp_path, CPU, polarity="depth").direction == "depth"
    write_depth_model(tmp_path, "dpt")
    with caplog.at_level(logging.INFO):
        load_predictor(tmp_path, CPU)
        assert "gives inverse depth" in caplog.text
        load_predictor(tmp_path, CPU, polarity="depth")
    assert "--polarity says depth, though" in caplog.text


def test_facts_identify_the_model(tmp_path: Path) -> None:
    write_depth_model(tmp_path / "mine")
    described = load_predictor(tmp_path / "mine", CPU).describe()
    assert described["name"] == "mine" and described["type"] == "depth_anything" and len(described["weights"]) == 16
    assert described["direction"] == "inverse depth" and described["predicts"] == "relative height"


def test_half_precision_draws_smooth_maps(tmp_path: Path) -> None:
    write_depth_model(tmp_path, depth_estimation_type="metric")
    images = torch.rand(1, 3, 56, 56)
    exact, half = load_predictor(tmp_path, CPU)(images), load_predictor(tmp_path, CPU, "bf16")(images)
    assert half.dtype == torch.float32 and len(half.unique()) > 500
    assert (half - exact).std() < 0.2 * exact.std()


# What a folder from anybody may hold


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"auto_map": {"AutoConfig": "evil.Config"}}, "auto_map"),
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:a/b"}}, "backbone"),
        ({"backbone": "facebook/dinov2-small"}, "backbone"),
        ({"attn_implementation": "owner/kernel"}, "attn_implementation"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"fusion_hidden_size": 60000}, "describes"),
        ({"fusion_hidden_size": 10**9}, "fusion_hidden_size"),
        ({"fusion_hidden_size": "many"}, "config.json"),
        ({"model_type": "bert"}, "--polarity"),
    ],
)
def test_a_config_that_is_not_plain_is_refused(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    with pytest.raises(UserError) as raised:
        load_predictor(changed(tmp_path, **changes), CPU)
    assert word in str(raised.value)


def test_a_type_that_draws_no_depth_is_refused(tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    with pytest.raises(UserError, match="no type of depth model"):
        load_predictor(changed(tmp_path, model_type="bert"), CPU, polarity="depth")


@pytest.mark.parametrize("file", ["preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    (tmp_path / file).unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled code")
    with pytest.raises(UserError, match=file):
        load_predictor(tmp_path, CPU)


def test_an_index_may_name_files_beside_it_alone(tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "part-1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    assert load_predictor(tmp_path, CPU).direction == "inverse depth"
    index.write_text(json.dumps({"weight_map": {"a": "../part-1.safetensors"}}))
    with pytest.raises(UserError, match="beside it"):
        load_predictor(tmp_path, CPU)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_damaged_weights_are_one_line(content: bytes, tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="weights"):
        load_predictor(tmp_path, CPU)


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_depth_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "head.conv3" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"lack 2 tensors, such as 'head\.conv3"):
        load_predictor(tmp_path, CPU)


@pytest.mark.parametrize(
    "changes", [{"image_mean": [0.5]}, {"image_std": [0, 0, 0]}, {"size": {"height": "x"}}, {"rescale_factor": None}]
)
def test_an_image_processor_that_is_not_understood_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    write_depth_model(tmp_path)
    with pytest.raises(UserError, match="preprocessor_config"):
        load_predictor(changed(tmp_path, "preprocessor_config.json", **changes), CPU)


# Names on the hub


def test_a_name_of_the_hub_is_taken_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_depth_model(tmp_path)
    asked = []

    def cached(repository: str, filename: str) -> Path:
        asked.append((repository, filename))
        return tmp_path / filename

    monkeypatch.setattr("Systems.depth_models.files.hub_file", cached)
    predictor = load_predictor("depth-anything/Depth-Anything-V2-Small-hf", CPU)
    assert predictor.facts["name"] == "depth-anything/Depth-Anything-V2-Small-hf"
    assert {name for _, name in asked} == {"config.json", "preprocessor_config.json", "model.safetensors"}


def test_without_a_network_it_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="hf download nobody/no-such-model config") as raised:
        load_predictor("nobody/no-such-model", CPU)
    assert "cannot be downloaded" in str(raised.value)


def test_a_typo_in_a_name_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing:
        def model_info(self, *_: object, **__: object) -> None:
            import httpx2

            request = httpx2.Request("GET", "https://example.org")
            raise RepositoryNotFoundError("401", response=httpx2.Response(401, request=request))

    monkeypatch.setattr(hub, "HfApi", Refusing)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"no repository 'depth-anythign/Small'.*check the spelling"):
        load_predictor("depth-anythign/Small", CPU)


@pytest.mark.parametrize("name", ["absent", "output/no_such_run", "a/b/c", "./here/there", "~/models"])
def test_a_path_that_is_not_there_is_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("Systems.depth_models.files.hub_file", None)
    with pytest.raises(UserError, match="the path does not exist"):
        load_predictor(name, CPU)


def test_a_d3_model_knows_its_own_polarity(tmp_path: Path) -> None:
    from tests.toys import toy_model

    toy_model().save_pretrained(tmp_path)
    predictor = load_predictor(tmp_path, CPU)
    assert (predictor.predicts, predictor.direction) == ("relative height", "height")
    with pytest.raises(UserError, match="--polarity depth"):
        load_predictor(tmp_path, CPU, polarity="depth")
