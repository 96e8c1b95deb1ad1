"""From a config's names and a user's paths to networks, and one line for everything that is wrong with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file
from torch import nn

from Modules.d3rsmde.autoencoders import Autoencoder, AutoencoderShape, family
from Modules.d3rsmde.coarse import CoarseNet
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import PUBLISHED_REFINERS
from Systems.d3rsmde.build import (
    VAE_FOLDER,
    build_coarse,
    build_model,
    build_schedule,
    build_vae,
    load_coarse,
    load_model,
    load_refiner,
)
from Systems.d3rsmde.config import DiffusionEvaluationConfig, DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask
from Systems.d3rsmde.tasks.coarse_task import CoarseTask
from Systems.d3rsmde.tasks.refiner_task import RefinerTask
from tests.toys import SMALL_VIT, VAE_TYPES, toy_coarse, toy_model, toy_unet, toy_vae
from Utils.config.config_files import parse_config
from Utils.core.errors import UserError
from Utils.training.checkpoint import Progress, save_checkpoint
from Utils.training.run_files import MODEL_FOLDER

SHAPE = AutoencoderShape((16, 32), 1, 4, 8)
SMALL_UNET = {
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention_strides": [2],
    "attention_head_dim": 16,
    "norm_num_groups": 8,
}


def vit(**keys: Any) -> ViTTrainingConfig:
    model = {"backbone": "test_vit", "pretrained": False, "options": SMALL_VIT, "features": 16}
    data = {"dataset_path": "d", "model": model | keys.pop("model", {})} | keys
    return parse_config(data, ViTTrainingConfig, "test")


def training(vae_type: VaeType = "AutoencoderKL", **keys: Any) -> DiffusionTrainingConfig:
    data = {"dataset_path": "d", "vae_type": vae_type, "unet": SMALL_UNET} | keys
    return parse_config(data, DiffusionTrainingConfig, "test")


def evaluation(checkpoint: Path, vae_type: VaeType = "AutoencoderKL", **keys: Any) -> DiffusionEvaluationConfig:
    data = {"dataset_path": "d", "output_dir": "o", "checkpoint_path": str(checkpoint), "vae_type": vae_type} | keys
    return parse_config(data, DiffusionEvaluationConfig, "test")


def write_checkpoint(path: Path, task: CoarseTask | AutoencoderTask | RefinerTask) -> Path:
    network = task.network
    save_checkpoint(path, task.name, task.architecture(), network, torch.optim.AdamW(network.parameters()), Progress())
    return path


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a diffusion run leaves: a model folder, the frozen autoencoder, checkpoints of both networks."""
    model = toy_model()
    model.vae.register_to_config(scaling_factor=2.5)
    model.save_pretrained(tmp_path / "run" / MODEL_FOLDER)
    model.vae.save_pretrained(tmp_path / "run" / VAE_FOLDER)
    write_checkpoint(tmp_path / "run" / "unet" / "checkpoints" / "best.safetensors", RefinerTask(model, ["L1Loss"]))
    task = AutoencoderTask(model.vae, "AutoencoderKL")
    write_checkpoint(tmp_path / "run" / "vae" / "checkpoints" / "best.safetensors", task)
    return tmp_path / "run"


@pytest.fixture
def vit_run(tmp_path: Path) -> Path:
    D3RSMDE(coarse=toy_coarse(seed=3)).save_pretrained(tmp_path / "vit" / MODEL_FOLDER)
    task = CoarseTask(toy_coarse(seed=3), ["L1Loss"])
    write_checkpoint(tmp_path / "vit" / "final" / "checkpoints" / "best.safetensors", task)
    return tmp_path / "vit"


# Stage 1


def test_build_coarse_follows_the_config() -> None:
    network = build_coarse(vit(model={"taps": [1, 2, 3, 4], "features": 24, "readout": "add"}))
    assert network.encoder.block_indices == [0, 1, 2, 3]
    assert network.decoder.widen.in_channels == 24
    assert network.config["readout"] == "add" and network.config["backbone"] == "test_vit"


