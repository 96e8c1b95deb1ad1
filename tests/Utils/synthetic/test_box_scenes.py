"""Frames of synthetic rooms and streets: depth in closed form, what is seen where, and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from Utils.synthetic.box_camera import Box, Camera, cast
from Utils.synthetic.box_image import Light, Solid, take_frame
from Utils.synthetic.box_scenes import KINDS, make_frames, make_scene

SIZE = (33, 45)


def camera(place=(0.0, 0.0, 1.5), yaw=0.0, pitch=0.0, size=SIZE) -> Camera:
    return Camera(place, yaw, pitch, 64.0, size)


def depth_of(looking: Camera, *boxes: Box) -> np.ndarray:
    return cast(looking, boxes).depth.reshape(looking.size)


def test_a_wall_across_the_view_has_one_depth() -> None:
    wall = Box((0.0, 7.5, 0.0), (100.0, 1.0, 100.0))
    np.testing.assert_allclose(depth_of(camera(), wall), 7.0, rtol=1e-12)


def test_the_ground_is_as_far_as_perspective_says() -> None:
    looking = camera(size=(64, 96))
    ground = Box((0.0, 0.0, -0.5), (1e6, 1e6, 1.0))
    depth = depth_of(looking, ground)
    below = np.arange(64) + 0.5 - 32.0  # rows below the horizon
    expected = np.where(below > 0, 1.5 * looking.focal_length / np.maximum(below, 1e-9), np.inf)
    np.testing.assert_allclose(depth, np.broadcast_to(expected[:, None], depth.shape), rtol=1e-9)
    assert looking.focal_length == pytest.approx(48.0 / math.tan(math.radians(32.0)))


@pytest.mark.parametrize(("yaw", "pitch"), [(25.0, 0.0), (0.0, -20.0), (-35.0, 12.0)])
def test_a_wall_seen_at_an_angle(yaw: float, pitch: float) -> None:
    looking = camera(yaw=yaw, pitch=pitch)
    depth = depth_of(looking, Box((0.0, 7.5, 0.0), (1e4, 1.0, 1e4)))
    # Along a ray of which one length goes d metres ahead in the world, the wall at 7 m is 7 / d lengths away.
    ahead = looking.rays()[:, 1].reshape(SIZE)
    np.testing.assert_allclose(depth, 7.0 / ahead, rtol=1e-9)
    # The middle pixel looks along the optical axis.
    assert depth[16, 22] == pytest.approx(7.0 / (math.cos(math.radians(yaw)) * math.cos(math.radians(pitch))))


def test_rays_of_one_length_advance_one_metre_along_the_axis() -> None:
    looking = camera(yaw=30.0, pitch=-15.0)
    rays = looking.rays()
    axis = rays.reshape(*SIZE, 3)[16, 22]
    np.testing.assert_allclose(rays @ axis, 1.0, rtol=1e-12)
    right = looking.rays().reshape(*SIZE, 3)[16, 30] - axis
    assert right[2] == pytest.approx(0.0, abs=1e-12) and right[0] > 0, "columns go to the right, rows stay level"


def test_a_room_is_seen_from_within_and_a_turned_box_by_its_corner() -> None:
    room = Box((0.0, 2.0, 1.5), (4.0, 6.0, 3.0))
    assert depth_of(camera(), room)[16, 22] == pytest.approx(5.0)
    turned = Box((0.0, 4.0, 1.5), (2.0, 2.0, 2.0), turn=45.0)
    hits = cast(camera(), [room, turned])
    middle = np.ravel_multi_index((16, 22), SIZE)
    assert hits.depth[middle] == pytest.approx(4.0 - math.sqrt(2.0)) and hits.box[middle] == 1
    assert hits.box[0] == 0 and hits.normal[middle, 1] < 0, "a face is seen from the side that it looks to"


def test_nothing_has_no_depth_and_the_colour_of_the_sky() -> None:
    light = Light((0.0, -1.0, 0.0), sky=(0.5, 0.25, 1.0), noise=0.0)
    behind = Solid(Box((0.0, -5.0, 0.0), (1.0, 1.0, 1.0)), (1.0, 0.0, 0.0))
    frame = take_frame([behind], light, camera(), np.random.default_rng(0))
    assert (frame.depth == 0).all()
    assert frame.image[0, 0].tolist() == [round(255 * value ** (1 / 2.2)) for value in (0.5, 0.25, 1.0)]


def test_image_and_depth_show_the_same_box_at_the_same_place() -> None:
    light = Light((0.0, -1.0, 0.3), sky=(0.0, 0.0, 1.0), noise=0.0)
    box = Solid(Box((0.7, 5.0, 1.8), (1.0, 1.0, 1.2), 20.0), (1.0, 0.0, 0.0))
    frame = take_frame([box], light, camera(size=(64, 96)), np.random.default_rng(0))
    red = frame.image[..., 0] > frame.image[..., 2]
    assert 50 < red.sum() < 2000
    # The lens spreads an edge over a pixel.
    assert np.mean(red != (frame.depth > 0)) < 0.01
    assert np.nonzero(red)[1].mean() > 48 and np.nonzero(red)[0].mean() < 32, "to the right of the middle, and above it"


def test_a_face_towards_the_light_is_brighter_and_haze_takes_its_colour() -> None:
    wall = Solid(Box((0.0, 7.5, 0.0), (100.0, 1.0, 100.0)), (0.5, 0.5, 0.5))

    def grey(**light: object) -> float:
        given = {"direction": (0.0, -1.0, 0.0), "noise": 0.0, "sky": (1.0, 1.0, 1.0)} | light
        return float(take_frame([wall], Light(**given), camera(), np.random.default_rng(0)).image.mean())

    assert grey() > grey(direction=(1.0, 0.0, 0.0)) > 0
    assert grey() < grey(haze=0.05) < grey(haze=10.0) == 255.0
    assert grey(lamp=True, direction=(0.0, 6.0, 1.5)) > grey(lamp=True, direction=(0.0, 1.0, 1.5))


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_follow_from_their_seed(kind: str) -> None:
    first, again, other = (make_frames(kind, 2, (16, 24), seed) for seed in (4, 4, 5))
    for one, two, third in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.depth, two.depth)
        assert not np.array_equal(one.depth, third.depth)
    assert not np.array_equal(first[0].depth, first[1].depth), "each frame has a place of its own"


@pytest.mark.parametrize(("kind", "nearest", "farthest"), [("room", 0.2, 15.0), ("street", 0.5, 64.0)])
def test_scenes_have_the_depths_of_their_kind(kind: str, nearest: float, farthest: float) -> None:
    depths = [frame.depth for seed in range(6) for frame in make_frames(kind, 2, (16, 24), seed)]
    known = np.concatenate([depth[depth > 0] for depth in depths])
    assert nearest < known.min() and known.max() < farthest
    assert all(np.ptp(depth[depth > 0]) > 1.0 for depth in depths), "no frame shows a single wall"
    assert any((depth == 0).any() for depth in depths) == (kind == "street"), "a room has no sky"


def test_no_camera_stands_in_a_thing() -> None:
    for seed in range(8):
        for kind in KINDS:
            scene = make_scene(kind, 3, (8, 8), np.random.default_rng(seed))
            for looking in scene.cameras:
                nearest = cast(looking, [solid.box for solid in scene.solids]).depth.min()
                assert nearest > 0.15, (kind, seed)


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="known: room, street"):
        make_frames("cave", 1, (8, 8), 0)
