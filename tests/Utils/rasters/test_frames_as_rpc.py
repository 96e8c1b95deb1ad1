"""RPCs of aerial frames: they see what the frames see, distortion can be taken out, and bad tables have a line."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from scipy import ndimage

from Utils.rasters.coordinates import transformed
from Utils.rasters.rational import height_datum, read_rational
from Utils.rasters.rational.frames import Frame, fit_frame, main, turned

ZONE = CRS.from_epsg(32651)
PLACE = np.array([292_710.0, 2_731_048.0, 186.0])
BARREL = (-0.26, 0.1, -0.026, 7e-4, 2.6e-4)


def frame(tilt: float) -> Frame:
    return Frame(PLACE, turned(tilt, 1.0, 100.0), 60.0, (44.0, 30.5), (60, 90))


def ground_of(points: np.ndarray) -> np.ndarray:
    return np.stack(transformed(ZONE, CRS.from_epsg(4326), points[:, 0], points[:, 1]), axis=1)


def seen_by(model, points: np.ndarray) -> np.ndarray:
    return np.stack(model.project(*ground_of(points).T, points[:, 2]), axis=1)


@pytest.mark.parametrize("tilt", [0.0, 5.0, 28.0])
def test_the_rpc_of_a_frame_sees_what_the_frame_sees(tilt) -> None:
    camera = frame(tilt)
    model, worst = fit_frame(camera, ZONE, (50.0, 120.0))
    rng = np.random.default_rng(0)
    columns, rows = rng.uniform(0, 89, 300), rng.uniform(0, 59, 300)
    directions = camera.directions(columns, rows)
    heights = rng.uniform(50.0, 120.0, 300)
    points = PLACE + ((heights - PLACE[2]) / directions[:, 2])[:, None] * directions
    np.testing.assert_allclose(camera.pixels(points), np.stack([columns, rows], axis=1), atol=1e-9)
    np.testing.assert_allclose(seen_by(model, points), np.stack([columns, rows], axis=1), atol=2e-3)
    assert worst < 2e-3
    # And back: the ground under a pixel, also of a model that was moved, whose inverse is fitted anew.
    moved = model.shifted(3.0, -2.0)
    longitude, latitude = moved.locate(columns - 3.0, rows + 2.0, heights)
    np.testing.assert_allclose(np.stack([longitude, latitude], axis=1), ground_of(points), atol=3e-7)
    found = np.stack(model.locate(columns, rows, heights), axis=1)
    np.testing.assert_allclose(found, ground_of(points), atol=3e-7)


def table(folder, *rows: str, header: str = "image,x,y,z,omega,phi,kappa,focal,column,row,k1,k2,k3,p1,p2"):
    path = folder / "frames.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def row(tilt: float = 5.0) -> str:
    numbers = [*PLACE, tilt, 1.0, 100.0, 60.0, 44.0, 30.5, *[0.0] * 5]
    return ",".join(["frame.png", *map(repr, map(float, numbers))])


def run(path, folder, *more: str) -> int:
    return main(["--table", str(path), "--crs", "EPSG:32651", "--heights", "50,120", "--output", str(folder), *more])


def test_a_table_of_frames_becomes_rpcs(tmp_path) -> None:
    Image.new("L", (90, 60)).save(tmp_path / "frame.png")
    assert run(table(tmp_path, row()), tmp_path / "rpcs") == 0
    model = read_rational(tmp_path / "rpcs" / "frame.rpc")
    points = PLACE + np.array([[0.0, 0.0, -100.0], [10.0, -5.0, -90.0]])
    np.testing.assert_allclose(seen_by(model, points), frame(5.0).pixels(points), atol=2e-3)


def test_heights_of_frames_are_above_what_the_user_says_or_unknown(tmp_path, capsys) -> None:
    Image.new("L", (90, 60)).save(tmp_path / "frame.png")
    path = table(tmp_path, row())
    assert run(path, tmp_path / "rpcs") == run(path, tmp_path / "named", "--vertical-datum", "EPSG:5773") == 0
    assert height_datum(tmp_path / "rpcs" / "frame.rpc") == ""
    assert height_datum(tmp_path / "named" / "frame.rpc") == "EPSG:5773"
    assert run(path, tmp_path / "wrong", "--vertical-datum", "EPSG:32651") == 2
    assert "--vertical-datum 'EPSG:32651': names no vertical datum" in capsys.readouterr().err


def test_a_distorted_frame_is_refused_or_undistorted(tmp_path, capsys) -> None:
    # Four times as large as the others: errors of an RPC grow with the frame.
    numbers = [*PLACE, 5.0, 1.0, 100.0, 240.0, 176.0, 122.0, *BARREL]
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (240, 360)), 8.0)
    stretched = 1.0 + 254.0 * (smooth - smooth.min()) / np.ptp(smooth)
    Image.fromarray(stretched.astype(np.uint8)).save(tmp_path / "frame.png")
    path = table(tmp_path, ",".join(["frame.png", *map(repr, map(float, numbers))]))
    assert run(path, tmp_path / "plain") == 2
    assert "add --undistort" in capsys.readouterr().err
    assert run(path, tmp_path / "rpcs", "--undistort") == 0
    with rasterio.open(tmp_path / "rpcs" / "frame.tif") as source:
        straight = source.read(1).astype(float)
    model = read_rational(tmp_path / "rpcs" / "frame.rpc")
    bent = Frame(PLACE, turned(5.0, 1.0, 100.0), 240.0, (176.0, 122.0), (240, 360), BARREL)
    rng = np.random.default_rng(1)
    points = PLACE + np.stack([rng.uniform(-40, 40, 200), rng.uniform(-40, 40, 200), np.full(200, -100.0)], axis=1)
    before, after = bent.pixels(points), seen_by(model, points)
    inside = (before > 2).all(axis=1) & (before < [357, 237]).all(axis=1)
    inside &= (after > 2).all(axis=1) & (after < [357, 237]).all(axis=1)
    assert inside.sum() > 50 and np.abs(before - after)[inside].max() > 4.0
    one, other = (
        ndimage.map_coordinates(image, [places[inside, 1], places[inside, 0]], order=1)
        for image, places in ((stretched, before), (straight, after))
    )
    assert np.abs(one - other).max() < 8.0 and np.ptp(one) > 100.0


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([], "image,x", "no line below its header"),
        (["frame.png,1"], "image,x", "no column 'y'"),
        ([row().replace("60.0", "focal")], None, "must be numbers"),
        ([row().replace("60.0", "-60.0")], None, "focal length -60"),
        ([row(tilt=80.0)], None, "does not look down"),
        ([row().replace("frame.png", "other.png")], None, "no such file"),
    ],
)
def test_a_bad_table_has_a_line(tmp_path, capsys, rows, header, said) -> None:
    Image.new("L", (90, 60)).save(tmp_path / "frame.png")
    path = table(tmp_path, *rows, **({"header": header} if header else {}))
    assert run(path, tmp_path / "rpcs") == 2
    assert said in capsys.readouterr().err


def test_bad_options_have_a_line(tmp_path, capsys) -> None:
    Image.new("L", (90, 60)).save(tmp_path / "frame.png")
    path = str(table(tmp_path, row()))
    for crs, heights, said in (("EPSG:1", "50,120", "--crs"), ("EPSG:32651", "120,50", "lowest and the highest")):
        assert main(["--table", path, "--crs", crs, f"--heights={heights}", "--output", str(tmp_path / "o")]) == 2
        assert said in capsys.readouterr().err
