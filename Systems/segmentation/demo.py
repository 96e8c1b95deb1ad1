"""``make demo-segmentation``: land cover trained in one synthetic domain and scored in another, with controls.

python -m Systems.segmentation.demo [--seed 0]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from Systems.segmentation.ablation import ablation_steps, run_ablation
from Systems.segmentation.ablation_plan import TRUE, VARIANTS, Ablation
from Utils.core.step_progress import Step
from Utils.training.demo_steps import DemoSteps, demo_script

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_TILES, VALIDATION_TILES, SIZE = 60, 24, 96
SCENE = (320, 448)
SEEDS = 2
_DATA, _MAP = "data", "a map"


def run_demo(seed: int) -> None:
    """Make the data and run the scripts with the demo's configs.

    Args:
        seed: seed of the data, and the first seed of the trainings.

    Raises:
        UserError: a script failed; it has said why.
    """
    from Utils.synthetic.land_cover import SOURCE, TARGET, write_dataset, write_scene

    train, evaluate = CONFIGS / "segmentation_train.json", CONFIGS / "segmentation_evaluate.json"
    settings = json.loads(train.read_text(encoding="utf-8"))
    data, runs = Path(settings["dataset_path"]), Path(settings["output_dir"])
    results = Path(json.loads(evaluate.read_text(encoding="utf-8"))["output_dir"])
    ablation = Ablation(train, evaluate, results, range(seed, seed + SEEDS), variants=VARIANTS, runs=runs)
    steps = DemoSteps([Step(_DATA, 5), *ablation_steps(ablation, 26, 3), Step(_MAP, 8)])
    for folder in (data, runs, results):
        shutil.rmtree(folder, ignore_errors=True)
    counts = f"{TRAIN_TILES} training and {VALIDATION_TILES} validation tiles a domain"
    steps.begin(_DATA, f"data: {counts}; colours differ between {SOURCE} and {TARGET}, heights do not")
    write_dataset(data, TRAIN_TILES, VALIDATION_TILES, SIZE, seed)
    write_scene(data / "scene", SCENE, seed)
    table = run_ablation(steps, ablation)
    steps.begin(_MAP, f"a class raster of a scene of {TARGET}, and its scores")
    best = ablation.run(next(variant for variant in VARIANTS if variant.name == TRUE), seed)
    classes, scores = results / "scene" / "classes.tif", results / "scene" / "scores"
    classes.parent.mkdir(parents=True)
    place = ["--input", data / "scene" / "scene.tif", "--relative-depth", data / "scene" / "surface.tif"]
    steps.call("predict", ["--model", best, *place, "--output", classes, "--preview", "--report"])
    truth = ["--truth", data / "scene" / "labels.tif", "--output", scores]
    steps.call("evaluateScene", ["--prediction", classes, *truth])
    steps.progress.finish()
    print(f"\n{table}")
    print(
        f"\n=== {steps.progress.line()}\n"
        f"table above        {results / 'ablation.md'}\n"
        f"pictures           {results / 'pictures'}\n"
        f"class raster       {classes}, {classes.with_suffix('.png')}\n"
        f"its scores         {scores}\n"
        f"trained model      {best / 'model'}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    what = "train land cover in one synthetic domain and score it in another"
    return demo_script(arguments, "Systems.segmentation.demo", what, run_demo)


if __name__ == "__main__":
    raise SystemExit(main())
