"""Datasets as tables: what a CSV may name, how its paths are found, and what is wrong with a bad one."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from Systems.audit import main as audit
from Systems.d3rsmde.config import ViTTrainingConfig
from tests.conftest import (
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    height_path,
    image_path,
    make_dataset,
    prior_path,
    write_raster,
    write_tile,
)
from Utils.core.errors import UserError
from Utils.data.dataset_table import read_table
from Utils.data.fold_plan import plan_folds
from Utils.data.published_layout import list_tiles
from Utils.data.sample import grid_size
from Utils.data.splits import main as write_splits
from Utils.data.splits import table_folds
from Utils.data.stage_plan import Tiles, find_tiles
from Utils.data.tile_check import check_tiles
from Utils.data.tile_dataset import TileDataset, read_tile
from Utils.data.tile_sources import part_priors, part_tiles


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(dataset: Path, **columns: object) -> list[dict[str, object]]:
    """A row for each tile of a dataset in the published layout, its paths relative to the dataset's folder."""
    rows = []
    for part, name, ids in ((TRAINING, "train", TRAINING_IDS), (TEST, "test", TEST_IDS)):
        for tile in ids:
            files = (image_path(dataset, tile, part), height_path(dataset, tile, part), prior_path(dataset, tile, part))
            image, height, prior = (path.relative_to(dataset).as_posix() for path in files)
            rows.append({"id": tile, "image": image, "height": height, "prior": prior, "part": name, **columns})
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    dataset = make_dataset(tmp_path / "tiles")
    return write_table(dataset / "mine.csv", rows_of(dataset))


def text_table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


def test_a_table_is_the_dataset_that_it_names(table: Path) -> None:
    for part in (TRAINING, TEST):
        laid_out, listed = list_tiles(table.parent, part, 4095.0), part_tiles(table, part, 4095.0)
        assert list(listed) == list(laid_out) == list(part_tiles(table.parent, part))
        for tile, files in listed.items():
            assert (files.image, files.height, files.full_scale) == (
                laid_out[tile].image,
                laid_out[tile].height,
                4095.0,
            )
        priors = part_priors(table, part, listed, list(listed))
        assert priors == {tile: prior_path(table.parent, tile, part) for tile in listed}
        assert priors == part_priors(table.parent, part, listed, list(listed))


