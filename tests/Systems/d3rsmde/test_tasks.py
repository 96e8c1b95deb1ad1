"""The refiner's training loss: what goes in, what is compared, what masks do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from Modules.d3rsmde.autoencoders import decode, encode
from Modules.d3rsmde.pipeline import from_vae, to_vae
from Modules.d3rsmde.plbr import PLBRScheduler
from Systems.d3rsmde.tasks import refiner_task as tasks
from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask, to_draw
from Systems.d3rsmde.tasks.refiner_task import RefinerTask
from tests.toys import generators, toy_model, toy_vae

SIZE = 16


def make_batch(count: int = 4, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, count, 1, SIZE, SIZE, generator=generator)
    return {
        "image": torch.rand(count, 3, SIZE, SIZE, generator=generator),
        "height": maps[0],
        "target": maps[0] * 255.0,
        "prior": maps[1],
        "valid": torch.ones(count, 1, SIZE, SIZE, dtype=torch.bool),
        "id": [str(i) for i in range(count)],
    }


def make_task(share: float = 0.0, losses: tuple[str, ...] = ("L1Loss",)) -> RefinerTask:
    return RefinerTask(toy_model(coarse=False), losses, share)


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Records (blended, timestep, prediction) of every call of the U-Net."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    real = tasks.predict_truth

    def record(unet: Any, image: Tensor, blended: Tensor, timestep: Tensor) -> Tensor:
        prediction = real(unet, image, blended, timestep)
        calls.append((blended, timestep, prediction.detach()))
        return prediction

    monkeypatch.setattr(tasks, "predict_truth", record)
    return calls


def latents(task: RefinerTask, maps: Tensor) -> Tensor:
    return encode(task._vae, to_vae(maps))


def test_the_published_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = make_task(), make_batch()
    calls = watch(monkeypatch)
    loss = task.loss(batch, generators(batch, 1))
    ((blended, timestep, prediction),) = calls
    truth, coarse = latents(task, batch["height"]), latents(task, batch["prior"])
    weight = PLBRScheduler().weights[timestep].float().view(-1, 1, 1, 1)
    # Whole batches and single calls may sum in another order.
    torch.testing.assert_close(blended, weight * truth + (1 - weight) * coarse, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss.detach(), (prediction - truth).abs().mean(), atol=1e-5, rtol=1e-4)


def test_timesteps_cover_the_schedule_and_follow_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = make_task(), make_batch()
    calls = watch(monkeypatch)
    for seed in range(20):
        task.loss(batch, generators(batch, seed))
    assert set(torch.cat([timestep for _, timestep, _ in calls]).tolist()) == set(range(6))


def test_own_predictions_take_the_truths_place(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = make_task(share=1.0), make_batch(8)
    calls = watch(monkeypatch)
    task.loss(batch, generators(batch, 1))
    (_, first_steps, guess), (blended, timestep, _) = calls
    later = timestep < 5
    assert later.any() and not later.all() and set(first_steps.tolist()) == {5}
    coarse = latents(task, batch["prior"])
    weight = PLBRScheduler().weights[timestep].float().view(-1, 1, 1, 1)
    expected = (1 - weight) * coarse
    expected[later] += (weight[later]) * guess
    torch.testing.assert_close(blended, expected, atol=1e-5, rtol=1e-4)


def test_better_priors_lack_a_part_of_the_large_shapes_and_keep_their_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    task = RefinerTask(toy_model(coarse=False, steps=1), ("L1Loss",), one_step=True, better_prior_share=1.0)
    batch = make_batch()
    calls = watch(monkeypatch)
    task.loss(batch, generators(batch, 1))
    ((seen, _, _),) = calls
    truth, coarse = latents(task, batch["height"]), latents(task, batch["prior"])
    added = seen - coarse
    # The part differs from tile to tile, and what is added has no shapes that are finer than large ones.
    wanting = (truth - coarse).mean(dim=(2, 3))
    parts = (added.mean(dim=(2, 3)) / wanting).mean(dim=1)
    assert ((parts > 0) & (parts < 1)).all() and parts.std() > 0.05
    torch.testing.assert_close(added.mean(dim=(2, 3)), parts[:, None] * wanting, atol=1e-4, rtol=1e-3)
    assert added.diff(dim=-1).abs().mean() < 0.5 * (truth - coarse).diff(dim=-1).abs().mean()


def test_heights_under_invalid_pixels_change_nothing() -> None:
    task, batch = make_task(losses=("L1Loss", "HDNLoss")), make_batch()
    batch["valid"][:, :, :6, :9] = False
    loss = task.loss(batch, generators(batch, 1))
    other = batch | {"height": torch.where(batch["valid"], batch["height"], 0.123)}
    assert torch.equal(task.loss(other, generators(other, 1)), loss)
    assert not torch.equal(task.loss(batch | {"height": batch["height"] * 0.5}, generators(batch, 1)), loss)


def test_a_tile_without_valid_pixels_is_safe() -> None:
    task, batch = make_task(), make_batch()
    batch["valid"][0] = False
    loss = task.loss(batch, generators(batch, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.network.parameters())


def test_the_autoencoder_stays_frozen() -> None:
    task, batch = make_task(losses=("SSIMAELoss",)), make_batch()
    task.loss(batch, generators(batch, 1)).backward()
    assert all(parameter.grad is None for parameter in task._vae.parameters())
    assert any(parameter.grad is not None for parameter in task.network.parameters())


def one_step_task(losses: tuple[str, ...] = ("L1Loss",)) -> RefinerTask:
    model = toy_model(coarse=False, steps=1)
    # The toy VAE is random and decodes maps out of [0, 1], where nothing could be learnt from them.
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.mul_(0.1)
    return RefinerTask(model, losses, one_step=True)


def test_one_step_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = one_step_task(), make_batch()
    calls = watch(monkeypatch)
    loss = task.loss(batch, generators(batch, 1))
    ((seen, timestep, prediction),) = calls
    assert timestep.tolist() == [5] * 4
    torch.testing.assert_close(seen, latents(task, batch["prior"]), atol=1e-5, rtol=1e-4)
    decoded = from_vae(decode(task._vae, prediction))
    of_latents = (prediction - latents(task, batch["height"])).abs().mean()
    of_maps = (decoded - batch["height"]).abs().mean()
    torch.testing.assert_close(loss.detach(), (of_latents + of_maps) / 2, atol=1e-5, rtol=1e-4)
    assert task.loss_name == "latent_l1+map_L1Loss"


def test_one_step_trains_what_inference_does(monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = one_step_task(), make_batch()
    calls = watch(monkeypatch)
    task.loss(batch, generators(batch, 1))
    monkeypatch.undo()
    drawn = task._model.refine(batch["image"], batch["prior"]).height
    torch.testing.assert_close(from_vae(decode(task._vae, calls[0][2])), drawn, atol=1e-4, rtol=1e-4)


def test_one_step_with_a_loss_of_maps_takes_that_one() -> None:
    assert one_step_task(("L1Loss", "HDNLoss")).loss_name == "latent_l1+map_HDNLoss"


def test_one_step_learns_from_the_decoded_map_alone() -> None:
    task, batch = one_step_task(("HDNLoss",)), make_batch()
    task.loss(batch, generators(batch, 1)).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.network.parameters())


def test_the_autoencoders_loss_by_hand() -> None:
    vae, batch = toy_vae("AutoencoderTiny"), make_batch()
    loss = AutoencoderTask(vae, "AutoencoderTiny").loss(batch, generators(batch))
    values = torch.cat([batch["image"], batch["height"].repeat(1, 3, 1, 1)]) * 2.0 - 1.0
    error = vae.decode(vae.encode(values).latents).sample - values
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    torch.testing.assert_close(loss, error.abs().mean() + 0.5 * edges)


def test_an_autoencoder_does_not_learn_what_stands_in_a_void() -> None:
    vae, batch = toy_vae("AutoencoderTiny"), make_batch()
    batch["valid"][:, :, :, 5:9] = False
    task = AutoencoderTask(vae, "AutoencoderTiny")
    values, counted = to_draw(batch, 32)  # the tiles are padded to 32 x 32, their last column and row repeated
    assert values.shape == (8, 3, 32, 32) and counted.shape == (8, 1, 32, 32)
    assert counted[:4].all() and torch.equal(counted[4:, :, :SIZE, :SIZE], batch["valid"])
    assert counted[4:, :, SIZE:, 9:].all() and not counted[4:, :, :, 5:9].any()
    with_voids = task.loss(batch, generators(batch))
    batch["valid"][:] = True
    assert with_voids != task.loss(batch, generators(batch))
