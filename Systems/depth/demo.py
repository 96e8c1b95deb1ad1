"""``make demo-depth``: synthetic rooms and streets, a small network in metres, and two controls that know nothing.

python -m Systems.depth.demo [--seed 0]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from Utils.core.side_by_side import Job
from Utils.core.step_progress import Step
from Utils.training.demo_steps import DemoSteps, can_train_together, demo_script

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_SCENES, TEST_SCENES, FRAMES = 160, 40, 3
FRAME_SIZE = (64, 96)
_CONFIGS = ("depth_train", "depth_evaluate")
_DATA, _NETWORK, _SHUFFLED = "data", "network", "shuffled"
# In the order in which they run; the two trainings side by side.
_STEPS = (
    Step(_DATA, 8),
    Step(_NETWORK, 110),
    Step(_SHUFFLED, 110),
    Step("evaluateDepth", 10),
    Step("evaluateDepth, shuffled", 5),
)


def run_demo(seed: int) -> None:
    """Make the data and run the scripts with the demo's configs.

    Args:
        seed: seed of the scenes and of all training.

    Raises:
        UserError: a script failed; it has said why.
    """
    from Utils.synthetic.depth_frames import SHUFFLED, write_dataset  # imports scipy, which --help does not need

    steps = DemoSteps(_STEPS)
    training, evaluation = (json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for name in _CONFIGS)
    table, run, results = (Path(training["dataset_path"]), Path(training["output_dir"]), Path(evaluation["output_dir"]))
    shuffled_run, shuffled_results = (path.with_name(f"{path.name}_shuffled") for path in (run, results))
    for folder in (table.parent, run, results, shuffled_run, shuffled_results):
        shutil.rmtree(folder, ignore_errors=True)
    count = f"{TRAIN_SCENES * FRAMES} training and {TEST_SCENES * FRAMES} test frames"
    steps.begin(_DATA, f"data: {count} of synthetic rooms and streets, no scene in both")
    write_dataset(table.parent, TRAIN_SCENES, TEST_SCENES, FRAMES, FRAME_SIZE, seed)
    network = _arguments("depth_train", seed)
    control = [*network, *_settings(dataset_path=table.with_name(SHUFFLED), output_dir=shuffled_run)]
    steps.begin(_NETWORK, "the network; beside it the same, trained with the depth of other scenes")
    _train(steps, network, control)
    steps.begin("evaluateDepth", "the test frames, beside the mean of the training frames")
    steps.call("evaluateDepth", _arguments("depth_evaluate", seed))
    steps.begin("evaluateDepth, shuffled", "the test frames by the network with shuffled truths")
    changes = _settings(checkpoint_path=shuffled_run, output_dir=shuffled_results, controls=[])
    steps.call("evaluateDepth", [*_arguments("depth_evaluate", seed), *changes])
    steps.progress.finish()

    from Systems.depth.control_table import write_control_table

    written = results / "controls.md"
    print(f"\n{write_control_table(written, results, shuffled_results, table)}")
    print(
        f"\n=== {steps.progress.line()}\n"
        f"overview picture   {results / 'overview.png'}\n"
        f"every picture      {results / 'pictures'}\n"
        f"table above        {written}\n"
        f"table, per frame   {results / 'table.md'}, {results / 'tiles.csv'}\n"
        f"report             {results / 'report.html'}\n"
        f"trained model      {run / 'model'}"
    )


def _train(steps: DemoSteps, network: Sequence[object], control: Sequence[object]) -> None:
    """Train both networks: side by side where there are cores for it."""
    if can_train_together():
        script = ROOT / "trainDepth.py"
        steps.run_together([Job([script, *network], step=_NETWORK), Job([script, *control], step=_SHUFFLED)])
        return
    for step, arguments in ((_NETWORK, network), (_SHUFFLED, control)):
        with steps.following_epochs(step):
            steps.call("trainDepth", arguments)


def _arguments(config: str, seed: int) -> list[object]:
    return ["--config", CONFIGS / f"{config}.json", *_settings(seed=seed)]


def _settings(**changes: object) -> list[object]:
    return [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value, default=str)}")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    return demo_script(arguments, "Systems.depth.demo", "train and score a depth network on toy scenes", run_demo)


if __name__ == "__main__":
    raise SystemExit(main())
