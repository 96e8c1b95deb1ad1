"""``make demo-stereo``: synthetic towns and terrain from several views, small networks, controls, and a DSM.

python -m Systems.stereo.demo [--seed 0]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from Utils.core.side_by_side import Job
from Utils.core.step_progress import Step
from Utils.data.stereo.view_files import CameraKind
from Utils.training.demo_steps import DemoSteps, can_train_together, demo_script

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_SCENES, TEST_SCENES, VIEWS = 200, 12, 3
SIZE = (96, 96)
SATELLITE_SIZE = (256, 256)
WORKERS: int | None = None  # processes that make scenes: one a core
INTERVAL = 0.14  # metres, which RPCs do not say
_AERIAL, _SATELLITE, _IMAGES = "aerial", "satellite", "images"
_DATA, _DSM = "data", "a DSM"
_RELATIVE, _SHUFFLED, _CONSTANT = "depthAnything", "depthAnything_shuffled", "depthAnything_constant"


@dataclass(frozen=True)
class Method:
    """A network of the demo, as it is trained and scored.

    Attributes:
        name: its folder, and its step.
        title: its row in the table.
        changes: config keys of training in which it differs.
        maps: folder of the relative depth maps that it is trained with; None for none.
        satellite: whether it learns heights with RPCs.
        seconds: rough time of its training on one of two quiet cores.
    """

    name: str
    title: str
    changes: Mapping[str, object] = field(default_factory=dict)
    maps: str | None = None
    satellite: bool = False
    seconds: float = 145.0


_GUIDED_TITLE = "relative depth, ours (guided)"
METHODS = (
    Method("plain", "plain"),
    Method("guided", _GUIDED_TITLE, {"model.relative_depth": "guided"}, _RELATIVE, seconds=165),
    Method(
        "shuffled", "control: guided by other scenes' maps", {"model.relative_depth": "guided"}, _SHUFFLED, seconds=165
    ),
    Method(
        "published",
        "relative depth, published fusion",
        {"model.relative_depth": "concatenated"},
        _RELATIVE,
        seconds=255,
    ),
    Method("satellite", _GUIDED_TITLE, {"model.relative_depth": "guided"}, _RELATIVE, satellite=True, seconds=165),
)
# Scored beside them, without a training: what the guided network does with maps that say nothing.
_FLAT = "constant"
_STEPS = (
    Step(_DATA, 270),
    *(Step(method.name, method.seconds / 2) for method in METHODS),
    *(Step(f"evaluate {method.name}", 12) for method in METHODS),
    Step(f"evaluate {_FLAT}", 10),
    Step(_DSM, 25),
)


def run_demo(seed: int) -> None:
    """Make the data and run the scripts with the demo's configs.

    Args:
        seed: seed of the scenes and of all training.

    Raises:
        UserError: a script failed; it has said why.
    """
    from Utils.synthetic.satellite_images import TRUTH, write_satellite_images
    from Utils.synthetic.stereo_dataset import write_dataset

    steps = DemoSteps(_STEPS)
    training, evaluation = (_read(name) for name in ("stereo_train", "stereo_evaluate"))
    data = Path(training["dataset_path"]).parent
    runs, results = Path(training["output_dir"]).parent, Path(evaluation["output_dir"]).parent
    for folder in (data, runs, results):
        shutil.rmtree(folder, ignore_errors=True)
    counts = f"{TRAIN_SCENES} training and {TEST_SCENES} test scenes of {VIEWS} views"
    steps.begin(_DATA, f"data: {counts}, towns and terrain, with pinhole cameras and with RPCs; no scene in both parts")
    kinds: dict[str, CameraKind] = {_AERIAL: "pinhole", _SATELLITE: "rpc"}
    for name, cameras in kinds.items():
        write_dataset(data / name, TRAIN_SCENES, TEST_SCENES, VIEWS, SIZE, seed, workers=WORKERS, cameras=cameras)
    (data / _IMAGES).mkdir()
    images = write_satellite_images(data / _IMAGES, SATELLITE_SIZE, seed + 1000)
    _train(steps, [(method, _training(method, data, runs, seed)) for method in METHODS])
    for method in METHODS:
        where = ", heights with RPCs" if method.satellite else ""
        steps.begin(f"evaluate {method.name}", f"the test scenes: {method.title}{where}")
        steps.call("evaluateStereo", _evaluation(method, method.maps, data, runs, results / method.name, seed))
    guided = next(method for method in METHODS if method.name == "guided")
    steps.begin(f"evaluate {_FLAT}", "the test scenes: the guided network with maps of one grey")
    steps.call("evaluateStereo", _evaluation(guided, _CONSTANT, data, runs, results / _FLAT, seed))
    steps.begin(_DSM, "a height raster from three satellite images with RPCs, by the sweep")
    dsm, scores = results / "dsm.tif", results / "dsm"
    steps.call("predictStereo", ["--images", *images, "--output", dsm, "--preview", "--report"])
    truth = ["--prediction", dsm, "--truth", data / _IMAGES / TRUTH, "--output", scores, "--no-reference"]
    steps.call("evaluateScene", truth)
    steps.progress.finish()

    from Systems.stereo.demo_table import write_demo_table

    titles = {method.name: method.title for method in METHODS if not method.satellite}
    titles[_FLAT] = "control: guided by constant maps (in the test only)"
    table = write_demo_table(results / "controls.md", results, titles, ("satellite", _GUIDED_TITLE))
    print(f"\n{table}")
    print(
        f"\n=== {steps.progress.line()}\n"
        f"table above        {results / 'controls.md'}\n"
        f"report, plain      {results / 'plain' / 'report.html'}\n"
        f"overview, guided   {results / 'guided' / 'overview.png'}\n"
        f"height raster      {dsm}, {dsm.with_suffix('.png')}\n"
        f"its scores         {scores}\n"
        f"trained models     {runs / 'guided' / 'model'}, {runs / 'satellite' / 'model'}"
    )


def _train(steps: DemoSteps, jobs: Sequence[tuple[Method, list[object]]]) -> None:
    """Train all networks: as many side by side as there are cores."""
    titles = ", ".join(dict.fromkeys(method.title for method, _ in jobs))
    if can_train_together():
        steps.begin(jobs[0][0].name, f"the networks: {titles}")
        script = ROOT / "trainStereo.py"
        # The longest first, so that none is left alone at the end.
        ordered = sorted(jobs, key=lambda job: -job[0].seconds)
        steps.run_together([Job([script, *arguments], step=method.name) for method, arguments in ordered])
        return
    for method, arguments in jobs:
        steps.begin(method.name, f"training: {method.title}")
        with steps.following_epochs(method.name):
            steps.call("trainStereo", arguments)


def _training(method: Method, data: Path, runs: Path, seed: int) -> list[object]:
    """Arguments of trainStereo.py."""
    changes: dict[str, object] = dict(method.changes)
    if method.maps is not None:
        changes["relative_depth_folder"] = method.maps
    return _arguments("stereo_train", changes | _place(method, data) | {"output_dir": runs / method.name, "seed": seed})


def _evaluation(method: Method, maps: str | None, data: Path, runs: Path, results: Path, seed: int) -> list[object]:
    """Arguments of evaluateStereo.py, with the relative depth maps of a folder."""
    changes: dict[str, object] = {"output_dir": results, "checkpoint_path": runs / method.name, "seed": seed}
    if maps is not None:
        changes["relative_depth_folder"] = maps
    if method.name not in ("plain", "satellite"):
        changes["baselines"] = []  # they were scored beside the plain network
    return _arguments("stereo_evaluate", changes | _place(method, data))


def _place(method: Method, data: Path) -> dict[str, object]:
    if method.satellite:
        return {"dataset_path": data / _SATELLITE, "interval": INTERVAL}
    return {"dataset_path": data / _AERIAL}


def _read(config: str) -> dict[str, str]:
    read: dict[str, str] = json.loads((CONFIGS / f"{config}.json").read_text(encoding="utf-8"))
    return read


def _arguments(config: str, changes: Mapping[str, object]) -> list[object]:
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value, default=str)}")]
    return ["--config", CONFIGS / f"{config}.json", *settings]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    return demo_script(arguments, "Systems.stereo.demo", "train and score stereo networks on toy scenes", run_demo)


if __name__ == "__main__":
    raise SystemExit(main())
