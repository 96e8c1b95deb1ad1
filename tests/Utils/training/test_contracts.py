"""The loop with a task of another system: classes, nested samples, BatchNorm, groups, a score that is to be high."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.launching import launch, shown
from tests.Utils.training.test_optimisation import PLAIN
from tests.Utils.training.test_training import assert_same_state
from Utils.core.errors import UserError
from Utils.data.dataset import SampleDataset
from Utils.data.sample import Batch, Kind, Kinds, Sample
from Utils.pictures.comparison import Panel
from Utils.scoring.labels import LabelScorer
from Utils.scoring.scores import Scorer
from Utils.training.checkpoint import load_checkpoint
from Utils.training.loop import LoopSettings, fit
from Utils.training.run_files import LOG_FILE, best_checkpoint, last_checkpoint
from Utils.training.statistics import RunningStatistics
from Utils.training.task import Monitor, ParameterGroup, View

CLASSES = ("low", "high")
SETTINGS = LoopSettings(
    **asdict(replace(PLAIN, lr=0.05, weight_decay=0.01)),
    epochs=2,
    max_steps=None,
    epoch_share=1.0,
    batch_size=3,
    accumulate=1,
    seed=1,
    num_workers=0,
    save_n_epoch=0,
    save_i_epoch=(),
    save_minutes=0.0,
    validate_every=1,
)


class Fields(SampleDataset):
    """Noise whose bright pixels are of class 1; the image lies in a nested entry, as views do."""

    poisoned: str = ""

    @property
    def read_kinds(self) -> Kinds:
        return {"views": {"image": Kind.IMAGE}, "label": Kind.LABEL, "id": Kind.TEXT}

    def read(self, sample_id: str) -> Sample:
        image = torch.from_numpy(np.random.default_rng(int(sample_id)).random((1, 8, 8), dtype=np.float32))
        if sample_id == self.poisoned:
            image[0, 0, 0] = math.nan
        return {"views": {"image": image}, "label": (image[0] > 0.5).long(), "id": sample_id}


class ClassTask:
    """Classes of pixels from a network with a BatchNorm."""

    name = "classes"
    loss_name = "cross_entropy"
    monitor = Monitor("pooled.miou", lower_is_better=False)
    scorer: Scorer = LabelScorer(CLASSES)

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network: nn.Module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
        )

    def architecture(self) -> Mapping[str, Any]:
        return {"classes": list(CLASSES)}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        body, head = list(self.network[:3].parameters()), list(self.network[3:].parameters())
        return [ParameterGroup(body, lr_scale=0.1, weight_decay=0.0), ParameterGroup(head)]

    def to(self, device: torch.device) -> None:
        self.network.to(device)

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        return functional.cross_entropy(self.predict(batch), batch["label"])

    def predict(self, batch: Batch) -> Tensor:
        scores: Tensor = self.network(batch["views"]["image"])
        return scores

    def panels(self, batch: Batch) -> Sequence[View]:
        drawn = self.predict(batch).argmax(dim=1)
        return [
            View(name, [Panel("classes", drawn[place].numpy() * 255.0, "height")])
            for place, name in enumerate(batch["id"])
        ]


TRAIN, VALIDATION = [str(number) for number in range(7)], ["20", "21"]


def train(folder: Path, task: ClassTask | None = None, **changes: Any) -> ClassTask:
    task = task or ClassTask()
    fit(task, Fields(TRAIN), Fields(VALIDATION), replace(SETTINGS, **changes), folder)
    return task


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]


def test_best_is_the_highest_score_where_higher_is_better(tmp_path: Path) -> None:
    train(tmp_path, epochs=12, lr=0.3)
    scores = [row["validation/pooled.miou"] for row in rows(tmp_path)]
    progress = load_checkpoint(best_checkpoint(tmp_path)).progress
    assert progress.best == max(scores) and progress.best_epoch == scores.index(max(scores)) + 1
    assert max(scores) > 0.6 > min(scores), "something was learnt"


def test_the_plateau_waits_for_a_higher_score(tmp_path: Path) -> None:
    """A network that does not move keeps its score; one that is asked to fall would seem to improve never."""
    train(tmp_path, lr=1e-12, weight_decay=0.0, epochs=5, threshold_epoch=2)
    assert [row["lr"] for row in rows(tmp_path)] == [pytest.approx(1e-13)] * 5, "below torch's least change"
    train(tmp_path / "steep", lr=1e-5, weight_decay=0.0, epochs=5, threshold_epoch=2)
    scores = [row["validation/pooled.miou"] for row in rows(tmp_path / "steep")]
    rate, best, bad, expected = 1e-6, -math.inf, 0, []
    for score in scores:
        expected.append(rate)
        bad = 0 if score > best * (1 + 1e-4) else bad + 1
        best = max(best, score)
        if bad == 2:
            rate, bad = rate * 0.5, 0
    assert [row["lr"] for row in rows(tmp_path / "steep")] == pytest.approx(expected)


def test_groups_have_rates_and_decays_of_their_own(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    body, head = load_checkpoint(last_checkpoint(tmp_path)).progress.groups
    assert (body["lr"], head["lr"]) == (pytest.approx(0.005), pytest.approx(0.05))
    assert (body["weight_decay"], head["weight_decay"]) == (0.0, 0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "Adam", "optimiser_options": {"amsgrad": True}, "lr_schedule": "linear"},
        {"optimiser": "SGD", "optimiser_options": {"momentum": 0.9}, "lr_schedule": "polynomial", "warmup_steps": 4},
        {"optimiser": "RMSprop", "lr_schedule": "multistep", "lr_milestones": (1, 3), "ema_decay": 0.8},
        {"lr_schedule": "cosine", "ema_decay": 0.9, "epoch_share": 0.6, "accumulate": 2},
    ],
    ids=lambda changes: f"{changes.get('optimiser', 'AdamW')}, {changes['lr_schedule']}" if changes else "",
)
def test_every_optimiser_and_schedule_resumes_exactly(changes: dict[str, Any], precision: str, tmp_path: Path) -> None:
    """BatchNorm's running statistics and their average included; the parted run stops within an epoch."""
    changes = {**changes, "precision": precision, "epochs": 4}
    train(tmp_path / "whole", **changes)

    class Interrupted(Exception):
        pass

    class Fragile(ClassTask):
        calls = 0

        def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
            self.calls += 1
            if self.calls == 5:
                raise Interrupted
            return super().loss(batch, generators)

    # With so short an interval every step is saved.
    with pytest.raises(Interrupted):
        train(tmp_path / "parted", Fragile(), **changes, save_minutes=1e-9)
    train(tmp_path / "parted", ClassTask(seed=5), **changes)
    assert_same_state(tmp_path / "whole", tmp_path / "parted")
    first, second = (load_checkpoint(best_checkpoint(tmp_path / name)) for name in ("whole", "parted"))
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


