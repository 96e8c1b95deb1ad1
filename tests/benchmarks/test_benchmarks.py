"""python -m benchmarks: what it counts and times, the command at toy size, and what it makes of failures."""

from __future__ import annotations

import importlib.util
import json
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import runner
from benchmarks.__main__ import main
from benchmarks.case import measure
from benchmarks.inference import measure_growth, measure_inference
from benchmarks.measuring import (
    WHOLE,
    Effort,
    Memory,
    count,
    parameter_count,
    summarise,
    time_runs,
    weight_bytes,
)
from benchmarks.models.depth import FRAMES
from benchmarks.models.ours import OURS, VAE_CLASSES
from benchmarks.models.peers import PEERS
from benchmarks.models.sizes import PUBLISHED, TOY
from benchmarks.models.subject import Switches
from benchmarks.plan import DINOV2_DPT, ENC_DEC, Case, Settings, Training, plan
from benchmarks.records import FILE, Record, Results
from benchmarks.reporting.bars import Bar, bars
from benchmarks.reporting.report import make_page
from benchmarks.roofline import roofline_share
from Modules.d3rsmde.refiner import build_refiner
from Modules.depth.enc_dec import EncDecIRv2
from Systems.d3rsmde.build import build_model
from Systems.d3rsmde.config import DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.tasks.common import plain_config
from tests.launching import fork_server
from tests.paths import ROOT
from Utils.config.config_files import load_config

CPU = torch.device("cpu")
BRIEF = Effort(target=0.0, least=1, most=1, case=60.0, timeout=60.0)
NO_TIME = Effort(target=0.0, least=1, most=1, case=0.0, timeout=60.0)
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="benchmarks/requirements.txt is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    """Cases are forked from the tests' server, if it is there first."""
    fork_server()


def toy_case(subject: str, effort: Effort = BRIEF, **values: Any) -> Case:
    return Case(name=subject, kind="inference", subject=subject, size=32, effort=effort, scale="toy", **values)


def rows_of(case: Case) -> list[dict[str, Any]]:
    subject = (OURS | PEERS)[case.subject](TOY, case.size)
    subject.switch(case.switches)
    return list(measure_inference(case, subject, Memory(CPU)))


def test_flops_and_traffic_of_a_convolution() -> None:
    layer = nn.Conv2d(3, 8, kernel_size=3, padding=1)
    image = torch.zeros(2, 3, 16, 12)
    with torch.no_grad():
        counted = count(lambda: [layer(image).flatten(1) for _ in range(2)], {"layer": layer})
    pixels = 2 * 16 * 12
    flops = 2 * pixels * 8 * 3 * 9  # a multiplication and an addition per output, input channel and tap
    values = pixels * 3 + 8 * 3 * 9 + 8 + pixels * 8  # image, weights, bias, result; the flattening is a view
    assert counted.calls == {"layer": 2}
    assert counted.parts["layer"] == counted.whole
    assert (counted.whole.flops, counted.whole.traffic) == (2 * flops, 2 * 4 * values)


def test_times_of_parts_lie_within_the_whole() -> None:
    parts = {"first": nn.Linear(256, 256), "second": nn.Linear(256, 256)}
    x = torch.zeros(64, 256)
    runs = time_runs(lambda: parts["second"](parts["second"](parts["first"](x))), parts, CPU, repeats=3)
    assert len(runs) == 3
    for run in runs:
        assert [len(run[name]) for name in (WHOLE, "first", "second")] == [1, 1, 2]
        inside = run["first"] + run["second"]
        assert min(inside) > 0.0 and sum(inside) < run[WHOLE][0]
    assert not parts["first"]._forward_hooks and not parts["first"]._forward_pre_hooks