def test_build_coarse_asks_for_pretrained_weights_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(CoarseNet, "load_backbone", lambda self, weights: asked.append(weights))
    build_coarse(vit())
    assert asked == []
    build_coarse(vit(model={"pretrained": True}))
    assert asked == [True]


@pytest.mark.parametrize("source", ["run", "model", "checkpoint"])
def test_build_coarse_from_own_weights(source: str, vit_run: Path) -> None:
    checkpoint = vit_run / "final" / "checkpoints" / "best.safetensors"
    path = {"run": vit_run, "model": vit_run / MODEL_FOLDER, "checkpoint": checkpoint}[source]
    torch.manual_seed(9)
    network = build_coarse(vit(pretrained_model_path=str(path), model={"pretrained": True}))
    assert same_weights(network, toy_coarse(seed=3))
    assert same_weights(load_coarse(path), toy_coarse(seed=3))
    assert not load_coarse(path).training


def test_build_coarse_from_a_file_in_timms_layout(tmp_path: Path) -> None:
    torch.manual_seed(4)
    reference = timm.create_model("test_vit", num_classes=5, **SMALL_VIT)
    save_file(reference.state_dict(), tmp_path / "timm.safetensors")
    network = build_coarse(vit(pretrained_model_path=str(tmp_path / "timm.safetensors")))
    assert torch.equal(network.encoder.vit.patch_embed.proj.weight, reference.patch_embed.proj.weight)


def test_build_coarse_names_what_is_wrong(vit_run: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pth").write_bytes(b"junk")
    cases: list[tuple[ViTTrainingConfig, tuple[str, ...]]] = [
        (vit(model={"backbone": "tset_vit"}), ("tset_vit", "test_vit")),
        (vit(model={"taps": [1, 2]}), ("taps", "4 different blocks")),
        (vit(model={"options": {"dpeth": 3}}), ("dpeth",)),
        (vit(pretrained_model_path="nowhere.pth"), ("pretrained_model_path 'nowhere.pth' does not exist",)),
        (vit(pretrained_model_path=str(tmp_path / "junk.pth")), ("junk.pth",)),
        (vit(pretrained_model_path=str(vit_run), model={"features": 8}), ("another architecture", str(vit_run))),
        (vit(pretrained_model_path=str(run / "unet" / "checkpoints" / "best.safetensors")), ("'unet'", "'coarse'")),
        (vit(pretrained_model_path=str(tmp_path)), ("holds no finished model",)),
    ]
    for config, words in cases:
        with pytest.raises(UserError) as raised:
            build_coarse(config)
        one_line(raised, *words)


def test_load_coarse_names_what_is_wrong(run: Path, tmp_path: Path) -> None:
    toy_model(coarse=False).save_pretrained(tmp_path / "refiner")
    with pytest.raises(UserError) as raised:
        load_coarse(tmp_path / "refiner")
    one_line(raised, "no stage 1", "ViT run")
    foreign = tmp_path / "foreign.safetensors"
    network = nn.Linear(2, 2)
    save_checkpoint(foreign, "coarse", {"colour": 3}, network, torch.optim.AdamW(network.parameters()), Progress())
    for path, words in (
        (run / "unet" / "checkpoints" / "best.safetensors", ("'unet'", "'coarse'")),
        (foreign, ("foreign.safetensors", "cannot build")),
        (tmp_path / "nothing", ("does not exist",)),
    ):
        with pytest.raises(UserError) as raised:
            load_coarse(path)
        one_line(raised, *words)


def test_load_model_names_what_is_wrong(run: Path, tmp_path: Path) -> None:
    assert load_model(run).refines and load_model(run / MODEL_FOLDER).refines
    (tmp_path / "file").write_text("x")
    (tmp_path / "unfinished").mkdir()
    for path, words in (
        (tmp_path / "absent", ("absent", "does not exist")),
        (tmp_path / "file", ("is a file",)),
        (tmp_path / "unfinished", ("no finished model", "--resume")),
    ):
        with pytest.raises(UserError) as raised:
            load_model(path)
        one_line(raised, *words)
    index = run / MODEL_FOLDER / "model_index.json"
    written = index.read_text()
    for broken in ("{", "[]", json.dumps(json.loads(written) | {"unet": ["os", "system"]})):
        index.write_text(broken)
        with pytest.raises(UserError) as raised:
            load_model(run)
        one_line(raised, "model_index.json")
    index.write_text(written)
    for part in ("coarse", "vae", "unet"):
        copy = tmp_path / part
        shutil.copytree(run, copy)
        weights = copy / MODEL_FOLDER / part / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-40])
        with pytest.raises(UserError) as raised:
            load_model(copy)
        one_line(raised, "cannot be loaded", part)


