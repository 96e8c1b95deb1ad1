"""Configs: the published files load, mistakes are named, and no key does nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import evaluateDepth
import evaluateDiffusion
import evaluateSegmentation
import evaluateStereo
import evaluateViT
import trainDepth
import trainDiffusion
import trainSegmentation
import trainStereo
import trainViT
from Modules.d3rsmde.autoencoders import AutoencoderShape, build_autoencoder
from Modules.d3rsmde.names import MAP_LOSSES, VAE_TYPES, VaeType
from Modules.losses.height_losses import LOSSES
from Systems import config_reference
from Systems.d3rsmde.config import (
    DiffusionEvaluationConfig,
    DiffusionTrainingConfig,
    UNetSection,
    ViTEvaluationConfig,
    ViTTrainingConfig,
)
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.depth.config import DepthEvaluationConfig, DepthTrainingConfig
from Systems.segmentation.config import SegmentationEvaluationConfig, SegmentationTrainingConfig
from Systems.stereo.config import StereoEvaluationConfig, StereoTrainingConfig
from tests.conftest import (
    Config,
    small_depth,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    small_vit_evaluation,
    write_config,
    write_split,
)
from tests.depth_sets import write_cityscapes
from tests.fuzzing import is_clean
from tests.land_cover_sets import write_loveda
from tests.paths import ROOT
from tests.stereo_sets import copy_set
from Utils.config.config_files import load_config, parse_config, read_merged
from Utils.config.sections import Section, section_in
from Utils.core.errors import UserError

SCRIPTS: dict[str, type[Section]] = {
    "ViT/train": ViTTrainingConfig,
    "ViT/evaluate": ViTEvaluationConfig,
    "Diffusion/train": DiffusionTrainingConfig,
    "Diffusion/evaluate": DiffusionEvaluationConfig,
    "Depth/train": DepthTrainingConfig,
    "Depth/evaluate": DepthEvaluationConfig,
    "Mars/train": DepthTrainingConfig,
    "Mars/evaluate": DepthEvaluationConfig,
    "Segmentation/train": SegmentationTrainingConfig,
    "Segmentation/evaluate": SegmentationEvaluationConfig,
    "Stereo/train": StereoTrainingConfig,
    "Stereo/evaluate": StereoEvaluationConfig,
}

PUBLISHED_VIT_TRAINING = {
    "dataset_path": "Dataset/BASE_DATA_DIR/ImageToDEM-J_K",
    "batch_size": 4,
    "lr": 5e-5,
    "threshold_epoch": 5,
    "downgrade_lr_ratio": 0.6,
    "weight_decay": 1e-4,
    "epochs": 50,
    "seed": 42,
    "num_workers": 8,
    "loss_types": ["HDNLoss"],
    "save_n_epoch": 10,
    "save_i_epoch": [1, 5, 50],
    "split_text": [f"Dataset/splitTextFiles/J_K/J_Kstage1-{fold}.txt" for fold in (1, 2, 3, 4)],
    "val_split_text": "Dataset/splitTextFiles/J_K/J_Kstage1-5.txt",
    "pretrained_model_path": "",
    "not_split": False,
}
PUBLISHED_VIT_EVALUATION = {
    "dataset_path": "Dataset/BASE_DATA_DIR/ImageToDEM-J_K",
    "seed": 42,
    "num_workers": 8,
    "output_dir": "results/ViT/J_K",
    "checkpoint_path": "output/ViT/J_K",
    "test_split_text": "",
}
PUBLISHED_DIFFUSION_TRAINING = {
    "dataset_path": "Dataset/BASE_DATA_DIR/ImageToDEM-J_K",
    "batch_size": 16,
    "lr": 1e-4,
    "vae_lr": 1e-5,
    "threshold_epoch": 10,
    "downgrade_lr_ratio": 0.5,
    "weight_decay": 0.01,
    "dropout": 0.1,
    "epochs": 60,
    "seed": 42,
    "num_workers": 8,
    "loss_types": "L1Loss",
    "save_n_epoch": 10,
    "save_i_epoch": [],
    "vae_type": "AutoencoderKL",
    "vae_path": "stabilityai/sd-vae-ft-mse",
    "pretrained_vae_path": "",
    "pretrained_model_path": "",
    "diffusion_cfg": {"diff_iter": False, "betas": {"start": 0.8, "stop": 0, "num_timesteps": 6}},
}
PUBLISHED_DIFFUSION_EVALUATION = {
    "dataset_path": "Dataset/BASE_DATA_DIR/ImageToDEM-J_K",
    "seed": 42,
    "num_workers": 8,
    "output_dir": "results/Diffusion/J_K",
    "diffusion_cfg": {"diff_iter": 3, "betas": {"start": 0.8, "stop": 0, "num_timesteps": 6}},
    "checkpoint_path": "output/Diffusion/J_K",
    "vae_type": "VA_VAE",
    "vae_path": "",
    "pretrained_vae_path": "",
}
PUBLISHED: dict[type[Section], Config] = {
    ViTTrainingConfig: PUBLISHED_VIT_TRAINING,
    ViTEvaluationConfig: PUBLISHED_VIT_EVALUATION,
    DiffusionTrainingConfig: PUBLISHED_DIFFUSION_TRAINING,
    DiffusionEvaluationConfig: PUBLISHED_DIFFUSION_EVALUATION,
}
SMALLEST: Config = {"dataset_path": "d"}


def complaint(kind: type[Section], config: Config) -> str:
    """What is said about a config that must be refused; one line that names the file."""
    with pytest.raises(UserError) as caught:
        parse_config(config, kind, "f.json")
    text = str(caught.value)
    assert text.startswith("config 'f.json': ")
    assert "\n" not in text
    return text.removeprefix("config 'f.json': ")


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_files_load_unchanged(kind: type[Section], tmp_path: Path) -> None:
    published = PUBLISHED[kind]
    config = load_config(write_config(tmp_path / "c.json", published), kind)
    for key, value in published.items():
        if value == "":
            assert getattr(config, key) is None
        elif isinstance(value, dict):
            assert getattr(config, key).model_dump() == value
        else:
            assert getattr(config, key) == value


@pytest.mark.parametrize("kind", PUBLISHED)
def test_empty_strings_mean_not_given(kind: type[Section]) -> None:
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    some = {key: value for key, value in PUBLISHED[kind].items() if key in required}
    blank = {key: "" for key in kind.model_fields if key not in required}
    assert parse_config(some | blank, kind, "f") == parse_config(some, kind, "f")


def test_missing_splits_and_false_diff_iter() -> None:
    config = parse_config(SMALLEST | {"val_split_text": ["", ""]}, ViTTrainingConfig, "f")
    assert config.split_text is None
    assert not config.val_split_text
    assert config.losses == ["HDNLoss"]
    refiner = parse_config(PUBLISHED_DIFFUSION_TRAINING, DiffusionTrainingConfig, "f")
    assert refiner.diffusion_cfg.steps is None
    assert refiner.losses == ["L1Loss"]
    assert parse_config(PUBLISHED_DIFFUSION_EVALUATION, DiffusionEvaluationConfig, "f").diffusion_cfg.steps == 3


def test_dropout_that_is_not_given_stays_so() -> None:
    # A resumed run reads its effective config, where 0 would overrule the published dropout of the family.
    assert parse_config(SMALLEST | {"vae_type": "VA_VAE"}, DiffusionTrainingConfig, "f").dropout is None


@pytest.mark.parametrize(
    ("kind", "added", "said"),
    [
        (ViTTrainingConfig, {"epcohs": 3}, "unknown key 'epcohs'; did you mean 'epochs'?"),
        (ViTTrainingConfig, {"epcohs": ""}, "unknown key 'epcohs'; did you mean 'epochs'?"),
        (ViTTrainingConfig, {"model": {"feautres": 8}}, "unknown key 'model.feautres'; did you mean 'model.features'?"),
        (ViTTrainingConfig, {"features": 8}, "unknown key 'features'; did you mean 'model.features'?"),
        (ViTEvaluationConfig, {"checkpointpath": "x"}, "did you mean 'checkpoint_path'?"),
        (
            DiffusionTrainingConfig,
            {"diffusion_cfg": {"betas": {"strat": 0.8}}},
            "unknown key 'diffusion_cfg.betas.strat'; did you mean 'diffusion_cfg.betas.start'?",
        ),
        (DiffusionTrainingConfig, {"betas": {"start": 0.8}}, "did you mean 'diffusion_cfg.betas'?"),
        (DiffusionEvaluationConfig, {"Vae_type": "DC_AE"}, "unknown key 'Vae_type'; did you mean 'vae_type'?"),
        (ViTTrainingConfig, {"qqq": 1}, "unknown key 'qqq'; known keys: accumulate, batch_size, "),
        (ViTTrainingConfig, {"str": 1}, "unknown key 'str'; "),
        (ViTTrainingConfig, {"": 1}, "unknown key ''; "),
    ],
)
def test_unknown_keys_get_the_nearest(kind: type[Section], added: Config, said: str) -> None:
    assert said in complaint(kind, PUBLISHED[kind] | added)


@pytest.mark.parametrize(
    ("kind", "added", "said"),
    [
        (ViTTrainingConfig, {"epochs": "50"}, "key 'epochs' = \"50\": it should be a valid integer"),
        (ViTTrainingConfig, {"epochs": True}, "key 'epochs' = true: it should be a valid integer"),
        (ViTTrainingConfig, {"epochs": 0}, "key 'epochs' = 0: it should be greater than 0"),
        (ViTTrainingConfig, {"batch_size": 10**12}, "key 'batch_size' = 1000000000000: it should be less than"),
        (ViTTrainingConfig, {"lr": 0}, "key 'lr' = 0: it should be greater than 0"),
        (ViTTrainingConfig, {"lr": float("nan")}, "key 'lr' = NaN: it should be "),
        (ViTTrainingConfig, {"lr": float("inf")}, "key 'lr' = Infinity: it should be "),
        (ViTTrainingConfig, {"downgrade_lr_ratio": 1.2}, "key 'downgrade_lr_ratio' = 1.2: it should be less than or"),
        (ViTTrainingConfig, {"seed": -1}, "key 'seed' = -1: it should be greater than or equal to 0"),
        (ViTTrainingConfig, {"not_split": "false"}, "key 'not_split' = \"false\": it should be a valid boolean"),
        (ViTTrainingConfig, {"save_i_epoch": [1, "2"]}, "key 'save_i_epoch.1' = \"2\": it should be a valid integer"),
        (ViTTrainingConfig, {"split_text": 5}, "key 'split_text' = 5: it should be a valid string or a valid list"),
        (ViTTrainingConfig, {"split_text": ["a", 5]}, "key 'split_text.1' = 5: it should be a valid string"),
        (ViTTrainingConfig, {"k_folds": 1}, "key 'k_folds' = 1: cross-fitting needs 2 folds or more"),
        (ViTTrainingConfig, {"k_folds": ["a.txt"]}, "cross-fitting needs 2 folds or more"),
        (ViTTrainingConfig, {"k_folds": -2}, "key 'k_folds' = -2: it should be greater than or equal to 0"),
        (ViTTrainingConfig, {"loss_types": "HDNLos"}, "unknown loss 'HDNLos'; did you mean 'HDNLoss'?"),
        (ViTTrainingConfig, {"loss_types": ["L1Loss", "L2Loss"]}, "unknown loss 'L2Loss'; did you mean 'L1Loss'?"),
        (ViTTrainingConfig, {"loss_types": []}, "key 'loss_types' = []: "),
        (ViTTrainingConfig, {"model": "vitb16_384"}, "key 'model' = \"vitb16_384\": it should be a JSON object"),
        (ViTTrainingConfig, {"model": {"readout": "cls"}}, "key 'model.readout' = \"cls\": it should be 'project'"),
        (ViTTrainingConfig, {"model": {"options": {"depth": [4]}}}, "key 'model.options.depth' = [4]: it should be"),
        (ViTTrainingConfig, {"validate_on": "tset"}, "key 'validate_on' = \"tset\": it should be 'training' or 'test'"),
        (ViTEvaluationConfig, {"map_format": "png"}, "key 'map_format' = \"png\": it should be 'tif' or 'npy'"),
        (DiffusionTrainingConfig, {"vae_type": "KL"}, "it should be 'AutoencoderKL', 'VA_VAE', 'DC_AE' or"),
        (DiffusionTrainingConfig, {"dropout": 1.0}, "key 'dropout' = 1.0: it should be less than 1"),
        (DiffusionTrainingConfig, {"diffusion_cfg": {"diff_iter": True}}, "key 'diffusion_cfg.diff_iter' = true: "),
        (DiffusionTrainingConfig, {"diffusion_cfg": {"diff_iter": 7}}, "diff_iter 7 is more than betas.num"),
        (DiffusionTrainingConfig, {"diffusion_cfg": {"betas": {"start": 1.5}}}, "key 'diffusion_cfg.betas.start' = 1"),
        (DiffusionTrainingConfig, {"dataset_path": ""}, "key 'dataset_path' is missing or empty; add it"),
        (ViTEvaluationConfig, {"checkpoint_path": ""}, "key 'checkpoint_path' is missing or empty; add it"),
    ],
)
def test_wrong_values_name_key_and_value(kind: type[Section], added: Config, said: str) -> None:
    assert said in complaint(kind, PUBLISHED[kind] | added)


def test_long_values_are_cut() -> None:
    assert len(complaint(ViTTrainingConfig, SMALLEST | {"epochs": "9" * 5000})) < 200


def test_overrides(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.json", SMALLEST | {"lr": 1.0, "split_text": "a.txt"})
    config = load_config(
        path,
        ViTTrainingConfig,
        [
            "epochs=4",
            "lr=2e-5",
            "not_split=true",
            "loss_types=HDNLoss",
            'k_folds=["a.txt", "b.txt"]',
            "split_text=",
            "model.features=16",
            "model.options.depth=2",
            "model.options.norm=layer=norm",
            "dataset_path=1.5 data",
            "epochs=5",
        ],
    )
    assert (config.epochs, config.lr, config.not_split) == (5, 2e-5, True)
    assert (config.loss_types, config.k_folds, config.split_text) == ("HDNLoss", ["a.txt", "b.txt"], None)
    assert (config.model.features, config.model.options) == (16, {"depth": 2, "norm": "layer=norm"})
    assert config.dataset_path == "1.5 data"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "--set 'epochs': write key=value"),
        ("=4", "--set '=4': write key=value"),
        ("lr.x=4", "'lr' is not an object in the config"),
        ("model.feature=4", "unknown key 'model.feature'; did you mean 'model.features'?"),
        ("epochs=four", "key 'epochs' = \"four\": it should be a valid integer"),
        (f"epochs={'9' * 5000}", "key 'epochs' = "),
        (f"epochs={'[' * 100_000}", "key 'epochs' = "),
    ],
)
def test_wrong_overrides(override: str, said: str, tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.json", SMALLEST | {"lr": 1.0})
    with pytest.raises(UserError) as caught:
        load_config(path, ViTTrainingConfig, [override])
    assert said in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{'epochs': 1}", '{"epochs": 1,}', "\x00", "[" * 100_000, "9" * 5000])
def test_broken_json(content: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"c\.json' is not valid JSON: .*; correct it there"):
        load_config(path, ViTTrainingConfig)


def test_other_broken_files(tmp_path: Path) -> None:
    latin = tmp_path / "latin.json"
    latin.write_bytes('{"dataset_path": "höhe"}'.encode("latin-1"))
    with pytest.raises(UserError, match="is not valid JSON"):
        load_config(latin, ViTTrainingConfig)
    with pytest.raises(UserError, match="must hold a JSON object, not a list"):
        load_config(write_config(tmp_path / "list.json", ["a"]), ViTTrainingConfig)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot be read: Is a directory; give the path of a JSON file"):
        load_config(tmp_path, ViTTrainingConfig)
    with pytest.raises(UserError, match="cannot be read: No such file or directory; give the path of a JSON file"):
        load_config(tmp_path / "none.json", ViTTrainingConfig)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"dataset_path": "Höhe"}), encoding="utf-8-sig")
    assert load_config(path, ViTTrainingConfig).dataset_path == "Höhe"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_names_what_is_wrong(error: UserError, path: Path, overrides: list[str]) -> None:
    """One line that a terminal can show, about the file or about an override."""
    assert is_clean(error)
    assert str(error).startswith((f"config '{path}'", "--set ")) and (str(path) in str(error) or overrides)


@pytest.mark.parametrize("kind", PUBLISHED)
@FUZZ
@given(data=st.data())
def test_only_user_errors_come_out_of_values(kind: type[Section], data: st.DataObject, tmp_path: Path) -> None:
    keys = st.sampled_from(sorted(kind.model_fields)) | st.text(max_size=5)
    config = PUBLISHED[kind] | data.draw(st.dictionaries(keys, JSON_VALUES, max_size=3))
    overrides = data.draw(st.lists(st.text(max_size=12) | keys.map(lambda key: f"{key}.x=1"), max_size=2))
    path = write_config(tmp_path / "c.json", config)
    try:
        read = load_config(path, kind, overrides)
    except UserError as error:
        assert_names_what_is_wrong(error, path, overrides)
        return
    # What was taken is what was written, and can be written again.
    for key, value in config.items():
        if isinstance(value, int) and not overrides:
            assert getattr(read, key) == value
    assert kind.model_validate(json.loads(json.dumps(read.model_dump()))) == read


@FUZZ
@given(content=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123eE+-.ntfalsue \ud800', max_size=40))
@example(content=b'{"\\ud800": 1}')
@example(content=b'{"dataset_path": "\\ud800"}')
def test_only_user_errors_come_out_of_files(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        load_config(path, ViTTrainingConfig)
    except UserError as error:
        assert_names_what_is_wrong(error, path, [])


def sections(kind: type[Section]) -> Iterator[type[Section]]:
    """A config's class and those of the objects in it."""
    yield kind
    for field in kind.model_fields.values():
        if (inner := section_in(field.annotation)) is not None:
            yield from sections(inner)