def test_spread_is_the_quartiles() -> None:
    found = summarise([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == {"median": 3.0, "low": 2.0, "high": 4.0, "repeats": 5}
    assert summarise([2.0, 1.0]) == {"median": 1.5, "low": 1.0, "high": 2.0, "repeats": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="only there can the peak be forgotten")
def test_memory_is_the_peak_since_the_restart() -> None:
    memory = Memory(CPU)
    size = 200_000_000
    with mmap.mmap(-1, size) as block:  # given back at once, which the allocator may be told not to do
        for page in range(0, size, mmap.PAGESIZE):
            block[page] = 1
    assert memory.peak()["peak_bytes"] >= 0.95 * size
    memory.restart()
    assert memory.peak()["peak_bytes"] < 0.5 * size


class SmallMachine(Memory):
    """A process that has reached 10 MB, on a machine that has room for 35."""

    def room(self) -> int:
        return 35_000_000

    def peak(self) -> dict[str, int]:
        return {"peak_bytes": 10_000_000}


def test_images_that_would_fill_the_memory_are_not_tried() -> None:
    subject = OURS["ours-vit"](TOY, 32)
    weights = weight_bytes(subject.networks)
    case = toy_case("any", batches=(1,)).model_copy(update={"kind": "growth", "sizes": (32, 64, 128)})
    rows = list(measure_growth(case, subject, SmallMachine(CPU)))
    needed = weights + 4 * (10_000_000 - weights)  # a side that doubles has four times the activations
    assert needed > 35_000_000
    assert [("failure" in row, row["size"]) for row in rows] == [(False, 32), (True, 64), (True, 128)]
    assert rows[1]["failure"] == f"about {needed / 1e9:.0f} GB, more than the 0 that are free"
    large = [row["size"] for row in measure_growth(case, subject, Memory(CPU)) if "failure" not in row]
    assert large == [32, 64, 128]


def test_roofline_takes_the_tighter_limit() -> None:
    rates = {"matrix_rates": {"fp32": 100.0}, "bandwidth": 10.0}
    part = {"seconds": 6.0, "flops": 300, "traffic": 10}
    assert roofline_share(part, rates, "fp32") == {"share": 0.5, "limit": "compute"}
    part = {"seconds": 5.0, "flops": 300, "traffic": 40}
    assert roofline_share(part, rates, "fp32") == {"share": 0.8, "limit": "memory"}
    # A part that keeps fp32 in a model of another format is held against what the device does in fp32.
    assert roofline_share(part | {"precision": "fp32"}, rates, "fp16") == {"share": 0.8, "limit": "memory"}


def test_steps_that_there_is_no_time_for_are_computed() -> None:
    def by_steps(effort: Effort) -> dict[int, dict[str, Any]]:
        return {row["steps"]: row for row in rows_of(toy_case("ours-AutoencoderTiny", effort, steps=(2, 1, 6)))}

    computed, real = by_steps(NO_TIME), by_steps(BRIEF)
    assert [computed[steps]["computed"] for steps in (2, 1, 6)] == [False, True, True]
    assert not any(row["computed"] for row in real.values())
    a_step = computed[2]["parts"]["U-Net"]["seconds"] / 2
    for steps, row in computed.items():
        expected = computed[2]["seconds_per_image"] + (steps - 2) * a_step
        assert row["seconds_per_image"] == pytest.approx(expected)
    (counted,) = rows_of(toy_case("ours-AutoencoderTiny", NO_TIME, steps=(6,)))
    assert computed[6]["flops"] == counted["flops"]
    assert computed[6]["traffic"] == pytest.approx(counted["traffic"], rel=0.01)  # blending lies outside the U-Net
    assert set(real[2]["parts"]) == {"ViT", "encoder", "U-Net", "decoder"}


@pytest.mark.parametrize("name", [*OURS, *(pytest.param(name, marks=needs_transformers) for name in PEERS)])
def test_every_model_draws_a_map_of_the_images_size(name: str) -> None:
    subject = (OURS | PEERS)[name](TOY, 64)
    subject.switch(Switches("bf16"))
    steps = 2 if subject.step_part else None
    with torch.no_grad():
        drawn = subject.run(torch.rand(2, 3, 64, 64), steps)
        counted = count(lambda: subject.run(torch.rand(2, 3, 64, 64), steps), subject.parts)
    assert drawn.shape == (2, 1, 64, 64) and torch.isfinite(drawn).all()
    assert set(counted.calls) == set(subject.parts)
    assert subject.step_part is None or counted.calls[subject.step_part] == 2


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == ENC_DEC else needs_transformers) for name in FRAMES]
)
def test_every_depth_network_draws_a_map_of_the_frames_size(name: str) -> None:
    subject = FRAMES[name](TOY, (64, 96))
    subject.switch(Switches("bf16"))
    with torch.no_grad():
        drawn = subject.run(torch.rand(2, 3, 64, 96), None)
        counted = count(lambda: subject.run(torch.rand(2, 3, 64, 96), None), subject.parts)
    assert drawn.shape == (2, 1, 64, 96) and torch.isfinite(drawn).all() and drawn.std() > 0.0
    assert counted.whole.flops == sum(work.flops for work in counted.parts.values()) > 0