# The autoencoder


def scale(vae: Autoencoder) -> float:
    return float(vae.config["scaling_factor"])


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_vae_of_the_config_when_no_path_is_given(vae_type: VaeType) -> None:
    vae = build_vae(training(vae_type), replace(SHAPE, block_out_channels=(16, 16)))
    assert family(vae) == vae_type and vae.config["latent_channels"] == 4


@pytest.mark.parametrize("key", ["vae_path", "pretrained_vae_path"])
def test_either_path_alone_is_a_whole_autoencoder(key: str, run: Path) -> None:
    # The shape of the config is of no account then.
    vae = build_vae(training(**{key: str(run / VAE_FOLDER)}), AutoencoderShape((8, 8, 8), 1, 2, 8))
    assert same_weights(vae, toy_vae()) and scale(vae) == 2.5


@pytest.mark.parametrize("source", ["folder", "checkpoint"])
def test_both_paths_give_shape_and_weights(source: str, run: Path, tmp_path: Path) -> None:
    base = toy_vae(seed=8)
    base.register_to_config(scaling_factor=0.3)
    base.save_pretrained(tmp_path / "base")
    tuned = {"folder": run / VAE_FOLDER, "checkpoint": run / "vae" / "checkpoints" / "best.safetensors"}[source]
    vae = build_vae(training(vae_path=str(tmp_path / "base"), pretrained_vae_path=str(tuned)), None)
    assert same_weights(vae, toy_vae()) and scale(vae) == 0.3


def test_vae_paths_that_are_wrong(run: Path, tmp_path: Path) -> None:
    folder, checkpoint = run / VAE_FOLDER, run / "vae" / "checkpoints" / "best.safetensors"
    unet = run / "unet" / "checkpoints" / "best.safetensors"
    (tmp_path / "vae.pt").write_bytes(b"junk")
    cases: list[tuple[DiffusionTrainingConfig, tuple[str, ...]]] = [
        (training(vae_path="/nowhere"), ("/nowhere", "does not exist")),
        (training("VA_VAE", vae_path=str(folder)), (str(folder), "VA_VAE", "AutoencoderKL")),
        (training("DC_AE", vae_path=str(folder)), (str(folder), "DC_AE")),
        (training(vae_path=str(tmp_path / "vae.pt")), ("vae.pt",)),
        (training(vae_path=str(checkpoint)), ("checkpoint", VAE_FOLDER)),
        (training(pretrained_vae_path=str(checkpoint)), ("checkpoint", VAE_FOLDER)),
        (training(vae_path=str(folder), pretrained_vae_path="/nowhere"), ("/nowhere", "does not exist")),
        (training(vae_path=str(folder), pretrained_vae_path=str(unet)), ("'unet'", "'vae'")),
        (training(), ("vae_path is empty",)),
    ]
    for config, words in cases:
        with pytest.raises(UserError) as raised:
            build_vae(config, None)
        one_line(raised, *words)
    with pytest.raises(UserError) as raised:
        build_vae(training(), AutoencoderShape((16, 30), 1, 4, 8))
    one_line(raised, "norm_num_groups 8")


