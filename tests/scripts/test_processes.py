"""Several processes: the same tiles, draws and scores; nothing twice, nothing left out, and one who writes."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import evaluateDiffusion
import predict
import trainDiffusion
import trainViT
from tests.conftest import (
    TEST,
    TRAINING,
    Config,
    height_path,
    make_dataset,
    small_diffusion,
    small_diffusion_evaluation,
    small_vit,
    write_config,
    write_prior,
    write_tile,
)
from tests.launching import HANG, LAUNCHER, Launch, Started, launch, run, shown, start, until
from tests.scenes import landscape, write_raster
from tests.toys import toy_model
from tests.Utils.training.test_training import assert_same_state, log_rows
from Utils.core import processes as processes_module
from Utils.core.errors import RasterError, UserError
from Utils.core.shared_cache import NoRoomError
from Utils.core.tables import read_csv
from Utils.data import loaders as loading
from Utils.data.loaders import TrainingLoader, make_loader
from Utils.data.published_layout import list_tiles
from Utils.data.tile_dataset import TileDataset
from Utils.training.checkpoint import load_checkpoint
from Utils.training.run_files import last_checkpoint

TILES = 11


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with priors: 11 training tiles, 5 test tiles."""
    folder = make_dataset(tmp_path_factory.mktemp("tiles") / "dataset")
    for number in range(30, 30 + TILES - 6):
        write_tile(folder, str(number))
    for number in (8, 9):
        write_tile(folder, str(number), TEST)
    for part in (TRAINING, TEST):
        for tile in list_tiles(folder, part):
            write_prior(folder, tile, part)
    return folder


class Place:
    """Stands for accelerate's state of one process of a launch."""

    device = torch.device("cpu")

    def __init__(self, number: int, of: int) -> None:
        self.process_index, self.num_processes, self.is_main_process = number, of, number == 0


def be(number: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loading, processes_module):
        monkeypatch.setattr(module, "launch", lambda: Place(number, of))
    monkeypatch.setenv("WORLD_SIZE", str(of))


def open_tiles(folder: Path) -> TileDataset:
    files = list_tiles(folder, TRAINING)
    return TileDataset(files, list(files), flips=["horizontal", "vertical"], crop=16, seed=5)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (1, 1), (3, 2), (11, 1), (20, 3), (2, 4)])