ALL_KEYS = {
    (section.__name__, key) for kind in SCRIPTS.values() for section in sections(kind) for key in section.model_fields
}


CONFIG_MODULES = {section.__module__ for kind in SCRIPTS.values() for section in sections(kind)}


def test_every_key_is_read_by_a_script(
    shared_dataset: Path, vit_run: Path, diffusion_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[str, str]] = set()

    def record(self: Section, name: str) -> Any:
        caller = sys._getframe(1)
        # A validator's look at a value does nothing with it; a property hands it on.
        in_config = caller.f_globals["__name__"] in CONFIG_MODULES and caller.f_code.co_name not in ("losses", "steps")
        if name in type(self).model_fields and not in_config:
            read.add((type(self).__name__, name))
        # The U-Net's section is passed on as a whole; elsewhere a dump is a copy for the reader.
        if name == "model_dump" and isinstance(self, UNetSection):
            read.update((type(self).__name__, key) for key in type(self).model_fields)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Section, "__getattribute__", record, raising=False)
    splits = tmp_path / "splits"
    vit = small_vit(shared_dataset, tmp_path / "vit") | {
        "k_folds": 2,
        "split_text": write_split(splits / "train.txt", "1", "2", "3", "10"),
    }
    refiner = small_diffusion(shared_dataset, tmp_path / "refiner") | {"coarse_checkpoint_path": str(vit_run)}
    runs = (
        (trainViT, vit),
        (evaluateViT, small_vit_evaluation(shared_dataset, vit_run, tmp_path / "vit results")),
        (trainDiffusion, refiner),
        (evaluateDiffusion, small_diffusion_evaluation(shared_dataset, diffusion_run, tmp_path / "results")),
        (trainDepth, small_depth(shared_dataset, tmp_path / "depth") | {"k_folds": 2, "direction": "height"}),
        # Heights and depth have keys of their own.
        (evaluateDepth, small_vit_evaluation(shared_dataset, tmp_path / "depth", tmp_path / "heights")),
        (
            evaluateDepth,
            small_vit_evaluation(shared_dataset, tmp_path / "depth", tmp_path / "depths") | {"scores": "depth"},
        ),
    )
    for script, config in runs:
        # Without a control, nobody asks how it is made.
        more = {"controls": ["low_pass"]} if "checkpoint_path" in config else {}
        assert script.main(["--config", str(write_config(tmp_path / "c.json", config | more))]) == 0
    table, test_table = write_cityscapes(tmp_path / "streets")
    streets = small_depth(table, tmp_path / "streets run") | {"disparity": {}, "direction": "depth"}
    scored = small_vit_evaluation(test_table, tmp_path / "depth", tmp_path / "streets scored") | {"disparity": {}}
    for script, config in ((trainDepth, streets), (evaluateDepth, scored)):
        assert script.main(["--config", str(write_config(tmp_path / "c.json", config)), "--dry-run"]) == 0
    scenes = copy_set(tmp_path)
    trained = {"lr": 1e-3, "epochs": 1, "loss_types": "L1Loss", "model": {"hypotheses": [8, 8, 8], "base": 4}}
    views = {"dataset_path": str(scenes), "views": 3, "output_dir": str(tmp_path / "stereo")}
    maps = {"checkpoint_path": str(tmp_path / "stereo"), "output_dir": str(tmp_path / "stereo maps"), "sweep_planes": 8}
    for script, config in ((trainStereo, views | trained), (evaluateStereo, views | maps)):
        assert script.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    land = {
        "dataset_path": str(write_loveda(tmp_path / "land", parts=["Train"])),
        "output_dir": str(tmp_path / "cover"),
    }
    network = {"backbone": "test_convnext", "depth_backbone": "test_convnext", "channels": 8, "pretrained": False}
    learnt = {"source": ["Urban"], "batch_size": 3, "max_steps": 1, "model": network, "augmentation": {"crop": 32}}
    learnt |= {"ema_decay": 0.9, "self_training": {"domains": ["Rural"]}}
    scored = {
        "checkpoint_path": str(tmp_path / "cover"),
        "output_dir": str(tmp_path / "classes"),
        "part": "Train",
        "domains": ["Rural"],
        "confidence": True,
    }
    for script, config in ((trainSegmentation, land | learnt), (evaluateSegmentation, land | scored)):
        assert script.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    assert sorted(ALL_KEYS - read) == []


