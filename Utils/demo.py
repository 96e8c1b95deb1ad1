"""``make demo``: a synthetic dataset, then the four scripts, from images to a table that compares both stages.

python -m Utils.demo [--seed 0]
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

from Utils.cli import run_script
from Utils.errors import UserError
from Utils.terrain import write_dataset

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "Config" / "Demo"
TRAIN_TILES, TEST_TILES, TILE_SIZE = 480, 60, 128
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
    # Read by OpenMP when torch is first imported, below.  Threads that spin long while they wait made an epoch four
    # times slower on two cores with other work; threads that never spin made it 1.6 times slower on idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    folders = {name: json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")) for _, name, _ in _STAGES}
    dataset = Path(folders["vit_train"]["dataset_path"])
    for folder in (dataset, *(Path(config["output_dir"]) for config in folders.values())):
        shutil.rmtree(folder, ignore_errors=True)
    _announce(f"data: {TRAIN_TILES} training and {TEST_TILES} test tiles of synthetic terrain", started)
    write_dataset(dataset, TRAIN_TILES, TEST_TILES, TILE_SIZE, seed)
    for script, config, title in _STAGES:
        _announce(title, started)
        # Imported when needed: the workers that make the terrain start without torch.
        arguments = ["--config", str(CONFIGS / f"{config}.json"), "--set", f"seed={seed}"]
        if importlib.import_module(script).main(arguments):
            raise UserError(f"the demo stopped: {script}.py failed")
    results = Path(folders["diffusion_evaluate"]["output_dir"])
    _announce("done", started)
    print(
        f"overview picture   {results / 'overview.png'}\n"
        f"every picture      {results / 'pictures'}\n"
        f"table, per tile    {results / 'table.md'}, {results / 'tiles.csv'}\n"
        f"trained model      {Path(folders['diffusion_train']['output_dir']) / 'model'}"
    )


def _announce(title: str, started: float) -> None:
    print(f"\n=== {title} ({time.perf_counter() - started:.0f} s)", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m Utils.demo", description="train and score D3-RSMDE on toy terrain")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    return run_script(lambda: run_demo(given.seed))


if __name__ == "__main__":
    raise SystemExit(main())
