"""From a loss to the next weights: accumulation, clipping, warm-up, schedules, averages, fp16's scaling."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainDiffusion
import trainViT
from Systems.d3rsmde.build import load_coarse
from tests.conftest import Config, small_diffusion, small_vit, write_config
from tests.Utils.training.test_training import log_rows
from Utils.core.errors import UserError
from Utils.data.loaders import TrainingLoader
from Utils.data.published_layout import list_tiles
from Utils.data.tile_dataset import TileDataset
from Utils.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from Utils.training.optimisation import Optimisation, OptimisationSettings
from Utils.training.run_files import best_checkpoint, last_checkpoint
from Utils.training.task import one_group

CPU = torch.device("cpu")
STEPS_PER_EPOCH, EPOCHS = 2, 4
PLAIN = OptimisationSettings(
    lr=0.1,
    lr_schedule="plateau",
    threshold_epoch=0,
    downgrade_lr_ratio=0.5,
    lr_power=0.9,
    lr_milestones=(),
    warmup_steps=0,
    optimiser="AdamW",
    optimiser_options={},
    weight_decay=0.0,
    gradient_clip=None,
    ema_decay=0.0,
    precision="fp32",
)


def make(**changes: Any) -> tuple[nn.Linear, Optimisation]:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    return network, optimise(network, **changes)


def optimise(network: nn.Module, **changes: Any) -> Optimisation:
    settings = replace(PLAIN, **changes)
    return Optimisation(network, one_group(network), settings, CPU, EPOCHS * STEPS_PER_EPOCH, STEPS_PER_EPOCH)


def step(network: nn.Module, optimisation: Optimisation, progress: Progress, batch: Tensor) -> float:
    optimisation.backward(network(batch).square().mean())
    norm = optimisation.gradient_norm()
    optimisation.step(progress, norm)
    return float(norm)


def batches(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(seed))


def rates(optimisation: Optimisation, network: nn.Module, steps: int, scores: Sequence[float] = ()) -> list[float]:
    """The learning rate of each step, two an epoch, each epoch with a score."""
    progress, found = Progress(), []
    for number, batch in enumerate(batches(steps)):
        step(network, optimisation, progress, batch)
        assert progress.rate is not None
        found.append(progress.rate)
        if number % 2:
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
            optimisation.end_epoch(scores[number // 2] if scores else None)
    return found


def test_the_rate_warms_up_in_a_straight_line() -> None:
    network, optimisation = make(warmup_steps=4)
    assert rates(optimisation, network, 6) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_a_plateau_during_warm_up_lowers_the_rate_that_is_warmed_up_to() -> None:
    network, optimisation = make(warmup_steps=6, threshold_epoch=1)
    found = rates(optimisation, network, 8, scores=[1.0, 2.0, 3.0, 0.5])
    halves = [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025]
    assert found == pytest.approx([rate * min(1.0, (n + 1) / 6) for n, rate in enumerate(halves)])


def test_half_a_cosine_with_warm_up() -> None:
    network, optimisation = make(lr_schedule="cosine", warmup_steps=2)
    expected = [0.05 * (1 + math.cos(math.pi * n / 8)) * min(1.0, (n + 1) / 2) for n in range(8)]
    assert rates(optimisation, network, 8) == pytest.approx(expected)


def test_gradients_are_clipped_to_their_norm() -> None:
    """With AdamW the scale of all gradients hardly counts, that of one step among others does."""
    (batch,) = batches(1)
    network, optimisation = make(gradient_clip=0.01)
    before = copy.deepcopy(network)
    seen: list[Tensor] = []
    optimisation.optimiser.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([value.grad.flatten() for value in network.parameters()]))  # type: ignore[union-attr]
    )
    norm = step(network, optimisation, Progress(), batch)
    loss = before(batch).square().mean()
    gradient = torch.cat([value.flatten() for value in torch.autograd.grad(loss, list(before.parameters()))])
    assert norm == pytest.approx(float(gradient.norm())) and norm > 0.1
    torch.testing.assert_close(seen[0], gradient * 0.01 / norm, rtol=1e-4, atol=1e-7)


def test_small_gradients_are_not_clipped() -> None:
    (batch,) = batches(1)
    results = []
    for clip in (None, 1e6):
        network, optimisation = make(gradient_clip=clip)
        step(network, optimisation, Progress(), batch)
        results.append(network.weight.detach().clone())
    assert torch.equal(*results)


def test_the_average_follows_its_formula() -> None:
    network, optimisation = make(ema_decay=0.3)
    progress, expected = Progress(), None
    for number, batch in enumerate(batches(6)):
        step(network, optimisation, progress, batch)
        # Early on the average follows quickly: (1 + n) / (10 + n), the first step as it is.
        decay = 0.0 if number == 0 else min(0.3, (1 + number) / (10 + number))
        weight = network.weight.detach().clone()
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    average = optimisation.average()
    assert average.keys() == {"weight", "bias"}
    torch.testing.assert_close(average["weight"], expected)
    assert not torch.allclose(average["weight"], network.weight)


def test_the_average_is_lent_and_given_back() -> None:
    network, optimisation = make(ema_decay=0.9)
    progress = Progress()
    for batch in batches(4):
        step(network, optimisation, progress, batch)
    own = network.weight.detach().clone()
    with pytest.raises(KeyError), optimisation.averaged():
        assert torch.equal(network.weight, optimisation.average()["weight"])
        raise KeyError
    assert torch.equal(network.weight, own)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_state_and_average_survive_a_checkpoint(precision: str, tmp_path: Path) -> None:
    changes: Config = {"precision": precision, "ema_decay": 0.8, "gradient_clip": 0.1, "warmup_steps": 5}

    def run(optimisation: Optimisation, network: nn.Module, progress: Progress, given: Tensor) -> None:
        for batch in given:
            with optimisation.autocast():
                loss = network(batch).square().mean()
            optimisation.backward(loss)
            optimisation.step(progress, optimisation.gradient_norm())

    network, optimisation = make(**changes)
    progress = Progress()
    run(optimisation, network, progress, batches(3))
    optimisation.write_state(progress)
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, "toy", {}, network, optimisation.optimiser, progress, optimisation.average())
    checkpoint = load_checkpoint(path)
    torch.manual_seed(9)
    other = nn.Linear(3, 1)
    other.load_state_dict(checkpoint.network)
    restored = optimise(other, **changes)
    restored.restore(checkpoint)
    run(optimisation, network, progress, batches(3, seed=2))
    run(restored, other, checkpoint.progress, batches(3, seed=2))
    optimisation.write_state(progress)
    restored.write_state(checkpoint.progress)
    assert torch.equal(network.weight, other.weight)
    assert torch.equal(optimisation.average()["weight"], restored.average()["weight"])
    assert progress.scaler == checkpoint.progress.scaler
    assert bool(progress.scaler) is (precision == "fp16")


def test_fp16_leaves_out_a_step_whose_gradients_overflow() -> None:
    network, optimisation = make(precision="fp16")
    progress = Progress()
    (batch,) = batches(1)
    before = network.weight.detach().clone()
    optimisation.backward(network(batch).square().mean() * 1e35)  # scaled by 65536 it is no number
    norm = optimisation.gradient_norm()
    assert not norm.isfinite()
    optimisation.step(progress, norm)
    assert torch.equal(network.weight, before)
    optimisation.write_state(progress)
    assert progress.scaler["scale"] == 32768.0
    step(network, optimisation, progress, batch)
    assert not torch.equal(network.weight, before)


def test_fp16_gives_up_when_no_scale_helps() -> None:
    network, optimisation = make(precision="fp16")
    with pytest.raises(UserError, match="fp16 is too narrow for these gradients.*set precision bf16"):
        for batch in batches(40):
            optimisation.backward(network(batch).square().mean() * torch.inf)
            optimisation.step(Progress(), optimisation.gradient_norm())


# Through the scripts


def gradients_of(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, script: Any) -> list[Tensor]:
    """The gradients of every optimiser step of a run."""
    found: list[Tensor] = []
    original = Optimisation.step

    def watch(optimisation: Optimisation, *arguments: Any) -> None:
        gradients = [value.grad for value in optimisation._network.parameters() if value.grad is not None]
        found.append(torch.cat([gradient.flatten().clone() for gradient in gradients]))
        original(optimisation, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Optimisation, "step", watch)
        assert script.main(["--config", str(write_config(folder / "c.json", config))]) == 0
    return found


@pytest.mark.parametrize("losses", ["L1Loss", "HDNLoss", "SSIMAELoss"])
def test_accumulated_gradients_are_those_of_the_large_batch(
    losses: str, shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five training tiles: 1 + 1 + 1 and the 2 that are left, against 3 and 2; 2 + 1 likewise."""
    changes: Config = {"loss_types": losses, "lr": 1e-7, "flips": ["horizontal"]}
    base = small_vit(shared_dataset, tmp_path / "whole") | changes
    large = gradients_of(base | {"batch_size": 3}, tmp_path, monkeypatch, trainViT)
    parts = {"batch_size": 1, "accumulate": 3, "output_dir": str(tmp_path / "parts")}
    accumulated = gradients_of(base | parts, tmp_path, monkeypatch, trainViT)
    assert len(large) == len(accumulated) == 2
    for one, other in zip(large, accumulated, strict=True):
        assert (one - other).norm() < 1e-3 * one.norm()
    first, second = (log_rows(tmp_path / name / "final")[0] for name in ("whole", "parts"))
    assert second[f"train/{losses}"] == pytest.approx(first[f"train/{losses}"], rel=1e-4)
    assert first["step"] == second["step"] == 2


