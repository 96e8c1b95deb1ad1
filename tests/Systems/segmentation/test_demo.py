"""``make demo-segmentation``, with the shipped configs, on a few tiles and for two steps; and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from Systems.segmentation import ablation, demo
from Systems.segmentation.ablation_plan import SELF_TRAINED, VARIANTS
from Systems.segmentation.ablation_table import Row, ablation_text
from Systems.segmentation.config import SegmentationTrainingConfig
from Utils.config.config_files import load_config
from Utils.synthetic.land_cover import BUILDING, CLASSES, ROAD, SOURCE, TARGET, make_land_cover

KEPT = ("image", "true", "shuffled")


def test_the_demo_ends_with_a_table_pictures_and_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "Config"
    configs.mkdir()
    for path in (demo.CONFIGS / f"segmentation_{step}.json" for step in ("train", "evaluate")):
        config = json.loads(path.read_text(encoding="utf-8")) | {"batch_size": 2}
        if "max_steps" in config:
            config |= {"max_steps": 2, "warmup_steps": 1, "validate_every": 1}
            config["model"] |= {"channels": 8}
            config["augmentation"] |= {"crop": 32}
        (configs / path.name).write_text(json.dumps(config), encoding="utf-8")
    for name, value in (("CONFIGS", configs), ("TRAIN_TILES", 2), ("VALIDATION_TILES", 2), ("SIZE", 48), ("SEEDS", 1)):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "SCENE", (48, 64))
    kept = tuple(variant for variant in VARIANTS if variant.name in KEPT)
    monkeypatch.setattr(demo, "VARIANTS", kept)
    # Several processes would import torch anew, which takes longer than all the rest.
    monkeypatch.setattr(ablation, "can_train_together", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert "about 0:00 left" in said
    for row in ("| image alone ", "| image and relative depth ", "| control: maps of other tiles "):
        assert row in said
    assert "image and relative depth against image alone: " in said
    named = re.findall(r"(?:results|output)/[\w/.-]+\w", said.rpartition("===")[2])
    assert len(named) == 6 and all((tmp_path / name).exists() for name in named), named
    results = tmp_path / "results/Demo/segmentation"
    assert len(list((results / "pictures").glob("Coast-*.png"))) == 2
    scores = [json.loads((results / "scores" / f"{name}_5" / "metrics.json").read_text()) for name in KEPT]
    assert [score["domain"] for score in scores] == ["target"] * 3
    assert [score["depth_source"] for score in scores] == ["no map", "true", "shuffled"]
    assert scores[1]["parameters"] == scores[2]["parameters"] > scores[0]["parameters"]


def test_heights_are_of_both_domains_and_colours_are_not() -> None:
    places = {domain: make_land_cover(domain, (96, 96), np.random.default_rng(3)) for domain in (SOURCE, TARGET)}
    source, target = places[SOURCE], places[TARGET]
    # The colours draw further numbers, the ground does not.
    assert np.array_equal(source.labels, target.labels) and np.array_equal(source.heights, target.heights)
    assert len(np.unique(source.labels)) >= 4 and source.labels.max() < len(CLASSES)

    def colours(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array([np.median(image[labels == number], axis=0) for number in (BUILDING, ROAD)])

    roof, road = colours(source.image, source.labels)
    assert np.abs(roof - road).max() > 0.1
    roof, road = colours(target.image, target.labels)
    assert np.abs(roof - road).max() < 0.05


def test_the_table_says_what_lies_beyond_the_spread() -> None:
    def row(name: str, control: bool, *miou: float) -> Row:
        return Row(name, name, control, miou, miou, {"road": 0.5}, 1000)

    rows = [row("image", False, 0.50, 0.54), row("true", False, 0.60, 0.70), row("shuffled", True, 0.53, 0.61)]
    text = ablation_text(rows, [0, 1])
    assert "seen images of the target" not in text
    assert "| true " in text and "65.00 ± 7.07" in text and "1,000" in text
    assert "true against image: +13.00 points, beyond the spread" in text
    assert "true against shuffled: +8.00 points, within the spread" in text
    assert "shuffled against image: +5.00 points, within the spread" in text
    taught = [row("image_taught", False, 0.40, 0.48), row("true_taught", False, 0.66, 0.72)]
    text = ablation_text([*rows, *taught], [0, 1])
    assert "Self-trained rows have seen images of the target, without labels" in text
    assert "image_taught against image: -8.00 points, below it, beyond the spread" in text
    assert "true_taught against true: +4.00 points, within the spread" in text
    assert "true_taught against image_taught: +25.00 points, beyond the spread" in text


def test_only_rows_that_are_named_so_learn_from_images_of_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_images, without = (demo.CONFIGS / f"segmentation_{name}train.json" for name in ("self_training_", ""))
    for variant in (*VARIANTS, *SELF_TRAINED):
        changes = [f"{key}={json.dumps(value)}" for key, value in variant.changes.items()]
        found = load_config(with_images, SegmentationTrainingConfig, changes)
        assert (found.self_training is not None) is (variant in SELF_TRAINED)
        assert found.ema_decay, "the control of self-training has the averaged weights too"
    said = ["--evaluate", str(demo.CONFIGS / "segmentation_evaluate.json"), "--output", str(tmp_path / "out")]
    assert ablation.main(["--train", str(without), *said, "--variants", "true_taught"]) == 2
    assert "has no self_training" in capsys.readouterr().err and not (tmp_path / "out").exists()
