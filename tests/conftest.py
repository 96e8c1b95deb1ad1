"""Small datasets, small networks and small runs that the tests share."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before any library reads it: no test may wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# At these sizes a second thread costs more than it gives; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

import trainDiffusion
import trainViT
from tests.launching import fork_server
from Utils.pictures.comparison import save_comparison

TRAINING, TEST = "singleRGBNormalization", "singleRGBNormalizationTest"
IMAGES, HEIGHTS, PRIORS = "png-stretched-unique", "DEM_255-unique", "stage1_depth"
TRAINING_IDS = ("1", "2", "3", "10", "11", "20")
TEST_IDS = ("5", "7", "30")

torch.set_num_threads(1)

# Limits on time would fail on a busy machine, and in a fresh clone, where the first test of a process waits until all
# modules are searched for constants.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

Config = dict[str, Any]

# Files of tests that wait for other processes, or for a linter, for tens of seconds.  Begun last, one of them would
# keep one core busy while the others have nothing left to do.
LONG_WAITS = ("test_types.py", "test_processes.py", "test_faults.py", "test_kills.py", "test_benchmarks.py")
# Bytes that a test process and what it starts take: 2 GB and 1 GB were seen.
ROOM = 4e9


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, if there is memory for it: some always wait for what they have started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 1 if psutil.virtual_memory().available > (cores + 1) * ROOM else cores


def pytest_collection() -> None:
    """What is imported stays: looking through it for garbage, again and again, takes a tenth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first."""
    items.sort(key=lambda item: LONG_WAITS.index(item.path.name) if item.path.name in LONG_WAITS else len(LONG_WAITS))


def synthetic_height(number: int, size: int = 32) -> NDArray[np.uint8]:
    """A smooth map (size, size) that fills 0..255, another one for every number."""
    y, x = np.mgrid[0:size, 0:size] / size
    phase = 0.7 * number
    field = np.sin(5.0 * x + phase) + np.cos(4.0 * y - 0.5 * phase) + 0.8 * np.sin(3.0 * (x + y) + 2.0 * phase)
    return np.rint(255.0 * (field - field.min()) / (field.max() - field.min())).astype(np.uint8)


def shaded_image(height: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The map lit from the north-west, in false colours: (3, H, W)."""
    down, right = np.gradient(height.astype(np.float64))
    shade = np.clip(0.5 + (down + right) / 60.0, 0.0, 1.0)
    bands = [shade, 0.7 * shade + 0.3 * height / 255.0, 0.5 * shade + 0.25]
    return np.rint(255.0 * np.stack(bands)).astype(np.uint8)


def write_raster(path: Path, bands: NDArray[Any], **profile: Any) -> None:
    """Write (H, W) or (C, H, W) in the format that the suffix names."""
    bands = bands[None] if bands.ndim == 2 else bands
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, height=height, width=width, count=count, dtype=bands.dtype, **profile
        ) as target:
            target.write(bands)


def image_path(dataset: Path, tile: str, part: str = TRAINING) -> Path:
    return dataset / part / IMAGES / f"tile_{tile}.png"


def height_path(dataset: Path, tile: str, part: str = TRAINING) -> Path:
    return dataset / part / HEIGHTS / f"tile_{tile}.tif"


def prior_path(folder: Path, tile: str, part: str = TRAINING) -> Path:
    return folder / part / PRIORS / f"tile_{tile}_pred_depth.png"


def write_tile(dataset: Path, tile: str, part: str = TRAINING, size: int = 32) -> None:
    """Image and map of one tile."""
    height = synthetic_height(int(tile), size)
    write_raster(height_path(dataset, tile, part), height)
    write_raster(image_path(dataset, tile, part), shaded_image(height))


