"""Two kinds of stage 1 of equal training time, each before and after refinement: the demo's DPT, and an EncDec.

python -m benchmarks.stage_one --output FOLDER [--seeds 0 1 2]

For every seed: synthetic terrain; on the same tiles and folds, a DPT on a small ViT (as in the demo) and the decoder of
Enc-Dec-IRv2 on a small encoder of timm's, both without pretrained weights; one autoencoder for both; on each a U-Net.
The two arms run side by side, each with one thread. Time is processor time, so that other work on the machine does not
count. Finished seeds in FOLDER are not run again. Enc-Dec-IRv2 itself, with 31 million parameters, is too heavy here.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.stage_one_report import CONTROL, format_report
from Utils.core.command_line import run_script
from Utils.core.errors import UserError, write_error
from Utils.core.tables import read_csv, write_json

logger = logging.getLogger("benchmarks")

_CONFIGS = Path(__file__).resolve().parents[1] / "Config" / "Demo"
ARMS = ("DPT", "EncDec")
_RESULT = "result.json"
_CALIBRATION_STEPS = 8
_PAUSE = 0.5


@dataclass(frozen=True)
class Plan:
    """How large the comparison is.

    Attributes:
        train_tiles: training tiles of a seed.
        test_tiles: test tiles, from other scenes.
        tile_size: their side in pixels.
        steps: optimiser steps of the DPT, in each fold and the final stage; the EncDec gets as many as take as long.
        folds: number of folds.
        vae_epochs: passes of the autoencoder over the training tiles.
        unet_steps: optimiser steps of the U-Net.
        encoder: timm name of the EncDec's encoder.
        widths: channels of its decoder's blocks.
        lr: its learning rate, chosen on the tiles of seed 7, which is not among the default seeds.
    """

    train_tiles: int = 180
    test_tiles: int = 60
    tile_size: int = 96
    steps: int = 100
    folds: int = 2
    vae_epochs: int = 3
    unet_steps: int = 300
    encoder: str = "regnetx_002"
    widths: tuple[int, ...] = (64, 48, 32, 16)
    lr: float = 2e-3


TOY = Plan(9, 3, 64, steps=2, vae_epochs=1, unet_steps=2, encoder="test_resnet", widths=(16, 8))
"""Only to test the command."""


def dpt_config(plan: Plan) -> dict[str, Any]:
    """The config of trainViT: the demo's, at the size of the plan."""
    config = json.loads((_CONFIGS / "vit_train.json").read_text(encoding="utf-8"))
    config["model"]["options"]["img_size"] = plan.tile_size
    config["max_steps"] = plan.steps
    return {key: value for key, value in config.items() if key not in ("epochs", "validate_every")}


def enc_dec_config(plan: Plan, steps: int) -> dict[str, Any]:
    """The config of trainDepth: the published loss and optimiser, a small encoder."""
    return {
        "batch_size": 4,
        "lr": plan.lr,
        "lr_schedule": "cosine",
        "optimiser": "Adam",
        "optimiser_options": {"amsgrad": True},
        "loss_types": ["SSIMEdgeL1Loss"],
        "max_steps": steps,
        "direction": "height",
        "model": {"backbone": plan.encoder, "pretrained": False, "widths": list(plan.widths)},
    }


