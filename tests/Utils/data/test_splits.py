"""Split files, folds and hold-outs: which tile is for what, and that nothing is for two things."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Systems.d3rsmde.config import DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.refiner_run import plan_refiner
from tests.conftest import TEST, TEST_IDS, TRAINING, TRAINING_IDS, make_dataset, write_split, write_tile
from Utils.config.config_files import parse_config
from Utils.core.errors import UserError
from Utils.data.fold_plan import FINAL_STAGE, plan_folds
from Utils.data.published_layout import TileFiles
from Utils.data.splits import hold_out, main, make_folds, read_folds, read_split, select
from Utils.data.stage_plan import StagePlan, Tiles, find_tiles

IDS = [str(number) for number in range(1, 31)]


def test_every_published_spelling(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_bytes(b"\xef\xbb\xbf805\r\n\r\n# a comment\ntile_12\n  tile_7.png  \ntile_8.tif\n9.tiff\nA_1-b\n")
    assert read_split(path) == ["805", "12", "7", "8", "9", "A_1-b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no tile id; write one id a line"),
        ("# nothing\n\n", "holds no tile id"),
        ("1\n2\ntile_1.png\n", "tile id 1 stands in line 1 and again in line 3; remove one"),
        ("1\n2 3\n", "line 2: '2 3' is no tile id; write one id a line"),
        ("../x\n", "line 1: '../x' is no tile id"),
        ("1,2,3\n", "line 1: '1,2,3' is no tile id"),
    ],
)
def test_wrong_content_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_split(path)
    assert str(caught.value).startswith(f"split file '{path}'")
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none.txt", "No such file"),
        (tmp_path / "binary.txt", "can't decode"),
        (Path("a\0b"), "null"),
    ):
        with pytest.raises(UserError, match=r"cannot be read: .*; give a text file of tile ids") as caught:
            read_split(path)
        assert reason in str(caught.value)


def test_select(tmp_path: Path) -> None:
    first, second = write_split(tmp_path / "a.txt", "3", "1"), write_split(tmp_path / "b.txt", "2", "3")
    assert [select(["1", "2"], nothing, "there") for nothing in (None, "", ())] == [["1", "2"]] * 3
    assert select(IDS, first, "there") == ["3", "1"]
    assert select(IDS, [first, second], "there") == ["3", "1", "2"]
    with pytest.raises(UserError, match=r"b\.txt' names tile id 2, which is not in 'there' \(1 of 2 ids are not\)"):
        select(["1", "3"], [first, second], "there")


def test_folds_from_files(tmp_path: Path) -> None:
    paths = [write_split(tmp_path / f"{name}.txt", *ids) for name, ids in (("a", "12"), ("b", "34"), ("c", "51"))]
    assert read_folds(paths[:2], IDS, "there") == [["1", "2"], ["3", "4"]]
    with pytest.raises(UserError, match=r"tile id 1 stands in two folds, '.*a\.txt' and '.*c\.txt'; keep it in one"):
        read_folds(paths, IDS, "there")


@given(
    ids=st.lists(st.integers(0, 10**6), min_size=2, max_size=40, unique=True),
    count=st.integers(2, 7),
    seed=st.integers(0, 2**40),
    turn=st.randoms(),
)
def test_folds_are_whole_disjoint_even_and_seeded(ids: list[int], count: int, seed: int, turn: object) -> None:
    tiles = [str(number) for number in ids]
    if len(tiles) < count:
        with pytest.raises(UserError, match=r"folds need .* training tiles or more, and there are .*; ask for fewer"):
            make_folds(tiles, count, seed)
        return
    folds = make_folds(tiles, count, seed)
    assert sorted(tile for fold in folds for tile in fold) == sorted(tiles)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    turn.shuffle(tiles)  # type: ignore[attr-defined]
    assert make_folds(tiles, count, seed) == folds, "the order in which a disk lists its files does not matter"


@given(size=st.integers(2, 60), seed=st.integers(0, 2**40))
def test_hold_out_is_a_disjoint_tenth(size: int, seed: int) -> None:
    tiles = [str(number) for number in range(size)]
    train, validation = hold_out(tiles, seed)
    assert sorted(train + validation) == sorted(tiles)
    assert len(validation) == max(1, round(size / 10))
    assert hold_out(tiles[::-1], seed) == (train, validation)


def test_seeds_differ() -> None:
    assert make_folds(IDS, 5, 1) != make_folds(IDS, 5, 2)
    assert hold_out(IDS, 1) != hold_out(IDS, 2)
    with pytest.raises(UserError, match=r"1 training tile cannot be split .* set not_split, or add tiles"):
        hold_out(["1"], 1)


def test_ids_that_look_alike_keep_one_order() -> None:
    tiles = ["7", "07", "007", "²", "x"]
    assert make_folds(tiles, 2, 0) == make_folds(tiles[::-1], 2, 0)


def test_main_writes_what_k_folds_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "data", priors=False)
    arguments = ["--dataset", str(dataset), "--name", "Toy", "--folds", "3", "--output", str(tmp_path / "splits")]
    assert main(arguments) == 0
    paths = [str(tmp_path / "splits" / "Toy" / f"Toystage1-{fold}.txt") for fold in (1, 2, 3)]
    assert capsys.readouterr().out.split() == paths
    config = parse_config({"dataset_path": str(dataset), "k_folds": paths}, ViTTrainingConfig, "f")
    plan = plan_folds(config, find_tiles(config))
    assert [stage.name for stage in plan] == ["fold-1", "fold-2", "fold-3", FINAL_STAGE]
    assert sorted(tile for stage in plan for tile in stage.held_out) == sorted(TRAINING_IDS)
    texts = [Path(path).read_text(encoding="utf-8") for path in paths]
    assert main(arguments) == 0
    assert [Path(path).read_text(encoding="utf-8") for path in paths] == texts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--folds", "1"], "--folds 1: give 2 or more"),
        (["--folds", "9"], "9 folds need 9 training tiles or more, and there are 6; ask for fewer folds"),
        (["--dataset", "/nowhere"], "dataset folder '/nowhere/"),
    ],
)
def test_main_refuses(change: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path / "data", priors=False)
    output = tmp_path / "splits"
    assert main(["--dataset", str(dataset), "--name", "Toy", "--output", str(output), *change]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert not output.exists()


# Plans are made from names alone; two ids stand in both parts, as nothing forbids.
TILES = Tiles(
    {tile: TileFiles(Path("i"), Path("h")) for tile in IDS},
    {tile: TileFiles(Path("i"), Path("h")) for tile in ("1", "2", "90", "91")},
)


def check_stage(stage: StagePlan, validate_on: str) -> None:
    """What no config may change."""
    train, validation, held_out = set(stage.train), set(stage.validation), set(stage.held_out)
    assert train
    assert train <= set(TILES.training)
    assert len(stage.train) == len(train)
    assert not train & held_out
    if validate_on == "test":
        assert stage.validation_part == TEST
        assert validation == set(TILES.test)
    else:
        assert stage.validation_part == TRAINING
        assert validation <= set(TILES.training)
        assert not validation & train
        assert not validation & held_out


@pytest.mark.parametrize("folds", ["none", "dealt", "files"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("validation", ["none", "one", "several", "outside", "a fold"])
@pytest.mark.parametrize(("not_split", "validate_on"), itertools.product([False, True], ["training", "test"]))
def test_no_tile_has_two_uses(
    folds: str, split: bool, validation: str, not_split: bool, validate_on: str, tmp_path: Path
) -> None:
    listed = IDS[:20] if split else IDS
    fold_files = [write_split(tmp_path / f"{place}.txt", *listed[place::3]) for place in range(3)]
    validation_texts = {
        "none": "",
        "one": write_split(tmp_path / "v.txt", "4", "5", "9"),
        "several": [write_split(tmp_path / "v1.txt", "4"), write_split(tmp_path / "v2.txt", "4", "8")],
        "outside": write_split(tmp_path / "v3.txt", "28", "29"),
        "a fold": fold_files[1],
    }
    config = parse_config(
        {
            "dataset_path": "d",
            "k_folds": {"none": 0, "dealt": 3, "files": fold_files}[folds],
            "split_text": write_split(tmp_path / "train.txt", *listed) if split and folds != "files" else "",
            "val_split_text": validation_texts[validation],
            "not_split": not_split,
            "validate_on": validate_on,
        },
        ViTTrainingConfig,
        "f",
    )
    plan = plan_folds(config, TILES)
    assert [stage.name for stage in plan][-1] == FINAL_STAGE
    assert len(plan) == (1 if folds == "none" else 4)
    for stage in plan:
        check_stage(stage, validate_on)
    predicted = [tile for stage in plan for tile in stage.held_out]
    assert sorted(predicted) == (sorted(listed) if folds != "none" else []), "every training tile gets one prior"
    final = plan[-1]
    wanted = {"none": set(), "one": {"4", "5", "9"}, "several": {"4", "8"}, "outside": {"28", "29"}}
    given_tiles = wanted.get(validation, set(listed[1::3]))
    if validate_on == "test":
        assert set(final.train) == set(listed)
    elif validation != "none":
        assert set(final.validation) == given_tiles
        assert set(final.train) == set(listed) - given_tiles
        for stage in plan[:-1]:
            rest = given_tiles - set(stage.held_out)
            if rest:
                assert set(stage.validation) == rest
            else:
                assert bool(stage.validation) != not_split, "the default stands in for a fold that holds them all"
    elif not_split:
        assert [stage.validation for stage in plan] == [[]] * len(plan)
        assert set(final.train) == set(listed)
    else:
        assert len(final.validation) == round(len(listed) / 10)
        assert set(final.train) | set(final.validation) == set(listed)


def test_the_refiner_divides_likewise(tmp_path: Path) -> None:
    split = write_split(tmp_path / "v.txt", "4", "5")
    given_keys = {"dataset_path": "d", "vae_type": "DC_AE", "vae_epochs": 1, "val_split_text": split}
    plan = plan_refiner(parse_config(given_keys, DiffusionTrainingConfig, "f"), TILES)
    assert len(plan) == 2
    for stage in plan:
        check_stage(stage, "training")
        assert set(stage.validation) == {"4", "5"}
    assert plan[0].train == plan[1].train, "the autoencoder must not see what the U-Net is validated on"


def test_validation_that_leaves_nothing(tmp_path: Path) -> None:
    split = write_split(tmp_path / "all.txt", *IDS)
    config = parse_config({"dataset_path": "d", "val_split_text": split}, ViTTrainingConfig, "f")
    with pytest.raises(UserError, match=r"stage final: every training tile stands in val_split_text too"):
        plan_folds(config, TILES)


def test_split_text_and_fold_files_exclude_one_another(tmp_path: Path) -> None:
    files = [write_split(tmp_path / f"{place}.txt", *IDS[place::2]) for place in range(2)]
    config = parse_config({"dataset_path": "d", "k_folds": files, "split_text": files[0]}, ViTTrainingConfig, "f")
    with pytest.raises(UserError, match="split_text and split files in k_folds are both given; remove one"):
        plan_folds(config, TILES)


def test_the_test_part_is_not_even_listed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", priors=False)
    config = parse_config({"dataset_path": str(dataset)}, ViTTrainingConfig, "f")
    assert not find_tiles(config).test
    on_test = config.model_copy(update={"validate_on": "test"})
    assert sorted(find_tiles(on_test).test) == sorted(TEST_IDS)
    assert sorted(find_tiles(on_test).training) == sorted(TRAINING_IDS)


def test_a_plan_is_repeatable_and_follows_the_tiles(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", priors=False)
    config = parse_config({"dataset_path": str(dataset), "k_folds": 2}, ViTTrainingConfig, "f")
    before = plan_folds(config, find_tiles(config))
    assert before == plan_folds(config, find_tiles(config))
    write_tile(dataset, "40")
    assert before != plan_folds(config, find_tiles(config))
