"""Relief that a network draws: windows without seams; what a good network gives, and an ignorant one may do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.Utils.scenes.test_no_harm import SCENE, SIZE, alone, coarse, errors, ground
from Utils.scenes.fusion.detail_fusion import fuse
from Utils.scenes.fusion.learned_relief import DrawDetail, learned_relief
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL

Map = NDArray[np.float32]
FACTOR = 8


@pytest.mark.parametrize("cells", [(8, 8), (64, 65), (150, 70)])
def test_windows_join_without_seams(cells: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    shape = tuple(SAMPLES_A_CELL * side for side in cells)
    surface, relief = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    error = random.random(cells).astype(np.float32)
    image = random.random((3, *shape)).astype(np.float32)

    def draw(*maps: Map) -> Map:
        return np.asarray(maps[0] + 10 * maps[1] + 100 * maps[2] + 1000 * maps[3][2])

    expected = draw(surface, np.kron(error, np.ones((4, 4), np.float32)), relief, image)
    np.testing.assert_allclose(learned_relief(draw, surface, error, relief, image), expected, rtol=1e-5, atol=1e-2)


def samples(truth: NDArray[np.float64]) -> Map:
    """What an image shows that is as bright as the ground is high: (3, H, W) at the samples of the cells."""
    step = FACTOR // SAMPLES_A_CELL
    means = truth.reshape(SIZE // step, step, SIZE // step, step).mean(axis=(1, 3))
    return np.stack([means.astype(np.float32)] * 3)


def knows_the_ground(surface: Map, error: Map, relief: Map, image: Map) -> Map:
    return np.asarray(0.8 * (image[0] - surface))


def fused(name: str, draw: DrawDetail, noise: float = 3.0) -> tuple[NDArray[np.float64], dict]:
    truth = ground(name)
    found = fuse(coarse(truth, FACTOR, noise), SCENE, image=samples(truth), refine=draw, shading=False)
    return found.correction.apply(np.zeros((SIZE, SIZE), np.float32), SCENE).astype(np.float64), found.facts


@pytest.mark.parametrize("name", ["hills", "eroded", "Landsat"])
def test_a_network_that_knows_the_ground_is_believed(name: str) -> None:
    truth = ground(name)
    usual = errors(alone(coarse(truth, FACTOR, 3.0)), truth)
    heights, facts = fused(name, knows_the_ground)
    found = errors(heights, truth)
    assert found[0] < 0.75 * usual[0] and found[1] < 0.75 * usual[1]
    assert set(facts["gain"]) == {"model"} and facts["gain"]["model"] > 0.5 and facts["explained"] > 0.5


def _noise(surface: Map, *_: Map) -> Map:
    return np.asarray(np.random.default_rng(surface.size).standard_normal(surface.shape) * 20, np.float32)


def _nothing_known(surface: Map, *_: Map) -> Map:
    return np.full_like(surface, np.nan)


IGNORANT: dict[str, Callable[..., Map]] = {
    "noise": _noise,
    "upside down": lambda *maps: -knows_the_ground(*maps),
    "not a number": _nothing_known,
    "another place": lambda surface, error, relief, image: np.roll(image[0] - surface, 40, axis=(0, 1)),
    "the surface itself": lambda surface, *_: surface,
    "a constant": lambda surface, *_: np.full_like(surface, 50.0),
}


@pytest.mark.parametrize("what", IGNORANT)
@pytest.mark.parametrize("name", ["plain", "Landsat"])
def test_a_network_that_knows_nothing_does_no_harm(name: str, what: str) -> None:
    truth = ground(name)
    usual = errors(alone(coarse(truth, FACTOR, 3.0)), truth)
    found = errors(fused(name, IGNORANT[what])[0], truth)
    assert found[0] <= 1.01 * usual[0] and found[1] <= 1.01 * usual[1]


def test_a_network_and_shading_are_not_set_against_each_other() -> None:
    """Where both are right and alike, one is taken; where the network knows nothing, it is the shading."""
    truth = ground("hills")
    down, across = np.gradient(truth)
    grain = np.random.default_rng(0).standard_normal(truth.shape)
    lit = samples(down + across + 0.3 * grain)
    dem = coarse(truth, FACTOR, 3.0)
    usual = errors(alone(dem), truth)
    alike: DrawDetail = lambda surface, error, relief, image: np.asarray(1.05 * relief + 0.5 * error)  # noqa: E731
    gains = {}
    for name, draw in {"alike": alike, "noise": _noise}.items():
        fusion = fuse(dem, SCENE, image=lit, refine=draw)
        heights = fusion.correction.apply(np.zeros((SIZE, SIZE), np.float32), SCENE).astype(np.float64)
        found = errors(heights, truth)
        assert found[0] < 0.95 * usual[0] and found[1] < 0.98 * usual[1]
        gains[name] = fusion.facts["gain"]
    assert sum(gain > 0 for gain in gains["alike"].values()) == 1
    assert gains["noise"]["model"] == 0.0 and gains["noise"]["shading"] > 0.3