def steps_of_equal_time(plan: Plan) -> tuple[int, dict[str, float]]:
    """The EncDec's number of steps, and the processor seconds that a step of each network takes here.

    The steps of the two are timed in turn, so that a slower spell of the machine meets both.
    """
    import torch

    from Modules.losses.depth_losses import build_depth_loss
    from Modules.losses.height_losses import build_loss
    from Systems.d3rsmde.build import build_coarse
    from Systems.d3rsmde.config import ViTTrainingConfig
    from Systems.depth.build import build_depth
    from Systems.depth.config import DepthTrainingConfig

    torch.manual_seed(0)
    vit = ViTTrainingConfig(**dpt_config(plan) | {"dataset_path": "none"})
    depth = DepthTrainingConfig(**enc_dec_config(plan, 1) | {"dataset_path": "none"})
    networks = {"DPT": build_coarse(vit), "EncDec": build_depth(depth)}
    losses = {"DPT": build_loss(vit.losses), "EncDec": build_depth_loss(depth.losses, 1.0)}
    optimisers = {name: torch.optim.Adam(network.parameters(), 1e-4) for name, network in networks.items()}
    side = plan.tile_size
    image, truth = torch.rand(vit.batch_size, 3, side, side), torch.rand(vit.batch_size, 1, side, side)
    valid = torch.ones_like(truth, dtype=torch.bool)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_CALIBRATION_STEPS + 1):
        for name, network in networks.items():
            network.train()
            started = time.process_time()
            optimisers[name].zero_grad()
            losses[name](network(image), truth, valid).backward()
            optimisers[name].step()
            seconds[name].append(time.process_time() - started)
    usual = {
        name: sorted(values[1:])[_CALIBRATION_STEPS // 2] for name, values in seconds.items()
    }  # the first warms up
    return max(1, round(plan.steps * usual["DPT"] / usual["EncDec"])), usual


def run_seed(plan: Plan, seed: int, folder: Path) -> dict[str, Any]:
    """Run both arms on one seed; gives the scores of every test tile and the times.

    Raises:
        UserError: a script failed.
    """
    from Utils.synthetic.terrain import write_dataset

    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "data", plan.train_tiles, plan.test_tiles, plan.tile_size, seed, workers=2)
    # Each process reads it when it imports torch.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(ARMS), mp_context=context) as pool:
        steps, step_seconds = pool.submit(steps_of_equal_time, plan).result()
        logger.info("seed %d: %d steps of DPT take as long as %d of EncDec", seed, plan.steps, steps)
        found = list(pool.map(partial(_run_arm, plan, seed, folder, steps), ARMS))
        control = pool.submit(_control_rows, folder / "data").result()
    arms = dict(zip(ARMS, found, strict=True))
    rows = {f"{arm} {name}": values for arm, one in arms.items() for name, values in one.pop("rows").items()}
    steps_of = {"DPT": plan.steps, "EncDec": steps}
    facts = {arm: {"steps": steps_of[arm], "step_seconds": step_seconds[arm]} | one for arm, one in arms.items()}
    return {"seed": seed, "plan": asdict(plan), "arms": facts, "rows": {CONTROL: control} | rows}


def _run_arm(plan: Plan, seed: int, folder: Path, steps: int, arm: str) -> dict[str, Any]:
    """An arm, in this process; where it fails, the other arm does not wait for it."""
    try:
        return _both_stages(plan, seed, folder, steps, arm)
    except BaseException:
        (folder / f"{arm}.failed").touch()
        raise


def _both_stages(plan: Plan, seed: int, folder: Path, steps: int, arm: str) -> dict[str, Any]:
    """Stage 1 with its folds, its test priors, stage 2 and its scores."""
    import torch

    import evaluateDepth
    import evaluateDiffusion
    import evaluateViT
    import trainDepth
    import trainDiffusion
    import trainViT
    from Systems.d3rsmde.build import load_coarse

    torch.set_num_threads(1)
    own, results, vae = folder / arm, folder / "results" / arm, folder / "DPT" / "diffusion" / "frozen_vae"
    shared = {"dataset_path": str(folder / "data"), "seed": seed, "not_split": True}
    is_dpt = arm == "DPT"
    config = dpt_config(plan) if is_dpt else enc_dec_config(plan, steps)
    config |= shared | {"output_dir": str(own / "stage-1"), "k_folds": plan.folds, "prior_path": str(own / "priors")}
    trained = _call(trainViT if is_dpt else trainDepth, own / "train.json", config)
    scoring = {"dataset_path": shared["dataset_path"], "seed": seed, "prior_path": str(own / "priors"), "pictures": 0}
    first = {"checkpoint_path": str(own / "stage-1"), "output_dir": str(results / "stage-1")}
    _call(evaluateViT if is_dpt else evaluateDepth, own / "evaluate.json", scoring | first)
    refining = json.loads((_CONFIGS / "diffusion_train.json").read_text(encoding="utf-8"))
    refining = {key: value for key, value in refining.items() if key not in ("epochs", "validate_every")} | shared
    refining |= {"output_dir": str(own / "diffusion"), "prior_path": str(own / "priors"), "max_steps": plan.unet_steps}
    refining |= {"coarse_checkpoint_path": str(own / "stage-1"), "vae_epochs": plan.vae_epochs}
    if not is_dpt:
        _wait_for(vae / "config.json", folder / "DPT.failed")
        refining |= {"vae_path": str(vae), "vae_epochs": 0}
    refined = _call(trainDiffusion, own / "refine.json", refining)
    second = {"checkpoint_path": str(own / "diffusion"), "output_dir": str(results / "stage-2"), "pictures": 4}
    _call(evaluateDiffusion, own / "score.json", scoring | second)
    size = sum(parameter.numel() for parameter in load_coarse(own / "stage-1").parameters())
    table = read_csv(results / "stage-2" / "tiles.csv", text_columns=["id"])
    return {"parameters": size, "stage_1_seconds": trained, "stage_2_seconds": refined, "rows": _rows(table)}


