"""The blending schedule: published numbers, hand-computed ones, fewer steps, saving."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import walk
from tests.paths import SHARED

GOLDEN = SHARED / "golden" / "plbr.npz"


class KnownDenoiser:
    """pred = 0.5·img + 0.25·x + 0.1·t, called as a U-Net."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.timesteps: list[int] = []

    def __call__(self, both: Tensor, timestep: Tensor) -> SimpleNamespace:
        image, blended = both.chunk(2, dim=1)
        self.timesteps.append(int(timestep[0]))
        return SimpleNamespace(sample=0.5 * image + 0.25 * blended + 0.1 * timestep.view(-1, 1, 1, 1))


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    if not GOLDEN.is_file():
        pytest.skip("../shared/golden is not there")
    with np.load(GOLDEN) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def as_unet(denoiser: KnownDenoiser) -> Any:
    return denoiser


def test_golden_weights(golden: dict[str, Tensor]) -> None:
    weights = PLBRScheduler().weights
    # linspace in another library: the last digit of float64
    torch.testing.assert_close(weights, golden["T6.betas_cumprod"], rtol=0, atol=1e-15)
    before = torch.cat([torch.ones(1, dtype=torch.float64), weights[:-1]])
    torch.testing.assert_close(before, golden["T6.betas_cumprod_prev"], rtol=0, atol=1e-15)


def test_golden_blend(golden: dict[str, Tensor]) -> None:
    blended = PLBRScheduler().blend(golden["T6.x_start"], golden["T6.x_last"], golden["T6.t"].long())
    # float32 sums of two products
    torch.testing.assert_close(blended, golden["T6.q_sample"], rtol=1e-6, atol=1e-6)


def test_golden_single_steps(golden: dict[str, Tensor]) -> None:
    scheduler, denoiser = PLBRScheduler(), KnownDenoiser()
    images, lasts, coarses = golden["T6.img"], golden["T6.x_last"], golden["T6.x_start"]
    for i in range(6):
        both = torch.cat([images[i : i + 1], lasts[i : i + 1]], dim=1)
        prediction = denoiser(both, torch.tensor([i])).sample
        stepped = scheduler.step(prediction, i, coarses[i : i + 1])
        torch.testing.assert_close(stepped[0], golden["T6.p_sample"][i].reshape(stepped[0].shape), rtol=1e-6, atol=1e-6)


def test_golden_walk(golden: dict[str, Tensor]) -> None:
    denoiser = KnownDenoiser()
    trail = walk(as_unet(denoiser), PLBRScheduler(), golden["T6.loop_img"], golden["T6.loop_x"])
    assert denoiser.timesteps == [5, 4, 3, 2, 1, 0]
    assert len(trail) == len(golden["T6.loop_process"]) == 6
    for ours, published in zip(trail, golden["T6.loop_process"], strict=True):
        torch.testing.assert_close(ours, published, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(trail[-1], golden["T6.loop_out"], rtol=1e-6, atol=1e-6)


def test_weights_and_blend_by_hand() -> None:
    scheduler = PLBRScheduler()
    assert scheduler.weights.tolist() == pytest.approx([0.8, 0.64, 0.48, 0.32, 0.16, 0.0])
    truth, coarse = torch.full((2, 1, 1, 1), 10.0), torch.full((2, 1, 1, 1), 2.0)
    blended = scheduler.blend(truth, coarse, torch.tensor([0, 5]))
    assert blended.flatten().tolist() == pytest.approx([0.8 * 10 + 0.2 * 2, 2.0])


def test_steps_by_hand() -> None:
    scheduler = PLBRScheduler(start=0.5, stop=0.0, num_train_timesteps=2)
    prediction, coarse = torch.tensor([8.0]), torch.tensor([4.0])
    assert scheduler.step(prediction, 1, coarse).item() == 6.0  # a[0] = 0.5
    assert scheduler.step(prediction, 0, coarse).item() == 8.0  # the last step returns the prediction


@pytest.mark.parametrize(
    ("total", "steps", "expected"),
    [
        (6, None, [5, 4, 3, 2, 1, 0]),
        (6, 6, [5, 4, 3, 2, 1, 0]),
        (6, 3, [5, 2, 0]),
        (6, 2, [5, 0]),
        (6, 1, [5]),
        (9, 5, [8, 6, 4, 2, 0]),
        (1, None, [0]),
    ],
)
def test_fewer_steps_begin_at_the_coarse_map(total: int, steps: int | None, expected: list[int]) -> None:
    scheduler = PLBRScheduler(num_train_timesteps=total)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == expected
    assert scheduler.num_inference_steps == len(expected)


def test_any_number_of_steps_is_a_descending_walk() -> None:
    for total in range(1, 30):
        scheduler = PLBRScheduler(num_train_timesteps=total)
        for steps in range(1, total + 1):
            scheduler.set_timesteps(steps)
            walked = scheduler.timesteps.tolist()
            assert len(walked) == steps and walked[0] == total - 1
            assert walked == sorted(set(walked), reverse=True)
            assert steps == 1 or walked[-1] == 0


def test_a_shorter_walk_uses_the_weight_of_its_next_step() -> None:
    denoiser, scheduler = KnownDenoiser(), PLBRScheduler()
    image, coarse = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 4.0)
    first, second, third = (latent.item() for latent in walk(as_unet(denoiser), scheduler, image, coarse, 3))
    assert denoiser.timesteps == [5, 2, 0]
    assert first == pytest.approx(0.48 * (1.0 + 1.0 + 0.5) + 0.52 * 4.0)  # a[2]
    assert second == pytest.approx(0.8 * (1.0 + 0.25 * first + 0.2) + 0.2 * 4.0)  # a[0]
    assert third == pytest.approx(1.0 + 0.25 * second)
    assert len(walk(as_unet(denoiser), scheduler, image, coarse)) == 6  # all of them again


@pytest.mark.parametrize("steps", [0, -1, 7])
def test_impossible_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 6"):
        PLBRScheduler().set_timesteps(steps)


@pytest.mark.parametrize("values", [(0.8, 0.0, 0), (1.1, 0.0, 6), (0.8, -0.1, 6), (float("nan"), 0.0, 6)])
def test_impossible_schedules(values: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"weights in \[0, 1\]"):
        PLBRScheduler(*values)


def test_saving_and_loading(tmp_path: Path) -> None:
    scheduler = PLBRScheduler(0.7, 0.1, 4)
    scheduler.save_pretrained(tmp_path)
    loaded = PLBRScheduler.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(loaded.weights, scheduler.weights)
    assert loaded.timesteps.tolist() == [3, 2, 1, 0]
    again = PLBRScheduler.from_config({key: scheduler.config[key] for key in ("start", "stop", "num_train_timesteps")})
    assert torch.equal(again.weights, scheduler.weights)


def test_blending_keeps_the_latents_type() -> None:
    scheduler = PLBRScheduler()
    half = torch.rand(2, 4, 3, 3, dtype=torch.bfloat16)
    assert scheduler.blend(half, half, torch.tensor([1, 2])).dtype == torch.bfloat16
    assert scheduler.step(half, 3, half).dtype == torch.bfloat16
