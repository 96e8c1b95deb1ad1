"""``make demo``: a synthetic dataset, the four scripts, and a whole scene brought to metres by a coarse DEM.

python -m Systems.d3rsmde.demo [--seed 0]
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from Utils.core.side_by_side import Job, available_threads
from Utils.core.step_progress import Step
from Utils.training.demo_steps import DemoSteps, can_train_together, demo_script

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_TILES, TEST_TILES, TILE_SIZE = 480, 60, 128
SCENE_SIZE = 1024
# Far from the seeds of the dataset's scenes, so that the scene is new to the model.
_SCENE_SEED = 1_000_000
_CONFIGS = ("vit_train", "vit_evaluate", "diffusion_train", "diffusion_evaluate")
# The longest first, so that the last two processes end at about the same time.
_STAGES = ("final", "fold-1", "fold-2", "fold-3")
_DATA, _SCENE, _HEIGHTS, _ACCURACY = "data", "scene", "heights", "accuracy"
# In the order in which they run: scripts by name, but training by the names of its stages, whose epochs also count.
_STEPS = (
    Step(_DATA, 16),
    Step("vae", 56),
    Step("final", 36),
    Step("fold-1", 24),
    Step("fold-2", 24),
    Step("fold-3", 24),
    Step("evaluateViT", 4),
    Step("unet", 130),
    Step("evaluateDiffusion", 12),
    Step(_SCENE, 5),
    Step(_HEIGHTS, 12),
    Step(_ACCURACY, 3),
)


def run_demo(seed: int) -> None:
    """Make the data and run the scripts with the demo's configs, in this process where they run one after another.

    Args:
        seed: seed of the terrain and of all training.

    Raises:
        UserError: a script failed; it has said why.
    """
    from Utils.synthetic.terrain import write_dataset  # imports scipy, which --help does not need

    steps = DemoSteps(_STEPS)
    folders = {name: json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for name in _CONFIGS}
    dataset, runs = Path(folders["vit_train"]["dataset_path"]), [Path(folders[name]["output_dir"]) for name in _CONFIGS]
    for folder in (dataset, *runs):
        shutil.rmtree(folder, ignore_errors=True)
    steps.begin(_DATA, f"data: {TRAIN_TILES} training and {TEST_TILES} test tiles of synthetic terrain")
    write_dataset(dataset, TRAIN_TILES, TEST_TILES, TILE_SIZE, seed)
    coarse, _, refiner, _ = runs
    with steps.following_epochs():
        title = "stage 1: the ViT, a final model and 3 folds for out-of-fold priors; beside it the VAE of stage 2"
        steps.begin("vae", title)
        _train_first_stages(coarse, seed, steps)
        steps.begin("evaluateViT", "stage 1 on the test tiles")
        steps.call("evaluateViT", _arguments("vit_evaluate", seed))
        steps.begin("unet", "stage 2: the refiner in the VAE's latent space")
        steps.call("trainDiffusion", ["--resume", refiner])
        steps.begin("evaluateDiffusion", "both stages on the test tiles")
        steps.call("evaluateDiffusion", _arguments("diffusion_evaluate", seed))
    results = Path(folders["diffusion_evaluate"]["output_dir"])
    model = Path(folders["diffusion_train"]["output_dir"]) / "model"
    scene = _predict_scene(dataset, results, model, seed, steps)
    steps.progress.finish()
    print(
        f"\n=== {steps.progress.line()}\n"
        f"overview picture   {results / 'overview.png'}\n"
        f"every picture      {results / 'pictures'}\n"
        f"table, per tile    {results / 'table.md'}, {results / 'tiles.csv'}\n"
        f"report             {results / 'report.html'}\n"
        f"trained model      {model}\n"
        f"scene              {scene / 'height.tif'}, height.png, height.html; scores in {scene / 'accuracy'}"
    )


def _predict_scene(dataset: Path, results: Path, model: Path, seed: int, steps: DemoSteps) -> Path:
    """Predict a scene that no model has seen, in metres; returns the folder of the results."""
    what = f"{SCENE_SIZE} x {SCENE_SIZE} pixels of new terrain, and a DEM of it that is 8 times coarser"
    steps.begin(_SCENE, f"scene: {what}")
    from Utils.synthetic.terrain_scene import write_scene

    files = write_scene(dataset / "scene", SCENE_SIZE, _SCENE_SEED + seed)
    folder = results.parent / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    height = folder / "height.tif"
    steps.begin(_HEIGHTS, "scene: heights in metres")
    # The training tiles were not stretched, so this image must not be either.
    arguments = ["--model", model, "--input", files.image, "--reference", files.reference, "--stretch", "none"]
    steps.call("predict", [*arguments, "--output", height, "--batch-size", 8, "--preview", "--report"])
    steps.begin(_ACCURACY, "scene: against the truth, beside the coarse DEM: interpolated bicubically, and by itself")
    truth = ["--prediction", height, "--truth", files.truth, "--baseline", files.reference]
    steps.call("evaluateScene", [*truth, "--output", folder / "accuracy"])
    return folder


def _train_first_stages(coarse: Path, seed: int, steps: DemoSteps) -> None:
    """Train the ViTs and the VAE, which do not need one another: side by side where there are cores for it."""
    vae = [*_arguments("diffusion_train", seed), "--stages", "vae"]
    vit = [*_arguments("vit_train", seed), "--stages", *_STAGES]
    if not can_train_together():
        steps.call("trainDiffusion", vae)
        steps.call("trainViT", vit)
        return
    script, threads = ROOT / "trainViT.py", available_threads()
    # Once the run exists, other processes share its stages: never more processes than stages.
    helper = Job([script, "--resume", coarse, "--stages", *_STAGES], after=coarse / "config.json")
    helpers = [helper] * min(threads - 1, len(_STAGES) - 1)
    jobs = [Job([script, *vit]), Job([ROOT / "trainDiffusion.py", *vae]), *helpers]
    steps.run_together(jobs)


def _arguments(config: str, seed: int) -> list[object]:
    return ["--config", CONFIGS / f"{config}.json", "--set", f"seed={seed}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    return demo_script(arguments, "Systems.d3rsmde.demo", "train and score D3-RSMDE on toy terrain", run_demo)


if __name__ == "__main__":
    raise SystemExit(main())