def test_the_depth_network_of_the_frames_is_the_published_one() -> None:
    subject = FRAMES[ENC_DEC](PUBLISHED, (240, 320))
    assert parameter_count(subject.networks) == parameter_count([EncDecIRv2()]) == 31_138_753
    assert not subject.networks[0].training


@needs_transformers
def test_dinov2_s_with_a_dpt_head_is_as_large_as_its_parts() -> None:
    with torch.device("meta"):
        subject = FRAMES[DINOV2_DPT](PUBLISHED, (240, 320))
    (network,) = subject.networks
    encoder = parameter_count([network.backbone])  # type: ignore[list-item]
    # 22.06 million of dinov2_vits14, its mask token included.
    assert encoder == pytest.approx(22.06e6, rel=0.001)


@needs_transformers
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("marigold", 865.9 + 83.65),  # Stable Diffusion 2's U-Net with eight input channels, and its VAE
        ("depth-anything-small", 24.8),
        ("depth-anything-base", 97.5),
        ("depth-anything-large", 335.3),
        ("dpt-hybrid", 123.0),
        ("glpn", 61.2),
    ],
)
def test_peers_have_their_published_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        subject = PEERS[name](PUBLISHED, 384)
    # 1 %: the position table grows with the image, and papers round.
    assert parameter_count(subject.networks) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("vae_type", "millions"), [("AutoencoderKL", 83.65), ("DC_AE", 312.3), ("AutoencoderTiny", 2.445)]
)
def test_vaes_have_their_published_parameters(vae_type: Any, millions: float) -> None:
    with torch.device("meta"):
        vae = VAE_CLASSES[vae_type](**PUBLISHED.vaes[vae_type])
    assert parameter_count([vae]) / 1e6 == pytest.approx(millions, rel=0.001)


def test_the_fast_preset_is_that_of_the_configs() -> None:
    root = ROOT / "Config"
    coarse = load_config(root / "ViT" / "J_K_fast_train.json", ViTTrainingConfig).model
    config = load_config(root / "Diffusion" / "J_K_fast_train.json", DiffusionTrainingConfig)
    assert {"backbone": coarse.backbone, "features": coarse.features} == PUBLISHED.fast_coarse
    assert config.vae_type == "AutoencoderTiny"
    unet = build_model(config, VAE_CLASSES[config.vae_type](), None).unet
    ours = build_refiner(PUBLISHED.fast_refiner, 4, 6)
    assert plain_config(unet.config) == plain_config(ours.config)


def test_ways_to_train_come_to_the_same_losses() -> None:
    def losses(cached: bool, attention: Any) -> list[float]:
        training = Training(stage=2, cached=cached, attention=attention)
        effort = Effort(target=0.0, least=2, most=2, case=60.0, timeout=60.0)
        case = Case(name="t", kind="training", training=training, size=32, effort=effort, scale="toy")
        (row,) = measure(case)
        assert row["steps_per_second"] == pytest.approx(1.0 / row["seconds"]["median"])
        return row["losses"]

    slow = losses(False, "unfused")
    assert len(set(slow)) == 3  # it learns, and draws other timesteps
    # Other orders of summation, and they are multiplied by two steps of AdamW, which divides by small numbers.
    assert losses(True, "unfused") == pytest.approx(slow, rel=1e-3)
    assert losses(True, "fused") == pytest.approx(slow, rel=1e-3)


