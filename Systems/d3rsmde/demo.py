"""``make demo``: a synthetic dataset, the four scripts, and a whole scene brought to metres by a coarse DEM.

python -m Systems.d3rsmde.demo [--seed 0]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from Systems.d3rsmde.demo_processes import Job, available_threads, run_together
from Systems.d3rsmde.demo_progress import EpochLines, Progress, Step
from Utils.core.errors import UserError
from Utils.core.stopping import Stopped, stop_asked, stopping_on_signals

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

    progress = Progress(_STEPS)
    folders = {name: json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for name in _CONFIGS}
    dataset, runs = Path(folders["vit_train"]["dataset_path"]), [Path(folders[name]["output_dir"]) for name in _CONFIGS]
    for folder in (dataset, *runs):
        shutil.rmtree(folder, ignore_errors=True)
    _announce(_DATA, f"data: {TRAIN_TILES} training and {TEST_TILES} test tiles of synthetic terrain", progress)
    write_dataset(dataset, TRAIN_TILES, TEST_TILES, TILE_SIZE, seed)
    coarse, _, refiner, _ = runs
    with _following_epochs(progress):
        title = "stage 1: the ViT, a final model and 3 folds for out-of-fold priors; beside it the VAE of stage 2"
        _announce("vae", title, progress)
        _train_first_stages(coarse, seed, progress)
        _announce("evaluateViT", "stage 1 on the test tiles", progress)
        _call("evaluateViT", _arguments("vit_evaluate", seed))
        _announce("unet", "stage 2: the refiner in the VAE's latent space", progress)
        _call("trainDiffusion", ["--resume", refiner])
        _announce("evaluateDiffusion", "both stages on the test tiles", progress)
        _call("evaluateDiffusion", _arguments("diffusion_evaluate", seed))
    results = Path(folders["diffusion_evaluate"]["output_dir"])
    model = Path(folders["diffusion_train"]["output_dir"]) / "model"
    scene = _predict_scene(dataset, results, model, seed, progress)
    progress.finish()
    print(
        f"\n=== {progress.line()}\n"
        f"overview picture   {results / 'overview.png'}\n"
        f"every picture      {results / 'pictures'}\n"
        f"table, per tile    {results / 'table.md'}, {results / 'tiles.csv'}\n"
        f"report             {results / 'report.html'}\n"
        f"trained model      {model}\n"
        f"scene              {scene / 'height.tif'}, height.png, height.html; scores in {scene / 'accuracy'}"
    )


def _predict_scene(dataset: Path, results: Path, model: Path, seed: int, progress: Progress) -> Path:
    """Predict a scene that no model has seen, in metres; returns the folder of the results."""
    what = f"{SCENE_SIZE} x {SCENE_SIZE} pixels of new terrain, and a DEM of it that is 8 times coarser"
    _announce(_SCENE, f"scene: {what}", progress)
    from Utils.synthetic.terrain_scene import write_scene

    files = write_scene(dataset / "scene", SCENE_SIZE, _SCENE_SEED + seed)
    folder = results.parent / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    height = folder / "height.tif"
    _announce(_HEIGHTS, "scene: heights in metres", progress)
    # The training tiles were not stretched, so this image must not be either.
    arguments = ["--model", model, "--input", files.image, "--reference", files.reference, "--stretch", "none"]
    _call("predict", [*arguments, "--output", height, "--batch-size", 8, "--preview", "--report"])
    _announce(_ACCURACY, "scene: against the truth, beside the coarse DEM interpolated bicubically", progress)
    truth = ["--prediction", height, "--truth", files.truth, "--baseline", files.reference]
    _call("evaluateScene", [*truth, "--output", folder / "accuracy"])
    return folder


def _call(script: str, arguments: Sequence[object]) -> None:
    _check(script, importlib.import_module(script).main([str(argument) for argument in arguments]))


def _check(script: str, status: int) -> None:
    if status:
        raise UserError(f"the demo stopped: {script} failed")
    if stop_asked():
        raise Stopped("the demo was stopped; it begins anew when it is started again")


def _can_train_together() -> bool:
    """Whether there are cores for several processes; with a GPU there is only one."""
    import torch

    return available_threads() > 1 and not torch.accelerator.is_available()


def _train_first_stages(coarse: Path, seed: int, progress: Progress) -> None:
    """Train the ViTs and the VAE, which do not need one another: side by side where there are cores for it."""
    vae = [*_arguments("diffusion_train", seed), "--stages", "vae"]
    vit = [*_arguments("vit_train", seed), "--stages", *_STAGES]
    if not _can_train_together():
        _call("trainDiffusion", vae)
        _call("trainViT", vit)
        return
    script, threads = ROOT / "trainViT.py", available_threads()
    # Once the run exists, other processes share its stages: never more processes than stages.
    helper = Job([script, "--resume", coarse, "--stages", *_STAGES], after=coarse / "config.json")
    helpers = [helper] * min(threads - 1, len(_STAGES) - 1)
    jobs = [Job([script, *vit]), Job([ROOT / "trainDiffusion.py", *vae]), *helpers]

    def tell(line: str) -> None:
        print(progress.follow(line), flush=True)

    _check("training", run_together(jobs, threads, tell))


def _arguments(config: str, seed: int) -> list[object]:
    return ["--config", CONFIGS / f"{config}.json", "--set", f"seed={seed}"]


def _announce(step: str, title: str, progress: Progress) -> None:
    progress.begin(step)
    print(f"\n=== {title}\n    demo: {progress.line()}", flush=True)


@contextmanager
def _following_epochs(progress: Progress) -> Iterator[None]:
    """Let the training loop's log lines update the progress, and show it."""
    # Not at the top: it imports torch, which the workers that make the terrain do not need.
    from Utils.training.loop import logger as loop

    lines = EpochLines(progress)
    loop.addFilter(lines)
    try:
        yield
    finally:
        loop.removeFilter(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m Systems.d3rsmde.demo", description="train and score D3-RSMDE on toy terrain"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    # Read by OpenMP when torch is first imported, below.  Threads that spin long while they wait made an epoch four
    # times slower on two cores with other work; threads that never spin made it 1.6 times slower on idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Not at the top: the workers that make the terrain import this module, and start without torch.
    from Utils.core.command_line import run_script

    def work() -> None:
        with stopping_on_signals():
            run_demo(given.seed)

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
