"""The samples of stereo datasets: layouts, references, chosen views, tables; what is missing has a line."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.stereo_sets import copy_set, raw_of
from Utils.config.stereo_keys import WithViews
from Utils.core.errors import UserError
from Utils.data.stereo.pinhole_camera import PinholeCamera, read_camera
from Utils.data.stereo.reading import read_stereo
from Utils.data.stereo.sample_check import check_samples
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.view_choice import PinholeView, Relation, best_sources, relate
from Utils.rasters.pfm import read_pfm, write_pfm

FIRST = "town0000_0000"


def options(**changes: object) -> WithViews:
    return WithViews(**{"views": 3} | changes)


def test_a_sample_is_a_view_and_its_sources_in_cyclic_order(tmp_path, caplog) -> None:
    folder = copy_set(tmp_path)
    with caplog.at_level(logging.INFO):
        samples = find_samples(folder, "train", options(reference=2, relative_depth_folder="depthAnything"))
    assert list(samples) == [f"{FIRST}-2", "town0001_0000-2"] and "layout of whu_mvs" in caplog.text
    sample = samples[f"{FIRST}-2"]
    assert [view.view for view in sample.views] == ["2", "0", "1"] and sample.scene == "town0000"
    assert sample.reference.image == folder / "train" / "image" / "2" / f"{FIRST}.png"
    assert sample.reference.truth == folder / "train" / "depth" / "2" / f"{FIRST}.pfm"
    assert sample.reference.relative == folder / "train" / "depthAnything" / "2" / f"{FIRST}.png"
    every = find_samples(folder, "test", options(reference=None))
    assert list(every) == [f"town5000_0000-{view}" for view in range(3)]
    assert every["town5000_0000-1"].reference.relative is None


@pytest.mark.parametrize("cameras", ["pinhole", "rpc"])
def test_a_sample_is_read_as_it_was_written(tmp_path, cameras) -> None:
    folder = copy_set(tmp_path, cameras)
    samples = find_samples(folder, "train", options(interval=0.5 if cameras == "rpc" else None))
    arrays = read_stereo(samples[f"{FIRST}-1"])
    truth = "depth" if cameras == "pinhole" else "height"
    np.testing.assert_array_equal(arrays.target, read_pfm(folder / "train" / truth / "1" / f"{FIRST}.pfm"))
    assert arrays.known.all() and len(arrays.images) == 3 and arrays.images[0].shape == (3, 32, 64)
    if cameras == "pinhole":
        camera = read_camera(folder / "train" / "camera" / "1" / f"{FIRST}.txt")
        np.testing.assert_array_equal(arrays.cameras[0], camera.projection)
        assert (arrays.value_range, arrays.interval) == ((camera.nearest, camera.farthest), 0.14)
    else:
        assert arrays.cameras.shape == (3, 170) and arrays.cameras.dtype == np.float64
        assert arrays.value_range == pytest.approx((-6.0, 24.0)) and arrays.interval == 0.5


def test_a_config_may_say_range_and_interval(tmp_path) -> None:
    samples = find_samples(copy_set(tmp_path), "train", options(value_range=[70.0, 140.0], interval=0.3))
    arrays = read_stereo(samples[f"{FIRST}-1"])
    assert (arrays.value_range, arrays.interval) == ((70.0, 140.0), 0.3)


def test_an_rpc_says_no_interval(tmp_path) -> None:
    samples = find_samples(copy_set(tmp_path, "rpc"), "train", options())
    with pytest.raises(UserError, match="set interval, in metres"):
        read_stereo(samples[f"{FIRST}-1"])


def test_the_raw_release_says_the_same(tmp_path) -> None:
    folder = copy_set(tmp_path)
    raw = raw_of(folder, tmp_path)
    processed, unprocessed = (find_samples(each, "train", options()) for each in (folder, raw))
    assert list(processed) == list(unprocessed)
    for name, sample in processed.items():
        one, other = read_stereo(sample), read_stereo(unprocessed[name])
        np.testing.assert_array_equal(one.images[1], other.images[1])
        np.testing.assert_allclose(one.cameras, other.cameras)
        assert not other.known[0, 0] and other.target[0, 0] == 0 and other.known.sum() == other.known.size - 1
        np.testing.assert_allclose(one.target[other.known], other.target[other.known], atol=1 / 128 + 1e-6)


def test_the_pairs_of_the_raw_release_say_which_views_go_together(tmp_path) -> None:
    raw = raw_of(copy_set(tmp_path), tmp_path)
    (raw / "train" / "pair.txt").write_text("3\n0 2 2 1\n1 2 2 0\n2 2 0 1\n", encoding="utf-8")
    samples = find_samples(raw, "train", options(views=2, reference=None))
    assert [[view.view for view in sample.views] for sample in samples.values()][:3] == [
        ["0", "2"],
        ["1", "2"],
        ["2", "0"],
    ]
    (raw / "train" / "pair.txt").write_text("3\n0 2 2", encoding="utf-8")
    with pytest.raises(UserError, match=r"pair.txt' cannot be read"):
        find_samples(raw, "train", options(views=2))


def test_of_more_views_the_best_stand_beside_the_reference(tmp_path) -> None:
    folder = copy_set(tmp_path)
    # View 0 gets a camera from far aside, which sees nothing of what view 1 sees.
    for path in (folder / "train" / "camera" / "0").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        first = lines[0].split()
        lines[0] = " ".join([*first[:3], "-90"])
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    best = find_samples(folder, "train", options(views=2))
    assert [[view.view for view in sample.views] for sample in best.values()] == [["1", "2"], ["1", "2"]]
    turned = find_samples(folder, "train", options(views=2, choose_views="cyclic", reference=2))
    assert [view.view for view in turned[f"{FIRST}-2"].views] == ["2", "0"]
    with pytest.raises(UserError, match="sees nothing of"):
        check_samples(find_samples(folder, "train", options()), [f"{FIRST}-1"])
    with pytest.raises(UserError, match="all 2 references .* fewer than 1 views"):
        find_samples(folder, "train", options(views=2, reference=0))


def test_overlap_and_base_to_height() -> None:
    def at(x: float, tilt: float = 0.0) -> PinholeView:
        pose = np.diag([1.0, -1.0, -1.0, 1.0])
        sine, cosine = np.sin(np.radians(tilt)), np.cos(np.radians(tilt))
        pose[:3, :3] = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]) @ pose[:3, :3]
        pose[:3, 3] = x, 0.0, 100.0
        return PinholeView(PinholeCamera(np.linalg.inv(pose), 200.0, (50.0, 50.0), 90.0, 110.0, 0.1), (101, 101))

    beside = relate(at(0.0), at(20.0))
    # 20 m of 50 m are not seen by both; 20 m of base to 100 m of height.
    assert beside.overlap == pytest.approx(0.6, abs=0.07) and beside.ratio == pytest.approx(0.2, abs=0.005)
    assert relate(at(0.0), at(20.0, tilt=np.degrees(np.arctan(0.2)))).overlap > beside.overlap + 0.15
    assert relate(at(0.0), at(60.0)) == Relation(0.0, 0.0)
    behind = PinholeView(at(0.0).camera, (101, 101))
    upwards = np.diag([1.0, 1.0, 1.0, 1.0])
    object.__setattr__(behind, "camera", PinholeCamera(upwards, 200.0, (50.0, 50.0), 90.0, 110.0, 0.1))
    assert relate(at(0.0), behind).overlap == 0.0, "what lies behind a camera is not seen"
    told = [Relation(0.9, 0.01), Relation(0.8, 0.3), Relation(0.1, 0.3), Relation(0.7, 0.5), Relation(1.0, 3.0)]
    assert best_sources(told, 2) == [1, 3] and best_sources(told, 9) == [1, 3, 4, 0]


def test_satellites_relate_as_their_angles_say(tmp_path) -> None:
    from Utils.data.stereo.sets import relations

    sample = find_samples(copy_set(tmp_path, "rpc"), "train", options(interval=0.5))[f"{FIRST}-1"]
    for relation in relations(sample):
        assert relation.overlap > 0.6
        assert 0.2 < relation.ratio < 0.45  # 16 degrees, and up to 10 across


@pytest.mark.parametrize(
    ("broken", "changes", "said"),
    [
        (lambda train: (train / "image" / "1" / f"{FIRST}.png").unlink(), {}, "view 1 of .* has no image .*1 of 6"),
        (lambda train: (train / "camera" / "2" / f"{FIRST}.txt").unlink(), {}, "has no camera file"),
        (lambda train: shutil.rmtree(train / "camera"), {}, "folders of no known layout"),
        (lambda train: shutil.rmtree(train / "camera"), {"layout": "whu_mvs"}, "camera' not found"),
        (lambda train: shutil.rmtree(train), {}, "train' not found"),
        (lambda train: None, {"views": 5}, "has 3 views, and views asks for 5"),
        (lambda train: None, {"reference": 3}, "numbered from 0 to 2"),
        (lambda train: None, {"relative_depth_folder": "none"}, "make it with python -m Systems.relative_depth"),
        (
            lambda train: (train / "depthAnything" / "0" / f"{FIRST}.png").unlink(),
            {"relative_depth_folder": "depthAnything"},
            "has no relative depth map",
        ),
        (lambda train: [shutil.rmtree(train / "image" / view) for view in "12"], {}, "1 folders of views"),
    ],
)
def test_what_is_missing_has_a_line(tmp_path, broken, changes, said) -> None:
    folder = copy_set(tmp_path)
    broken(folder / "train")
    with pytest.raises(UserError, match=said):
        find_samples(folder, "train", options(**changes))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda train: (train / "depth" / "1" / f"{FIRST}.pfm").unlink(), "no depth or height map"),
        (lambda train: write_pfm(train / "depth" / "1" / f"{FIRST}.pfm", np.ones((32, 32))), "32 x 32 pixels but its"),
        (
            lambda train: write_pfm(train / "depth" / "1" / f"{FIRST}.pfm", np.full((32, 64), 9e3)),
            "100% of .* lies outside",
        ),
        (lambda train: (train / "image" / "0" / f"{FIRST}.png").write_bytes(b"no image"), "PNG"),
        (
            lambda train: Image.new("RGB", (32, 32)).save(train / "image" / "1" / f"{FIRST}.png"),
            "must have one size",
        ),
    ],
)
def test_files_that_do_not_fit_have_a_line(tmp_path, broken, said) -> None:
    folder = copy_set(tmp_path)
    broken(folder / "train")
    samples = find_samples(folder, "train", options())
    with pytest.raises(UserError, match=said):
        check_samples(samples, list(samples))


def test_cameras_of_another_image_are_noticed(tmp_path) -> None:
    folder = copy_set(tmp_path)
    for path in (folder / "train" / "camera" / "0").iterdir():
        text = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([*text[:5], "200 4000 15.5", *text[6:]]), encoding="utf-8")
    samples = find_samples(folder, "train", options())
    with pytest.raises(UserError, match=r"sees nothing of .*2 of 4 sources .* do the camera files belong"):
        check_samples(samples, list(samples))


def test_a_check_tells_what_is_unusual(tmp_path, caplog) -> None:
    folder = copy_set(tmp_path)
    path = folder / "train" / "depth" / "1" / f"{FIRST}.pfm"
    depth = read_pfm(path)
    depth[:4] = np.nan
    depth[4] = 500.0
    write_pfm(path, depth)
    samples = find_samples(folder, "train", options())
    check = check_samples(samples, list(samples))
    assert check.size == (32, 64) and check.with_gaps == [f"{FIRST}-1"] and check.empty == []
    assert "1 of 2 samples have some truth outside of their range" in caplog.text
