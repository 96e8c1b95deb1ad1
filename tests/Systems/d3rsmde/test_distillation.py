"""Distillation: a light VAE learns a large one's latents, and what a config may ask of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import evaluateDiffusion
import trainDiffusion
from Modules.d3rsmde.autoencoders import Autoencoder, AutoencoderShape, build_autoencoder, decode, encode, load_folder
from Modules.d3rsmde.pipeline import to_vae
from Systems.d3rsmde.build import build_teacher
from Systems.d3rsmde.config import DiffusionTrainingConfig
from Systems.d3rsmde.latents import latent_scale
from Systems.d3rsmde.targets import relative_height
from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask
from Systems.d3rsmde.tasks.distillation_task import DistillationTask
from tests.conftest import (
    Config,
    shaded_image,
    small_diffusion,
    small_diffusion_evaluation,
    synthetic_height,
    write_config,
)
from tests.toys import generators, toy_vae
from Utils.config.config_files import parse_config
from Utils.core.errors import UserError
from Utils.data.published_layout import TRAINING_PART, list_tiles
from Utils.data.tile_dataset import read_tile

SIZE = 16


def make_batch(*numbers: int) -> dict[str, Any]:
    """Smooth maps, and the same lit from a side."""
    heights = [synthetic_height(number, SIZE) for number in numbers]
    return {
        "image": torch.stack([torch.from_numpy(shaded_image(height)) for height in heights]).float() / 255.0,
        "height": torch.stack([torch.from_numpy(height)[None] for height in heights]).float() / 255.0,
        "valid": torch.ones(len(heights), 1, SIZE, SIZE, dtype=torch.bool),
    }


def learn(task: AutoencoderTask, steps: int) -> None:
    optimiser = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    task.network.train()
    for step in range(steps):
        optimiser.zero_grad()
        batch = make_batch(*range(4 * step, 4 * step + 4))
        task.loss(batch, generators(batch)).backward()
        optimiser.step()
    task.network.eval()


@pytest.fixture(scope="module")
def teacher() -> Autoencoder:
    """A large VAE, trained so far that its latents say something, with a scale other than 1."""
    vae = toy_vae("AutoencoderKL")
    learn(AutoencoderTask(vae, "AutoencoderKL"), 60)
    vae.register_to_config(scaling_factor=0.4)
    return vae.requires_grad_(False)


def distances(student: Autoencoder, teacher: Autoencoder) -> dict[str, float]:
    """Mean absolute differences between student and teacher on tiles that neither has seen."""
    unseen = make_batch(1001, 1002, 1003, 1004)
    values = torch.cat([to_vae(unseen["image"]), to_vae(unseen["height"])])
    with torch.no_grad():
        taught, own = encode(teacher, values), encode(student, values)
        example = decode(teacher, taught)

        def apart(first: Tensor, second: Tensor) -> float:
            return float((first - second).abs().mean())

        return {
            "latents": apart(own, taught),
            "latents of maps": apart(own[4:], taught[4:]),
            "student's drawing of the teacher's latents": apart(decode(student, taught), example),
            "student's drawing of its own latents": apart(decode(student, own), example),
            "teacher's drawing of the student's latents": apart(decode(teacher, own), example),
        }


def test_the_student_moves_into_the_teachers_latent_space(teacher: Autoencoder) -> None:
    student = toy_vae("AutoencoderTiny")
    before = distances(student, teacher)
    learn(DistillationTask(student, "AutoencoderTiny", teacher), 150)
    after = distances(student, teacher)
    # Measured: 4.8 to 12.7 times nearer after these few steps; the latents of a student that learns alone: not at all.
    assert {name: before[name] / after[name] for name in before if before[name] < 3.0 * after[name]} == {}


def test_a_student_that_learns_alone_has_latents_of_its_own(teacher: Autoencoder) -> None:
    student = toy_vae("AutoencoderTiny")
    before = distances(student, teacher)
    learn(AutoencoderTask(student, "AutoencoderTiny"), 150)
    after = distances(student, teacher)
    assert before["latents"] < 1.5 * after["latents"]


def test_the_loss_by_hand(teacher: Autoencoder) -> None:
    student, batch = toy_vae("AutoencoderTiny"), make_batch(1, 2)
    loss = DistillationTask(student, "AutoencoderTiny", teacher).loss(batch, generators(batch))
    values = torch.cat([batch["image"], batch["height"].repeat(1, 3, 1, 1)]) * 2.0 - 1.0
    mean = teacher.encode(values).latent_dist.mean
    own = student.encode(values).latents
    expected = (own - 0.4 * mean).abs().mean()
    for latents in (own, 0.4 * mean):
        drawn = student.decode(latents).sample
        edges = (drawn - values).diff(dim=2).abs().mean() + (drawn - values).diff(dim=3).abs().mean()
        expected = expected + (drawn - values).abs().mean() + 0.5 * edges
    # Both drawings are made in one batch there: another order of sums.
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_the_encoder_learns_the_teachers_latents_alone(teacher: Autoencoder) -> None:
    """What its own decoder would like to be given must not move the latent space."""
    student, batch = toy_vae("AutoencoderTiny"), make_batch(1, 2)
    weights = list(student.encoder.parameters())
    loss = DistillationTask(student, "AutoencoderTiny", teacher).loss(batch, generators(batch))
    values = torch.cat([to_vae(batch["image"]), to_vae(batch["height"])])
    of_latents = (encode(student, values) - encode(teacher, values)).abs().mean()
    gradients = (torch.autograd.grad(value, weights) for value in (loss, of_latents))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_teacher_is_frozen_and_teaches_every_parameter() -> None:
    teacher, student = toy_vae("VA_VAE").train(), toy_vae("AutoencoderTiny")
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    task = DistillationTask(student, "AutoencoderTiny", teacher)
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    batch = make_batch(1, 2)
    task.loss(batch, generators(batch)).backward()
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []
    learn(task, 2)
    assert not teacher.training
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    task.to(torch.device("meta"))
    assert {parameter.device.type for parameter in teacher.parameters()} == {"meta"}


# Configs and runs

TEACHING = {
    "vae_type": "AutoencoderTiny",
    "teacher_vae_type": "AutoencoderKL",
    "teacher_vae_path": "t",
    "vae_epochs": 1,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher_vae_path": ""}, "teacher_vae_type is given without teacher_vae_path"),
        ({"teacher_vae_type": ""}, "teacher_vae_path is given without teacher_vae_type"),
        ({"vae_type": "DC_AE"}, "a teacher is for vae_type AutoencoderTiny, not DC_AE; remove teacher_vae_path"),
        ({"vae_epochs": 0}, "vae_epochs is 0: nothing would be learnt; set vae_epochs"),
        ({"teacher_vae_type": "AutoencoderTiny"}, "key 'teacher_vae_type' = \"AutoencoderTiny\": it should be 'Auto"),
    ],
)
def test_teachers_that_make_no_sense(change: Config, said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_config({"dataset_path": "d"} | TEACHING | change, DiffusionTrainingConfig, "f.json")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_config_without_a_teacher(teacher: Autoencoder) -> None:
    config = parse_config({"dataset_path": "d", "vae_type": "AutoencoderTiny"}, DiffusionTrainingConfig, "f.json")
    assert build_teacher(config, teacher) is None


@pytest.mark.parametrize(
    ("widths", "channels", "said"),
    [
        ((16, 16), 3, "latents of 4 channels and stride 2, but the light VAE of 3 and 2"),
        ((16, 16, 16), 4, "latents of 4 channels and stride 2, but the light VAE of 4 and 4"),
    ],
)
def test_a_teacher_with_other_latents(
    widths: tuple[int, ...], channels: int, said: str, teacher: Autoencoder, tmp_path: Path
) -> None:
    teacher.save_pretrained(tmp_path)
    data = {"dataset_path": "d"} | TEACHING | {"teacher_vae_path": str(tmp_path)}
    config = parse_config(data, DiffusionTrainingConfig, "f.json")
    student = build_autoencoder("AutoencoderTiny", AutoencoderShape(widths, 1, channels, 1))
    with pytest.raises(UserError, match=said):
        build_teacher(config, student)
    fitting = build_teacher(config, toy_vae("AutoencoderTiny"))
    assert fitting is not None and fitting.config["scaling_factor"] == 0.4


def teaching_config(dataset: Path, run: Path, teacher: Path) -> Config:
    config = small_diffusion(dataset, run, "AutoencoderTiny")
    config["vae"] |= {"block_out_channels": [8, 8]}
    return config | {"teacher_vae_type": "AutoencoderKL", "teacher_vae_path": str(teacher)}


def teachers_latents(dataset: Path, run: Path) -> NDArray[np.float32]:
    """Magnitudes of the latents that a run's pupil learnt from."""
    plan = json.loads((run / "plan.json").read_text())
    teacher = load_folder(Path(json.loads((run / "config.json").read_text())["teacher_vae_path"])).eval()
    tiles = list_tiles(dataset, TRAINING_PART)
    items = [read_tile(tile, tiles[tile]) for tile in plan[0]["train"]]
    with torch.no_grad():
        values = [
            encode(teacher, to_vae(values[None]))
            for item in items
            for values in (item["image"], relative_height(item)["height"])
        ]
    return torch.cat([value.abs().flatten() for value in values]).numpy()