def _call(script: Any, path: Path, config: Mapping[str, Any]) -> float:
    """Run a script with a config; gives the processor seconds that it took."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, config)
    started = time.process_time()
    if script.main(["--config", str(path)]):
        raise UserError(f"{script.__name__} failed with '{path}'")
    return time.process_time() - started


def _wait_for(path: Path, failed: Path) -> None:
    """Wait until the other arm has written a file."""
    while not path.is_file():
        if failed.is_file():
            raise UserError(f"the other arm failed before it wrote '{path}'")
        time.sleep(_PAUSE)


def _rows(table: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every map in a table of tiles, in the order of the tiles."""
    return {
        name: [
            {"id": row["id"]} | {key.removeprefix(f"{name}."): row[key] for key in row if key.startswith(f"{name}.")}
            for row in table
        ]
        for name in ("coarse", "refined")
    }


def _control_rows(dataset: Path) -> list[dict[str, Any]]:
    """Scores of a map that knows nothing of the image: the mean of the training tiles' stretched heights."""
    import numpy as np

    from Systems.d3rsmde.targets import relative_height
    from Utils.data.published_layout import TEST_PART, TRAINING_PART, list_tiles
    from Utils.data.tile_dataset import read_tile
    from Utils.scoring.height_scorer import HeightScorer

    known = (read_tile(tile, files) for tile, files in list_tiles(dataset, TRAINING_PART).items())
    mean = np.mean([relative_height(item)["height"][0].numpy() for item in known], axis=0)
    scorer, rows = HeightScorer(), []
    for tile, files in list_tiles(dataset, TEST_PART).items():
        item = read_tile(tile, files)
        rows.append({"id": tile} | scorer.score(item["target"][0].numpy(), mean, item["valid"][0].numpy()))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.stage_one", description=__doc__, formatter_class=text)
    parser.add_argument("--output", type=Path, required=True, help="folder for data, runs, scores and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of terrain and training (0 1 2)")
    parser.add_argument("--encoder", help="any timm encoder with features, for the EncDec")
    parser.add_argument("--lr", type=float, help="learning rate of the EncDec")
    parser.add_argument("--sizes", choices=("small", "toy"), default="small", help="toy: only to test the command")
    given = parser.parse_args(arguments)

    def work() -> None:
        plan = Plan() if given.sizes == "small" else TOY
        plan = replace(plan, encoder=given.encoder or plan.encoder, lr=given.lr or plan.lr)
        try:
            found = [_seed_result(plan, seed, given.output / f"seed-{seed}") for seed in dict.fromkeys(given.seeds)]
            table = format_report(found)
            (given.output / "table.md").write_text(f"{table}\n", encoding="utf-8")
        except OSError as error:
            raise write_error(given.output, error, "choose another folder with --output") from error
        print(table)

    return run_script(work)


def _seed_result(plan: Plan, seed: int, folder: Path) -> dict[str, Any]:
    """The result of a seed, from its file where it is there."""
    path = folder / _RESULT
    if not path.is_file():
        write_json(path, run_seed(plan, seed, folder))
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["plan"] != json.loads(json.dumps(asdict(plan))):
        raise UserError(f"'{path}' was made with other settings; choose another --output, or remove it")
    return result


if __name__ == "__main__":
    raise SystemExit(main())
