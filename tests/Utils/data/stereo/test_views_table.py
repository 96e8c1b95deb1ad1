"""A table of one's own views: cameras by file, by RPC or as numbers; what is wrong in it has a line."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stereo_sets import copy_set
from Utils.config.stereo_keys import WithViews
from Utils.core.errors import UserError
from Utils.data.stereo.reading import read_stereo
from Utils.data.stereo.sets import find_samples

FIRST = "town0000_0000"


def write(folder, header, *lines):
    path = folder / "views.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def keys(**changes: object) -> WithViews:
    return WithViews(**{"views": 3} | changes)


def lines_of(folder, camera, suffix, truth, count=3):
    for view in range(count):
        place = f"train/{{}}/{view}/{FIRST}"
        yield (
            f"first,{place.format('image')}.png,{place.format(camera)}.{suffix},{place.format(truth)}.pfm,"
            f"{place.format('depthAnything')}.png"
        )


@pytest.mark.parametrize(
    ("cameras", "camera", "suffix", "truth"), [("pinhole", "camera", "txt", "depth"), ("rpc", "rpc", "rpc", "height")]
)
def test_a_table_says_what_a_layout_says(tmp_path, cameras, camera, suffix, truth) -> None:
    folder = copy_set(tmp_path, cameras)
    table = write(folder, "scene,image,camera,truth,relative", *lines_of(folder, camera, suffix, truth))
    options = keys(interval=0.5, relative_depth_folder="depthAnything")
    (from_table,) = find_samples(table, "train", options).values()
    from_layout = find_samples(folder, "train", options)[f"{FIRST}-1"]
    one, other = read_stereo(from_table), read_stereo(from_layout)
    for name in ("cameras", "target", "known"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.relative[2], other.relative[2])
    assert one.value_range == other.value_range and from_table.scene == "first"


def test_frames_with_angles_are_cameras(tmp_path) -> None:
    """Numbers of frames in photogrammetric axes give the cameras that took the images."""
    folder = copy_set(tmp_path)
    x, y, z, omega, phi, kappa = 3.0, -2.0, 100.0, 1.5, -2.5, 30.0
    lines = [
        f"first,train/image/{view}/{FIRST}.png,{x + 14 * view},{y},{z},{omega},{phi},{kappa},200,-6,24"
        for view in range(3)
    ]
    table = write(folder, "scene,image,x,y,z,omega,phi,kappa,focal,lowest,highest", *lines)
    (sample,) = find_samples(table, "train", keys(reference=0)).values()
    arrays = read_stereo(sample)
    from Utils.synthetic.stereo_cameras import Pinhole, turned

    camera = Pinhole(np.array([x, y, z]), turned(omega, phi, kappa), 200.0, (31.5, 15.5), (32, 64))
    points = np.random.default_rng(0).uniform((-8.0, -8.0, -6.0), (12.0, 8.0, 24.0), (50, 3))
    seen = np.concatenate([points, np.ones((50, 1))], axis=1) @ arrays.cameras[0].T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:3], camera.project(points), atol=1e-6)
    # Every ground from -6 to 24 m lies within the depths.
    origins, directions = camera.rays()
    depths = [(height - origins[:, 2]) / directions[:, 2] for height in (24.0, -6.0)]
    assert arrays.value_range == pytest.approx((depths[0].min(), depths[1].max()), rel=1e-6)
    assert not arrays.known.any() and arrays.interval == pytest.approx(arrays.value_range[1] / 200.0)


def test_parts_and_ranges_of_a_table(tmp_path) -> None:
    folder = copy_set(tmp_path)
    lines = [
        f"{line},{part},70,140,0.3" for part in ("train", "test") for line in lines_of(folder, "camera", "txt", "depth")
    ]
    lines[3:] = [line.replace("first", "second") for line in lines[3:]]
    table = write(folder, "scene,image,camera,truth,relative,part,low,high,interval", *lines)
    (sample,) = find_samples(table, "test", keys()).values()
    arrays = read_stereo(sample)
    assert (sample.scene, arrays.value_range, arrays.interval) == ("second", (70.0, 140.0), 0.3)


HEADER = "scene,image,camera"
IMAGE = f"train/image/0/{FIRST}.png"
CAMERA = f"train/camera/0/{FIRST}.txt"
LINE = f"a,{IMAGE},{CAMERA}"


@pytest.mark.parametrize(
    ("header", "lines", "said"),
    [
        (HEADER, [], "no line below its header"),
        ("scene,picture", ["a,b"], "unknown column 'picture'"),
        ("scene,scene,image", ["a,a,b"], "two columns are called 'scene'"),
        ("scene,camera", ["a,b"], "no column 'image'"),
        (HEADER, [LINE, "a,b"], "line 3: 2 cells"),
        (HEADER, [LINE, f",{IMAGE},{CAMERA}"], "line 3: no scene"),
        (HEADER, [LINE], "scene 'a' has one view"),
        (HEADER, [LINE, f"a,missing.png,{CAMERA}"], "image 'missing.png' does not exist"),
        (HEADER, [LINE, f"a,{IMAGE},missing.txt"], "camera 'missing.txt' cannot be read"),
        (HEADER, [LINE, f"a,{IMAGE},"], "pinhole cameras and RPCs"),
        (f"{HEADER},part", [f"{LINE},train", f"{LINE},often"], "line 3: part 'often'"),
        (f"{HEADER},part", [f"{LINE},test", f"{LINE},test"], "no line of the part 'train'"),
        (f"{HEADER},low,high", [f"{LINE},1,2", f"{LINE},1,3"], "name 2 ranges"),
        (f"{HEADER},low,high", [f"{LINE},1,", f"{LINE},1,"], "high is empty"),
        (f"{HEADER},low,high", [f"{LINE},2,1", f"{LINE},2,1"], "from 2 to 1"),
        (f"{HEADER},lowest,highest", [f"{LINE},1,2", f"{LINE},1,2"], "are for frames and RPCs"),
        (f"{HEADER},interval", [f"{LINE},-1", f"{LINE},-1"], "interval -1"),
        ("scene,image,x,y,z,omega,phi,kappa,focal", [f"a,{IMAGE},0,0,100,0,0,0,"] * 2, "focal is empty"),
        ("scene,image,x,y,z,omega,phi,kappa,focal", [f"a,{IMAGE},0,0,100,0,0,0,9"] * 2, "give one pair"),
        (
            "scene,image,x,y,z,omega,phi,kappa,focal,lowest,highest",
            [f"a,{IMAGE},0,0,100,0,90,0,200,0,10"] * 2,
            "does not look down",
        ),
    ],
)
def test_what_is_wrong_in_a_table_has_a_line(tmp_path, header, lines, said) -> None:
    folder = copy_set(tmp_path)
    with pytest.raises(UserError, match=said):
        find_samples(write(folder, header, *lines), "train", keys(views=2))


def test_an_image_without_rpc_and_without_camera_has_a_line(tmp_path) -> None:
    folder = copy_set(tmp_path)
    table = write(folder, "scene,image", f"a,{IMAGE}", f"a,{IMAGE}")
    samples = find_samples(table, "train", keys(views=2, interval=1.0))
    with pytest.raises(UserError, match="no RPC"):
        read_stereo(next(iter(samples.values())))