# The U-Net and the whole


def dropouts(unet: UNet2DModel) -> set[float]:
    return {m.p for block in unet.down_blocks for m in block.resnets.modules() if isinstance(m, nn.Dropout)}


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_the_unet_has_its_familys_shape_unless_told_otherwise(vae_type: VaeType) -> None:
    vae = toy_vae(vae_type)
    shape = PUBLISHED_REFINERS[vae_type]
    with torch.device("meta"):
        published = build_model(training(vae_type, unet={}), vae, None).unet
        narrow = build_model(training(vae_type, unet={"block_out_channels": [64, 128, 128, 128]}), vae, None).unet
    assert tuple(published.config["block_out_channels"]) == shape.block_out_channels
    assert published.config["layers_per_block"] == shape.layers_per_block == narrow.config["layers_per_block"]
    assert (published.config["in_channels"], published.config["out_channels"]) == (8, 4)
    assert tuple(narrow.config["block_out_channels"]) == (64, 128, 128, 128)
    assert published.config["resnet_time_scale_shift"] == ("scale_shift" if shape.scale_shift else "default")


@pytest.mark.parametrize(
    ("vae_type", "given", "expected"),
    [
        ("AutoencoderKL", {}, 0.0),
        ("AutoencoderKL", {"dropout": 0.2}, 0.2),
        ("VA_VAE", {}, 0.1),
        ("VA_VAE", {"dropout": 0.0}, 0.0),
        ("DC_AE", {}, 0.1),
        ("DC_AE", {"dropout": ""}, 0.1),
    ],
)
def test_dropout_is_the_familys_unless_given(vae_type: VaeType, given: dict[str, Any], expected: float) -> None:
    config = training(vae_type, **given)
    assert dropouts(build_model(config, toy_vae(vae_type), None).unet) == {expected}
    # A run writes its effective config, and is resumed from it.
    stored = {key: value for key, value in config.model_dump(mode="json", exclude_none=True).items()}
    stored["unet"] = {key: value for key, value in stored["unet"].items() if value is not None}
    again = parse_config(stored, DiffusionTrainingConfig, "resumed")
    assert dropouts(build_model(again, toy_vae(vae_type), None).unet) == {expected}


def test_schedule_and_steps_of_the_config() -> None:
    section = {"diff_iter": 2, "betas": {"start": 0.6, "stop": 0.1, "num_timesteps": 4}}
    model = build_model(training(diffusion_cfg=section), toy_vae(), None)
    assert model.scheduler.weights[0] == 0.6 and len(model.scheduler.weights) == 4
    assert model.unet.config["num_train_timesteps"] == 4
    assert model.config["steps"] == 2
    assert build_model(training(), toy_vae(), None).config["steps"] is None
    assert isinstance(build_schedule(training().diffusion_cfg), PLBRScheduler)


@pytest.mark.parametrize("source", ["run", "model", "checkpoint"])
def test_unet_weights_to_start_from(source: str, run: Path) -> None:
    checkpoint = run / "unet" / "checkpoints" / "best.safetensors"
    path = {"run": run, "model": run / MODEL_FOLDER, "checkpoint": checkpoint}[source]
    torch.manual_seed(9)
    model = build_model(training(pretrained_model_path=str(path)), toy_vae(), None)
    assert same_weights(model.unet, toy_unet(toy_vae()))


