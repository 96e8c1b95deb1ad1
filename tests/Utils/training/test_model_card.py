"""The card of a model says what the run knows, in the form that the hub reads, and what nobody has stated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.conftest import TRAINING_IDS
from Utils.core.errors import UserError
from Utils.training.runs.model_card import CARD_FILE, main, write_card


@pytest.fixture
def run(vit_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(vit_run, tmp_path / "run"))


def test_a_run_writes_the_card_of_its_model(vit_run: Path) -> None:
    card = ModelCard.load(vit_run / "model" / CARD_FILE)
    assert card.data.library_name == "d3-rsmde" and card.data.pipeline_tag == "depth-estimation"
    assert card.data.license is None and card.data.eval_results is None
    rows = dict(line.strip("| ").split(" | ", 1) for line in card.text.splitlines() if line.startswith("| "))
    assert rows["sensor"].startswith("not stated") and rows["licence of the data"].startswith("not stated")
    assert str(len(TRAINING_IDS)) in rows["tiles of stage final"] or "trained on" in rows["tiles of stage final"]
    assert rows["batch_size"] == "3" and rows["seed"] == "3" and rows["loss_types"] == "L1Loss"
    assert "No evaluation on test tiles is stated here." in card.text
    assert "## What it is not for" in card.text and str(vit_run.parent) not in card.content


def test_evaluations_licence_and_what_the_dataset_says_are_taken_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "data"
    dataset.mkdir()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps(config | {"dataset_path": str(dataset)}), encoding="utf-8")
    about = {"sensor": "Pleiades | RGB", "ground_resolution": "0.5 m", "licence": "CC BY 4.0"}
    (dataset / "about.json").write_text(json.dumps(about), encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    found = {"mean": 12.5, "standard_error": 0.75, "count": 3}
    summary = {"coarse": {"paper.mae": found}, "VAE ceiling": {"paper.mae": found | {"mean": 1.0}}}
    document = {"tiles": 3, "protocols": {"paper": "stretched"}, "summary": summary}
    (results / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["--run", str(run), "--results", str(results), "--licence", "apache-2.0"]) == 0
    card = ModelCard.load(run / "model" / CARD_FILE)
    assert card.data.license == "apache-2.0"
    (scored,) = card.data.eval_results or []  # what stands beside the model is not its own
    assert (scored.metric_type, scored.metric_value, scored.dataset_name) == (
        "paper.mae",
        12.5,
        f"{tmp_path.name}/data",
    )
    assert "| coarse | paper.mae | 12.5 | 0.75 | 3 |" in card.text and "- paper: stretched" in card.text
    assert "| sensor | Pleiades \\| RGB |" in card.text and "| licence of the data | CC BY 4.0 |" in card.text
    (dataset / "about.json").write_text('{"colour": "red"}', encoding="utf-8")
    assert main(["--run", str(run)]) == 2
    assert "'colour' is no key of it" in capsys.readouterr().err


def test_a_run_without_a_model_has_no_card(run: Path) -> None:
    shutil.rmtree(run / "model")
    with pytest.raises(UserError, match="holds no finished model"):
        write_card(run)