RATES = {
    "linear": lambda step: 1 - step / 12,
    "linear_by_epoch": lambda step: 1 - (step // 3) / 4,
    "polynomial": lambda step: (1 - step / 12) ** 0.9,
    "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / 12)),
    "multistep": lambda step: 0.5 ** ((step >= 3) + (step >= 9)),
}


@pytest.mark.parametrize("schedule", RATES)
def test_rates_follow_their_formula(schedule: str, tmp_path: Path) -> None:
    milestones = (1, 3) if schedule == "multistep" else ()
    train(tmp_path, lr_schedule=schedule, lr_milestones=milestones, epochs=4)
    # The log tells the first group's rate in the last of an epoch's three steps.
    expected = [0.005 * RATES[schedule](step) for step in (2, 5, 8, 11)]
    assert [row["lr"] for row in rows(tmp_path)] == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "epochs"), [(2, 1), (3, 1), (7, 3)])
def test_a_run_of_so_many_steps(steps: int, epochs: int, tmp_path: Path) -> None:
    """Three steps an epoch; the last epoch is as long as it has to be, and is validated."""
    train(tmp_path, max_steps=steps, epochs=50)
    found = rows(tmp_path)
    assert [row["epoch"] for row in found] == list(range(1, epochs + 1))
    assert found[-1]["step"] == steps and "validation/pooled.miou" in found[-1]
    train(tmp_path, max_steps=steps, epochs=50)
    assert rows(tmp_path) == found, "a finished run is left as it is"


