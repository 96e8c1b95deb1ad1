"""The whole command: what it writes, what it refuses, and how it goes on."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

import trainViT
from tests.scenes import write_raster
from tests.Utils.data.cutting.ground import (
    ORIGIN,
    UTM,
    heights_of,
    picture,
    surface_on,
    tiles_of,
    write_dem,
    write_image,
)
from Utils.data.cut import main
from Utils.data.cutting import run as run_module
from Utils.data.published_layout import TEST_PART, TRAINING_PART, find_priors, list_tiles
from Utils.data.splits import read_folds, table_folds
from Utils.data.tile_sources import part_priors, part_tiles
from Utils.rasters.tile_files import read_height, read_image, read_prior


def cut(folder: Path, *options: object, image: object = "image.tif", height: object = "dem.tif") -> int:
    """Run the command on files of a folder, into its folder ``out``; tiles have 16 pixels."""
    given = [folder / str(image), "--height", folder / str(height), "--output", folder / "out", "--size", 16]
    return main([str(word) for word in ("--image", *given, *options)])


@pytest.fixture
def rasters(tmp_path: Path) -> Path:
    """An image and a DEM on one grid of 96 x 96 pixels."""
    write_image(tmp_path / "image.tif")
    write_dem(tmp_path / "dem.tif")
    return tmp_path


def test_tiles_are_the_rasters_they_were_cut_from(rasters: Path) -> None:
    assert cut(rasters, "--stretch", "none", "--folds", 3, "--gap", 4) == 0
    image, truth = picture(96, 96), surface_on(ORIGIN, 96, 96).astype(np.float32)
    rows = tiles_of(rasters / "out")
    assert len(rows) > 12
    for row in rows:
        heights, where, crs = heights_of(rasters / "out", row)
        top, left = int(row["row"]), int(row["column"])
        part = slice(top, top + 16), slice(left, left + 16)
        assert crs == UTM
        # To a thousandth of a pixel, at both ends.
        for corner in ((0, 0), (16, 16)):
            assert np.allclose(~ORIGIN @ (where @ corner), (left + corner[0], top + corner[1]), atol=1e-3)
        assert np.array_equal(heights, truth[part])
        assert np.allclose(read_image(rasters / "out" / row["image"]) * 255, image[:, *part])
        assert float(row["lowest"]) == heights.min() and float(row["highest"]) == heights.max()


def test_test_tiles_that_overlap_have_a_split_file_of_some_that_do_not(
    rasters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cut(rasters, "--overlap", 8, "--folds", 2, "--test", 0.4, "--block", 3, "--gap", 4) == 0
    tested = {row["id"]: row for row in tiles_of(rasters / "out") if row["part"] == "test"}
    chosen = (rasters / "out" / "splits" / "test-apart.txt").read_text().split()
    said = f"{len(chosen)} of {len(tested)} share no pixels (splits/test-apart.txt, for test_split_text)"
    assert said in capsys.readouterr().out
    seen = np.zeros((96, 96), dtype=int)
    for tile in chosen:
        top, left = int(tested[tile]["row"]), int(tested[tile]["column"])
        seen[top : top + 16, left : left + 16] += 1
    assert seen.max() == 1
    # None could be added.
    for row in tested.values():
        top, left = int(row["row"]), int(row["column"])
        assert seen[top : top + 16, left : left + 16].any()


def test_an_overlap_without_effect_is_said(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(rasters, "--overlap", 4, "--folds", 5, "--block", 1) == 0
    assert "--overlap 4: a block holds one tile here, so none overlap" in capsys.readouterr().err


def test_without_overlap_there_is_no_such_file(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(rasters, "--folds", 2) == 0
    assert not (rasters / "out" / "splits" / "test-apart.txt").exists()
    assert "share no pixels" not in capsys.readouterr().out


def test_the_result_is_a_dataset_that_training_takes(rasters: Path, vit_config: dict) -> None:
    assert cut(rasters, "--folds", 3, "--test", 0.25) == 0
    out = rasters / "out"
    training, test = list_tiles(out, TRAINING_PART), list_tiles(out, TEST_PART)
    folds = sorted(str(path) for path in (out / "splits").glob("*.txt"))
    assert sorted(tile for fold in read_folds(folds, list(training), "out") for tile in fold) == sorted(training)
    assert not set(training) & set(test)
    table = out / "tiles.csv"
    for part, tiles in ((TRAINING_PART, training), (TEST_PART, test)):
        listed = part_tiles(table, part)
        assert {tile: (files.image, files.height) for tile, files in listed.items()} == {
            tile: (files.image, files.height) for tile, files in tiles.items()
        }
    in_folds = [sorted(fold) for fold in read_folds(folds, list(training), "out")]
    assert [sorted(fold) for fold in table_folds(part_tiles(table, TRAINING_PART), "out")] == in_folds
    assert {row["id"]: row["part"] for row in tiles_of(out)} == (
        dict.fromkeys(training, "train") | dict.fromkeys(test, "test")
    )
    assert all(read_height(files.height).valid.all() for files in training.values())
    config = vit_config | {"dataset_path": str(out), "k_folds": folds, "output_dir": str(rasters / "run")}
    (rasters / "config.json").write_text(json.dumps(config))
    assert trainViT.main(["--config", str(rasters / "config.json"), "--dry-run"]) == 0
    for name in ("map.png", "cut.json", "left_out.csv", "audit/audit.json"):
        assert (out / name).is_file()
    assert json.loads((out / "audit" / "audit.json").read_text())["training_would_start"]


@pytest.mark.parametrize("crs", [CRS.from_epsg(4326), CRS.from_epsg(32631)], ids=str)
def test_a_dem_in_another_system_is_brought_onto_the_image(crs: CRS, tmp_path: Path) -> None:
    write_image(tmp_path / "image.tif")
    xs, ys = rasterio.warp.transform(UTM, crs, [500_480.0], [4_999_520.0])
    step = 5e-5 if crs.is_geographic else 5.0
    where = Affine(step, 0.0, xs[0] - 150 * step, 0.0, -step, ys[0] + 150 * step)
    write_dem(tmp_path / "dem.tif", 300, where, crs)
    assert cut(tmp_path, "--folds", 0) == 0
    truth = surface_on(ORIGIN, 96, 96)
    for row in tiles_of(tmp_path / "out"):
        heights, _, _ = heights_of(tmp_path / "out", row)
        expected = truth[int(row["row"]) :, int(row["column"]) :][:16, :16]
        # The surface bends within a pixel of 10 m, of which averaging shows about a metre; half a pixel would be 4 m.
        assert np.abs(heights - expected).max() < 1.0 and np.abs(heights - expected).mean() < 0.2


def test_a_tile_with_too_few_data_is_left_out_and_counted(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = surface_on(ORIGIN, 96, 96).astype(np.float32)
    truth[:, :30] = np.nan
    write_raster(rasters / "dem.tif", truth, ORIGIN, UTM)
    image = picture(96, 96)
    image[:, :40] = 0
    write_raster(rasters / "image.tif", image, ORIGIN, UTM, nodata=0)
    assert cut(rasters, "--folds", 0, "--max-nodata", 0.5, "--gap", 0) == 0
    with (rasters / "out" / "left_out.csv").open() as stream:
        left = list(csv.DictReader(stream))
    rows = tiles_of(rasters / "out")
    # Rows 0 to 39 have no image: two rows of tiles, and half of a third, which is kept.
    assert {row["reason"] for row in left} == {"image", "heights"}
    assert sum(row["reason"] == "image" for row in left) == 2 * 6
    assert f"left out {sum(row['reason'] == 'heights' for row in left)}: too many heights" in capsys.readouterr().out
    assert len(rows) + len(left) == 36
    for row in rows:
        heights, _, _ = heights_of(rasters / "out", row)
        unknown = np.zeros((96, 96), bool)
        unknown[:40], unknown[:, :30] = True, True
        # Where the image shows nothing, there is nothing to learn a height from.
        assert np.array_equal(np.isnan(heights), unknown[int(row["row"]) :, int(row["column"]) :][:16, :16])


@pytest.mark.parametrize(("unit", "metres"), [("ft", 0.3048), ("us-ft", 1200 / 3937), ("cm", 0.01), ("metre", 1.0)])
def test_heights_become_metres(unit: str, metres: float, rasters: Path) -> None:
    truth = surface_on(ORIGIN, 96, 96)
    stored = (truth / metres - 20.0) / 0.5
    with rasterio.open(
        rasters / "dem.tif", "w", driver="GTiff", height=96, width=96, count=1, dtype="float64", crs=UTM,
        transform=ORIGIN,
    ) as target:  # fmt: skip
        target.write(stored, 1)
        target.scales, target.offsets, target.units = (0.5,), (20.0,), (unit,)
    assert cut(rasters, "--folds", 0) == 0
    for row in tiles_of(rasters / "out"):
        heights, _, _ = heights_of(rasters / "out", row)
        expected = truth[int(row["row"]) :, int(row["column"]) :][:16, :16]
        assert np.abs(heights - expected).max() < 1e-3


def test_a_vertical_system_in_feet_is_heeded_and_said(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crs = CRS.from_user_input("EPSG:32632+6360")  # heights above NAVD88 in US survey feet
    write_raster(rasters / "dem.tif", (surface_on(ORIGIN, 96, 96) * 3937 / 1200).astype(np.float32), ORIGIN, crs)
    assert cut(rasters, "--folds", 0) == 0
    assert "heights in US survey foot, converted to metres" in capsys.readouterr().err
    heights, _, _ = heights_of(rasters / "out", row := tiles_of(rasters / "out")[0])
    expected = surface_on(ORIGIN, 96, 96)[int(row["row"]) :, int(row["column"]) :][:16, :16]
    assert np.abs(heights - expected).max() < 1e-3


def test_undeclared_voids_are_left_out(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = np.rint(surface_on(ORIGIN, 96, 96)).astype(np.int16)
    stored[20:30, 20:30] = -32768
    write_raster(rasters / "dem.tif", stored, ORIGIN, UTM)
    assert cut(rasters, "--folds", 0, "--max-nodata", 1.0) == 0
    assert "-32768 (undeclared void value)" in capsys.readouterr().err
    assert min(float(row["lowest"]) for row in tiles_of(rasters / "out")) > 300.0


@pytest.mark.parametrize("value", [0, 255])
def test_a_frame_that_nobody_declares_is_not_learnt_from(
    rasters: Path, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiles are those of an image that declares its frame, and a line says so."""
    image = np.clip(picture(96, 96), 1, 254)
    image[:, :20], image[:, :, :12] = value, value
    write_raster(rasters / "image.tif", image, ORIGIN, UTM)
    found = []
    for given in ((), ("--nodata", value)):
        assert cut(rasters, "--folds", 0, "--max-nodata", 0.5, *given) == 0
        rows = tiles_of(rasters / "out")
        found.append([(row["row"], row["column"], heights_of(rasters / "out", row)[0]) for row in rows])
        said = capsys.readouterr().err
        assert (f"a frame of {value} takes" in said and "its pixels are no data" in said) == (not given)
        (rasters / "out").rename(rasters / f"kept{len(found)}")
    undeclared, declared = found
    assert [tile[:2] for tile in undeclared] == [tile[:2] for tile in declared]
    assert any(np.isnan(heights).any() for _, _, heights in declared)
    for (_, _, heights), (_, _, expected) in zip(undeclared, declared, strict=True):
        np.testing.assert_array_equal(heights, expected)


