"""Camera files: both conventions give the camera that sees what its image shows, and bad files have a line."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stereo_views import agreement, seen_in
from Utils.core.errors import UserError
from Utils.data.stereo.pinhole_camera import PinholeCamera, read_camera, write_camera
from Utils.synthetic.stereo_cameras import Pinhole, turned
from Utils.synthetic.stereo_frames import take_frame
from Utils.synthetic.stereo_ground import make_ground

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def text_of(matrix: np.ndarray, first: str = "", inner: str = "200 47.5 31.5", depths: str = "80 110 0.1") -> str:
    rows = "\n".join(" ".join(map(repr, map(float, row))) for row in matrix)
    return f"{first}{rows}\n\n{inner}\n\n{depths}\n0 0 0 0 0 96 64\n"


def pair(tilt: float, kappa: float) -> list[Pinhole]:
    """Two cameras beside each other, each tilted and turned in another way."""
    return [
        Pinhole(
            np.array([side * 12.0, 0.0, 100.0]),
            turned(side * tilt, tilt, side * kappa),
            200.0,
            (47.5, 31.5),
            (64, 96),
        )
        for side in (-1.0, 1.0)
    ]


@pytest.mark.parametrize("layout", ["raw", "processed", "satellite"])
@pytest.mark.parametrize(("tilt", "kappa"), [(0.0, 0.0), (1.0, 0.0), (0.0, 3.0), (1.5, -2.0)])
def test_a_camera_sees_what_its_image_shows(tmp_path, layout, tilt, kappa) -> None:
    ground, cameras = make_ground("terrain", 3, 90.0, 0.5), pair(tilt, kappa)
    frames = [take_frame(ground, camera, np.random.default_rng(1), noise=0.0) for camera in cameras]
    projections = []
    for number, camera in enumerate(cameras):
        matrix = np.linalg.inv(camera.pose @ FLIP) if layout == "satellite" else camera.pose
        path = tmp_path / f"{number}.txt"
        path.write_text(text_of(matrix, "extrinsic\n" if layout == "raw" else ""), encoding="utf-8")
        projections.append(read_camera(path).projection)
    images = [frame.image.mean(axis=2) for frame in frames]
    places = seen_in(*projections, frames[0].depth)
    # What the cameras that took the images say: the same to a thousandth of a pixel.
    origins, directions = cameras[0].rays()
    true = cameras[1].project(origins + frames[0].depth.reshape(-1, 1) * directions).reshape(places.shape)
    np.testing.assert_allclose(places, true, atol=1e-3)
    right = agreement(images[0], images[1], places)
    beside = agreement(images[0], images[1], seen_in(*projections, frames[0].depth + 4.0))
    assert right > 0.8 and right - beside > 0.3


def test_the_aerial_matrix_as_it_stands_would_miss() -> None:
    """The published loader takes the pose for world to camera, with K = diag(-f, f): right only without any tilt."""
    missed = []
    for tilt, kappa in ((0.0, 0.0), (0.1, 0.0)):
        cameras = pair(tilt, kappa)
        inner = np.array(
            [[-200.0, 0.0, 47.5, 0.0], [0.0, 200.0, 31.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        )
        depth = np.full((64, 96), 100.0)
        origins, directions = cameras[0].rays()
        true = cameras[1].project(origins + 100.0 * directions).reshape(64, 96, 2)
        as_it_stands = seen_in(inner @ cameras[0].pose, inner @ cameras[1].pose, depth)
        missed.append(float(np.abs(as_it_stands - true).max()))
    assert missed[0] < 1e-6 and missed[1] > 0.2


@pytest.mark.parametrize("convention", ["pose", "world_to_camera"])
def test_a_written_camera_comes_back(tmp_path, convention) -> None:
    camera = PinholeCamera(np.linalg.inv(pair(1.0, 2.0)[1].pose @ FLIP), 5500.25, (383.5, 191.5), 480.0, 620.5, 0.1)
    write_camera(tmp_path / "a.txt", camera, (384, 768), convention)
    for told in (convention, None):
        read = read_camera(tmp_path / "a.txt", told)
        np.testing.assert_allclose(read.extrinsics, camera.extrinsics, atol=1e-9)
        assert (read.focal, read.centre) == (5500.25, (383.5, 191.5))
        assert (read.nearest, read.farthest, read.interval) == (480.0, 620.5, 0.1)
    np.testing.assert_allclose(read.place, [12.0, 0.0, 100.0], atol=1e-6)
    lines = (tmp_path / "a.txt").read_text(encoding="utf-8").split("\n")
    assert (lines[4], lines[5], lines[7], lines[8]) == (
        "",
        "5500.25 383.5 191.5",
        "480 620.5 0.1",
        "0 0 0 0 0 768 384",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds 0 numbers"),
        ("1 0 0", "holds 3 numbers"),
        (text_of(np.eye(4)).replace("200", "focal"), "could not convert"),
        (text_of(np.eye(4), inner="-200 1 1"), "focal length -200"),
        (text_of(np.eye(4), inner="nan 1 1"), "finite"),
        (text_of(np.eye(4), depths="110 80 0.1"), "from 110 to 80 m"),
        (text_of(np.eye(4), depths="80 110 0"), "steps of 0"),
        (text_of(2.0 * np.eye(4)), "no rotation"),
        (text_of(np.diag([1.0, 1.0, -1.0, 1.0])), "no rotation"),
        (text_of(Pinhole(np.zeros(3), turned(90.0, 0.0, 0.0), 1.0, (0.0, 0.0), (1, 1)).pose), "sideways"),
    ],
)
def test_a_bad_file_has_a_line(tmp_path, text, said) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_camera(tmp_path / "a.txt")


def test_a_missing_file_has_a_line(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_camera(tmp_path / "a.txt")
