"""Synthetic stereo scenes: rays and projection are inverse, views agree at the true depth, and seeds decide all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.stereo_views import agreement, seen_in
from Utils.data.stereo.pinhole_camera import read_camera
from Utils.rasters.pfm import read_pfm
from Utils.rasters.rational import read_rational
from Utils.rasters.tile_files import read_image
from Utils.synthetic.pushbroom_rpc import fit_rational, metres_per_degree
from Utils.synthetic.stereo_cameras import Pinhole, turned
from Utils.synthetic.stereo_dataset import CONSTANT, RELATIVE, SHUFFLED, write_dataset
from Utils.synthetic.stereo_ground import HIGHEST, LOWEST, make_ground
from Utils.synthetic.stereo_scenes import make_satellite_scene, make_scene

SIZE = (64, 96)


def grey(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2)


@pytest.mark.parametrize("make", [make_scene, make_satellite_scene])
def test_what_a_ray_meets_is_seen_at_its_pixel(make) -> None:
    for camera in make("town", 3, SIZE, seed=3).cameras:
        origins, directions = camera.rays()
        seen = camera.project(
            origins + 50.0 * directions if isinstance(camera, Pinhole) else origins + 6e5 * directions
        )
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].reshape(2, -1)
        np.testing.assert_allclose(seen, np.stack([columns, rows], axis=1), atol=1e-5)


@pytest.mark.parametrize("kind", ["town", "terrain"])
@pytest.mark.parametrize("make", [make_scene, make_satellite_scene])
def test_views_agree_at_the_true_depth_and_not_beside_it(make, kind) -> None:
    scene = make(kind, 3, SIZE, seed=11, noise=0.0)
    reference, camera = scene.frames[1], scene.cameras[1]
    origins, directions = camera.rays()
    told = []
    for other in (0, 2):
        for off in (0.0, 3.0):
            away = reference.depth.reshape(-1) + off
            if not isinstance(camera, Pinhole):
                away = origins[:, 2] - away
            places = scene.cameras[other].project(origins + away[:, None] * directions).reshape(*SIZE, 2)
            told.append(agreement(grey(reference.image), grey(scene.frames[other].image), places))
    # 3 m are 0.8 pixels of parallax, and the texture's finest cells 1.4; nothing agrees where a house hides the ground.
    assert min(told[0] - told[1], told[2] - told[3]) > 0.15 and min(told[0], told[2]) > 0.5, told


def test_depth_is_where_the_ground_is() -> None:
    ground = make_ground("town", 5, 60.0, 0.5)
    camera = Pinhole(np.array([3.0, -2.0, 100.0]), turned(5.0, -4.0, 30.0), 150.0, (40.0, 30.0), SIZE)
    origins, directions = camera.rays()
    hits = ground.meet(origins, directions)
    on_terrain = hits.paint == 0
    point = origins + hits.distance[:, None] * directions
    heights = ground.terrain.heights(point[:, 0], point[:, 1])
    np.testing.assert_allclose(point[on_terrain, 2], heights[on_terrain], atol=1e-6)
    assert 0.2 < on_terrain.mean() < 0.95
    assert (point[:, 2] >= heights - 1e-6).all(), "nothing is seen below the ground"
    assert LOWEST < point[:, 2].min() and point[:, 2].max() < HIGHEST
    # A house's roof and walls: just before and behind the place that is seen lie outside and inside of it.
    for number, house in enumerate(ground.houses):
        own = (hits.paint == 2 + 2 * number) | (hits.paint == 3 + 2 * number)
        for step, outside in ((-1e-6, True), (1e-6, False)):
            there = point[own] + step * directions[own]
            assert (((there @ house.normals.T) > house.offsets).any(axis=1) == outside).all()


def test_surfaces_with_and_without_texture_are_seen() -> None:
    paints = [paint for seed in range(8) for paint in make_ground("town", seed, 60.0, 0.5).paints]
    contrasts = np.array([paint.contrast for paint in paints])
    assert 0.02 < (contrasts < 0.03).mean() < 0.5 and (contrasts > 0.1).mean() > 0.4
    # The texture goes down to the pixel: neighbours differ on one roof.
    scene = make_scene("terrain", 2, SIZE, seed=1, noise=0.0)
    image = grey(scene.frames[1].image) / 255.0
    assert np.abs(np.diff(image, axis=1)).mean() > 0.015


def test_a_relative_map_is_dark_where_it_is_near_and_has_no_scale() -> None:
    for make, nearer in ((make_scene, -1.0), (make_satellite_scene, 1.0)):  # of depth and of height
        frames = make("town", 3, SIZE, seed=2).frames
        for frame in frames:
            assert frame.relative.dtype == np.uint8 and np.ptp(frame.relative) > 200
            assert np.corrcoef(nearer * frame.depth.ravel(), frame.relative.ravel())[0, 1] < -0.6
        slopes = [np.polyfit(frame.relative.ravel(), frame.depth.ravel(), 1)[0] for frame in frames]
        assert np.ptp(slopes) / np.abs(slopes).mean() > 0.03, "each view has a scale of its own"


def test_scenes_follow_from_their_seed() -> None:
    first, again, other = (make_scene("town", 2, (32, 32), seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.frames[0].image, again.frames[0].image)
    np.testing.assert_array_equal(first.frames[1].relative, again.frames[1].relative)
    assert not np.array_equal(first.frames[0].depth, other.frames[0].depth)


def test_a_scene_is_made_in_time() -> None:
    started = time.process_time()
    make_scene("town", 3, (96, 96), seed=0)
    assert time.process_time() - started < 2.0  # 0.4 s on a quiet core


def test_a_dataset_has_the_layout_of_whu_mvs_and_its_files_agree(tmp_path) -> None:
    write_dataset(tmp_path, 2, 1, 3, (64, 64), seed=6, noise=0.0, workers=1)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("town*"))
    assert len(names) == 3 * 3 * 6 and "train/image/0/town0000_0000.png" in names
    assert "test/camera/2/town5000_0000.txt" in names and "test/depthAnything/1/town5000_0000.png" in names
    for part, name in (("train", "town0001_0000"), ("test", "town5000_0000")):
        images = [read_image(tmp_path / part / "image" / str(view) / f"{name}.png").mean(axis=0) for view in range(3)]
        cameras = [read_camera(tmp_path / part / "camera" / str(view) / f"{name}.txt") for view in range(3)]
        depth = read_pfm(tmp_path / part / "depth" / "1" / f"{name}.pfm").astype(float)
        assert cameras[1].nearest < depth.min() and depth.max() < cameras[1].farthest
        for other in (0, 2):
            right, beside = (
                agreement(
                    images[1],
                    images[other],
                    seen_in(cameras[1].projection, cameras[other].projection, depth + off),
                )
                for off in (0.0, 3.0)
            )
            assert right > 0.5 and right - beside > 0.1


def test_a_folder_with_other_data_is_left(tmp_path) -> None:
    write_dataset(tmp_path, 1, 1, 2, (32, 32), seed=0, workers=1)
    with pytest.raises(FileExistsError, match="another dataset"):
        write_dataset(tmp_path, 1, 1, 2, (32, 32), seed=1, workers=1)
    with pytest.raises(ValueError, match="2 to 5 views"):
        write_dataset(tmp_path / "new", 1, 1, 6, (32, 32), seed=1)


def test_the_fitted_rpc_is_the_line_sensor() -> None:
    rng = np.random.default_rng(0)
    for camera in make_satellite_scene("town", 3, SIZE, seed=8).cameras:
        origin = 121.3, -44.0
        model = fit_rational(camera, origin, (LOWEST, HIGHEST))
        assert model.height_range == pytest.approx((LOWEST, HIGHEST))
        points = rng.uniform((-20.0, -14.0, LOWEST), (20.0, 14.0, HIGHEST), (500, 3))
        degrees = np.array(origin) + points[:, :2] / metres_per_degree(origin[1])
        seen = np.stack(model.project(degrees[:, 0], degrees[:, 1], points[:, 2]), axis=1)
        np.testing.assert_allclose(seen, camera.project(points), atol=2e-3)
        # The inverse, too: to the ground that the pixel's ray meets at that height.
        ground = np.stack(model.locate(seen[:, 0], seen[:, 1], points[:, 2]), axis=1)
        np.testing.assert_allclose((ground - degrees) * metres_per_degree(origin[1]), 0.0, atol=2e-3)


def test_a_dataset_of_line_sensors_has_the_layout_of_whu_tlc_and_its_files_agree(tmp_path) -> None:
    write_dataset(tmp_path, 1, 1, 3, (64, 64), seed=7, noise=0.0, workers=1, cameras="rpc", grey=True)
    part = tmp_path / "train"
    assert sorted(path.name for path in part.iterdir()) == sorted(
        ("image", "rpc", "height", RELATIVE, SHUFFLED, CONSTANT)
    )
    recorded = [read_image(part / "image" / str(view) / "town0000_0000.png") for view in range(3)]
    assert all(image.shape == (3, 64, 64) and not np.ptp(image, axis=0).any() for image in recorded)
    images = [image.mean(axis=0) for image in recorded]
    models = [read_rational(part / "rpc" / str(view) / "town0000_0000.rpc") for view in range(3)]
    assert len((part / "rpc" / "0" / "town0000_0000.rpc").read_text(encoding="utf-8").splitlines()) == 170
    heights = read_pfm(part / "height" / "1" / "town0000_0000.pfm").astype(float)
    rows, columns = np.mgrid[:64, :64]
    for other in (0, 2):
        told = []
        for off in (0.0, 3.0):
            ground = models[1].locate(columns, rows, heights + off)
            places = np.stack(models[other].project(*ground, heights + off), axis=-1)
            told.append(agreement(images[1], images[other], places))
        assert told[0] > 0.5 and told[0] - told[1] > 0.15, told


def test_controls_know_nothing_of_their_scene(tmp_path) -> None:
    write_dataset(tmp_path, 3, 2, 2, (32, 32), seed=6, workers=1)
    for part, count in (("train", 3), ("test", 2)):
        names = [path.name for path in sorted((tmp_path / part / RELATIVE / "0").iterdir())]
        assert len(names) == count
        own, others = (
            {name: (tmp_path / part / kind / "1" / name).read_bytes() for name in names}
            for kind in (RELATIVE, SHUFFLED)
        )
        assert sorted(own.values()) == sorted(others.values()) and all(own[name] != others[name] for name in names)
        flat = read_image(tmp_path / part / CONSTANT / "0" / names[0])
        assert flat.shape == (3, 32, 32) and np.ptp(flat) == 0