def test_ground_sample_distance(rasters: Path) -> None:
    smooth = np.broadcast_to(np.arange(96)[:, None] * 2 + 10, (3, 96, 96)).astype(np.uint8)
    write_raster(rasters / "image.tif", smooth, ORIGIN, UTM)
    assert cut(rasters, "--folds", 0, "--gsd", 20, "--test", 0.3, "--stretch", "none") == 0
    truth = surface_on(ORIGIN, 96, 96).reshape(48, 2, 48, 2).mean(axis=(1, 3))
    for row in tiles_of(rasters / "out"):
        heights, where, _ = heights_of(rasters / "out", row)
        top, left = int(row["row"]), int(row["column"])
        assert np.isclose(where.a, 20.0) and np.allclose(where @ (0, 0), ORIGIN @ (2 * left, 2 * top))
        assert np.abs(heights - truth[top : top + 16, left : left + 16]).max() < 1e-2
        levels = read_image(rasters / "out" / row["image"])[0, :, 0] * 255
        assert np.abs(levels - (4 * (top + np.arange(16)) + 11)).max() <= 0.51


def test_a_coarse_dem_is_made_or_given(rasters: Path) -> None:
    assert cut(rasters, "--folds", 0, "--coarsen", 4, "--gap", 0) == 0
    cells = surface_on(ORIGIN, 96, 96).reshape(24, 4, 24, 4).mean(axis=(1, 3)).astype(np.float32)
    write_raster(rasters / "coarse.tif", cells, ORIGIN @ Affine.scale(4), UTM)
    given = [rasters / "image.tif", "--height", rasters / "dem.tif", "--output", rasters / "given", "--size", 16]
    given += ["--folds", 0, "--gap", 0, "--coarse", rasters / "coarse.tif"]
    assert main([str(word) for word in ("--image", *given)]) == 0
    table = rasters / "out" / "tiles.csv"
    tiles = part_tiles(table, TRAINING_PART)
    priors = part_priors(table, TRAINING_PART, tiles, list(tiles))
    assert priors == find_priors(rasters / "out", TRAINING_PART, list(tiles))
    for made, other in zip(tiles_of(rasters / "out"), tiles_of(rasters / "given"), strict=True):
        low, where, _ = heights_of(rasters / "out", made, "coarse")
        assert np.allclose(low, heights_of(rasters / "given", other, "coarse")[0], atol=1e-3)
        assert where == heights_of(rasters / "out", made)[1]
        prior = read_prior(rasters / "out" / made["prior"])
        assert prior.min() == 0.0 and prior.max() == 1.0
        assert np.allclose(prior, (low - low.min()) / np.ptp(low), atol=1e-4)


