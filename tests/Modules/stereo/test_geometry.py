from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from Modules.stereo.geometry import PinholeGeometry, Positions, RationalGeometry, geometry_of, sample
from tests.rational_cameras import camera

SIZE = (100, 120)


def pinhole(angles: tuple[float, float, float], centre: tuple[float, float, float], focal: float = 200.0) -> Tensor:
    """A projection [4, 4] of a camera at a place, turned about its axes by angles in degrees, that looks along +z."""
    rotation = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(np.radians(angles)):
        turn, (i, j) = torch.eye(3, dtype=torch.float64), ((1, 2), (0, 2), (0, 1))[axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    inner = torch.tensor([[focal, 0, 59.5], [0, focal, 49.5], [0, 0, 1]], dtype=torch.float64)
    projection = torch.eye(4, dtype=torch.float64)
    projection[:3, :3] = inner @ rotation
    projection[:3, 3] = -inner @ rotation @ torch.tensor(centre, dtype=torch.float64)
    return projection


def pinholes() -> Tensor:
    return torch.stack([pinhole((1, -2, 3), (0, 0, 0)), pinhole((-1, 2, 5), (14, 3, -1))])[None]  # [1, 2, 4, 4]


def rationals(**second: object) -> Tensor:
    models = [camera((0.1, -0.2)), camera(**({"tilt": (0.3, 0.4)} | second))]
    return torch.from_numpy(np.stack([model.parameters for model in models]))[None]


def values_at(low: float, high: float, hypotheses: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, hypotheses, *size, dtype=torch.float64, generator=generator) * (high - low) + low


def grid(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    return columns, rows


@pytest.mark.parametrize(
    ("kind", "cameras", "values"),
    [("pinhole", pinholes(), values_at(80.0, 120.0)), ("rpc", rationals(), values_at(-100.0, 200.0))],
    ids=["pinhole", "rpc"],
)
def test_warping_onto_itself_moves_no_pixel(kind: str, cameras: Tensor, values: Tensor) -> None:
    found = geometry_of(kind, cameras).positions(0, values, stride=1, size=SIZE)
    columns, rows = grid(SIZE)
    assert (found.x - columns).abs().max() < 1e-4
    assert (found.y - rows).abs().max() < 1e-4
    assert found.valid.all()
    assert found.x.dtype == torch.float32
    picture = torch.rand(1, 2, *SIZE, generator=torch.Generator().manual_seed(1))
    warped = sample(picture, found)
    assert warped.shape == (1, 2, 3, *SIZE)
    assert (warped - picture[:, :, None]).abs().max() < 1e-4  # also in the first and last row and column


def test_a_pinhole_sees_points_where_they_project() -> None:
    cameras, depth = pinholes(), values_at(80.0, 120.0, 1)
    found = PinholeGeometry(cameras).positions(1, depth, stride=1, size=SIZE)
    columns, rows = (axis.double() for axis in grid(SIZE))
    # By hand: back from the reference to the world, and from there to the second camera.
    seen = torch.stack([columns * depth[0, 0], rows * depth[0, 0], depth[0, 0], torch.ones_like(depth[0, 0])])
    there = torch.einsum("ij,jk,khw->ihw", cameras[0, 1], torch.linalg.inv(cameras[0, 0]), seen)
    torch.testing.assert_close(found.x[0, 0].double(), there[0] / there[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.y[0, 0].double(), there[1] / there[2], atol=1e-4, rtol=0)


def test_an_rpc_sees_points_where_they_project() -> None:
    first, second = camera((0.1, -0.2)), camera((0.3, 0.4))
    height = values_at(-100.0, 200.0, 2)
    cameras = torch.from_numpy(np.stack([first.parameters, second.parameters]))[None]
    found = RationalGeometry(cameras).positions(1, height, stride=1, size=SIZE)
    columns, rows = grid(SIZE)
    longitude, latitude = first.locate(columns, rows, height[0].numpy())
    x, y = second.project(longitude, latitude, height[0].numpy())
    assert np.abs(found.x[0].numpy() - x).max() < 1e-4
    assert np.abs(found.y[0].numpy() - y).max() < 1e-4
    # A tilt of 0.4 - -0.2 pixels a metre.
    moved = (found.x - columns)[0, 0].double()
    assert np.polyfit(height[0, 0].ravel(), moved.ravel(), 1)[0] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(("kind", "low", "high"), [("pinhole", 80.0, 120.0), ("rpc", -50.0, 50.0)])
def test_features_of_a_stride_lie_where_the_image_says(kind: str, low: float, high: float) -> None:
    cameras = pinholes() if kind == "pinhole" else rationals()
    geometry, values = geometry_of(kind, cameras), values_at(low, high)
    whole = geometry.positions(1, values, stride=1, size=SIZE)
    coarse = geometry.positions(1, values[..., ::4, ::4].contiguous(), stride=4, size=(25, 30))
    torch.testing.assert_close(coarse.x * 4, whole.x[..., ::4, ::4], atol=1e-4, rtol=0)
    torch.testing.assert_close(coarse.y * 4, whole.y[..., ::4, ::4], atol=1e-4, rtol=0)


def test_points_behind_a_camera_and_outside_of_an_image_are_masked() -> None:
    facing_away = torch.stack([pinhole((0, 0, 0), (0, 0, 0)), pinhole((0, 180, 0), (0, 0, 0))])[None]
    behind = PinholeGeometry(facing_away).positions(1, values_at(80.0, 120.0, 1), stride=1, size=SIZE)
    assert not behind.valid.any()
    assert not sample(torch.ones(1, 1, *SIZE), behind).any()
    aside = torch.stack([pinhole((0, 0, 0), (0, 0, 0)), pinhole((0, 0, 0), (30, 0, 0))])[None]
    level = torch.full((1, 1, *SIZE), 100.0)
    beside = PinholeGeometry(aside).positions(1, level, stride=1, size=SIZE)
    columns, _ = grid(SIZE)
    assert torch.equal(beside.valid[0, 0], columns >= 60)  # 30 m at a depth of 100 m and f = 200 are 60 pixels
    assert not PinholeGeometry(aside).positions(1, -level, stride=1, size=SIZE).valid.any()


def test_a_point_on_the_plane_of_a_camera_gives_no_number_that_is_not_finite() -> None:
    cameras = torch.stack([pinhole((0, 0, 0), (0, 0, 0)), pinhole((0, 0, 0), (0, 0, 100.0))])[None]
    found = PinholeGeometry(cameras).positions(1, torch.full((1, 1, *SIZE), 100.0), stride=1, size=SIZE)
    assert torch.isfinite(found.x).all() and not found.valid.any()


def test_an_rpc_is_not_believed_far_from_its_image() -> None:
    far = rationals(bent=1e-3)
    far[0, 1, 3] += 1.0  # the second image lies a degree further east, hundreds of times its size
    found = RationalGeometry(far).positions(1, values_at(0.0, 10.0, 1), stride=1, size=SIZE)
    assert not found.valid.any() and torch.isfinite(found.x).all()


def test_items_of_a_batch_do_not_meet() -> None:
    one, other = rationals(), rationals(tilt=(-0.2, 0.1))
    values = torch.cat([values_at(-50.0, 50.0), values_at(0.0, 90.0)])
    both = RationalGeometry(torch.cat([one, other])).positions(1, values, stride=1, size=SIZE)
    for i, cameras in enumerate((one, other)):
        alone = RationalGeometry(cameras).positions(1, values[i : i + 1], stride=1, size=SIZE)
        torch.testing.assert_close(both.x[i], alone.x[0], atol=1e-5, rtol=0)
        assert torch.equal(both.valid[i], alone.valid[0])


def test_heights_changed_in_place_are_seen_anew() -> None:
    geometry, values = RationalGeometry(rationals()), values_at(0.0, 10.0, 1)
    before = geometry.positions(1, values, stride=1, size=SIZE).x
    values += 50.0
    after = geometry.positions(1, values, stride=1, size=SIZE).x
    assert (after - before).abs().min() > 10


def test_an_inverse_that_does_not_fit_is_corrected_or_refused() -> None:
    cameras, values = rationals(), values_at(-100.0, 200.0, 1)
    exact = RationalGeometry(cameras).positions(1, values, stride=1, size=SIZE)
    rough = cameras.clone()
    rough[0, 0, 90] += 1e-3  # the inverse is off by 0.06 pixels
    mended = RationalGeometry(rough)
    assert mended.corrections > RationalGeometry(cameras).corrections
    torch.testing.assert_close(mended.positions(1, values, stride=1, size=SIZE).x, exact.x, atol=1e-4, rtol=0)
    missing = cameras.clone()
    missing[..., 90:] = 0.0
    with pytest.raises(ValueError, match="inverse model misses the direct one"):
        RationalGeometry(missing)


@pytest.mark.parametrize(
    ("kind", "cameras", "words"),
    [
        ("pinhole", torch.zeros(1, 2, 3, 4), r"\[B, V, 4, 4\]"),
        ("pinhole", torch.zeros(1, 2, 4, 4), "invertible"),
        ("rpc", torch.zeros(1, 2, 90), r"\[B, V, 170\]"),
        ("rpc", torch.zeros(1, 2, 170), "positive scales"),
        ("fisheye", torch.zeros(1, 2, 170), "one of pinhole, rpc"),
    ],
)
def test_cameras_that_cannot_be_used_are_refused(kind: str, cameras: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        geometry_of(kind, cameras)


def test_features_of_few_bits_are_sampled_at_exact_places() -> None:
    steps = torch.arange(64.0).expand(1, 1, 8, 64)
    x = torch.full((1, 1, 8, 64), 31.25)
    places = Positions(x, torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool))
    found = sample(steps.to(torch.bfloat16), places)
    assert found.dtype == torch.bfloat16
    assert found[0, 0, 0, 0, 0].item() == 31.25  # eight bits of a position between -1 and 1 would not do


def test_no_gradient_runs_through_the_cameras() -> None:
    values = values_at(-50.0, 50.0).requires_grad_()
    found = RationalGeometry(rationals()).positions(1, values, stride=1, size=SIZE)
    assert not found.x.requires_grad
    features = torch.rand(1, 3, *SIZE, requires_grad=True)
    sample(features, found).sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