def test_only_the_columns_that_are_needed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    rows = [{key.upper(): row[key] for key in ("height", "id", "image")} for row in rows_of(dataset)[:3]]
    path = write_table(tmp_path / "elsewhere" / "t.CSV", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n , , \r\n")
    assert list(part_tiles(path, TRAINING, root=dataset)) == ["1", "2", "3"]


def test_published_names_are_the_ids_of_split_files(tmp_path: Path) -> None:
    write_tile(tmp_path, "12")
    names = f"{image_path(tmp_path, '12')},{height_path(tmp_path, '12')}\n"
    assert list(part_tiles(text_table(tmp_path, names), TRAINING)) == ["12"]
    assert list(part_tiles(text_table(tmp_path, f"id,image,height\ntile_12,{names}"), TRAINING)) == ["12"]


def rooms(folder: Path) -> Path:
    """Frames as NYU Depth v2 is published: the same names in every scene."""
    for scene in ("kitchen_0001", "study_0002"):
        for name in ("1", "37"):
            write_raster(folder / "data" / scene / f"{name}.tif", np.full((3, 8, 8), 100, np.uint8))
            write_raster(folder / "data" / scene / f"{name}.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    return folder / "data"


FRAMES = [("kitchen_0001", "1"), ("kitchen_0001", "37"), ("study_0002", "1"), ("study_0002", "37")]


def frame_lines(start: str, between: str = "/") -> str:
    names = [between.join((scene, name)) for scene, name in FRAMES]
    return "\n\n".join(f"{start}{name}.tif,{start}{name}.png" for name in names) + "\n\n"


@pytest.mark.parametrize(
    ("place", "start", "between", "root"),
    [
        ("data", "", "/", None),
        ("data", "./", "/", None),
        ("", "data/", "/", None),
        ("lists", "../data/", "/", None),
        ("data/lists", "data/", "/", "."),
        ("lists", "/kaggle/input/rooms/data/", "/", "."),
        ("lists", "/kaggle/input/rooms/data/", "/", "data"),
        ("lists", "/kaggle/input/rooms/../data/", "/", "data"),
        ("data", "D:\\rooms\\data\\", "\\", "data"),
        ("data", ".\\", "\\", None),
    ],
)
def test_the_published_form_without_header(
    place: str, start: str, between: str, root: str | None, tmp_path: Path
) -> None:
    data = rooms(tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    path = text_table(tmp_path / place, frame_lines(start, between))
    tiles = part_tiles(path, TRAINING, root=tmp_path / root if root else None)
    assert list(tiles) == [f"{scene}-{name}" for scene, name in FRAMES]
    for (scene, name), files in zip(FRAMES, tiles.values(), strict=True):
        assert files.image.resolve() == data / scene / f"{name}.tif"
        assert files.height.resolve() == data / scene / f"{name}.png"


def test_paths_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    rooms(tmp_path)
    (tmp_path / "lists").mkdir()
    path = text_table(tmp_path / "lists", frame_lines("./data/"))
    with pytest.raises(UserError, match=r"8 files do not exist, first './data/kitchen_0001/1.tif' in line 1; .*root"):
        part_tiles(path, TRAINING)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert len(part_tiles(path, TRAINING)) == 4
    assert caplog.messages == [f"'{path}': its paths start from the working folder, not from its own"]


def test_a_table_without_parts_is_for_training_or_for_the_test(tmp_path: Path, caplog) -> None:
    rooms(tmp_path)
    path = text_table(tmp_path, frame_lines("data/"))
    assert not caplog.messages and len(part_tiles(path, TRAINING)) == 4
    assert len(part_tiles(path, TEST)) == 4
    assert "has no column part, so all its 4 tiles are test tiles" in caplog.text
    config = ViTTrainingConfig(dataset_path=str(path), validate_on="test")
    with pytest.raises(UserError, match="validate_on is test, and '.*' does not say which tiles are for the test"):
        find_tiles(config)


def test_split_files_and_folds_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "tiles")
    rows = [
        row | {"fold": "" if row["part"] == "test" else 1 + place % 2} for place, row in enumerate(rows_of(dataset))
    ]
    path = write_table(tmp_path / "lists" / "t.csv", rows)
    config = ViTTrainingConfig(dataset_path=str(path), root=str(dataset), k_folds="table", not_split=True)
    plan = plan_folds(config, find_tiles(config))
    assert [stage.held_out for stage in plan] == [["1", "3", "11"], ["2", "10", "20"], []]
    assert [stage.train for stage in plan] == [["2", "10", "20"], ["1", "3", "11"], ["1", "3", "11", "2", "10", "20"]]
    with pytest.raises(UserError, match="split_text and k_folds table are both given"):
        plan_folds(config.model_copy(update={"split_text": "s.txt"}), find_tiles(config))
    with pytest.raises(UserError, match=r"6 of 6 training tiles of 'there' have no fold \(first: 1\)"):
        table_folds(part_tiles(dataset, TRAINING), "there")

    words = ["--dataset", path, "--root", dataset, "--name", "n", "--folds", 3, "--output", tmp_path / "splits"]
    assert write_splits([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert len(out.split()) == 3
    assert "names 2 folds, and others are dealt at random: k_folds table takes its own" in err


def test_all_tiles_in_one_fold(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    path = write_table(tmp_path / "t.csv", rows_of(dataset, fold=7))
    with pytest.raises(UserError, match="all training tiles of 'there' are in fold 7; name two or more"):
        table_folds(part_tiles(path, TRAINING), "there")


@pytest.mark.parametrize(
    ("suffix", "dtype", "bands"),
    [
        (".png", "uint8", 1),
        (".PNG", "uint8", 3),
        (".png", "uint8", 4),
        (".png", "uint16", 3),
        (".jpg", "uint8", 3),
        (".JPEG", "uint8", 1),
        (".tif", "uint16", 1),
        (".TIFF", "uint8", 4),
        (".tif", "float32", 1),
        (".TIF", "float32", 3),
        (".tif", "float64", 4),
    ],
)
def test_images_of_every_kind(suffix: str, dtype: str, bands: int, tmp_path: Path) -> None:
    levels = np.linspace(0.1, 0.9, 64).reshape(8, 8)
    image = np.repeat(levels[None], bands, axis=0)
    full = 1.0 if dtype.startswith("float") else float(np.iinfo(dtype).max)
    driver = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix.lower(), "GTiff")
    with rasterio.open(
        tmp_path / f"a{suffix}", "w", driver=driver, height=8, width=8, count=bands, dtype=dtype
    ) as target:
        target.write((image * full).astype(dtype))
    write_raster(tmp_path / "h.tif", levels.astype(np.float32))
    (files,) = part_tiles(text_table(tmp_path, f"a{suffix},h.tif"), TRAINING).values()
    read = read_tile("a", files)["image"].numpy()
    assert read.shape == (3, 8, 8)
    # JPEG compresses; 8 bits round to half a step.
    np.testing.assert_allclose(read, np.repeat(levels[None], 3, axis=0), atol=0.05 if driver == "JPEG" else 0.004)


@pytest.mark.parametrize(
    ("values", "full_scale", "said"),
    [
        ([0.0, 1.5], None, "values from 0 to 1.5; floats go from 0 to 1, or to image_full_scale"),
        ([-0.1, 1.0], 2.0, "values from -0.1 to 1"),
        ([np.nan, 1.0], None, "an image with 1 NaN or infinite values"),
        ([0.0, 3000.0], 2000.0, "a value of 3000.0, more than image_full_scale, 2000"),
    ],
)
def test_images_of_floats_beyond_white(values, full_scale, said: str, tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.array([values], np.float32))
    write_raster(tmp_path / "h.tif", np.array([[0.0, 1.0]], np.float32))
    (files,) = part_tiles(text_table(tmp_path, "a.tif,h.tif"), TRAINING, full_scale).values()
    with pytest.raises(UserError, match=re.escape(said)):
        read_tile("a", files)


def test_images_of_floats_with_another_white(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.array([[0.0, 3000.0]], np.float32))
    write_raster(tmp_path / "h.tif", np.array([[0.0, 1.0]], np.float32))
    (files,) = part_tiles(text_table(tmp_path, "a.tif,h.tif"), TRAINING, 10000.0).values()
    np.testing.assert_allclose(read_tile("a", files)["image"][0].numpy(), [[0.0, 0.3]])


@pytest.mark.parametrize("name", ["h.png", "h.tif", "h.npy", "H.TIF"])
def test_the_table_says_what_heights_mean(name: str, tmp_path: Path) -> None:
    """Millimetres in 16 bits, 65535 where nothing was measured, above a datum 5 m up."""
    stored = np.array([[0, 1500], [65535, 40000]], np.uint16)
    if name.endswith(".npy"):
        np.save(tmp_path / name, stored)
    else:
        write_raster(tmp_path / name, stored)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    text = f"id,image,height,scale,offset,nodata\n1,a.png,{name},0.001,5,65535\n2,a.png,{name},,,\n"
    tiles = part_tiles(text_table(tmp_path, text), TRAINING)
    metres = read_tile("1", tiles["1"])
    np.testing.assert_allclose(metres["target"][0].numpy(), [[5.0, 6.5], [0.0, 45.0]])
    np.testing.assert_array_equal(metres["valid"][0].numpy(), [[True, True], [False, True]])
    plain = read_tile("2", tiles["2"])
    np.testing.assert_array_equal(plain["target"][0].numpy(), stored)
    assert plain["valid"].all()
    assert check_tiles(tiles, ["1", "2"]).with_gaps == ["1"]


def test_a_void_value_that_float32_rounds(tmp_path: Path) -> None:
    write_raster(tmp_path / "h.tif", np.array([[-9999.9, 1.0]], np.float32))
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    text = "id,image,height,nodata\n1,a.png,h.tif,-9999.9\n"
    (files,) = part_tiles(text_table(tmp_path, text), TRAINING).values()
    assert read_tile("1", files)["valid"].flatten().tolist() == [False, True]


def test_a_scale_takes_the_place_of_the_tag(tmp_path: Path) -> None:
    write_raster(tmp_path / "h.tif", np.array([[1, 2]], np.uint16))
    with rasterio.open(tmp_path / "h.tif", "r+") as target:
        target.scales, target.offsets = (0.1,), (100.0,)
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    text = "id,image,height,scale\n1,a.png,h.tif,2\n2,a.png,h.tif,\n"
    tiles = part_tiles(text_table(tmp_path, text), TRAINING)
    targets = [read_tile(tile, tiles[tile])["target"].flatten().tolist() for tile in ("1", "2")]
    assert targets[0] == [102.0, 104.0] and targets[1] == pytest.approx([100.1, 100.2])


def test_sizes_may_differ_where_tiles_are_cropped(tmp_path: Path) -> None:
    lines = ["id,image,height"]
    for tile, size in (("1", (16, 24)), ("2", (20, 12))):
        write_raster(tmp_path / f"{tile}.png", np.zeros((3, *size), np.uint8))
        write_raster(tmp_path / f"{tile}.tif", np.arange(size[0] * size[1], dtype=np.float32).reshape(size))
        lines.append(f"{tile},{tile}.png,{tile}.tif")
    tiles = part_tiles(text_table(tmp_path, "\n".join(lines)), TRAINING)
    with pytest.raises(UserError, match="all tiles of a dataset must have one size"):
        check_tiles(tiles, list(tiles))
    assert check_tiles(tiles, list(tiles), one_size=False).size == (16, 12)
    cropped = TileDataset(tiles, list(tiles), crop=8)
    assert [grid_size(cropped[place], cropped.kinds) for place in (0, 1)] == [(8, 8), (8, 8)]
    whole = TileDataset(tiles, list(tiles))
    whole[0]
    with pytest.raises(UserError, match="unlike other tiles"):
        whole[1]
    with pytest.raises(UserError, match="smaller than a crop of 14"):
        TileDataset(tiles, list(tiles), crop=14)[1]


GOOD = "1,a.png,h.tif"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; give a CSV with the columns id, image, height, or two columns without header"),
        ("id,image,height\n", "has a header and no line below it"),
        ("id;image;height\n1;a.png;h.tif\n", "separates its columns by ';'; save it with commas"),
        ("a.png\th.tif\n", "separates its columns by tabs; save it with commas"),
        ("id|image|height\n", "separates its columns by '|'"),
        ("image\na.png\n", "has one column; give a CSV with the columns id, image, height"),
        ("a.png\nb.png\n", "has one column"),
        ("rgb_path,depth_path\na.png,h.tif\n", "unknown column 'rgb_path'; (known: id, image, height, prior, part,"),
        ("id,image,heights\n", "unknown column 'heights'; did you mean 'height'? (known: "),
        ("id,image,part\n1,a.png,train\n", "has no column 'height'"),
        ("image,height\na.png,h.tif\n", "has no column 'id'"),
        ("id,image,image,height\n", "two columns are called 'image'; remove one"),
        (f"id,image,height\n{GOOD},3\n", "line 2: 4 cells, and the header has 3 columns"),
        ("id,image,height\n1,,h.tif\n", "line 2: no image; fill the cell, or remove the line"),
        ("id,image,height\n../1,a.png,h.tif\n", "line 2: id '../1'; use letters, digits, '_' and '-'"),
        (
            f"id,image,height\n{GOOD}\n\n{GOOD}\n",
            "id 1 stands in line 2 and again in line 4 (1 of 2 lines repeat an id)",
        ),
        (f"id,image,height\n{GOOD}\ntile_{GOOD}\n", "id 1 stands in line 2 and again in line 3"),
        (f"id,image,height,part\n{GOOD},val\n", "line 2: part 'val'; write train or test"),
        (f"id,image,height,part\n{GOOD},\n", "line 2: part ''; write train or test"),
        (f"id,image,height,fold\n{GOOD},first\n", "line 2: fold 'first' is no whole number"),
        (f"id,image,height,fold\n{GOOD},-1\n", "line 2: fold '-1' is no whole number"),
        (f"id,image,height,scale\n{GOOD},cm\n", "line 2: scale 'cm' is no number"),
        (
            f'id,image,height,scale\n{GOOD},"0,01"\n',
            "line 2: scale '0,01' is no number; write one with a decimal point",
        ),
        (f"id,image,height,scale\n{GOOD},0\n", "line 2: scale 0 would make all heights one"),
        (f"id,image,height,offset\n{GOOD},nan\n", "line 2: offset 'nan' is no number"),
        (f"id,image,height,nodata\n{GOOD},none\n", "line 2: nodata 'none' is no number"),
        ("a.png,h.tif\nb.png,h.tif,3\n", "line 2: 3 cells in a table without header"),
        ("a.png,h.tif\nb.png,\n", "line 2: 2 cells in a table without header; write image,height in every line"),
        ("a.png,h.tif\n./a.png,h.tif\n", "id a stands in line 1 and again in line 2"),
        ('"a.png,h.tif\n', "cannot be read: unexpected end of data"),
    ],
)
def test_bad_tables(text: str, said: str, tmp_path: Path) -> None:
    path = text_table(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"table '{path}'")


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for path, reason in ((tmp_path / "none.csv", "No such file"), (tmp_path / "binary.csv", "can't decode")):
        with pytest.raises(UserError, match=f"table '{path}' cannot be read: .*{reason}"):
            part_tiles(path, TRAINING)


def test_files_that_do_not_exist(table: Path) -> None:
    image_path(table.parent, "2").unlink()
    height_path(table.parent, "10").unlink()
    with pytest.raises(UserError, match=r"2 files do not exist, first '.*tile_2\.png' in line 3; .*set root"):
        part_tiles(table, TRAINING)
    assert len(part_tiles(table, TEST)) == 3
    with pytest.raises(UserError, match=r"6 files do not exist.*; correct root, '.*', or the paths"):
        part_tiles(table, TEST, root=table.parent / TEST)


def test_absolute_paths_of_another_machine(tmp_path: Path) -> None:
    path = text_table(
        tmp_path, "/kaggle/input/kitti/train/image/000000.png,/kaggle/input/kitti/train/depth/000000.png\n"
    )
    with pytest.raises(
        UserError, match="2 files do not exist, first '/kaggle/.*; absolute paths of another machine: set"
    ):
        part_tiles(path, TRAINING)
    with pytest.raises(UserError, match=r"correct root, '.*', or the paths"):
        part_tiles(path, TRAINING, root=tmp_path)
    with pytest.raises(UserError, match="root '.*none' is not a folder"):
        part_tiles(path, TRAINING, root=tmp_path / "none")


def test_a_root_without_a_table_is_refused(table: Path) -> None:
    with pytest.raises(UserError, match="root belongs to a table, and dataset_path '.*' is a folder; remove root"):
        part_tiles(table.parent, TRAINING, root=table.parent)


def test_a_part_without_tiles(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    path = write_table(tmp_path / "t.csv", rows_of(dataset)[:3])
    with pytest.raises(UserError, match="has no tile of the part 'test'; mark some in its column part"):
        part_tiles(path, TEST)


def test_priors_that_are_missing(table: Path, tmp_path: Path) -> None:
    prior_path(table.parent, "3").unlink()
    tiles = part_tiles(table, TRAINING)
    with pytest.raises(
        UserError, match=r"coarse prior '.*tile_3_pred_depth.png' not found \(1 of 6 are missing\); fill"
    ):
        part_priors(table, TRAINING, tiles, list(tiles))
    bare = write_table(
        table.parent / "bare.csv", [row | {"prior": ""} for row in rows_of(table.parent) if row["part"] == "test"]
    )
    tiles = part_tiles(bare, TEST)
    with pytest.raises(UserError, match=r"no coarse prior for tile 5 \(3 of 3 are missing\).*evaluateViT\.py"):
        part_priors(bare, TEST, tiles, list(tiles))


@pytest.mark.parametrize("image", [".", "/", "./"])
def test_an_image_without_a_name_is_refused(image: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"line 2: image '{image}' names no file"):
        part_tiles(text_table(tmp_path, f"a.png,b.png\n{image},1\n"), TRAINING)


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from(list('idmagehtscl,;"\n\t\0./-19 ')), max_size=60))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = text_table(Path(folder), text)
        for part in (TRAINING, TEST):
            try:
                part_tiles(path, part)
            except UserError as error:
                assert str(error).isprintable()


def test_the_audit_reads_tables(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", str(table), "--output", str(tmp_path / "out")]
    assert audit(words) == 0
    assert "training would start" in capsys.readouterr().out
    with (tmp_path / "out" / "tiles.csv").open(encoding="utf-8") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == [*TRAINING_IDS, *TEST_IDS]
    # It names all files that are missing, and not only the first.
    image_path(table.parent, "2").unlink()
    height_path(table.parent, "10").unlink()
    assert audit(words) == 2
    said = capsys.readouterr().out
    assert "training would NOT start" in said and "tile_2.png (line 3)" in said and "tile_10.tif (line 5)" in said


def test_the_audit_of_a_table_without_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "tiles")
    rows = [{key: row[key] for key in ("id", "image", "height")} for row in rows_of(dataset)]
    (tmp_path / "lists").mkdir()
    path = write_table(tmp_path / "lists" / "t.csv", rows)
    words = ["--dataset", str(path), "--root", str(dataset), "--output", str(tmp_path / "out")]
    assert audit(words) == 0
    out, err = capsys.readouterr()
    assert "leak" not in out and "test tiles" not in err
    assert audit([*words[:2], *words[4:]]) == 2
    (path.parent / "t.csv").write_text("id;image\n")
    assert audit(words) == 2
    assert "error: table" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "lists")
    assert audit(words) == 2


def test_tiles_of_a_table_are_told_apart(table: Path) -> None:
    """What is listed from the table is what a run plans with."""
    config = ViTTrainingConfig(dataset_path=str(table), validate_on="test")
    tiles = find_tiles(config)
    assert isinstance(tiles, Tiles) and (list(tiles.training), list(tiles.test)) == (
        ["1", "2", "3", "10", "11", "20"],
        sorted(TEST_IDS, key=int),
    )