def test_one_stretch_a_scene(rasters: Path) -> None:
    image = np.broadcast_to(np.arange(96) * 100, (3, 96, 96)).astype(np.uint16)
    write_raster(rasters / "image.tif", image, ORIGIN, UTM)
    assert cut(rasters, "--folds", 0, "--stretch", "0,100") == 0
    for row in tiles_of(rasters / "out"):
        levels = read_image(rasters / "out" / row["image"])[0, 0]
        assert np.allclose(levels, (int(row["column"]) + np.arange(16)) / 95, atol=0.003)


def test_a_dry_run_says_the_same_and_writes_nothing(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cut(rasters, "--dry-run", "--folds", 3) == 0
    told = capsys.readouterr().out
    assert not (rasters / "out").exists()
    assert cut(rasters, "--folds", 3) == 0
    assert told.partition("\nnothing")[0] in capsys.readouterr().out


def test_an_interrupted_cut_goes_on(rasters: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert cut(rasters, "--folds", 3, "--coarsen", 4) == 0
    (rasters / "out").rename(rasters / "whole")
    plain, written = run_module.write_tile, []

    def interrupted(paths, *rest) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        plain(paths, *rest)
        written.append(paths)

    monkeypatch.setattr(run_module, "write_tile", interrupted)
    assert cut(rasters, "--folds", 3, "--coarsen", 4) == 130
    monkeypatch.setattr(run_module, "write_tile", plain)
    capsys.readouterr()
    assert cut(rasters, "--folds", 3, "--coarsen", 4) == 2
    assert "is not empty; --resume" in capsys.readouterr().err
    assert cut(rasters, "--folds", 2, "--coarsen", 4, "--resume") == 2
    assert "was begun with other folds" in capsys.readouterr().err
    times = [path.stat().st_mtime_ns for paths in written for path in paths.all]
    assert cut(rasters, "--folds", 3, "--coarsen", 4, "--resume") == 0
    assert times == [path.stat().st_mtime_ns for paths in written for path in paths.all]

    def contents(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and "audit" not in path.parts]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert contents(rasters / "out") == contents(rasters / "whole")
    capsys.readouterr()
    assert cut(rasters, "--folds", 3, "--coarsen", 4, "--resume") == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_memory_does_not_grow_with_the_rasters(tmp_path: Path) -> None:
    """25 million pixels, nearly all of them absent: read at once, the image alone would take 300 MB."""
    side, block = 5_000, 256
    profile = {"driver": "GTiff", "height": side, "width": side, "crs": UTM, "transform": ORIGIN, "count": 1}
    profile |= {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate", "SPARSE_OK": True}
    truth = surface_on(ORIGIN, 512, 512)
    for name, dtype, values, nodata in (
        ("image.tif", "uint8", picture(512, 512)[0], 0),
        ("dem.tif", "float32", truth.astype(np.float32), -9999),
    ):
        with rasterio.open(tmp_path / name, "w", dtype=dtype, nodata=nodata, **profile) as target:
            target.write(values, 1, window=rasterio.windows.Window(2048, 2048, 512, 512))
    tracemalloc.start()
    try:
        assert cut(tmp_path, "--size", 512, "--folds", 0, "--test", 0, "--gap", 0, "--block", 1, "--dry-run") == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60e6, peak


def _no_crs(folder: Path) -> None:
    write_image(folder / "image.tif", crs=None)


def _no_place(folder: Path) -> None:
    write_raster(folder / "image.tif", picture(96, 96), None, None)


def _dem_without_crs(folder: Path) -> None:
    write_raster(folder / "dem.tif", surface_on(ORIGIN, 96, 96), ORIGIN, None)


def _elsewhere(folder: Path) -> None:
    write_dem(folder / "dem.tif", where=Affine.translation(5_000.0, 0.0) @ ORIGIN)


def _odd_unit(folder: Path) -> None:
    with rasterio.open(folder / "dem.tif", "r+") as target:
        target.units = ("kelvin",)


def _three_bands(folder: Path) -> None:
    write_image(folder / "dem.tif")


def _voids(folder: Path) -> None:
    write_raster(folder / "dem.tif", np.full((96, 96), -9999.0, np.float32), ORIGIN, UTM, nodata=-9999.0)


def _nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "options", "says"),
    [
        (_no_crs, (), "image.tif' has no CRS, so nobody knows where it lies; give --crs EPSG:N"),
        (_no_place, (), "image.tif' is not georeferenced"),
        (_dem_without_crs, (), "DEM '.*dem.tif' has no CRS"),
        (_elsewhere, (), r"no image overlaps a DEM of --height: the images span x 500000 to 500960.*505000"),
        (_odd_unit, (), "has heights in 'kelvin'; convert them to metres"),
        (_three_bands, (), "dem.tif: 3 bands; a DEM has one"),
        (_voids, (), "all 36 tiles are left out: 36 because too many heights are missing"),
        (_nothing, ("--size", "128"), "no tile of 128 x 128 pixels fits into an image; the largest has 96 x 96"),
        (_nothing, ("--folds", "40"), "tiles lie in [0-9]+ blocks, too few for 41 sides"),
        (_nothing, ("--folds", "1"), "--folds 1: give 2 or more, or 0"),
        (_nothing, ("--overlap", "16"), "--overlap 16: give 0 to 15 pixels"),
        (_nothing, ("--max-nodata", "5"), "--max-nodata 5: give a share from 0 to 1"),
        (_nothing, ("--crs", "EPSG:0"), "--crs EPSG:0: no known system"),
        (_nothing, ("--coarsen", "4", "--coarse", "x.tif"), "x.tif: no such file"),
        (_nothing, ("--gsd", "0"), "--gsd 0: give the metres"),
        (_nothing, ("--gsd", "5000"), "is smaller than one such pixel"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(
    spoil, options, says: str, rasters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(rasters)
    assert cut(rasters, "--gap", 0, "--block", 1, *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and re.search(says, lines[-1]), lines
    assert not (rasters / "out" / "tiles.csv").exists()


def test_a_crs_for_files_that_name_none(rasters: Path) -> None:
    write_image(rasters / "image.tif", crs=None)
    assert cut(rasters, "--folds", 0, "--crs", "EPSG:32632") == 0
    assert heights_of(rasters / "out", tiles_of(rasters / "out")[0])[2] == UTM


def test_images_beside_all_dems_are_named(rasters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (rasters / "images").mkdir()
    (rasters / "image.tif").rename(rasters / "images" / "a.tif")
    write_image(rasters / "images" / "b.tif", where=Affine.translation(50_000.0, 0.0) @ ORIGIN)
    assert cut(rasters, "--folds", 0, image="images") == 0
    assert "1 images lie over no DEM of --height and are left out" in capsys.readouterr().err
    assert {Path(row["scene"]).name for row in tiles_of(rasters / "out")} == {"a.tif"}