def test_a_run_that_ended_within_an_epoch_goes_on_within_it(tmp_path: Path) -> None:
    """2 + 3 steps equal 5, with the epoch's row written anew."""
    train(tmp_path / "whole", max_steps=5)
    train(tmp_path / "parted", max_steps=2)
    assert [(row["epoch"], row["step"]) for row in rows(tmp_path / "parted")] == [(1, 2)]
    train(tmp_path / "parted", ClassTask(seed=9), max_steps=5)
    assert [(row["epoch"], row["step"]) for row in rows(tmp_path / "parted")] == [(1, 3), (2, 5)]
    first, second = (load_checkpoint(last_checkpoint(tmp_path / name)) for name in ("whole", "parted"))
    assert all(torch.equal(value, second.network[name]) for name, value in first.network.items())


def test_an_epoch_takes_a_share_of_the_tiles_another_one_each_time(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watched(ClassTask):
        def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
            seen.extend(batch["id"])
            return super().loss(batch, generators)

    train(tmp_path / "one", Watched(), epoch_share=0.6, epochs=8)
    epochs = [seen[start : start + 4] for start in range(0, len(seen), 4)]
    assert len(epochs) == 8 and all(len(set(epoch)) == 4 for epoch in epochs), "round(0.6 x 7) tiles, each once"
    assert len({tuple(sorted(epoch)) for epoch in epochs}) > 1 and set(seen) == set(TRAIN)
    first = list(seen)
    seen.clear()
    train(tmp_path / "two", Watched(), epoch_share=0.6, epochs=8)
    assert seen == first, "the seed draws them"


def test_the_search_for_a_bad_tile_moves_no_running_statistics(tmp_path: Path) -> None:
    task, data = ClassTask(), Fields(TRAIN)
    data.poisoned = "4"
    with pytest.raises(UserError, match=r"the loss became nan in epoch 1 on tile 4; look at these tiles"):
        fit(task, data, Fields(VALIDATION), replace(SETTINGS, batch_size=7), tmp_path)
    fresh = ClassTask().network.state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in task.network.state_dict().items())


def test_the_average_holds_running_statistics(tmp_path: Path) -> None:
    train(tmp_path, ema_decay=0.9, epochs=3)
    checkpoint = load_checkpoint(last_checkpoint(tmp_path))
    names = {"1.running_mean", "1.running_var"}
    assert names <= checkpoint.average.keys() and "1.num_batches_tracked" not in checkpoint.average
    assert all(not torch.equal(checkpoint.average[name], checkpoint.network[name]) for name in names)
    assert all(torch.equal(checkpoint.weights[name], checkpoint.average[name]) for name in names)


def test_statistics_can_be_kept_still() -> None:
    network = ClassTask().network.train()
    statistics = RunningStatistics(network)
    before = statistics.copy()
    with statistics.still():
        network(torch.rand(2, 1, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(before, statistics.copy(), strict=True))
    assert network[1].training
    network(torch.rand(2, 1, 8, 8))
    assert not torch.equal(before[0], statistics.copy()[0])
    statistics.put(before)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics.copy(), strict=True))
    assert not RunningStatistics(nn.Linear(2, 2)).exist


SHARED = """
import sys, torch
from pathlib import Path
from tests.Utils.training.test_contracts import ClassTask, train
from Utils.core.processes import gather

torch.set_num_threads(1)
folder = Path(sys.argv[1])
task = ClassTask()
train(folder, task, epochs=1, batch_size=4)
statistics = [task.network[1].running_mean.tolist(), task.network[1].running_var.tolist()]
one, other = gather([statistics])
assert one == other, (one, other)
"""


def test_processes_share_their_running_statistics(tmp_path: Path) -> None:
    """Each normalises by its part of a batch; evaluation uses the same in all, nearly that of one process."""
    script = tmp_path / "shared.py"
    script.write_text(SHARED, encoding="utf-8")
    done = launch(2, [script, tmp_path / "two"])
    assert done.returncode == 0, shown(done)
    assert "BatchNorm: each process normalises by its own part" in done.stderr
    train(tmp_path / "one", epochs=1, batch_size=4)
    one, two = (load_checkpoint(last_checkpoint(tmp_path / name)).network for name in ("one", "two"))
    torch.testing.assert_close(one["1.running_mean"], two["1.running_mean"], atol=0.02, rtol=0.1)
    torch.testing.assert_close(one["1.running_var"], two["1.running_var"], atol=0.05, rtol=0.1)