def test_a_run_with_a_teacher(shared_dataset: Path, diffusion_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = teaching_config(shared_dataset, run, diffusion_run / "frozen_vae")
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 0
    light = load_folder(run / "frozen_vae")
    # That which brings the teacher's latents of the training tiles where its decoder can tell them apart.
    reach = 2.0 * light.config["scaling_factor"]
    latents = teachers_latents(shared_dataset, run)
    assert np.mean(latents > 1.03 * reach) < 0.001 < np.mean(latents > 0.95 * reach)
    row = json.loads((run / "vae" / "log.jsonl").read_text().splitlines()[0])
    assert row["train/distillation"] > 0.0 and row["validation/paper.mae"] > 0.0
    score = small_diffusion_evaluation(shared_dataset, run, tmp_path / "out") | {"vae_type": "AutoencoderTiny"}
    assert evaluateDiffusion.main(["--config", str(write_config(tmp_path / "score.json", score))]) == 0
    # It goes on for an epoch, with the teacher of its config.
    assert trainDiffusion.main(["--resume", str(run), "--set", "epochs=2"]) == 0
    assert all(
        torch.equal(value, light.state_dict()[name])
        for name, value in load_folder(run / "frozen_vae").state_dict().items()
    )


def test_a_light_vae_that_was_trained_before_keeps_its_scale(
    shared_dataset: Path, diffusion_run: Path, tmp_path: Path
) -> None:
    known = build_autoencoder("AutoencoderTiny", AutoencoderShape((8, 8), 1, 2, 1))
    known.register_to_config(scaling_factor=0.7)
    known.save_pretrained(tmp_path / "known")
    run = tmp_path / "run"
    train = teaching_config(shared_dataset, run, diffusion_run / "frozen_vae") | {"vae_path": str(tmp_path / "known")}
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 0
    assert load_folder(run / "frozen_vae").config["scaling_factor"] == 0.7


def test_a_pupil_goes_on_with_the_scale_that_it_began_with(
    shared_dataset: Path, diffusion_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where measuring it again would give another one, as on another device or in another version."""
    run = tmp_path / "run"
    config = write_config(tmp_path / "train.json", teaching_config(shared_dataset, run, diffusion_run / "frozen_vae"))
    monkeypatch.setattr(latent_scale, "measure_squeezed_scale", lambda latents: 1.7)
    assert trainDiffusion.main(["--config", str(config)]) == 0
    monkeypatch.undo()
    assert trainDiffusion.main(["--resume", str(run), "--set", "epochs=2"]) == 0
    assert load_folder(run / "frozen_vae").config["scaling_factor"] == 1.7


def test_a_run_without_a_teacher_measures_its_scale(shared_dataset: Path, tmp_path: Path) -> None:
    train = teaching_config(shared_dataset, tmp_path / "run", Path())
    del train["teacher_vae_type"], train["teacher_vae_path"]
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 0
    frozen = tmp_path / "run" / "frozen_vae"
    measured = load_folder(frozen).config["scaling_factor"]
    assert measured != 1.0
    # Another device would measure other last digits: the U-Net goes on with those that it began with.
    config = json.loads((frozen / "config.json").read_text())
    (frozen / "config.json").write_text(json.dumps(config | {"scaling_factor": measured * (1.0 + 1e-6)}))
    assert trainDiffusion.main(["--resume", str(tmp_path / "run"), "--set", "epochs=2"]) == 0
    assert load_folder(frozen).config["scaling_factor"] == measured * (1.0 + 1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vae": {"block_out_channels": [8, 8], "latent_channels": 3}}, "stride 2, but the light VAE of 3"),
        ({"teacher_vae_type": "VA_VAE"}, "holds a VAE of type AutoencoderKL, but the config says vae_type VA_VAE"),
        ({"teacher_vae_path": "checkpoint"}, "is a checkpoint, which lacks the scale of the latents"),
        ({"vae": {"block_out_channels": [8, 16], "latent_channels": 2}}, "must all be the same, not [8, 16]"),
    ],
)
def test_a_teacher_that_does_not_fit_stops_even_a_dry_run(
    change: Config,
    said: str,
    shared_dataset: Path,
    diffusion_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if change.get("teacher_vae_path") == "checkpoint":
        change = {"teacher_vae_path": str(diffusion_run / "vae" / "checkpoints" / "best.safetensors")}
    train = teaching_config(shared_dataset, tmp_path / "run", diffusion_run / "frozen_vae") | change
    config = str(write_config(tmp_path / "train.json", train))
    assert trainDiffusion.main(["--config", config, "--dry-run"]) == 2
    assert said in capsys.readouterr().err
    assert trainDiffusion.main(["--config", config]) == 2
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_not_there(shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = teaching_config(shared_dataset, tmp_path / "run", tmp_path / "nowhere")
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "train.json", train))]) == 2
    assert "teacher_vae_path: the autoencoder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