def test_build_model_names_what_is_wrong(run: Path, vit_run: Path) -> None:
    cases: list[tuple[DiffusionTrainingConfig, tuple[str, ...]]] = [
        (training(unet=SMALL_UNET | {"attention_strides": [8]}), ("attention_strides [8]",)),
        (training(unet=SMALL_UNET | {"norm_num_groups": 5}), ("norm_num_groups 5",)),
        (training(pretrained_model_path="nowhere"), ("nowhere", "does not exist")),
        (training(pretrained_model_path=str(vit_run)), ("no stage 2",)),
        (
            training(pretrained_model_path=str(run), unet=SMALL_UNET | {"block_out_channels": [16, 48]}),
            ("another architecture", str(run)),
        ),
        (
            training(pretrained_model_path=str(run / "vae" / "checkpoints" / "best.safetensors")),
            ("'vae'", "'unet'"),
        ),
    ]
    for config, words in cases:
        with pytest.raises(UserError) as raised:
            build_model(config, toy_vae(), None)
        one_line(raised, *words)


# What evaluation loads


def predict(model: D3RSMDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images, priors = (torch.rand(1, channels, 16, 16, generator=generator) for channels in (3, 1))
    return model.refine(images, priors).height


def test_a_refiner_from_run_folder_and_checkpoint_is_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predict(load_model(run))
    checkpoint = run / "unet" / "checkpoints" / "best.safetensors"
    assert torch.equal(predict(load_refiner(evaluation(run))), expected)
    assert torch.equal(predict(load_refiner(evaluation(run / MODEL_FOLDER))), expected)
    # The autoencoder lies beside the run, scale included.
    assert torch.equal(predict(load_refiner(evaluation(checkpoint))), expected)
    monkeypatch.chdir(checkpoint.parent)
    assert torch.equal(predict(load_refiner(evaluation(Path("best.safetensors")))), expected)


def test_a_checkpoint_keeps_the_vae_of_its_run(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = toy_vae(seed=6)
    other.save_pretrained(tmp_path / "other")
    checkpoint = run / "unet" / "checkpoints" / "best.safetensors"
    with caplog.at_level("INFO"):
        model = load_refiner(evaluation(checkpoint, vae_path=str(tmp_path / "other")))
    assert same_weights(model.vae, toy_vae()) and scale(model.vae) == 2.5
    assert "vae_path and pretrained_vae_path are not read" in caplog.text
    # Away from its run, it takes the config's.
    moved = tmp_path / "moved.safetensors"
    shutil.copy(checkpoint, moved)
    assert same_weights(load_refiner(evaluation(moved, vae_path=str(tmp_path / "other"))).vae, other)
    with pytest.raises(UserError) as raised:
        load_refiner(evaluation(moved))
    one_line(raised, "give vae_path")


def test_steps_of_an_evaluation(run: Path) -> None:
    assert load_refiner(evaluation(run)).config["steps"] is None
    model = load_refiner(evaluation(run, diffusion_cfg={"diff_iter": 2}))
    assert model.config["steps"] == 2
    predict(model)
    assert model.scheduler.timesteps.tolist() == [5, 0]


def test_load_refiner_names_what_is_wrong(run: Path, vit_run: Path) -> None:
    betas = {"start": 0.8, "stop": 0.0, "num_timesteps": 4}
    cases: list[tuple[DiffusionEvaluationConfig, tuple[str, ...]]] = [
        (evaluation(run / "absent"), ("does not exist",)),
        (evaluation(vit_run), ("no stage 2", "evaluateViT.py")),
        (evaluation(vit_run / "final" / "checkpoints" / "best.safetensors"), ("'coarse'", "'unet'")),
        (evaluation(run, "VA_VAE"), ("AutoencoderKL", "VA_VAE")),
        (evaluation(run, diffusion_cfg={"betas": betas}), ("betas", "leave betas out")),
    ]
    for config, words in cases:
        with pytest.raises(UserError) as raised:
            load_refiner(config)
        one_line(raised, *words)
    same = {"start": 0.8, "stop": 0.0, "num_timesteps": 6}
    assert load_refiner(evaluation(run, diffusion_cfg={"betas": same})).refines
