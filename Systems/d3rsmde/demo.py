"""``make demo``: a synthetic dataset, the four scripts, and a whole scene brought to metres by a coarse DEM.

python -m Systems.d3rsmde.demo [--seed 0]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from Utils.core.errors import UserError
from Utils.core.stopping import Stopped, stop_asked, stopping_on_signals
from Utils.synthetic.terrain import write_dataset
from Utils.synthetic.terrain_scene import write_scene

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_TILES, TEST_TILES, TILE_SIZE = 480, 60, 128
SCENE_SIZE = 2048
# Far from the seeds that the dataset's scenes come from: the scene is new to the model.
_SCENE_SEED = 1_000_000
_STAGES = (
    ("trainViT", "vit_train", "stage 1: the ViT, 3 folds for out-of-fold priors, then the final model"),
    ("evaluateViT", "vit_evaluate", "stage 1 on the test tiles"),
    ("trainDiffusion", "diffusion_train", "stage 2: the VAE, then the refiner in its latent space"),
    ("evaluateDiffusion", "diffusion_evaluate", "both stages on the test tiles"),
)


def run_demo(seed: int) -> None:
    """Make the data and run the scripts, each in this process, with the demo's configs.

    Args:
        seed: of the terrain and of all training.

    Raises:
        UserError: a script failed; it has said why.
    """
    started = time.perf_counter()
    folders = {name: json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for _, name, _ in _STAGES}
    dataset = Path(folders["vit_train"]["dataset_path"])
    for folder in (dataset, *(Path(config["output_dir"]) for config in folders.values())):
        shutil.rmtree(folder, ignore_errors=True)
    _announce(f"data: {TRAIN_TILES} training and {TEST_TILES} test tiles of synthetic terrain", started)
    write_dataset(dataset, TRAIN_TILES, TEST_TILES, TILE_SIZE, seed)
    for script, config, title in _STAGES:
        _announce(title, started)
        _call(script, ["--config", CONFIGS / f"{config}.json", "--set", f"seed={seed}"])
    results = Path(folders["diffusion_evaluate"]["output_dir"])
    model = Path(folders["diffusion_train"]["output_dir"]) / "model"
    scene = _predict_scene(dataset, results, model, seed, started)
    _announce("done", started)
    print(
        f"overview picture   {results / 'overview.png'}\n"
        f"every picture      {results / 'pictures'}\n"
        f"table, per tile    {results / 'table.md'}, {results / 'tiles.csv'}\n"
        f"report             {results / 'report.html'}\n"
        f"trained model      {model}\n"
        f"scene              {scene / 'height.tif'}, height.png, height.html; scores in {scene / 'accuracy'}"
    )


def _predict_scene(dataset: Path, results: Path, model: Path, seed: int, started: float) -> Path:
    """A scene that nobody has seen, in metres; returns the folder of what comes of it."""
    what = f"{SCENE_SIZE} x {SCENE_SIZE} pixels of new terrain, and a DEM of it that is 8 times coarser"
    _announce(f"scene: {what}", started)
    files = write_scene(dataset / "scene", SCENE_SIZE, _SCENE_SEED + seed)
    folder = results.parent / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    height = folder / "height.tif"
    _announce("scene: heights in metres", started)
    # The training tiles were not stretched, so this image must not be either.
    arguments = ["--model", model, "--input", files.image, "--reference", files.reference, "--stretch", "none"]
    _call("predict", [*arguments, "--output", height, "--batch-size", 8, "--preview", "--report"])
    _announce("scene: against the truth, beside the coarse DEM interpolated bicubically", started)
    truth = ["--prediction", height, "--truth", files.truth, "--baseline", files.reference]
    _call("evaluateScene", [*truth, "--output", folder / "accuracy"])
    return folder


def _call(script: str, arguments: Sequence[object]) -> None:
    if importlib.import_module(script).main([str(argument) for argument in arguments]):
        raise UserError(f"the demo stopped: {script}.py failed")
    if stop_asked():
        raise Stopped("the demo was stopped; it begins anew when it is started again")


def _announce(title: str, started: float) -> None:
    print(f"\n=== {title} ({time.perf_counter() - started:.0f} s)", flush=True)


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
