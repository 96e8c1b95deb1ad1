"""The data audit: what it finds in spoilt datasets, and that its verdict is training's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import trainDiffusion
import trainViT
from Systems.audit import main
from tests.conftest import (
    HEIGHTS,
    IMAGES,
    PRIORS,
    TEST,
    TEST_IDS,
    TRAINING,
    TRAINING_IDS,
    Config,
    height_path,
    image_path,
    prior_path,
    shaded_image,
    small_vit,
    synthetic_height,
    write_config,
    write_prior,
    write_raster,
    write_split,
    write_tile,
)
from Utils.core.tables import read_csv

Summary = dict[str, Any]
Rows = dict[tuple[str, str], dict[str, Any]]
Spoil = Callable[[Path], None]


def run_audit(dataset: Path, *arguments: object) -> tuple[int, Summary, Rows]:
    """The audit's exit status, its summary, and its table by part and id."""
    output = dataset.parent / "audit"
    shutil.rmtree(output, ignore_errors=True)
    status = main(["--dataset", str(dataset), "--output", str(output), *map(str, arguments)])
    summary = json.loads((output / "audit.json").read_text(encoding="utf-8"))
    rows = read_csv(output / "tiles.csv", text_columns=("id", "problem", "duplicate_of", "map_duplicate_of"))
    return status, summary, {(str(row["part"]), str(row["id"])): row for row in rows}


def items(summary: Summary, level: str, code: str) -> list[str]:
    """The items of all findings of one kind."""
    return [
        item
        for finding in summary["findings"]
        if (finding["level"], finding["code"]) == (level, code)
        for item in finding["items"]
    ]


def codes(summary: Summary) -> set[tuple[str, str]]:
    return {(finding["level"], finding["code"]) for finding in summary["findings"]}