def shipped_files() -> list[Path]:
    return sorted((ROOT / "Config").glob("*/*.json"))


BASES = ("train", "evaluate")


@pytest.mark.parametrize(
    "path",
    [path for path in shipped_files() if path.stem not in BASES],
    ids=lambda path: "/".join(path.parts[-2:]),
)
def test_shipped_files_load(path: Path) -> None:
    family, _, step = path.stem.rpartition("_")
    if path.parent.name == "Demo":
        family = {
            "vit": "ViT",
            "diffusion": "Diffusion",
            "diffusion_light": "Diffusion",
            "depth": "Depth",
            "mars": "Mars",
            "segmentation": "Segmentation",
            "segmentation_self_training": "Segmentation",
            "stereo": "Stereo",
        }[family]
    else:
        family = path.parent.name
    refines_dems = "prior" in read_merged(path)[0]
    load_config(path, DemTrainingConfig if refines_dems else SCRIPTS[f"{family}/{step}"])


def test_files_are_shipped_for_every_script() -> None:
    found = {f"{path.parent.name}/{path.stem.rpartition('_')[2]}" for path in shipped_files()}
    assert set(SCRIPTS) <= found, "the five published sets are shipped in Config/ViT and Config/Diffusion"


# Bases


def chain(folder: Path, **files: Config) -> Path:
    """Config files by name; returns the first."""
    for name, config in files.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_config(path, config)
    return folder / f"{next(iter(files))}.json"


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    path = chain(
        tmp_path,
        leaf={"base": "set.json", "epochs": 3, "model": {"features": 8}, "flips": []},
        set={"base": "train.json", "dataset_path": "d", "flips": ["vertical"]},
        train={"epochs": 7, "lr": 1e-3, "model": {"backbone": "b", "features": 4}, "flips": ["horizontal"]},
    )
    config = load_config(path, ViTTrainingConfig)
    assert (config.dataset_path, config.epochs, config.lr, config.flips) == ("d", 3, 1e-3, [])
    assert (config.model.backbone, config.model.features) == ("b", 8), "objects are merged key by key"
    assert load_config(path, ViTTrainingConfig, ["epochs=9"]).epochs == 9