def write_prior(folder: Path, tile: str, part: str = TRAINING, size: int = 32, dtype: str = "uint16") -> None:
    """A prior: the true map, blurred by averaging blocks of 8 pixels."""
    blocks = synthetic_height(int(tile), size).reshape(size // 8, 8, size // 8, 8).mean(axis=(1, 3)) / 255.0
    coarse = np.kron(blocks, np.ones((8, 8))) * np.iinfo(dtype).max
    write_raster(prior_path(folder, tile, part), np.rint(coarse).astype(dtype))


def make_dataset(folder: Path, size: int = 32, priors: bool = True) -> Path:
    """A dataset in the published layout: 6 training and 3 test tiles, with 16-bit priors beside them if asked for."""
    for part, ids in ((TRAINING, TRAINING_IDS), (TEST, TEST_IDS)):
        for tile in ids:
            write_tile(folder, tile, part, size)
            if priors:
                write_prior(folder, tile, part, size)
    return folder


def write_split(path: Path, *ids: str) -> str:
    """A split file; returns its path as configs hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{tile}\n" for tile in ids), encoding="utf-8")
    return str(path)


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """A config as the JSON file that a script takes."""
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@contextmanager
def full_disk(longest_file: int) -> Iterator[None]:
    """No file can grow beyond ``longest_file`` bytes: a write past it fails in the kernel, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def small_vit(dataset: Path, run: Path) -> Config:
    """trainViT's config with the smallest network."""
    return {
        "dataset_path": str(dataset),
        "output_dir": str(run),
        "seed": 3,
        "batch_size": 3,
        "lr": 1e-3,
        "epochs": 1,
        "loss_types": "L1Loss",
        "model": {
            "backbone": "vit_tiny_patch16_224",
            "pretrained": False,
            "features": 8,
            "options": {"depth": 4, "embed_dim": 32, "num_heads": 2, "patch_size": 8, "img_size": 32},
        },
    }


def small_depth(dataset: Path, run: Path) -> Config:
    """trainDepth's config with the smallest network."""
    return {
        "dataset_path": str(dataset),
        "output_dir": str(run),
        "seed": 3,
        "batch_size": 3,
        "lr": 1e-3,
        "epochs": 2,
        "model": {"backbone": "test_resnet", "pretrained": False, "widths": [16, 8], "norm_momentum": 0.3},
    }


def small_diffusion(dataset: Path, run: Path, vae_type: str = "AutoencoderKL") -> Config:
    """trainDiffusion's config with the smallest networks."""
    return {
        "dataset_path": str(dataset),
        "output_dir": str(run),
        "seed": 3,
        "batch_size": 3,
        "lr": 1e-3,
        "epochs": 1,
        "vae_type": vae_type,
        "vae_epochs": 1,
        "vae_lr": 1e-3,
        "vae": {"block_out_channels": [8, 16], "latent_channels": 2, "layers_per_block": 1, "norm_num_groups": 4},
        "unet": {
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "attention_strides": [],
            "attention_head_dim": 8,
            "norm_num_groups": 4,
        },
        "diffusion_cfg": {"diff_iter": False, "betas": {"start": 0.8, "stop": 0.0, "num_timesteps": 3}},
    }


def small_vit_evaluation(dataset: Path, model: Path, results: Path) -> Config:
    """evaluateViT's config."""
    return {
        "dataset_path": str(dataset),
        "output_dir": str(results),
        "checkpoint_path": str(model),
        "batch_size": 2,
        "pictures": 0,
    }


def small_diffusion_evaluation(dataset: Path, model: Path, results: Path) -> Config:
    """evaluateDiffusion's config."""
    return small_vit_evaluation(dataset, model, results) | {"vae_type": "AutoencoderKL"}


@pytest.fixture(scope="session", autouse=True)
def plain_boards() -> Iterator[None]:
    """Training draws one grey pixel for TensorBoard: matplotlib takes half of the time of a toy run.

    What is drawn is tested in test_board.py, which asks for ``real_boards``; runs that tests fork draw it as well.
    """

    def pixel(path: Path, *_: Any, **__: Any) -> None:
        Image.new("RGB", (1, 1), "grey").save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("Utils.training.board.save_comparison", pixel)
        yield


@pytest.fixture
def real_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures for TensorBoard as users get them."""
    monkeypatch.setattr("Utils.training.board.save_comparison", save_comparison)


@pytest.fixture
def forks_for_spawns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks start their processes from the tests' fork server, where each would import torch anew."""
    context = fork_server()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: context)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache of the model hub, and a hub that cannot be reached."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise RuntimeError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that something asked to sleep; nobody sleeps."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.fixture
def dataset(shared_dataset: Path, tmp_path: Path) -> Path:
    """Six training and three test tiles of 32 x 32 with priors, for a test to spoil."""
    return shutil.copytree(shared_dataset, tmp_path / "dataset")


@pytest.fixture
def vit_config(dataset: Path, tmp_path: Path) -> Config:
    """A config of trainViT on ``dataset``."""
    return small_vit(dataset, tmp_path / "run")


@pytest.fixture
def diffusion_config(dataset: Path, tmp_path: Path) -> Config:
    """A config of trainDiffusion on ``dataset``, which has priors."""
    return small_diffusion(dataset, tmp_path / "run")


@pytest.fixture(scope="session")
def shared_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset as ``dataset``, made once; read only."""
    return make_dataset(tmp_path_factory.mktemp("shared") / "dataset")


@pytest.fixture(scope="session")
def vit_run(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ViT run of one epoch; read only."""
    folder = tmp_path_factory.mktemp("vit")
    config = write_config(folder / "train.json", small_vit(shared_dataset, folder / "run"))
    assert trainViT.main(["--config", str(config)]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def diffusion_run(shared_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished diffusion run of one epoch each for VAE and U-Net; read only."""
    folder = tmp_path_factory.mktemp("diffusion")
    config = write_config(folder / "train.json", small_diffusion(shared_dataset, folder / "run"))
    assert trainDiffusion.main(["--config", str(config)]) == 0
    return folder / "run"
