"""The command that lists runs: what it makes of their folders, sound, damaged and strange ones."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.launching import HANG
from tests.paths import ROOT
from Utils.training.runs import run_history
from Utils.training.runs.listing import differences, main

VIT_CONFIG = {"model": {"features": 8, "options": {"depth": 4}}, "k_folds": 0, "epochs": 3, "lr": 1e-3}
DIFFUSION_CONFIG = {"vae_type": "AutoencoderKL", "epochs": 4, "vae_epochs": 2, "lr": 1e-4}


def rows(*scores: float | None, loss: str = "L1Loss") -> list[dict[str, Any]]:
    """A log of one epoch a score, None where an epoch was not validated."""
    return [
        {"epoch": epoch, "step": 2 * epoch, "lr": 1e-3, f"train/{loss}": 1.0 / epoch, "tiles_per_second": 10.0 * epoch}
        | ({} if score is None else {"validation/paper.mae": score})
        | {"seconds": 360.0}
        for epoch, score in enumerate(scores, start=1)
    ]


def make_run(
    folder: Path, config: dict[str, Any], stages: Sequence[str], logs: dict[str, list[dict[str, Any]]] | None = None
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | {"output_dir": str(folder)}))
    (folder / "plan.json").write_text(json.dumps([{"name": name, "train": ["1"], "held_out": []} for name in stages]))
    for name, log in (logs or {}).items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log))
    return folder


def set_status(stage: Path, state: str, reason: str = "", updated: str = "2026-11-21T19:00:00+00:00") -> None:
    stage.mkdir(exist_ok=True)
    status = {"state": state, "reason": reason, "host": "node-7", "process": 1234, "updated": updated}
    (stage / "status.json").write_text(json.dumps(status))


def finished_vit(folder: Path, *scores: float | None, **changes: Any) -> Path:
    run = make_run(folder, VIT_CONFIG | changes, ["final"], {"final": rows(*scores or (9.0, 7.0, 8.0))})
    set_status(run / "final", "finished")
    (run / "model").mkdir()
    return run


def listed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listed(capsys, *arguments, "--json"))
    return found


def only(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    (run,) = facts(capsys, *arguments)
    return run


def test_real_runs_are_listed(vit_run: Path, diffusion_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_kind = {run["kind"]: run for run in facts(capsys, vit_run, diffusion_run)}
    vit, diffusion = by_kind["ViT"], by_kind["diffusion"]
    assert (vit["state"], vit["stage"], vit["epoch"], vit["epochs"]) == ("finished", "final", 1, 1)
    assert (diffusion["state"], diffusion["stage"]) == ("finished", "unet")
    assert vit["best_name"] == "validation/paper.mae" and vit["best"] > 0 and vit["hours"] > 0
    assert Path(vit["folder"]) == vit_run


def test_a_finished_run_fills_every_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_vit(tmp_path / "a" / "b", 9.0, 7.25, 8.0)
    heading, _, row = listed(capsys, tmp_path).splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (heading, row)), strict=True))
    moment = datetime.fromisoformat("2026-11-21T19:00:00+00:00").astimezone()
    assert cells == {
        "run": "a/b",
        "kind": "ViT",
        "state": "finished",
        "stage": "final 3/3",
        "best": "7.25",
        "score": "paper.mae, epoch 2",
        "updated": f"{moment:%Y-%m-%d %H:%M}",
        "tiles/s": "30",
        "hours": "0.30",
    }


def test_the_lowest_training_loss_stands_in_for_a_missing_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_vit(tmp_path / "run", None, None, None)
    run = only(capsys, tmp_path)
    assert (run["best"], run["best_name"], run["best_epoch"]) == (pytest.approx(1 / 3), "train/L1Loss", 3)
    assert "L1Loss (training loss), epoch 3" in listed(capsys, tmp_path)


def test_a_claimed_run_is_running_and_an_abandoned_one_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = {"fold-1": rows(5.0, 5.0, 5.0), "fold-2": rows(6.0)}
    run = make_run(tmp_path / "run", VIT_CONFIG, ["fold-1", "fold-2", "final"], logs)
    set_status(run / "fold-1", "finished")
    set_status(run / "fold-2", "running", updated="2026-11-21T20:00:00+00:00")
    for fold, moment in (("fold-1", 1_900_000_000), ("fold-2", 1_800_000_000)):
        os.utime(run / fold / "log.jsonl", (moment, moment))
    with FileLock(run / "fold-2" / "claim.lock"):
        found = only(capsys, tmp_path)
        assert (found["state"], found["stage"], found["epoch"], found["epochs"]) == ("running", "fold-2", 1, 3)
        # The last row of the running stage; fold-1 was finished long before, whatever date a copy gave its log.
        assert found["updated"] == "2027-01-15T08:00:00+00:00"
        assert found["best"] is None, "a fold's score is not the run's"
        assert "--resume" not in listed(capsys, tmp_path)
    assert only(capsys, tmp_path)["state"] == "killed"
    text = listed(capsys, tmp_path)
    assert "process 1234 on node-7" in text and f"python trainViT.py --resume {run}" in text


def test_a_stage_claimed_before_its_first_row_is_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", DIFFUSION_CONFIG, ["vae", "unet"])
    assert only(capsys, tmp_path)["state"] == "waiting"
    (run / "vae").mkdir()
    with FileLock(run / "vae" / "claim.lock"):
        assert only(capsys, tmp_path)["state"] == "running"


def test_a_running_stage_does_not_hide_one_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", VIT_CONFIG, ["fold-1", "fold-2", "final"])
    set_status(run / "fold-1", "failed", "a damaged tile")
    set_status(run / "fold-2", "running")
    with FileLock(run / "fold-2" / "claim.lock"):
        output = listed(capsys, tmp_path)
    assert "| running | fold-2 0/3" in output and "run running: fold-1 failed: a damaged tile" in output
    assert "--resume" not in output


@pytest.mark.skipif(sys.platform == "win32", reason="there the lock is taken and released")
def test_looking_at_a_claim_leaves_it_to_the_run(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "claim.lock")
    assert run_history.is_claimed(tmp_path) is False
    assert not (tmp_path / "claim.lock").exists(), "the file was made by looking"
    with lock:
        assert run_history.is_claimed(tmp_path) is True
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert run_history.is_claimed(tmp_path) is False
    with lock.acquire(timeout=0):  # it is free at once
        assert run_history.is_claimed(tmp_path) is True
    assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) == before, "descriptors are left open"


@pytest.mark.parametrize(
    ("state", "reason", "shown"),
    [
        ("failed", "the loss became nan in epoch 2", "the loss became nan in epoch 2"),
        ("stopped", "SIGTERM", "SIGTERM"),
        ("stopped", "", "no reason was given"),
    ],
)
def test_what_stopped_shows_why_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str, reason: str, shown: str
) -> None:
    run = make_run(tmp_path / "my run", DIFFUSION_CONFIG, ["vae", "unet"], {"vae": rows(3.0)})
    set_status(run / "vae", state, reason)
    lines = listed(capsys, tmp_path).splitlines()
    assert f"my run {state}: {shown}" in lines
    assert f"  continue: python trainDiffusion.py --resume '{run}'" in lines
    found = only(capsys, tmp_path)
    assert (found["stage"], found["epoch"], found["epochs"]) == ("vae", 1, 2)


@pytest.mark.parametrize(
    ("log", "model", "state"),  # of 3 epochs
    [(rows(3.0, 2.0, 1.0), True, "finished"), (rows(3.0, 2.0, 1.0), False, "stopped"), (rows(3.0), True, "stopped")],
)
def test_runs_of_older_versions_are_judged_by_their_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: list[dict[str, Any]], model: bool, state: str
) -> None:
    run = make_run(tmp_path / "run", VIT_CONFIG, ["final"], {"final": log})
    if model:
        (run / "model").mkdir()
    os.utime(run / "final" / "log.jsonl", (1_700_000_000, 1_700_000_000))
    found = only(capsys, tmp_path)
    assert found["state"] == state
    assert found["updated"] == "2023-11-14T22:13:20+00:00"


def test_a_finished_run_that_is_to_have_more_epochs_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_vit(tmp_path / "run", epochs=6)
    assert only(capsys, tmp_path)["state"] == "stopped"
    assert "run stopped: final was finished at epoch 3, and is to have 6 now" in listed(capsys, tmp_path)


def test_a_run_is_not_searched_for_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outer = finished_vit(tmp_path / "outer")
    finished_vit(outer / "inner")
    finished_vit(tmp_path / "deep" / "er" / "run")
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "config.json").write_text("{}")
    assert sorted(run["run"] for run in facts(capsys, tmp_path)) == ["deep/er/run", "outer"]


def test_a_run_reached_through_two_folders_is_listed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_vit(tmp_path / "run")
    assert only(capsys, tmp_path, run)["run"] == run.as_posix()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", "{", "config.json: "),
        ("config.json", "[1]", "config.json: no JSON object"),
        ("config.json", "{}", "of no kind of run"),
        ("config.json", "[" * 100_000, "nested too deeply"),
        ("config.json", b"\xff\xfe\x00", "config.json: "),
        ("plan.json", "7", "plan.json: no list of named stages"),
        ("plan.json", "[]", "plan.json: no list of named stages"),
        ("plan.json", '[{"name": "../secret"}]', "plan.json: no list of named stages"),
        ("plan.json", '[{"name": ["final"]}]', "plan.json: no list of named stages"),
        ("final/log.jsonl", '{"epoch": 1}\n{"epo', "final/log.jsonl: line 2"),
        ("final/log.jsonl", '{"epoch": "1"}', "final/log.jsonl: line 1"),
        ("final/log.jsonl", "[]", "final/log.jsonl: line 1"),
        ("final/status.json", "null", "final/status.json: "),
        ("final/status.json", '{"state": "flying"}', "final/status.json: no status"),
    ],
)
def test_one_damaged_run_does_not_stop_the_listing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, reason: str
) -> None:
    finished_vit(tmp_path / "sound")
    run = finished_vit(tmp_path / "spoilt")
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    states = {found["run"]: found for found in facts(capsys, tmp_path)}
    assert states["sound"]["state"] == "finished"
    assert states["spoilt"]["state"] == "damaged"
    assert reason in states["spoilt"]["reason"]
    assert reason in listed(capsys, tmp_path)


def test_a_pipe_in_place_of_a_log_does_not_keep_the_listing_waiting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", VIT_CONFIG, ["final"])
    (run / "final").mkdir()
    os.mkfifo(run / "final" / "log.jsonl")
    os.mkfifo(run / "final" / "claim.lock")
    assert only(capsys, tmp_path)["state"] == "waiting"


def test_numbers_that_are_none_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [
        {"epoch": 1, "validation/paper.mae": None, "seconds": "x", "tiles_per_second": True},
        {"epoch": 2, "validation/paper.mae": 10**400, "seconds": 3600.0},
        {"epoch": 3, "validation/paper.mae": 5, "tiles_per_second": float("nan")},
    ]
    run = make_run(tmp_path / "run", VIT_CONFIG | {"epochs": "many"}, ["final"], {"final": log})
    set_status(run / "final", "stopped", updated="yesterday")
    found = only(capsys, tmp_path)
    assert (found["best"], found["best_epoch"], found["hours"]) == (5.0, 3, 1.0)
    assert found["epochs"] is None and found["tiles_per_second"] is None and found["updated"] is not None
    assert "final 3/?" in listed(capsys, tmp_path)


@pytest.mark.parametrize("form", [(), ("--diff",), ("--json",), ("--csv",)])
def test_no_control_character_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: tuple[str, ...]
) -> None:
    bad = "\x1b[31m\x07\x7f\x9b\u202e\u2028\r\n"
    for number in (1, 2):
        config = VIT_CONFIG | {f"key{bad}": f"{number}{bad}", "dataset_path": f"{number}{bad}"}
        run = make_run(tmp_path / f"r{number}\x1b[2J", config, [f"st{bad}"], {f"st{bad}": rows(None, loss=f"L{bad}")})
        set_status(run / f"st{bad}", "failed", bad)
    output = listed(capsys, tmp_path, *form)
    assert "r1" in output
    assert not [character for character in output if character != "\n" and not character.isprintable()]


def test_a_name_that_is_no_unicode_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_vit(tmp_path / "plain")
    os.rename(os.fsencode(tmp_path / "plain"), os.fsencode(tmp_path) + b"/\xff\xfe")
    for form in ((), ("--json",), ("--csv",)):
        assert "finished" in listed(capsys, tmp_path, *form)


def test_sorting_and_filtering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, score, day in (("b", 9.0, 3), ("c", 5.0, 2), ("a", None, 1)):
        run = finished_vit(tmp_path / name, score, epochs=1)
        set_status(run / "final", "finished", updated=f"2026-11-0{day}T12:00:00+00:00")
    failed = make_run(tmp_path / "d", VIT_CONFIG, ["final"], {"final": rows(2.0)})
    set_status(failed / "final", "failed", "why", updated="2026-11-04T12:00:00+00:00")
    waiting = make_run(tmp_path / "e", VIT_CONFIG, ["final"])
    os.utime(waiting / "config.json", (1_700_000_000, 1_700_000_000))  # 2023

    def names(*arguments: str) -> str:
        return "".join(run["run"] for run in facts(capsys, tmp_path, *arguments))

    assert names() == names("--sort", "updated") == "dbcae"
    assert names("--sort", "best") == "dcbae"
    assert names("--sort", "name") == "abcde"
    assert names("--state", "finished", "--sort", "name") == "abc"
    assert names("--state", "failed", "--state", "waiting") == "de"
    assert "no runs of that state" in listed(capsys, tmp_path, "--state", "damaged")


def test_csv_says_what_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_vit(tmp_path / "one, two", 3.0, epochs=1)
    make_run(tmp_path / "b", DIFFUSION_CONFIG, ["unet"])
    as_json = facts(capsys, tmp_path)
    as_csv = list(csv.DictReader(io.StringIO(listed(capsys, tmp_path, "--csv"))))
    assert [list(row) for row in as_csv] == [list(row) for row in as_json]
    for one, other in zip(as_csv, as_json, strict=True):
        assert one == {key: "" if value is None else str(value) for key, value in other.items()}
    (tmp_path / "empty").mkdir()
    assert facts(capsys, tmp_path / "empty") == []
    assert listed(capsys, tmp_path / "empty", "--csv").splitlines() == [",".join(as_json[0])]


def settings(**changes: Any) -> run_history.Run:
    config = {"lr": 1e-3, "split_text": "", "model": {"features": 8, "options": {"depth": 4}}, "flips": []}
    return run_history.Run(Path(), settings=dict(run_history.flatten(config | changes)))


def test_only_what_differs_is_shown() -> None:
    model = {"features": 8, "options": {"depth": 6}}
    runs = [settings(output_dir="a"), settings(output_dir="b", model=model, flips=["vertical"], lr=0.001)]
    assert differences(runs) == {"model.options.depth": ["4", "6"], "flips": ["[]", "vertical"]}
    assert differences(runs[:1]) == {}


def test_values_that_mean_the_same_do_not_differ() -> None:
    same = [settings(split_text=["a.txt"], margin="", epochs=2), settings(split_text="a.txt", epochs=2.0)]
    assert differences(same) == {}
    lists = [settings(split_text=["a.txt", "b.txt"]), settings(split_text=["a.txt", "c.txt"])]
    assert differences(lists) == {"split_text": ['["a.txt", "b.txt"]', '["a.txt", "c.txt"]']}
    assert differences([lists[0], settings(split_text=["a.txt", "b.txt"])]) == {}
    assert differences([settings(not_split=True), settings(not_split=1)]) == {"not_split": ["true", "1"]}


def test_long_values_are_shortened_to_what_sets_them_apart() -> None:
    common = "/data/" + "very/long/" * 10
    runs = [settings(dataset_path=f"{common}{name}{'x' * 60}") for name in ("one", "two")] + [settings()]
    one, two, none = differences(runs)["dataset_path"]
    assert one.startswith("...") and "one" in one and "two" in two and none == "-"
    assert max(len(one), len(two)) <= 40
    # Cut at the same place they would look the same: then they stay whole.
    texts = ["a" + "x" * 50 + "1", "a" + "x" * 50 + "2", "b"]
    assert differences([settings(dataset_path=text) for text in texts])["dataset_path"] == texts


def test_diff_compares_exactly_the_two_runs_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (finished_vit(tmp_path / name, lr=rate) for name, rate in (("one", 0.25), ("two", 0.5)))
    finished_vit(tmp_path / "three", lr=0.75)
    output = listed(capsys, one, two, "--diff", "--sort", "name").splitlines()
    table = output[output.index("ViT runs, where their configs differ:") + 2 :]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["key", one.as_posix(), two.as_posix()]
    assert cells[2:] == [["lr", "0.25", "0.5"]]
    assert "differ" not in listed(capsys, one, two)


def test_diff_keeps_kinds_apart_and_wide_tables_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        finished_vit(tmp_path / f"vit-{number}", seed=number)
    make_run(tmp_path / "diffusion", DIFFUSION_CONFIG, ["unet"])
    output = listed(capsys, tmp_path, "--diff", "--sort", "name")
    tables = [block for block in output.split("\n\n") if block.startswith("| key")]
    assert [block.splitlines()[0].count("vit-") for block in tables] == [5, 2]
    assert "vae_type" not in output
    assert "nothing to compare" in listed(capsys, tmp_path / "diffusion", "--diff")
    assert "configs are the same" in listed(capsys, *[finished_vit(tmp_path / "x" / n) for n in "ab"], "--diff")


def test_a_folder_that_is_not_there_is_one_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        assert main([str(folder)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ") and str(folder) in line


def tree(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_mode) for path in folder.rglob("*"))


def test_a_read_only_folder_is_listed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", VIT_CONFIG, ["final"], {"final": rows(4.0)})
    set_status(run / "final", "running")
    (run / "final" / "claim.lock").write_text("")
    paths = [run / "final" / "claim.lock", run / "final", run]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = tree(tmp_path)
    try:
        assert only(capsys, tmp_path)["state"] == "killed"
        listed(capsys, tmp_path, "--diff")
        assert tree(tmp_path) == before
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


def test_no_checkpoint_is_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_vit(tmp_path / "run")
    (run / "final" / "checkpoints").mkdir()
    os.mkfifo(run / "final" / "checkpoints" / "best.safetensors")  # a reader would wait here for ever
    assert only(capsys, tmp_path)["state"] == "finished"


def test_hundreds_of_runs_are_listed_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = rows(*(float(100 - epoch) for epoch in range(50)))
    for number in range(300):
        run = make_run(tmp_path / f"run-{number}", DIFFUSION_CONFIG, ["vae", "unet"], {"vae": log, "unet": log})
        set_status(run / "unet", "running")
    started = time.perf_counter()
    found = facts(capsys, tmp_path)
    seconds = time.perf_counter() - started
    assert len(found) == 300
    # Some 0.3 s on one core; importing the networks' libraries for each would take a quarter of an hour.
    assert seconds < 60.0


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    finished_vit(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "Utils.training.runs", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0 and "| ViT    | finished | final" in done.stdout and done.stderr == ""