def test_an_empty_text_takes_back_what_the_base_gives(tmp_path: Path) -> None:
    path = chain(tmp_path, leaf={"base": "b.json", "prior_path": ""}, b={"dataset_path": "d", "prior_path": "p"})
    assert load_config(path, ViTTrainingConfig).prior_path is None


def test_a_base_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    chain(tmp_path, train={"epochs": 7}, **{"sets/a": {"base": "../train.json", "dataset_path": "d"}})
    leaf = write_config(tmp_path / "leaf.json", {"base": "sets/a.json"})
    assert load_config(leaf, ViTTrainingConfig).epochs == 7


@pytest.mark.parametrize("circle", [{"leaf": "leaf"}, {"leaf": "other", "other": "./leaf"}])
def test_bases_in_a_circle_are_an_error(circle: dict[str, str], tmp_path: Path) -> None:
    path = chain(tmp_path, **{name: {"dataset_path": "d", "base": f"{base}.json"} for name, base in circle.items()})
    with pytest.raises(UserError, match=r"its bases go round in a circle \('.*leaf\.json' -> .*leaf\.json'\); remove"):
        load_config(path, ViTTrainingConfig)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("none.json", r"base of '.*leaf\.json', '.*none\.json', cannot be read: No such file"),
        ("broken.json", r"base of '.*leaf\.json', '.*broken\.json', is not valid JSON"),
        ("list.json", r"must hold a JSON object, not a list"),
        (["a.json", "b.json"], r"base = \[\"a.json\", \"b.json\"\]; give the path of one JSON file"),
        (3, "give the path of one JSON file"),
    ],
)
def test_a_bad_base_is_named(base: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    path = chain(tmp_path, leaf={"dataset_path": "d", "base": base})
    with pytest.raises(UserError, match=said):
        load_config(path, ViTTrainingConfig)


def test_an_error_names_all_files_that_a_config_is_made_of(tmp_path: Path) -> None:
    path = chain(tmp_path, leaf={"base": "train.json", "dataset_path": "d"}, train={"epoch": 7})
    with pytest.raises(UserError, match=r"config '.*leaf\.json' with base '.*train\.json': unknown key 'epoch'"):
        load_config(path, ViTTrainingConfig)


def test_a_resumed_run_keeps_the_whole_config(shared_dataset: Path, tmp_path: Path) -> None:
    """The run's own file stands alone: its bases may change or go."""
    small = small_vit(shared_dataset, tmp_path / "run")
    path = chain(tmp_path, leaf={"base": "train.json", "dataset_path": small.pop("dataset_path")}, train=small)
    assert trainViT.main(["--config", str(path)]) == 0
    (tmp_path / "train.json").unlink()
    assert trainViT.main(["--resume", str(tmp_path / "run")]) == 0


# The reference


def test_the_reference_of_all_keys_is_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert config_reference.main(["--check"]) == 0, "run python -m Systems.config_reference"
    page = config_reference.reference()
    for kind in SCRIPTS.values():
        for section in sections(kind):
            assert all(f"{key}`" in page for key in section.model_fields), section


def test_every_key_has_a_meaning() -> None:
    lacking = [
        (section.__name__, key)
        for kind in SCRIPTS.values()
        for section in sections(kind)
        for key, field in section.model_fields.items()
        if not (field.description or "").strip()
    ]
    assert lacking == []


def test_names_in_configs_are_those_of_the_parts() -> None:
    assert set(MAP_LOSSES) == set(LOSSES)
    assert set(VAE_TYPES) == set(get_args(VaeType))
    for name in VAE_TYPES:
        # Sizes that no family can take: every name is known to the builder, and its complaint is about them.
        with pytest.raises(ValueError, match="width|channels|divisible"):
            build_autoencoder(name, AutoencoderShape((6, 7), 1, 4, 5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimiser": "Adamw"}, 'optimiser\' = "Adamw"'),
        ({"optimiser_options": {"momentum": 0.9}}, "optimiser AdamW has no option 'momentum' here; it has betas, eps"),
        ({"lr_schedule": "multistep"}, "lr_schedule multistep and lr_milestones go together"),
        ({"lr_milestones": [3]}, "lr_schedule multistep and lr_milestones go together"),
        ({"epoch_share": 0.0}, "epoch_share' = 0.0"),
        ({"max_steps": 0}, "max_steps' = 0"),
    ],
)
def test_wrong_optimisation(change: Config, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_config(SMALLEST | change, ViTTrainingConfig, "f")
