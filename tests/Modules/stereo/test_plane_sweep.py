from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from Modules.stereo.geometry import PinholeGeometry, RationalGeometry
from Modules.stereo.plane_sweep import plane_sweep
from Modules.stereo.window_sums import window_sums
from tests.rational_cameras import camera
from tests.rational_views import TILTS, Heights, metres, picture, texture

SIZE = (100, 120)


def seen(height: float | Heights, count: int = 2) -> tuple[Tensor, Tensor]:
    """Images [1, V, 1, H, W] of ground at a height, and their cameras [1, V, 170]."""
    heights = height if callable(height) else lambda x, y: np.full_like(x, height)
    models = [camera(tilt) for tilt in TILTS[:count]]
    images = np.stack([picture(model, SIZE, heights) for model in models])
    cameras = torch.from_numpy(np.stack([model.parameters for model in models]))[None]
    return torch.from_numpy(images).float()[None, :, None], cameras


def planes(low: float = 0.0, high: float = 60.0, step: float = 1.0) -> Tensor:
    return torch.arange(low, high + step / 2, step, dtype=torch.float64)[None]


def test_a_plane_is_found_between_the_steps() -> None:
    images, cameras = seen(37.3)
    found = plane_sweep(images, RationalGeometry(cameras), planes())  # 0.6 pixels a step
    known = found.score > 0.9
    assert known.float().mean() > 0.7  # the rest lies outside of the second image
    off = (found.values - 37.3)[known].abs()
    assert off.median() < 0.08 and (off < 0.5).float().mean() > 0.98
    assert found.score.isnan().equal(found.values.isnan())


def test_every_pixel_has_its_own_height_from_three_views() -> None:
    def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 30.0 + 0.1 * x + 3.0 * np.sin(y / 15.0)

    images, cameras = seen(height, 3)
    found = plane_sweep(images, RationalGeometry(cameras), planes(), window=7)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    longitude, latitude = camera(TILTS[0]).locate(columns, rows, found.values[0].nan_to_num(30.0).numpy())
    off = np.abs(found.values[0].numpy() - height(*metres(longitude, latitude)))
    known = found.score[0].numpy() > 0.9
    assert known.mean() > 0.75
    assert np.median(off[known]) < 0.15 and np.percentile(off[known], 95) < 0.6


def test_depths_of_pinhole_cameras_are_found() -> None:
    from tests.Modules.stereo.test_geometry import pinhole

    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    cameras = torch.stack([pinhole((1, -2, 3), (0, 0, 0)), pinhole((-1, 1, 5), (14, 3, -1))])
    images, depths = [], []
    for projection in cameras.numpy():
        # Rays through the pixels meet the tilted ground z = 100 + 0.1 x.
        ray = np.einsum("ij,jhw->ihw", np.linalg.inv(projection[:3, :3]), np.stack([columns, rows, np.ones(SIZE)]))
        centre = -np.linalg.solve(projection[:3, :3], projection[:3, 3])
        depth = (100.0 + 0.1 * centre[0] - centre[2]) / (ray[2] - 0.1 * ray[0])
        images.append(texture(*(centre[:2, None, None] + depth * ray[:2])))
        depths.append(depth)
    stack = torch.from_numpy(np.stack(images)).float()[None, :, None]
    found = plane_sweep(stack, PinholeGeometry(cameras[None]), planes(85.0, 115.0, 0.5))
    off = np.abs(found.values[0].numpy() - depths[0])
    known = found.score[0].numpy() > 0.9
    assert known.mean() > 0.6
    assert np.median(off[known]) < 0.15 and np.mean(off[known] > 1.0) < 0.02


def test_brightness_and_contrast_of_a_view_do_not_matter() -> None:
    images, cameras = seen(20.0)
    changed = images.clone()
    changed[:, 1] = 250.0 + 0.2 * images[:, 1]
    plain, other = (plane_sweep(each, RationalGeometry(cameras), planes()) for each in (images, changed))
    torch.testing.assert_close(plain.values, other.values, atol=0.02, rtol=0, equal_nan=True)


def test_pixels_without_data_get_no_height_and_leave_their_neighbours_alone() -> None:
    images, cameras = seen(20.0)
    plain = plane_sweep(images, RationalGeometry(cameras), planes())
    holed = images.clone()
    holed[0, 0, 0, 40:60, 50:70] = torch.nan
    holed[0, 1, 0, 20:50, 60:90] = torch.nan
    found = plane_sweep(holed, RationalGeometry(cameras), planes())
    assert found.values[0, 40:60, 50:70].isnan().all()
    good, good_before = (((each.values - 20.0).abs() < 0.5) & (each.score > 0.9) for each in (found, plain))
    lost = good_before & ~good
    # The two holes, and what lies within half a window of them and no longer correlates so well.
    assert 400 + 600 < lost.sum() < 400 + 1000


def test_ground_without_detail_gets_no_height() -> None:
    images, cameras = seen(20.0)
    images[0, 0, 0, 30:70, 40:80] = images[0, 0, 0].mean()
    found = plane_sweep(images, RationalGeometry(cameras), planes())
    assert found.values[0, 36:64, 46:74].isnan().all()


def test_views_that_see_nothing_do_not_count() -> None:
    images, cameras = seen(20.0, 3)
    images[:, 2] = torch.nan
    with_blank = plane_sweep(images, RationalGeometry(cameras), planes())
    pair = plane_sweep(images[:, :2], RationalGeometry(cameras[:, :2]), planes())
    torch.testing.assert_close(with_blank.values, pair.values, equal_nan=True)
    images[:, 1] = torch.nan
    assert plane_sweep(images, RationalGeometry(cameras), planes()).values.isnan().all()


def test_items_of_a_batch_do_not_meet() -> None:
    (first, cameras), (second, _) = seen(20.0), seen(40.0)
    steps = torch.cat([planes(0.0, 50.0), planes(10.0, 60.0)])
    both = plane_sweep(torch.cat([first, second]), RationalGeometry(cameras.repeat(2, 1, 1)), steps)
    for i, images in enumerate((first, second)):
        alone = plane_sweep(images, RationalGeometry(cameras), steps[i : i + 1])
        torch.testing.assert_close(both.values[i], alone.values[0], atol=0.01, rtol=0, equal_nan=True)


def test_what_cannot_be_swept_is_refused() -> None:
    images, cameras = seen(20.0)
    with pytest.raises(ValueError, match="2 planes"):
        plane_sweep(images, RationalGeometry(cameras), planes(0.0, 1.0))
    with pytest.raises(ValueError, match="odd number"):
        plane_sweep(images, RationalGeometry(cameras), planes(), window=8)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 15])
def test_sums_of_windows_are_those_of_a_convolution(window: int) -> None:
    maps = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(3, 1, window, window)
    expected = functional.conv2d(maps, ones, padding=window // 2, groups=3)
    torch.testing.assert_close(window_sums(maps, window), expected)