def test_stage_2_accumulates_with_the_same_draws(
    shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = small_diffusion(shared_dataset, tmp_path / "whole") | {"lr": 1e-7, "vae_lr": 1e-7}
    base |= {"own_prediction_share": 0.5, "loss_types": ["L1Loss", "HDNLoss"]}
    large = gradients_of(base | {"batch_size": 4}, tmp_path, monkeypatch, trainDiffusion)
    parts = {"batch_size": 2, "accumulate": 2, "output_dir": str(tmp_path / "parts")}
    accumulated = gradients_of(base | parts, tmp_path, monkeypatch, trainDiffusion)
    assert len(large) == len(accumulated) == 4, "two of the autoencoder, two of the U-Net"
    for one, other in zip(large, accumulated, strict=True):
        assert (one - other).norm() < 2e-3 * one.norm()


def test_tiles_without_heights_are_not_trained_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They teach nothing, and would weigh differently in a large batch and in its parts."""
    import numpy as np

    from tests.conftest import height_path, write_raster

    write_raster(height_path(dataset, "10"), np.full((32, 32), -9999.0, np.float32), nodata=-9999.0)
    config = small_vit(dataset, tmp_path / "run") | {"not_split": True, "batch_size": 1}
    assert len(gradients_of(config, tmp_path, monkeypatch, trainViT)) == 5


def test_best_and_model_are_the_averaged_weights(shared_dataset: Path, tmp_path: Path) -> None:
    config = small_vit(shared_dataset, tmp_path / "run") | {"epochs": 3, "ema_decay": 0.9, "batch_size": 1}
    assert trainViT.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    best = load_checkpoint(best_checkpoint(tmp_path / "run" / "final"))
    name = next(iter(best.average))
    assert not torch.equal(best.network[name], best.average[name])
    from_checkpoint = load_coarse(best_checkpoint(tmp_path / "run" / "final")).state_dict()
    from_model = load_coarse(tmp_path / "run").state_dict()
    for key, value in best.average.items():
        assert torch.equal(from_checkpoint[key], value)
        assert torch.equal(from_model[key], value)


def test_the_average_is_what_is_validated(shared_dataset: Path, tmp_path: Path) -> None:
    """An average that hardly moves leaves the validation score where the first step put it."""
    config = small_vit(shared_dataset, tmp_path / "run") | {"epochs": 4, "lr": 0.01, "batch_size": 5}
    scores = {}
    for decay in (0.0, 0.5):
        changes = {"ema_decay": decay, "output_dir": str(tmp_path / str(decay))}
        assert trainViT.main(["--config", str(write_config(tmp_path / "c.json", config | changes))]) == 0
        rows = log_rows(tmp_path / str(decay) / "final")
        scores[decay] = [row["validation/paper.mae"] for row in rows]
        losses = [row["train/L1Loss"] for row in rows]
    assert scores[0.0][0] == pytest.approx(scores[0.5][0]), "after one step the average is the weights"
    assert scores[0.0][1] != pytest.approx(scores[0.5][1], rel=1e-4)
    assert losses == [row["train/L1Loss"] for row in log_rows(tmp_path / "0.0" / "final")], "training does not see it"


def test_saving_within_epochs_changes_nothing(shared_dataset: Path, tmp_path: Path) -> None:
    found = []
    for name, minutes in (("never", 0.0), ("always", 1e-9)):
        config = small_vit(shared_dataset, tmp_path / name) | {"epochs": 3, "batch_size": 2, "save_minutes": minutes}
        assert trainViT.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
        found.append(load_checkpoint(last_checkpoint(tmp_path / name / "final")))
    assert found[0].progress == found[1].progress
    assert all(torch.equal(value, found[1].network[name]) for name, value in found[0].network.items())


def test_a_step_that_was_done_is_not_read_again(shared_dataset: Path) -> None:
    files = list_tiles(shared_dataset, "singleRGBNormalization")
    read: list[int] = []

    class Watched(TileDataset):
        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return super().__getitem__(index)

    loader = TrainingLoader(Watched(files, list(files)), 1, 0, seed=1, accumulate=2)
    whole = [[part.batch["id"] for part in parts] for parts in loader.epoch(1)]
    read.clear()
    rest = [[part.batch["id"] for part in parts] for parts in loader.epoch(1, done=2)]
    assert rest == whole[2:] and len(read) == 2