def test_a_step_has_the_same_tiles_whatever_the_number_of_processes(
    batch_size: int, accumulate: int, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(processes: int) -> list[list[tuple[str, bytes]]]:
        """Of each step the tiles that count, with their augmented images."""
        found: list[list[tuple[str, bytes]]] = []
        weights: dict[int, float] = {}
        for process in range(processes):
            be(process, processes, monkeypatch)
            loader = TrainingLoader(open_tiles(tiles), batch_size, 0, seed=1, accumulate=accumulate)
            taken = list(loader.epoch(3))
            assert len(taken) == loader.steps
            found += [[] for _ in taken[len(found) :]]
            for step, parts in enumerate(taken):
                for part in parts:
                    assert len(part.batch["id"]) == max(part.tiles, 1), "every process has something to compute"
                    weights[step] = weights.get(step, 0.0) + part.weight
                    images = [image.numpy().tobytes() for image in part.batch["image"]]
                    found[step] += list(zip(part.batch["id"], images, strict=True))[: part.tiles]
        assert all(weight == pytest.approx(1.0) for weight in weights.values())
        return [sorted(step) for step in found]

    alone = steps(1)
    assert sorted(tile for step in alone for tile, _ in step) == sorted(list_tiles(tiles, TRAINING))
    for processes in (2, 3, 5):
        assert steps(processes) == alone


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shared_loaders_give_each_tile_to_one_process(
    processes: int, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for process in range(processes):
        be(process, processes, monkeypatch)
        found += [tile for batch in make_loader(open_tiles(tiles), 2, 0, shared=True) for tile in batch["id"]]
        assert len(list(make_loader(open_tiles(tiles), 2, 0))) == 6, "one that is not shared gives all"
    assert sorted(found) == sorted(list_tiles(tiles, TRAINING))


def train(script: Any, config: Config, folder: Path) -> None:
    assert script.main(["--config", str(write_config(folder / f"{Path(config['output_dir']).name}.json", config))]) == 0


def losses(stage: Path) -> list[float]:
    return [value for row in log_rows(stage) for key, value in row.items() if key.startswith("train/")]


def norms(stage: Path) -> list[float]:
    return [row["gradient_norm"] for row in log_rows(stage)]


def scores(stage: Path) -> list[float]:
    return [row["validation/paper.mae"] for row in log_rows(stage)]


def weights(stage: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for value in load_checkpoint(last_checkpoint(stage)).weights.values()])


def test_stage_1_learns_the_same_in_several_processes(tiles: Path, tmp_path: Path) -> None:
    """Batches of four for three processes, and of two, where one has no tile."""
    config = small_vit(tiles, tmp_path / "alone") | {
        "batch_size": 4,
        "epochs": 2,
        # With larger steps rounding soon decides which pixel is a map's lowest, and that decides the gradient.
        "lr": 1e-6,
        "k_folds": 2,
        "flips": ["horizontal"],
        "ema_decay": 0.5,
        "gradient_clip": 1.0,
    }
    train(trainViT, config, tmp_path)
    together = write_config(tmp_path / "together.json", config | {"output_dir": str(tmp_path / "together")})
    result = launch(3, ["trainViT.py", "--config", together])
    assert result.returncode == 0, shown(result)
    assert result.stderr.count("final 2/2: ") == 1, "one process speaks"
    for stage in ("fold-1", "fold-2", "final"):
        one, other = tmp_path / "alone" / stage, tmp_path / "together" / stage
        assert losses(other) == pytest.approx(losses(one), rel=1e-4)
        # AdamW does not see the scale of gradients: it is compared by itself.
        assert norms(other) == pytest.approx(norms(one), rel=1e-3)
        assert scores(other) == pytest.approx(scores(one), rel=1e-3)
        # Two to six steps move a weight by 1e-6 each.
        assert (weights(one) - weights(other)).abs().mean() < 3e-7
        assert json.loads((other / "status.json").read_text())["state"] == "finished"
    priors = {path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone" / "priors").rglob("*.png")}
    assert len(priors) == TILES
    for prior in priors:
        with rasterio.open(tmp_path / "alone" / prior) as one, rasterio.open(tmp_path / "together" / prior) as other:
            assert np.abs(one.read() / 65535 - other.read() / 65535).max() < 1e-3
    assert (tmp_path / "together" / "model").is_dir()


def test_stage_2_learns_the_same_in_two_processes(tiles: Path, tmp_path: Path) -> None:
    """The autoencoder's noise and the U-Net's timesteps are drawn for each tile; latents are encoded once."""
    config = small_diffusion(tiles, tmp_path / "alone") | {
        "batch_size": 3,
        "accumulate": 2,
        "epochs": 2,
        "lr": 1e-6,
        "vae_lr": 1e-6,
        "own_prediction_share": 0.5,
        "loss_types": ["L1Loss", "SSIMAELoss"],
    }
    train(trainDiffusion, config, tmp_path)
    together = write_config(tmp_path / "together.json", config | {"output_dir": str(tmp_path / "together")})
    result = launch(2, ["trainDiffusion.py", "--config", together])
    assert result.returncode == 0, shown(result)
    for stage in ("vae", "unet"):
        one, other = tmp_path / "alone" / stage, tmp_path / "together" / stage
        assert losses(other) == pytest.approx(losses(one), rel=1e-3)
        assert norms(other) == pytest.approx(norms(one), rel=1e-3)
        assert (weights(one) - weights(other)).abs().mean() < 3e-7
    # Goes on in one process, as any run does in any number of them.
    assert trainDiffusion.main(["--resume", str(tmp_path / "together"), "--set", "epochs=3"]) == 0


@pytest.mark.parametrize("processes", [pytest.param(2, id="torchrun"), 3])
def test_processes_stop_and_go_on_exactly(processes: int, tiles: Path, tmp_path: Path) -> None:
    """Signals reach all of them; what was stopped within an epoch ends with the weights of an undisturbed launch.

    Of an epoch's last batch one process has no tile.
    """
    batch_size = processes + 1
    config = small_vit(tiles, tmp_path / "whole") | {"batch_size": batch_size, "epochs": 12, "flips": ["horizontal"]}
    whole = write_config(tmp_path / "whole.json", config)
    assert (result := launch(processes, ["trainViT.py", "--config", whole])).returncode == 0, shown(result)
    folder, log = tmp_path / "stopped", tmp_path / "log"
    stopped = write_config(tmp_path / "stopped.json", config | {"output_dir": str(folder)})
    arguments = ["trainViT.py", "--config", stopped]
    if processes == 2:
        # The launcher is forked; the processes that it starts are new ones, as a user's.
        launcher: Started | Launch = start([*LAUNCHER, processes, *arguments], log)
    else:
        launcher = Launch(processes, arguments, log)
    until(last_checkpoint(folder / "final").is_file, launcher)
    launcher.terminate()
    launcher.wait(HANG)
    said = log.read_text()
    assert said.count("everything done is saved, continue with: ") == 1, said[-3000:]
    assert load_checkpoint(last_checkpoint(folder / "final")).progress.epoch < 12
    assert json.loads((folder / "final" / "status.json").read_text())["state"] == "stopped"
    result = launch(processes, ["trainViT.py", "--resume", folder])
    assert result.returncode == 0, shown(result)
    assert_same_state(tmp_path / "whole" / "final", folder / "final")


def test_every_test_tile_is_scored_once(tiles: Path, diffusion_run: Path, tmp_path: Path) -> None:
    config = small_diffusion_evaluation(tiles, diffusion_run, tmp_path / "alone") | {"pictures": 5, "save_steps": True}
    train(evaluateDiffusion, config, tmp_path)
    together = write_config(tmp_path / "together.json", config | {"output_dir": str(tmp_path / "together")})
    result = launch(2, ["evaluateDiffusion.py", "--config", together])
    assert result.returncode == 0, shown(result)
    assert result.stdout.count("to look at: ") == 1
    one, other = tmp_path / "alone", tmp_path / "together"
    rows, others = (read_csv(folder / "tiles.csv", text_columns=["id"]) for folder in (one, other))
    assert [row["id"] for row in rows] == ["5", "7", "8", "9", "30"] == [row["id"] for row in others]
    assert rows == others, "to the last digit: batches are the same, whoever computes them"
    documents = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    assert documents[0]["summary"] == documents[1]["summary"]
    listings = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (one, other)]
    assert listings[0] == listings[1]
    for name in ("overview.png", "pictures/tile_8.png", "steps/tile_8.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_scene_is_the_same_raster(tmp_path: Path) -> None:
    scene, model = tmp_path / "scene.tif", tmp_path / "model"
    colours = np.stack([landscape(150, 180, seed) for seed in (1, 2, 3)])
    write_raster(scene, np.rint(255.0 * (colours - colours.min()) / np.ptp(colours)).astype(np.uint8))
    toy_model().save_pretrained(model)
    arguments = ["--model", model, "--input", scene, "--tile-size", 64, "--batch-size", 2, "--uncertainty", 2]
    assert predict.main([str(item) for item in [*arguments, "--output", tmp_path / "alone.tif"]]) == 0
    result = launch(2, ["predict.py", *arguments, "--output", tmp_path / "together.tif"])
    assert result.returncode == 0, shown(result)
    with rasterio.open(tmp_path / "alone.tif") as one, rasterio.open(tmp_path / "together.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone.json", "alone.tif", "model", "scene.tif", "together.json", "together.tif"
    ]  # fmt: skip


def test_an_error_is_told_once_and_ends_all(tiles: Path, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "dataset")
    height_path(folder, "10").write_bytes(b"no raster")
    config = write_config(tmp_path / "c.json", small_vit(folder, tmp_path / "run"))
    result = launch(2, ["trainViT.py", "--config", config])
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "tile_10.tif" in said[0], shown(result)
    assert not (tmp_path / "run").exists()


def test_accelerates_launcher_does_the_same(tiles: Path, tmp_path: Path) -> None:
    """On a machine without a GPU it needs to be told of several processes in this way."""
    config = write_config(tmp_path / "c.json", small_vit(tiles, tmp_path / "run") | {"batch_size": 4})
    launcher = Path(sys.executable).with_name("accelerate")
    code = f"import runpy, sys; sys.argv = {[str(launcher), 'launch', '--multi_gpu', '--num_processes', '2', 'trainViT.py', '--config', str(config)]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501
    result = run(["-c", code])
    assert result.returncode == 0, shown(result)
    assert result.stderr.count("final 1/1: ") == 1


def test_errors_reach_other_processes_whole() -> None:
    for error in (
        UserError("two\nlines"),
        RasterError(Path("a/b.tif"), "no such file", "check the path"),
        NoRoomError(3.0, 2.0),
        OSError(28, "No space left on device", "f"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_scene_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    scene, model = tmp_path / "scene.tif", tmp_path / "model"
    scene.write_bytes(b"II*\0 no raster")
    toy_model().save_pretrained(model)
    result = launch(2, ["predict.py", "--model", model, "--input", scene, "--output", tmp_path / "height.tif"])
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "scene.tif" in said[0], shown(result)
