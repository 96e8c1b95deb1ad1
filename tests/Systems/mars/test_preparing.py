"""prepareMars.py: tiles lie where the ground is, no ground stands on two sides, and what cannot be used is refused."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, calculate_default_transform, reproject

import prepareMars
from Systems.mars.preparing.pair_tiles import starts
from Utils.data.tile_sources import part_tiles
from Utils.rasters.planetary.special_values import NULL
from Utils.rasters.tile_files import read_height
from Utils.synthetic.mars_products import plan_pairs, write_products

SIZE, STEP = 48, 32
DTM_SHAPE = (88, 80)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four grounds, one of which has a second pair; the image twice as fine; read only."""
    folder = tmp_path_factory.mktemp("mars") / "products"
    write_products(folder, plan_pairs(4, DTM_SHAPE, seed=2, repeats=1, finer=2, polar=1), workers=1)
    return folder


@pytest.fixture(scope="module")
def dataset(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars") / "dataset"
    assert prepare("--products", products, "--output", folder, "--folds", 2) == 0
    return folder


def prepare(*arguments: object) -> int:
    return prepareMars.main([*map(str, arguments), "--size", str(SIZE), "--step", str(STEP), "--workers", "2"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def a_pair(products: Path) -> tuple[Path, Path]:
    dtm = sorted(products.rglob("DTEEC*.IMG"))[0]
    return dtm, next(dtm.parent.glob("*_ORTHO.JP2"))


def test_tiles_lie_on_the_grid_of_their_dtm_and_hold_its_heights(products: Path, dataset: Path) -> None:
    dtm, ortho = a_pair(products)
    with rasterio.open(dtm) as source, rasterio.open(ortho) as image:
        whole, grid, crs = source.read(1), source.transform, source.crs
        # Image pixels are exactly four to a height here, from so many to the left and above on.
        above = round((image.transform.f - grid.f) / image.res[0])
        before = round((grid.c - image.transform.c) / image.res[0])
        fine = image.read(1)[above : above + 2 * whole.shape[0], before : before + 2 * whole.shape[1]].astype(float)
    blocks = fine.reshape(whole.shape[0], 2, whole.shape[1], 2)
    means, voids = blocks.mean(axis=(1, 3)), (blocks == 0).any(axis=(1, 3))
    seen = np.zeros(whole.shape, bool)
    for row in rows(dataset / "tiles.csv"):
        if not row["id"].startswith(dtm.stem):
            continue
        place = np.s_[int(row["row"]) : int(row["row"]) + SIZE, int(row["column"]) : int(row["column"]) + SIZE]
        with rasterio.open(dataset / row["height"]) as tile, rasterio.open(dataset / row["image"]) as look:
            heights, known, light = tile.read(1), tile.read_masks(1) > 0, look.read(1)
            assert tile.crs == look.crs == crs and tile.dtypes == ("float32",) and look.dtypes == ("uint8",)
            assert tile.transform == look.transform == grid @ Affine.translation(place[1].start, place[0].start)
            assert tile.tags()["HEIGHT_REFERENCE"] == "areoid" and 255 <= float(tile.tags()["SUN_AZIMUTH"]) <= 285
        assert (heights[known] == whole[place][known]).all() and (whole[place][known] != NULL).all()
        # No height where the image is null, and nowhere else.
        assert (known == ((whole[place] != NULL) & (light > 0))).all()
        inner = known & ~voids[place]
        assert np.abs(light.astype(float) - means[place])[inner].max() <= 0.51
        assert (read_height(dataset / row["height"]).valid == known).all()
        seen[place] |= known
    lost = (whole != NULL) & ~voids & ~seen
    assert not lost.any()
    assert starts(80, 48, 32) == [0, 32] and starts(88, 48, 32) == [0, 32, 40] and starts(47, 48, 32) == []


def test_no_ground_and_no_tile_stands_on_two_sides(dataset: Path) -> None:
    pairs = {row["pair"]: row for row in rows(dataset / "pairs.csv")}
    assert len(pairs) == 5 and len({row["group"] for row in pairs.values()}) == 4
    side_of_group = {row["group"]: row["side"] for row in pairs.values()}
    assert all(side_of_group[row["group"]] == row["side"] for row in pairs.values())
    split = {side: (dataset / "splits" / f"{side}.txt").read_text().split() for side in ("train", "val", "test")}
    assert all(split.values())
    ids = [tile for tiles in split.values() for tile in tiles]
    table = rows(dataset / "tiles.csv")
    assert sorted(ids) == sorted(row["id"] for row in table) and len(ids) == len(set(ids))
    for side, tiles in split.items():
        assert {pairs[tile.rsplit("_", 2)[0]]["side"] for tile in tiles} == {side}
    training, tested = (
        part_tiles(dataset / "tiles.csv", part) for part in ("singleRGBNormalization", "singleRGBNormalizationTest")
    )
    assert set(training) == {*split["train"], *split["val"]} and set(tested) == set(split["test"])
    folds: dict[str, set[str]] = {}
    for row in table:
        folds.setdefault(row["scene"], set()).add(row["fold"])
    assert all(len(found) == 1 for found in folds.values())
    assert {row["height_reference"] for row in pairs.values()} == {"areoid"}
    assert (dataset / "footprints.png").stat().st_size > 5000


def test_added_pairs_move_no_other_and_what_was_cut_stays(
    products: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "products"
    folders = sorted(path.parent for path in products.rglob("*.IMG"))
    # Shares so large that no side has to be filled from another, whose choice depends on all groups.
    shares = ("--test", 0.45, "--validation", 0.3, "--seed", 1)
    for folder in folders[:3]:
        shutil.copytree(folder, some / folder.name)
    output = tmp_path / "dataset"
    assert prepare("--products", some, "--output", output, *shares) == 0
    before = {row["pair"]: row["side"] for row in rows(output / "pairs.csv")}
    tile = output / rows(output / "tiles.csv")[0]["image"]
    times = tile.stat().st_mtime_ns
    lost = output / rows(output / "tiles.csv")[-1]["height"]
    lost.unlink()
    for folder in folders[3:]:
        shutil.copytree(folder, some / folder.name)
    assert prepare("--products", some, "--output", output, *shares) == 0
    after = {row["pair"]: row["side"] for row in rows(output / "pairs.csv")}
    assert (
        len(after) == len(folders)
        and {name: after[name] for name in before} == before
        and len(set(before.values())) > 1
    )
    assert tile.stat().st_mtime_ns == times and lost.is_file()
    told = capsys.readouterr().err
    assert "2 of 5 pairs were cut before" in told and "another side" not in told
    assert prepare("--products", some, "--output", output, *shares[:-1], 3, "--dry-run") == 0
    assert "another side than in the former run" in capsys.readouterr().err


def test_an_image_on_a_sphere_of_another_radius_lands_on_the_same_ground(
    products: Path, dataset: Path, tmp_path: Path
) -> None:
    dtm, ortho = a_pair(products)
    other = tmp_path / ortho.with_suffix(".tif").name
    with rasterio.open(ortho) as source:
        # The same projection on Mars' mean sphere: latitudes stay, metres grow.
        crs = CRS.from_proj4(source.crs.to_proj4().split(" +R=")[0] + " +R=3396190 +units=m +no_defs")
        here = source.crs, crs, source.width, source.height
        to, width, height = calculate_default_transform(*here, *source.bounds)
        there = np.zeros((height, width), np.uint8)
        where = {"src_transform": source.transform, "src_crs": source.crs, "dst_transform": to, "dst_crs": crs}
        reproject(source.read(1), there, **where, resampling=Resampling.bilinear, src_nodata=0)
    with rasterio.open(
        other, "w", driver="GTiff", dtype="uint8", count=1, height=height, width=width, crs=crs, transform=to
    ) as target:
        target.write(there, 1)
    output = tmp_path / "dataset"
    assert prepare("--dtm", dtm, "--ortho", other, "--output", output, "--test", 0, "--validation", 0) == 0
    own = [row["image"] for row in rows(dataset / "tiles.csv") if row["id"].startswith(dtm.stem)]
    both = [name for name in own if (output / name).is_file()]
    assert len(both) == len(own)
    for name in both:
        with rasterio.open(dataset / name) as one, rasterio.open(output / name) as two:
            first, second = one.read(1).astype(float), two.read(1).astype(float)
        known = (first > 0) & (second > 0)
        # Resampled twice; half a pixel off, the correlation is below 0.9.
        assert np.corrcoef(first[known], second[known])[0, 1] > 0.97


def no_projection(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    with rasterio.open(ortho) as source:
        values = source.read(1)
    ortho.with_suffix(".LBL").unlink()
    ortho.unlink()
    write_image(ortho, values[None], {})
    return dtm, ortho


def write_image(path: Path, values: np.ndarray, where: dict[str, object]) -> None:
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    kind = (
        {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if path.suffix == ".JP2" else {"driver": "GTiff"}
    )
    with rasterio.open(path, "w", dtype=values.dtype, **kind, **shape, **where) as target:
        target.write(values)


def another_observation(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    return dtm, ortho.rename(ortho.with_name("ESP_060000_1800_RED_B_01_ORTHO.JP2"))


def plain_rdr(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    ortho.with_suffix(".LBL").unlink()
    return dtm, ortho.rename(ortho.with_name(ortho.name[:15] + "_RED.JP2"))


def cut_short(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    ortho.write_bytes(ortho.read_bytes()[:-500])
    return dtm, ortho


def label_without_data(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    dtm.write_bytes(dtm.read_bytes()[:5000])
    return dtm, ortho


def scale_in_degrees(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    # As long as before, so that the pointer to the data still holds.
    dtm.write_bytes(dtm.read_bytes().replace(b"<METERS/PIXEL>", b"<DEG/PIXEL>   "))
    return dtm, ortho


def degrees_as_coordinates(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    other = dtm.with_name("heights.tif")
    sphere = CRS.from_proj4("+proj=longlat +R=3396190 +no_defs")
    write_image(other, np.ones((1, 64, 64), np.float32), {"crs": sphere, "transform": Affine(1e-5, 0, 9, 0, -1e-5, 5)})
    return other, ortho


def colour_product(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    with rasterio.open(ortho) as source:
        values, where = source.read(1), {"crs": source.crs, "transform": source.transform}
    other = ortho.with_name(ortho.name.replace("RED", "IRB"))
    write_image(other, np.stack([values] * 3), where)
    return dtm, other


def elsewhere(dtm: Path, ortho: Path) -> tuple[Path, Path]:
    with rasterio.open(ortho) as source:
        values, where = source.read(), {"crs": source.crs, "transform": Affine.translation(5e4, 0) @ source.transform}
    other = ortho.with_suffix(".tif")
    write_image(other, values, where)
    return dtm, other


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_projection, "is not map-projected"),
        (another_observation, "is of observation 060000_1800, and"),
        (plain_rdr, "not orthorectified"),
        (cut_short, "the JPEG 2000 is cut short"),
        (label_without_data, "the label is there, and 5000 of the"),
        (scale_in_degrees, "is in degrees (deg/pixel)"),
        (degrees_as_coordinates, "pixels are 1e-05 degrees, not metres"),
        (
            colour_product,
            "colour product of 3 bands, and the model sees one; give the RED image, or choose a band with --band",
        ),
        (elsewhere, "do not overlap by their georeferences"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    spoil: Callable[[Path, Path], tuple[Path, Path]],
    words: str,
    products: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "products"
    shutil.copytree(a_pair(products)[0].parent, folder)
    dtm, ortho = spoil(*a_pair(folder))
    assert prepare("--dtm", dtm, "--ortho", ortho, "--output", tmp_path / "dataset") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and words in error
    assert not (tmp_path / "dataset").exists()


def test_every_null_of_the_archive_is_masked_in_pds3_and_pds4(products: Path, tmp_path: Path) -> None:
    folder = tmp_path / "products"
    shutil.copytree(a_pair(products)[0].parent, folder)
    dtm, ortho = a_pair(folder)
    with rasterio.open(dtm) as source:
        heights, where = source.read(1), {"crs": source.crs, "transform": source.transform}
    specials = [*np.arange(0xFF7FFFFB, 0xFF800000, dtype=np.uint32).view(np.float32), np.nan, np.inf, -np.inf]
    heights[40, 20 : 20 + len(specials)] = specials
    # Floats at the edge of what ground can be stay.
    heights[41, 20:22] = -8528.0, 21241.0
    dtm.write_bytes(dtm.read_bytes()[: -heights.nbytes] + heights.astype("<f4").tobytes())
    other = tmp_path / "pds4" / f"{dtm.stem}.xml"
    other.parent.mkdir()
    shape = {"height": heights.shape[0], "width": heights.shape[1], "count": 1, "dtype": "float32"}
    with rasterio.open(other, "w", driver="PDS4", nodata=float(NULL), **shape, **where) as target:
        target.write(heights, 1)
    for number, given in enumerate((dtm, other, other.with_suffix(".img"))):
        output = tmp_path / str(number)
        assert prepare("--dtm", given, "--ortho", ortho, "--output", output, "--test", 0, "--validation", 0) == 0
        for row in rows(output / "tiles.csv"):
            found = read_height(output / row["height"])
            place = np.s_[int(row["row"]) : int(row["row"]) + SIZE, int(row["column"]) : int(row["column"]) + SIZE]
            true = heights[place]
            sane = np.abs(true) < 1e30
            assert (found.values[found.valid] == true[found.valid]).all() and not (found.valid & ~sane).any()
            line = 40 - place[0].start
            if 0 <= line < SIZE - 1 and place[1].start <= 20:
                inside = np.s_[line + 1, 20 - place[1].start : 22 - place[1].start]
                assert found.valid[inside].all() and found.values[inside].tolist() == [-8528.0, 21241.0]


def test_bands_and_plain_images_are_taken_on_request_and_one_bad_pair_does_not_stop_a_folder(
    products: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "products"
    for number, path in enumerate(sorted(products.rglob("DTEEC*.IMG"))[:2]):
        shutil.copytree(path.parent, folder / str(number))
    dtm, ortho = a_pair(folder)
    _, colours = colour_product(dtm, ortho)
    alone = ("--test", 0, "--validation", 0)
    assert prepare("--dtm", dtm, "--ortho", colours, "--output", tmp_path / "colours", "--band", 2, *alone) == 0
    # The label beside it says where a JPEG 2000 lies that does not know it.
    with rasterio.open(ortho) as source:
        values = source.read()
    ortho.unlink()
    write_image(ortho, values, {})
    assert prepare("--dtm", dtm, "--ortho", ortho, "--output", tmp_path / "label", *alone) == 0
    assert plain_rdr(dtm, ortho)[1].is_file()
    colours.unlink()
    assert prepare("--products", folder, "--output", tmp_path / "folder", *alone) == 0
    assert "1 of 2 DTMs have no orthoimage" in capsys.readouterr().err
    assert len(rows(tmp_path / "folder" / "pairs.csv")) == 1
    images = [sorted((tmp_path / name).rglob("images/*/*.tif")) for name in ("colours", "label")]
    assert [path.name for path in images[0]] == [path.name for path in images[1]] != []
    for paths in zip(*images, strict=True):
        one, other = (rasterio.open(path).read(1).astype(int) for path in paths)
        # The two ways say where it lies with other last digits, which decide roundings of means.
        assert np.abs(one - other).max() <= 1
    second = sorted(folder.rglob("DTEEC*.IMG"))[1]
    cut_short(second, next(second.parent.glob("*.JP2")))
    capsys.readouterr()
    assert prepare("--products", folder, "--output", tmp_path / "none", "--dry-run") == 2
    assert "none of 1 pairs can be used" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert prepare("--products", products, "--output", tmp_path / "other") == 2
    assert "holds something else" in capsys.readouterr().err
