"""The training loop.  It knows a task by its hooks, never a network by name."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from Utils.checkpoint import Checkpoint, Progress, load_checkpoint, load_weights, save_checkpoint
from Utils.errors import UserError, write_error
from Utils.files import atomic_write_bytes
from Utils.loading import TrainingLoader, make_loader
from Utils.seeds import derive_seed, named_generator
from Utils.tiles import Batch, TileDataset

logger = logging.getLogger(__name__)


class Task(Protocol):
    """What the loop asks of something that learns.

    Attributes:
        name: kind of the network, written into checkpoints.
        loss_name: name of the training loss in logs, different from every validation score.
        monitor: the validation score that chooses ``best``; lower is better.
        network: what is trained and saved.
    """

    name: str
    loss_name: str
    monitor: str
    network: nn.Module

    def architecture(self) -> Mapping[str, Any]:
        """What is needed to build the network again; JSON."""

    def to(self, device: torch.device) -> None:
        """Move everything, frozen parts included."""

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Training loss of a batch; random draws come from ``generator`` (CPU)."""

    def validate(self, loader: DataLoader[Batch]) -> dict[str, float]:
        """Scores over a loader, the network being in evaluation mode."""


@dataclass(frozen=True)
class LoopSettings:
    """How to train; the names are the config's."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    threshold_epoch: int
    downgrade_lr_ratio: float
    lr_schedule: str
    seed: int
    num_workers: int
    save_n_epoch: int
    save_i_epoch: tuple[int, ...]
    validate_every: int
    precision: str


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint that resuming reads."""
    return folder / "checkpoints" / "last.safetensors"


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint that evaluation reads."""
    return folder / "checkpoints" / "best.safetensors"


def fit(
    task: Task, train: TileDataset, validation: TileDataset | None, settings: LoopSettings, folder: Path
) -> Progress:
    """Train a task, or go on with one whose checkpoints lie in ``folder``; ends with ``best`` loaded.

    Args:
        task: what learns.
        train: training tiles.
        validation: tiles to validate on; None: the plateau follows the training loss, and ``best`` is the last.
        settings: how to train.
        folder: for checkpoints, ``log.jsonl`` and TensorBoard's files.

    Raises:
        UserError: a non-finite loss, named with its tiles; a checkpoint that cannot be written or does not fit.
    """
    accelerator = Accelerator()
    task.to(accelerator.device)
    loop = _Loop(task, settings, folder, accelerator)
    if last_checkpoint(folder).is_file():
        loop.restore(load_checkpoint(last_checkpoint(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    if validation is None:
        logger.info("%s: no validation tiles; 'best' is the last epoch, the plateau follows the training loss", folder)
    with SummaryWriter(folder / "tensorboard", purge_step=loop.progress.epoch + 1) as board:
        log = _Log(folder / "log.jsonl", loop.progress.epoch)
        loader = TrainingLoader(train, settings.batch_size, settings.num_workers, settings.seed)
        checked = None if validation is None else make_loader(validation, settings.batch_size, settings.num_workers)
        while loop.progress.epoch < settings.epochs:
            row = loop.run_epoch(loader, checked)
            for name, value in row.items():
                board.add_scalar(name, value, row["epoch"])
            loop.check(row)
            # The log before the checkpoint: a row that a kill leaves over is dropped on resuming.
            log.append(row)
            loop.save()
            logger.info(_summary(folder, row, settings.epochs))
    load_weights(task.network, load_checkpoint(best_checkpoint(folder)).network, str(best_checkpoint(folder)))
    task.network.eval()
    return loop.progress


class _Loop:
    """One stage's optimiser, schedule and progress."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path, accelerator: Accelerator) -> None:
        self.task = task
        self.settings = settings
        self.folder = folder
        self.accelerator = accelerator
        self.progress = Progress()
        self.improved = False
        optimiser = torch.optim.AdamW(
            task.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.optimiser = optimiser
        # torch multiplies after `patience` + 1 epochs without improvement.
        self.plateau = ReduceLROnPlateau(
            optimiser, factor=settings.downgrade_lr_ratio, patience=max(settings.threshold_epoch - 1, 0)
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        source = str(last_checkpoint(self.folder))
        load_weights(self.task.network, checkpoint.network, source)
        self.progress = checkpoint.progress
        self.optimiser.load_state_dict({"state": checkpoint.optimiser, "param_groups": checkpoint.progress.groups})
        self.plateau.load_state_dict(checkpoint.progress.plateau)
        logger.info("%s: continuing after epoch %d", self.folder, self.progress.epoch)

    def run_epoch(self, train: TrainingLoader, validation: DataLoader[Batch] | None) -> dict[str, Any]:
        """Train one epoch, validate, move the schedule; returns the log row."""
        settings, progress = self.settings, self.progress
        epoch = progress.epoch + 1
        # Dropout has no generator of its own: seeding by the epoch keeps it the same after resuming.
        torch.manual_seed(derive_seed(settings.seed, "dropout", epoch))
        started = time.perf_counter()
        mean_loss, waited = self._train(train, epoch)
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": progress.step,
            "lr": self.optimiser.param_groups[0]["lr"],
            f"train/{self.task.loss_name}": mean_loss,
            "tiles_per_second": len(train.tiles) / seconds,
            "data_wait_share": waited / seconds,
        }
        monitored: float | None = mean_loss if validation is None else None
        if validation is not None and (epoch % settings.validate_every == 0 or epoch == settings.epochs):
            self.task.network.eval()
            with self._autocast():
                scores = self.task.validate(validation)
            row |= {f"validation/{name}": value for name, value in scores.items()}
            # No score where no validation tile has a valid pixel.
            monitored = scores.get(self.task.monitor, mean_loss)
        progress.epoch = epoch
        self.improved = validation is None
        if monitored is not None:
            if settings.lr_schedule == "plateau" and settings.threshold_epoch:
                self.plateau.step(monitored)
            if validation is not None and math.isfinite(monitored) and monitored < (progress.best or math.inf):
                progress.best, self.improved = monitored, True
        if self.improved:
            progress.best_epoch = epoch
        row["seconds"] = time.perf_counter() - started
        return row

    def check(self, row: Mapping[str, Any]) -> None:
        """Stop before an epoch is saved that ended in weights or a validation score that are no numbers."""
        score = f"validation/{self.task.monitor}"
        scores = [score] if not math.isfinite(row.get(score, 0.0)) else []
        weights = [name for name, value in self.task.network.named_parameters() if not value.isfinite().all()]
        if scores or weights:
            raise self._diverged(f"{(scores or weights)[0]} is no finite number after epoch {row['epoch']}; lower lr")

    def _diverged(self, what: str) -> UserError:
        last = last_checkpoint(self.folder)
        kept = f"the last good checkpoint is '{last}'" if last.is_file() else "no checkpoint was written yet"
        return UserError(f"{what}; {kept}")

    def _train(self, train: TrainingLoader, epoch: int) -> tuple[float, float]:
        """One pass over the training tiles; returns the mean loss per tile, and the seconds waited for data."""
        settings, task = self.settings, self.task
        batches = train.batches(epoch)
        generator = named_generator(settings.seed, "timestep", epoch)
        task.network.train()
        total = 0.0
        bar = tqdm(batches, desc=f"{task.name} {epoch}/{settings.epochs}", unit="batch", leave=False, disable=None)
        for place, batch in enumerate(bar):
            if settings.lr_schedule == "cosine":
                self._set_cosine_rate(place / len(batches))
            batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
            with self._autocast():
                loss = task.loss(batch, generator)
            value = loss.item()
            if not math.isfinite(value):
                tiles = ", ".join(batch["id"])
                raise self._diverged(
                    f"the loss became {value} in epoch {epoch} on tiles {tiles}; look at these tiles or lower lr"
                )
            self.optimiser.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            self.optimiser.step()
            self.progress.step += 1
            total += value * len(batch["id"])
            bar.set_postfix(loss=f"{value:.4f}")
        return total / len(train.tiles), batches.seconds

    def _autocast(self) -> torch.autocast:
        """The number format of activations; weights and optimiser stay in fp32, and bf16 needs no loss scaling."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _set_cosine_rate(self, part: float) -> None:
        """Half a cosine over the whole stage, from lr to 0."""
        done = (self.progress.epoch + part) / self.settings.epochs
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))

    def save(self) -> None:
        """Write ``last``, and beside it what this epoch earned."""
        settings, epoch = self.settings, self.progress.epoch
        self.progress.plateau = self.plateau.state_dict()
        names = []
        if self.improved or not best_checkpoint(self.folder).is_file():
            names.append(best_checkpoint(self.folder))
        if (settings.save_n_epoch and epoch % settings.save_n_epoch == 0) or epoch in settings.save_i_epoch:
            names.append(self.folder / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
        # `last` goes last: what it says was done, was done.
        for path in [*names, last_checkpoint(self.folder)]:
            save_checkpoint(
                path, self.task.name, self.task.architecture(), self.task.network, self.optimiser, self.progress
            )


class _Log:
    """``log.jsonl``: one JSON object an epoch.  Rows past ``epoch``, left by a run that died, are dropped."""

    def __init__(self, path: Path, epoch: int) -> None:
        self.path = path
        self.lines = [line for line in _complete_lines(path) if json.loads(line)["epoch"] <= epoch]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; the file is swapped in whole."""
        finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
        self.lines.append(json.dumps(finite))
        try:
            atomic_write_bytes(self.path, "".join(f"{line}\n" for line in self.lines).encode())
        except OSError as error:
            raise write_error(self.path, error, "the last checkpoint is intact: continue with --resume") from error


def _complete_lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from path.read_text(encoding="utf-8").splitlines()


def _summary(folder: Path, row: Mapping[str, Any], epochs: int) -> str:
    shown = {key: value for key, value in row.items() if key.startswith(("train/", "validation/"))}
    kept = [f"{key} {value:.4g}" for key, value in shown.items() if value is not None][:5]
    return f"{folder.name} {row['epoch']}/{epochs}: {', '.join(kept)} ({row['seconds']:.1f} s)"
