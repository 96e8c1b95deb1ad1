"""``make demo-mars``: made-up HiRISE products, tiles, a small GLPN beside controls, an image drawn, tied and scored.

python -m Systems.mars.demo [--seed 0]
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
PAIRS, SIZE, REPEATS = 30, (256, 256), 2
TILE, STEP = 64, 48
TEST_SHARE, VALIDATION_SHARE = "0.3", "0.1"
# Cells of the coarse DTM that the drawn scene is tied to, as MOLA, HRSC or CTX would be: pixels of the fine one.
COARSER = 16
_CONFIGS = ("mars_train", "mars_evaluate")
_DATA, _TILES, _NETWORK, _SHUFFLED = "data", "prepareMars", "network", "shuffled"
_STEPS = (
    Step(_DATA, 8),
    Step(_TILES, 25),
    Step(_NETWORK, 120),
    Step(_SHUFFLED, 120),
    Step("evaluateDepth", 20),
    Step("evaluateDepth, shuffled", 15),
    Step("predict", 10),
    Step("evaluateScene", 10),
)


def run_demo(seed: int) -> None:
    """Make the data and run the scripts with the demo's configs.

    Args:
        seed: seed of the products, of their division and of all training.

    Raises:
        UserError: a script failed; it has said why.
    """
    from Systems.mars.demo_data import SHUFFLED, product_to_draw, write_coarse, write_shuffled
    from Utils.synthetic.mars_products import plan_pairs, write_products

    steps = DemoSteps(_STEPS)
    training, evaluation = (json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for name in _CONFIGS)
    table, run, results = (Path(training["dataset_path"]), Path(training["output_dir"]), Path(evaluation["output_dir"]))
    shuffled_run, shuffled_results = (path.with_name(f"{path.name}_shuffled") for path in (run, results))
    products = table.parent.with_name(f"{table.parent.name}Products")
    for folder in (products, table.parent, run, results, shuffled_run, shuffled_results):
        shutil.rmtree(folder, ignore_errors=True)
    steps.begin(_DATA, f"data: {PAIRS + REPEATS} made-up HiRISE products, {REPEATS} of them of the ground of others")
    write_products(products, plan_pairs(PAIRS, SIZE, seed, REPEATS))
    steps.begin(_TILES, "products to tiles, divided by footprint")
    cut = ["--size", TILE, "--step", STEP, "--test", TEST_SHARE, "--validation", VALIDATION_SHARE, "--seed", seed]
    steps.call("prepareMars", ["--products", products, "--output", table.parent, *cut])
    write_shuffled(table)

    network = _arguments("mars_train", seed)
    control = [*network, *_settings(dataset_path=table.with_name(SHUFFLED), output_dir=shuffled_run)]
    steps.begin(_NETWORK, "the network; beside it the same, trained with the heights of other scenes")
    _train(steps, network, control)
    steps.begin("evaluateDepth", "the test tiles, beside shape from shading, means and planes")
    steps.call("evaluateDepth", _arguments("mars_evaluate", seed))
    steps.begin("evaluateDepth, shuffled", "the test tiles by the network with shuffled heights")
    changes = _settings(checkpoint_path=shuffled_run, output_dir=shuffled_results, controls=[])
    steps.call("evaluateDepth", [*_arguments("mars_evaluate", seed), *changes])

    ortho, dtm = product_to_draw(table)
    coarse, scene = results / "coarse.tif", results / "scene.tif"
    tied = scene.with_name("scene_tied.tif")
    write_coarse(dtm, coarse, COARSER)
    steps.begin("predict", f"the whole of {ortho.name}: as it is, and tied to a DTM {COARSER} times coarser")
    drawn = ["--model", run, "--input", ortho, "--preview", "--overwrite"]
    steps.call("predict", [*drawn, "--output", scene])
    steps.call("predict", [*drawn, "--output", tied, "--reference", coarse])
    steps.begin("evaluateScene", "the drawn scenes against the fine DTM")
    for prediction in (scene, tied):
        folder = results / prediction.stem
        steps.call("evaluateScene", ["--prediction", prediction, "--truth", dtm, "--output", folder])
    steps.progress.finish()

    from Systems.mars.demo_table import write_demo_table

    written = results / "controls.md"
    print(f"\n{write_demo_table(written, results, shuffled_results, table)}")
    print(
        f"\n=== {steps.progress.line()}\n"
        f"overview picture   {results / 'overview.png'}\n"
        f"table above        {written}\n"
        f"table, per pair    {results / 'pairs.md'}\n"
        f"report             {results / 'report.html'}\n"
        f"drawn scene        {scene}, {scene.with_suffix('.png')}\n"
        f"tied to a DTM      {tied}, {tied.with_suffix('.png')}\n"
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
    return demo_script(arguments, "Systems.mars.demo", "train and score a network on made-up HiRISE products", run_demo)


if __name__ == "__main__":
    raise SystemExit(main())
