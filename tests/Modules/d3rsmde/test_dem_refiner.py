"""The network that refines DEMs: what it may depend on, and what not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from Modules.d3rsmde.dem_refiner import DemRefiner, blur

Maps = tuple[Tensor, Tensor, Tensor, Tensor]


def maps(height: int = 40, width: int = 56) -> Maps:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(4, 1, height, width, generator=generator)
    surface, error = 100.0 * blur(draw[None, 0], 3.0), blur(draw[None, 1].abs() + 1.0, 4.0)
    return surface, error, draw[None, 2], torch.rand(1, 3, height, width, generator=generator)


@pytest.fixture(scope="module")
def network() -> DemRefiner:
    """A network that has left its first state, in which it draws nothing of its own."""
    torch.manual_seed(1)
    network = DemRefiner((8, 16)).eval().requires_grad_(False)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.3)
    return network


def test_at_first_it_draws_the_relief_from_shading_and_nothing_without_an_image() -> None:
    surface, error, relief, image = maps()
    network = DemRefiner((8, 16)).requires_grad_(False)
    torch.testing.assert_close(network(surface, error, relief, image), relief, rtol=1e-4, atol=1e-4)
    for nothing in (torch.full_like(image, math.nan), torch.full_like(image, 0.3)):
        assert network(surface, error, relief, nothing).abs().max() == 0.0


def test_neither_the_level_nor_the_unit_of_heights_matters(network: DemRefiner) -> None:
    surface, error, relief, image = maps()
    drawn = network(surface, error, relief, image)
    assert drawn.std() > 0.1
    torch.testing.assert_close(network(surface + 500.0, error, relief, image), drawn, rtol=1e-2, atol=2e-3)
    tenfold = network(10 * surface, 10 * error, 10 * relief, image)
    torch.testing.assert_close(tenfold, 10 * drawn, rtol=1e-3, atol=1e-3)


def test_neither_brightness_nor_contrast_of_the_image_matters(network: DemRefiner) -> None:
    surface, error, relief, image = maps()
    drawn = network(surface, error, relief, image)
    torch.testing.assert_close(network(surface, error, relief, 0.5 * image + 0.2), drawn, rtol=1e-3, atol=1e-3)


def test_unknown_pixels_of_the_image_do_not_spread(network: DemRefiner) -> None:
    surface, error, relief, image = maps(96, 96)
    holed = image.clone()
    holed[..., :8, :8] = math.nan
    drawn, without = network(surface, error, relief, image), network(surface, error, relief, holed)
    assert torch.isfinite(without).all()
    # The group norms look at the whole map, so that a hole changes a little everywhere.
    far = (drawn - without)[..., 48:, 48:].abs().mean()
    assert far < 0.05 * drawn.abs().mean()


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (64, 20)])
def test_it_takes_any_size(network: DemRefiner, size: tuple[int, int]) -> None:
    given = [values[..., : size[0], : size[1]] for values in maps(64, 64)]
    assert network(*given).shape == (1, 1, *size)


def test_a_blur_is_scipys() -> None:
    values = torch.rand(1, 2, 50, 31)
    expected = [gaussian_filter(band, 4.0, mode="nearest", truncate=3.0) for band in values[0].numpy()]
    np.testing.assert_allclose(blur(values, 4.0)[0].numpy(), expected, atol=1e-6)