def run_toy(folder: Path, *names: str, more: tuple[str, ...] = ()) -> int:
    only = [part for name in names for part in ("--only", name)]
    return main(["--quick", "--sizes", "toy", "--size", "32", "--output", str(folder), *only, *more])


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks") / "run"
    names = ["rates", "ours-AutoencoderTiny-fp32", "train-2-*fp32*", "growth-ours-AutoencoderTiny-fp32"]
    names += ["frame-enc-dec-irv2-fp32"]
    names += ["marigold-fp32", "frame-dinov2-small-dpt-fp32"] if importlib.util.find_spec("transformers") else []
    assert run_toy(folder, *names) == 0
    return folder


def test_the_command_writes_table_numbers_and_pictures(toy_run: Path) -> None:
    results = Results.load(toy_run)
    assert [record.failure for record in results.records.values()] == [None] * len(results.records)
    assert len(results.records) >= 5
    row = results.find("ours-AutoencoderTiny-fp32", 6)
    assert row is not None and row["peak_bytes"] > row["weight_bytes"] > 0
    text = (toy_run / FILE).read_text(encoding="utf-8")
    assert str(ROOT) not in text  # nothing of this machine but what it is made of
    page = (toy_run / "report.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    (line,) = (line for line in cells if line[:2] == ["ours: AutoencoderTiny", "6"] and line[3] == "32" and line[8])
    assert line[4] == f"{row['parameters'] / 1e6:.1f}" and line[6] == f"{row['seconds_per_image']:.3g}"
    assert "kept latents alone, fp32, against encoding in every step in fp32: asked at least 3.8x, reached" in page
    for name in ("time_per_image", "roofline", "training", "growth"):
        assert f"({name}.png)" in page
        assert np.asarray(Image.open(toy_run / f"{name}.png").convert("L")).std() > 5.0


@needs_transformers
def test_depth_networks_on_frames_have_a_table(toy_run: Path) -> None:
    results = Results.load(toy_run)
    ours, theirs = (results.find(f"frame-{name}-fp32") for name in (ENC_DEC, DINOV2_DPT))
    assert ours is not None and theirs is not None and ours["size"] == [64, 96]
    page = (toy_run / "report.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    (line,) = (line for line in cells if line[0] == "DINOv2-S with a DPT head" and len(line) == 13)
    ratio = theirs["seconds_per_image"] / ours["seconds_per_image"]
    assert line[3] == f"{theirs['flops'] / 1e9:.1f}" and line[11] == f"{ratio:.2f}"
    assert "its patches are 14 pixels: an image of 64 x 96 is resized to 70 x 98" in page
    (bar,) = (bar for bar in bars(results) if "against DINOv2-S" in bar.text)
    best = [results.best(f"frame-{name}-fp32") for name in (ENC_DEC, DINOV2_DPT)]
    assert bar.reached == pytest.approx(best[1]["seconds_per_image"] / best[0]["seconds_per_image"])  # type: ignore[index]


def test_results_survive_the_file(toy_run: Path, tmp_path: Path) -> None:
    results = Results.load(toy_run)
    results.save(tmp_path)
    again = Results.load(tmp_path)
    assert again == results
    assert make_page(again, []) == make_page(results, [])


def test_resuming_runs_only_what_is_missing(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / FILE).write_bytes((toy_run / FILE).read_bytes())
    asked: list[str] = []

    def pretend(case: Case, context: object) -> Record:
        asked.append(case.name)
        return Record(case=case, rows=[], failure="not this time", wall_seconds=0.0)

    monkeypatch.setattr(runner, "run_case", pretend)
    wanted = ("rates", "ours-AutoencoderTiny-fp32", "glpn-fp32")
    for _ in range(2):  # one that failed is tried again
        assert run_toy(folder, *wanted, more=("--resume", str(folder))) == 0
    assert asked == ["glpn-fp32", "glpn-fp32"]
    assert Results.load(folder).records["rates"] == Results.load(toy_run).records["rates"]
    assert "- glpn-fp32: not this time" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_case_that_fails_is_a_line_of_the_report(tmp_path: Path) -> None:
    slow = Effort(target=600.0, least=10**6, most=10**6, case=60.0, timeout=3.0)
    cases = [toy_case("nobody"), toy_case("ours-vit", slow), toy_case("ours-fast", steps=(1,))]
    results = Results(date="2000-01-01", machine=json.loads('{"device": "cpu"}'))
    runner.run_cases(cases, results, tmp_path)
    found = {name: record.failure for name, record in Results.load(tmp_path).records.items()}
    assert found == {"nobody": "KeyError: 'nobody'", "ours-vit": "ended after 3 s, the most that a case may take",
                     "ours-fast": None}  # fmt: skip
    assert len(results.records["ours-fast"].rows) == 1


def test_a_killed_case_keeps_its_complete_rows(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"batch": 1}\n{"bat', encoding="utf-8")
    assert runner._complete_lines(lines) == ['{"batch": 1}\n']
    assert runner._why(-9, lines) == "killed by signal 9, most likely for want of memory"


def test_bars_say_by_how_much_they_are_missed() -> None:
    assert Bar("a", 4.0, "at least", 3.0).line() == "a: asked at least 4x, reached 3x, missed by 25%"
    assert Bar("a", 4.0, "at least", 4.0).line() == "a: asked at least 4x, reached 4x, met"
    assert Bar("a", 1.5, "at most", 3.0, remark="b").line() == "a: asked at most 1.5x, reached 3x, missed by 100% (b)"
    assert Bar("a", 1.5, "at most", None).line() == "a: asked at most 1.5x, not measured"


def record(name: str, kind: Any, *rows: dict[str, Any]) -> Record:
    case = Case(name=name, kind=kind, subject=name.removesuffix("-fp32"), effort=BRIEF)
    return Record(case=case, rows=[{"batch": 1, "computed": False} | row for row in rows], wall_seconds=1.0)


def test_bars_compare_what_they_say() -> None:
    encoder = {"encoder": {"seconds": 2.0}}
    records = [
        record("train-2-uncached-fp32", "training", {"steps_per_second": 0.5, "losses": [1.0, 2.0]}),
        record("train-2-cached-fp32", "training", {"steps_per_second": 2.5, "losses": [1.0, 2.2]}),
        record("ours-AutoencoderKL-fp32", "inference", {"steps": 6, "after_vit_seconds": 5.0}),
        record("ours-AutoencoderTiny-fp32", "inference",
               {"steps": 6, "seconds_per_image": 3.0, "after_vit_seconds": 2.5}),
        record("ours-fast-fp32", "inference", {"steps": 1, "seconds_per_image": 1.0}),
        record("ours-plain-AutoencoderKL-fp32", "inference", {"steps": 6, "seconds_per_image": 12.0}),
        record("depth-anything-base-fp32", "inference", {"steps": None, "seconds_per_image": 0.5}),
        record("marigold-fp32", "inference", {"steps": 1, "seconds_per_image": 5.0, "parts": encoder},
               {"steps": 50, "seconds_per_image": 102.0, "computed": True}),
    ]  # fmt: skip
    results = Results(date="", machine={"device": "cpu"}, records={r.case.name: r for r in records})
    found = bars(results)
    assert [bar.reached for bar in found] == pytest.approx(
        [5.0, 5.0, None, 12.0 / 5.0, 12.0 / 2.5, 102.0 / 3.0, (10 * 100.0 + 2.0) / 3.0, 2.0]
    )
    assert [bar.met for bar in found] == [True, False, False, True, True, True, True, False]
    assert "differ by at most 1.0e-01" in found[1].remark
    assert "computed" in found[5].remark


def test_the_plan_treats_both_sides_alike() -> None:
    cases = plan(Settings(precisions=("fp32", "bf16")))
    assert len({case.name for case in cases}) == len(cases)
    assert all(Case.model_validate_json(case.model_dump_json()) == case for case in cases)
    measured = {(case.subject, case.switches.precision) for case in cases if case.kind == "inference"}
    for subject in [*PEERS, "ours-vit", "ours-fast", "ours-AutoencoderKL", "ours-VA_VAE", "ours-DC_AE"]:
        assert {(subject, "fp32"), (subject, "bf16")} <= measured


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "nobody"], "no case is called 'nobody'"),
        (["--size", "100"], "--size 100: give a multiple of 32"),
        (["--resume", "nowhere"], "'nowhere' holds no results.json"),
    ],
)
def test_mistakes_are_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