def test_a_sound_dataset_has_no_findings(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, summary, rows = run_audit(dataset, "--strict")
    assert (status, summary["findings"], summary["training_would_start"]) == (0, [], True)
    assert list(rows) == [(TRAINING, tile) for tile in TRAINING_IDS] + [(TEST, tile) for tile in TEST_IDS]
    assert summary["parts"][TRAINING]["pairs"] == 6
    assert summary["parts"][TEST]["sizes"] == {"32 x 32": 3}
    printed = capsys.readouterr().out
    assert "training would start" in printed
    assert "tiles.csv" in printed


def test_a_row_holds_what_the_files_hold(dataset: Path) -> None:
    height = synthetic_height(2, 32).astype(np.float32) * 3.0 - 100.0
    height[:4] = -5000.0
    write_raster(height_path(dataset, "2"), height, nodata=-5000.0)
    _, _, rows = run_audit(dataset)
    row, known = rows[TRAINING, "2"], height[4:].astype(np.float64)
    assert (row["height"], row["width"]) == (32, 32)
    assert (row["image_bands"], row["image_dtype"], row["map_bands"], row["map_dtype"]) == (3, "uint8", 1, "float32")
    for column, expected in (("min", known.min()), ("max", known.max()), ("mean", known.mean()), ("std", known.std())):
        assert row[column] == pytest.approx(expected), column  # the audit sums in float64 as well
    assert row["nodata_share"] == pytest.approx(4 / 32)
    image = shaded_image(synthetic_height(2, 32)) / 255.0
    assert (row["image_min"], row["image_max"]) == pytest.approx((image.min(), image.max()))
    assert (row["flat"], row["image_flat"], row["status"], row["problem"]) == (
        False,
        False,
        "warning",
        "a map of float32",
    )


# Each spoils one thing in a dataset. With it: the kind of finding, what its first item names, and whether stage 1
# and stage 2 would start all the same.
def truncate_image(dataset: Path) -> None:
    path = image_path(dataset, "3")
    path.write_bytes(path.read_bytes()[:-30])


def empty_map(dataset: Path) -> None:
    height_path(dataset, "10").write_bytes(b"")


def empty_test_map(dataset: Path) -> None:
    height_path(dataset, "7", TEST).write_bytes(b"")


def no_raster(dataset: Path) -> None:
    height_path(dataset, "1").write_text("this is no TIFF", encoding="utf-8")


def two_bands(dataset: Path) -> None:
    # A TIFF by content: in a PNG the second of two bands is the opacity, and counts for nothing.
    path = image_path(dataset, "2")
    write_raster(path.with_suffix(".tif"), np.zeros((2, 32, 32), np.uint8))
    path.with_suffix(".tif").replace(path)


def three_different_bands(dataset: Path) -> None:
    write_raster(height_path(dataset, "2"), shaded_image(synthetic_height(2)))


def small_map(dataset: Path) -> None:
    write_raster(height_path(dataset, "11"), synthetic_height(11, 24))


def small_tile(dataset: Path) -> None:
    write_tile(dataset, "20", size=24)
    write_prior(dataset, "20", size=24)


def small_test_tile(dataset: Path) -> None:
    write_tile(dataset, "30", TEST, size=24)
    write_prior(dataset, "30", TEST, size=24)


def image_alone(dataset: Path) -> None:
    height_path(dataset, "3").unlink()


def map_alone(dataset: Path) -> None:
    image_path(dataset, "3").unlink()


def lonely_test_image(dataset: Path) -> None:
    height_path(dataset, "7", TEST).unlink()


def wrong_name(dataset: Path) -> None:
    source = image_path(dataset, "1")
    shutil.copy(source, source.with_name("tile_1 (copy).png"))


def no_map_folder(dataset: Path) -> None:
    shutil.rmtree(dataset / TRAINING / HEIGHTS)


def no_test_part(dataset: Path) -> None:
    shutil.rmtree(dataset / TEST)


def empty_folders(dataset: Path) -> None:
    for folder in (IMAGES, HEIGHTS):
        for path in (dataset / TRAINING / folder).iterdir():
            path.unlink()


def only_nan(dataset: Path) -> None:
    write_raster(height_path(dataset, "2"), np.full((32, 32), np.nan, np.float32))


def mostly_nan(dataset: Path) -> None:
    height = synthetic_height(2).astype(np.float32)
    height[:20] = np.nan
    write_raster(height_path(dataset, "2"), height)


def flat_map(dataset: Path) -> None:
    write_raster(height_path(dataset, "2"), np.full((32, 32), 17, np.uint8))


def flat_image(dataset: Path) -> None:
    write_raster(image_path(dataset, "2"), np.full((3, 32, 32), 17, np.uint8))


def untagged_nodata(dataset: Path) -> None:
    height = synthetic_height(2).astype(np.int16)
    height[0, 0] = -32768
    write_raster(height_path(dataset, "2"), height)


def grey_image(dataset: Path) -> None:
    write_raster(image_path(dataset, "2"), synthetic_height(2))


def float_map(dataset: Path) -> None:
    write_raster(height_path(dataset, "2"), synthetic_height(2).astype(np.float32))


def missing_prior(dataset: Path) -> None:
    prior_path(dataset, "2").unlink()


def missing_test_prior(dataset: Path) -> None:
    prior_path(dataset, "7", TEST).unlink()


def small_prior(dataset: Path) -> None:
    write_prior(dataset, "2", size=16)


def broken_prior(dataset: Path) -> None:
    prior_path(dataset, "2").write_bytes(b"\x89PNG")


def one_tile(dataset: Path) -> None:
    for tile in TRAINING_IDS[1:]:
        image_path(dataset, tile).unlink()
        height_path(dataset, tile).unlink()


SPOILT: list[tuple[Spoil, str, str, bool, bool]] = [
    (truncate_image, "damaged", "tile_3.png", False, False),
    (empty_map, "damaged", "tile_10.tif", False, False),
    (empty_test_map, "damaged", "tile_7.tif", True, True),
    (no_raster, "damaged", "tile_1.tif", False, False),
    (two_bands, "damaged", "tile_2.png: an image with 2 bands", False, False),
    (three_different_bands, "damaged", "tile_2.tif: a map with three different bands", False, False),
    (small_map, "damaged", "is 24 x 24 pixels but", False, False),
    (small_tile, "sizes", "training 20: 24 x 24", False, False),
    (small_test_tile, "sizes", "test 30: 24 x 24", True, True),
    (image_alone, "image_without_map", "tile_3.png", False, False),
    (map_alone, "map_without_image", "tile_3.tif", False, False),
    (lonely_test_image, "image_without_map", "tile_7.png", True, True),
    (wrong_name, "ignored_file", "tile_1 (copy).png", True, True),
    (no_map_folder, "missing_folder", HEIGHTS, False, False),
    (no_test_part, "missing_folder", TEST, True, True),
    (empty_folders, "no_tiles", TRAINING, False, False),
    (only_nan, "empty", "training 2", True, True),
    (mostly_nan, "mostly_nodata", "training 2", True, True),
    (flat_map, "flat", "training 2", True, True),
    (flat_image, "flat_image", "training 2", True, True),
    (untagged_nodata, "lost_nodata", "training 2", True, True),
    (grey_image, "mixed_types", "training 2: grey uint8", True, True),
    (float_map, "mixed_types", "training 2: float32", True, True),
    (missing_prior, "missing_prior", "tile_2_pred_depth.png", True, False),
    (missing_test_prior, "missing_prior", "tile_7_pred_depth.png", True, True),
    (small_prior, "damaged", "tile_2_pred_depth.png", True, False),
    (broken_prior, "damaged", "tile_2_pred_depth.png", True, False),
    (one_tile, "refused", "1 training tile cannot be split", False, False),
]


@pytest.mark.parametrize(
    ("spoil", "code", "names", "stage1", "stage2"), SPOILT, ids=[case[0].__name__ for case in SPOILT]
)
def test_the_verdict_is_that_of_training(
    spoil: Spoil,
    code: str,
    names: str,
    stage1: bool,
    stage2: bool,
    dataset: Path,
    vit_config: Config,
    diffusion_config: Config,
    tmp_path: Path,
) -> None:
    spoil(dataset)
    vit = write_config(tmp_path / "vit.json", vit_config)
    diffusion = write_config(tmp_path / "diffusion.json", diffusion_config)
    for script, config, starts in ((trainViT, vit, stage1), (trainDiffusion, diffusion, stage2)):
        assert script.main(["--config", str(config), "--dry-run"]) == (0 if starts else 2)
        status, summary, _ = run_audit(dataset, "--config", config)
        assert status == (0 if starts else 2)
        assert summary["training_would_start"] == starts
        about_priors = "pred_depth" in names
        if script is trainDiffusion or not about_priors:
            found = items(summary, "warning" if starts else "error", code)
            assert found, f"no finding {code} in {codes(summary)}"
            assert names in found[0]
    status, _, _ = run_audit(dataset)
    assert status == (0 if stage1 else 2)


def test_everything_wrong_is_named_at_once(dataset: Path) -> None:
    for spoil in (empty_map, two_bands, small_map, image_alone, empty_test_map, wrong_name, broken_prior):
        spoil(dataset)
    status, summary, rows = run_audit(dataset, "--priors", dataset)
    assert status == 2
    damaged = " ".join(items(summary, "error", "damaged"))
    for name in ("tile_10.tif", "tile_2.png", "tile_2_pred_depth.png", "tile_11.tif"):
        assert str(dataset) in damaged
        assert name in damaged
    assert items(summary, "error", "image_without_map") == [str(image_path(dataset, "3"))]
    assert "tile_7.tif" in items(summary, "warning", "damaged")[0]
    assert rows[TRAINING, "10"]["status"] == "error"
    assert "tile_10.tif" in rows[TRAINING, "10"]["problem"]
    assert rows[TRAINING, "20"]["status"] == "ok"


def test_a_damaged_tile_that_no_split_names_stops_nobody(dataset: Path, vit_config: Config, tmp_path: Path) -> None:
    truncate_image(dataset)
    vit_config["split_text"] = write_split(tmp_path / "some.txt", "1", "2", "10")
    config = write_config(tmp_path / "vit.json", vit_config)
    assert trainViT.main(["--config", str(config), "--dry-run"]) == 0
    status, summary, _ = run_audit(dataset, "--config", config)
    assert status == 0
    assert "tile_3.png" in items(summary, "warning", "damaged")[0]
    assert items(summary, "warning", "in_no_split") == ["3", "11", "20"]


def test_test_tiles_that_training_validates_on_count(dataset: Path, vit_config: Config, tmp_path: Path) -> None:
    config = write_config(tmp_path / "vit.json", vit_config | {"validate_on": "test"})
    empty_test_map(dataset)
    assert trainViT.main(["--config", str(config), "--dry-run"]) == 2
    status, summary, _ = run_audit(dataset, "--config", config)
    assert status == 2
    assert "tile_7.tif" in items(summary, "error", "damaged")[0]


@pytest.mark.parametrize(
    ("key", "files", "code", "level", "names"),
    [
        ("split_text", [("1", "2", "99")], "unknown_id", "error", "99 ("),
        ("split_text", [("1", "1")], "bad_split_file", "error", "stands in line 1"),
        ("split_text", [("1", "2", "3"), ("3", "10")], "several_splits", "warning", "3 ("),
        ("val_split_text", [TRAINING_IDS], "refused", "error", "leaves none to train on"),
        ("k_folds", [("1", "2"), ("2", "3")], "several_splits", "error", "2 ("),
        ("k_folds", [("1", "2"), ("3", "10", "11")], "in_no_split", "warning", "20"),
    ],
)
def test_split_files(
    key: str,
    files: list[tuple[str, ...]],
    code: str,
    level: str,
    names: str,
    dataset: Path,
    vit_config: Config,
    tmp_path: Path,
) -> None:
    vit_config[key] = [write_split(tmp_path / f"{number}.txt", *ids) for number, ids in enumerate(files)]
    config = write_config(tmp_path / "vit.json", vit_config)
    expected = 0 if level == "warning" else 2
    assert trainViT.main(["--config", str(config), "--dry-run"]) == expected
    status, summary, _ = run_audit(dataset, "--config", config)
    assert status == expected
    assert names in items(summary, level, code)[0]


def test_a_tile_to_train_and_to_validate_on(dataset: Path, diffusion_config: Config, tmp_path: Path) -> None:
    diffusion_config["split_text"] = write_split(tmp_path / "train.txt", *TRAINING_IDS)
    diffusion_config["val_split_text"] = write_split(tmp_path / "validation.txt", "10", "3")
    config = write_config(tmp_path / "diffusion.json", diffusion_config)
    status, summary, _ = run_audit(dataset, "--config", config)
    assert (status, codes(summary)) == (0, {("warning", "training_and_validation")})
    assert items(summary, "warning", "training_and_validation") == ["3", "10"]


def test_split_files_without_a_config(dataset: Path, tmp_path: Path) -> None:
    first = write_split(tmp_path / "first.txt", "1", "2", "3")
    second = write_split(tmp_path / "second.txt", "3", "10", "11")
    test = write_split(tmp_path / "test.txt", "5", "7", "404")
    status, summary, _ = run_audit(dataset, "--splits", first, second, test)
    assert status == 0
    assert items(summary, "warning", "several_splits") == [f"3 ({first}, {second})"]
    assert items(summary, "warning", "unknown_id") == [f"404 ({test})"]
    assert items(summary, "warning", "in_no_split") == ["20", "30"]
    status, summary, _ = run_audit(dataset, "--splits", write_split(tmp_path / "other.txt", "1", "2", "500"))
    assert status == 2
    assert items(summary, "error", "unknown_id")[0].startswith("500 (")


def test_priors_are_checked_where_they_are_asked_for(dataset: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for tile in TRAINING_IDS:
        write_prior(elsewhere, tile)
    assert run_audit(dataset, "--priors", elsewhere, "--strict")[0] == 0
    missing_prior(elsewhere)
    assert run_audit(dataset)[0] == 0
    status, summary, rows = run_audit(dataset, "--priors", elsewhere)
    assert status == 2
    assert items(summary, "error", "missing_prior") == [str(prior_path(elsewhere, "2"))]
    assert (rows[TRAINING, "2"]["status"], rows[TRAINING, "2"]["problem"]) == ("error", "no coarse prior")
    assert (dataset / TRAINING / PRIORS).is_dir()  # those of the dataset itself do not stand in for them


def copy_tile(dataset: Path, tile: str, other: str, part: str = TRAINING, turn: bool = False) -> None:
    """Write a tile's image and map under another id, mirrored and turned if asked for."""
    for source, target in (
        (image_path(dataset, tile), image_path(dataset, other, part)),
        (height_path(dataset, tile), height_path(dataset, other, part)),
    ):
        with rasterio.open(source) as raster:
            bands = raster.read()
        write_raster(target, np.rot90(bands[..., ::-1], axes=(1, 2)) if turn else bands)


def test_duplicates_within_the_training_part(dataset: Path) -> None:
    copy_tile(dataset, "2", "11")
    status, summary, rows = run_audit(dataset)
    assert (status, codes(summary)) == (0, {("warning", "duplicate")})
    assert items(summary, "warning", "duplicate") == ["training 11 is training 2"]
    assert rows[TRAINING, "11"]["duplicate_of"] == rows[TRAINING, "11"]["map_duplicate_of"] == "training 2"
    assert rows[TRAINING, "2"]["duplicate_of"] == ""
    assert run_audit(dataset, "--strict")[0] == 2


def test_a_turned_training_tile_among_the_test_tiles_is_a_leak(dataset: Path) -> None:
    copy_tile(dataset, "2", "7", TEST, turn=True)
    status, summary, rows = run_audit(dataset)
    assert (status, codes(summary)) == (0, {("warning", "leak")})
    assert items(summary, "warning", "leak") == ["test 7 is training 2, turned or mirrored"]
    assert "scores on it mean nothing" in rows[TEST, "7"]["problem"]


def test_a_re_encoded_image_is_a_duplicate(dataset: Path) -> None:
    with rasterio.open(image_path(dataset, "2")) as raster:
        bands = raster.read()
    write_raster(image_path(dataset, "11"), bands.astype(np.uint16) * 257)
    _, summary, _ = run_audit(dataset)
    assert items(summary, "warning", "duplicate") == ["training 11 is training 2, with another height map"]
    bands[0, 3, 4] ^= 1
    write_raster(image_path(dataset, "11"), bands)
    assert run_audit(dataset)[1]["findings"] == []


def test_shuffled_pixels_are_no_duplicate(dataset: Path) -> None:
    with rasterio.open(image_path(dataset, "2")) as raster:
        bands = raster.read()
    write_raster(image_path(dataset, "11"), np.roll(bands, 5, axis=2))
    assert run_audit(dataset)[1]["findings"] == []


def test_one_map_under_two_images(dataset: Path) -> None:
    shutil.copy(height_path(dataset, "2"), height_path(dataset, "7", TEST))
    _, summary, rows = run_audit(dataset)
    assert codes(summary) == {("warning", "duplicate_map")}
    assert items(summary, "warning", "duplicate_map") == ["test 7 has the map of training 2"]
    assert rows[TEST, "7"]["map_duplicate_of"] == "training 2"


def test_flat_tiles_are_no_duplicates(dataset: Path) -> None:
    for tile in ("2", "3"):
        write_raster(height_path(dataset, tile), np.zeros((32, 32), np.uint8))
        write_raster(image_path(dataset, tile), np.zeros((3, 32, 32), np.uint8))
    assert codes(run_audit(dataset)[1]) == {("warning", "flat"), ("warning", "flat_image")}


def test_workers_change_nothing(dataset: Path) -> None:
    for spoil in (truncate_image, small_map, flat_map):
        spoil(dataset)
    outputs = []
    for workers in (1, 2):
        run_audit(dataset, "--workers", workers)
        folder = dataset.parent / "audit"
        outputs.append([(folder / name).read_bytes() for name in ("audit.json", "tiles.csv")])
    assert outputs[0] == outputs[1]


def test_a_read_only_dataset_stays_as_it_is(dataset: Path) -> None:
    everything = [dataset, *dataset.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in everything}
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert run_audit(dataset, "--priors", dataset)[0] == 0
        assert {path: path.stat().st_mtime_ns for path in [dataset, *dataset.rglob("*")]} == before
    finally:
        for path in everything:
            path.chmod(0o755)


def test_control_characters_in_names_do_not_reach_the_terminal(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "tile_\x1b[31m|\n\t\u202e1.png"
    shutil.copy(image_path(dataset, "1"), image_path(dataset, "1").with_name(hostile))
    undecodable = image_path(dataset, "1").with_name(b"tile_\xff.png".decode("utf-8", "surrogateescape"))
    shutil.copy(image_path(dataset, "1"), undecodable)
    status, summary, _ = run_audit(dataset)
    assert status == 0
    found = items(summary, "warning", "ignored_file")
    assert any(item.endswith("tile_\\x1b[31m|\\n\\t\\u202e1.png") for item in found)
    assert any(item.endswith("tile_\\udcff.png") for item in found)
    printed = capsys.readouterr().out
    assert not {character for character in printed if not character.isprintable()} - {"\n"}
    # A line of the table and one for each file.
    assert sum("ignored_file" in line for line in printed.splitlines()) == 3


def test_images_of_few_bits_and_capitals(dataset: Path, tmp_path: Path) -> None:
    for tile in TRAINING_IDS:
        write_raster(image_path(dataset, tile), shaded_image(synthetic_height(int(tile))).astype(np.uint16) * 8)
        image_path(dataset, tile).rename(image_path(dataset, tile).with_suffix(".PNG"))
    status, summary, _ = run_audit(dataset)
    assert status == 0
    (found,) = items(summary, "warning", "dark_images")
    assert TRAINING in found and "2024 of 65535" in found and "image_full_scale=2047" in found
    assert not items(summary, "warning", "ignored_file")
    config = small_vit(dataset, tmp_path / "run") | {"image_full_scale": 2047.0}
    _, summary, rows = run_audit(dataset, "--config", write_config(tmp_path / "vit.json", config))
    assert not items(summary, "warning", "dark_images")
    assert rows[TRAINING, "1"]["image_max"] > 0.5


def test_the_first_few_of_each_finding_are_printed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tile in TRAINING_IDS:
        write_raster(height_path(dataset, tile), np.full((32, 32), int(tile), np.uint8))
    run_audit(dataset)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("flat: ")]
    assert lines == [f"flat: training {tile}" for tile in TRAINING_IDS[:5]] + ["flat: and 1 more"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "give 1 or more"),
        (["--config", "missing.json"], "cannot be read"),
        (["--dataset", "nowhere"], "'nowhere' not found"),
    ],
)
def test_what_cannot_be_audited(
    arguments: list[str], message: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(dataset), "--output", str(dataset.parent / "audit"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (dataset.parent / "audit").exists()


def test_a_config_for_evaluation_is_refused(
    dataset: Path, vit_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "evaluate.json", vit_config | {"checkpoint_path": "model"})
    assert main(["--dataset", str(dataset), "--config", str(config)]) == 2
    assert "is for evaluation, with evaluateViT.py" in capsys.readouterr().err


def test_results_that_cannot_be_written(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["--dataset", str(dataset), "--output", str(tmp_path / "file" / "audit")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_results_go_to_a_folder_of_the_datasets_name(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", str(dataset)]) == 0
    assert (tmp_path / "results" / "audit" / "dataset" / "tiles.csv").is_file()


def test_settings_that_the_refiner_refuses(dataset: Path, diffusion_config: Config, tmp_path: Path) -> None:
    config = write_config(tmp_path / "diffusion.json", diffusion_config | {"vae_crop_size": 64})
    assert trainDiffusion.main(["--config", str(config), "--dry-run"]) == 2
    status, summary, _ = run_audit(dataset, "--config", config)
    assert status == 2
    assert "vae_crop_size 64 is larger than the tiles" in items(summary, "error", "refused")[0]
