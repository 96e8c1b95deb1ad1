"""The training loop.  It knows a task by its hooks, never a network by name."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor, nn
from torch.utils.data import default_collate

from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.core.processes import add_up, agreed, everywhere, gather, is_main, launch, on_main, progress_bar
from Utils.core.seeds import derive_seed, named_generator
from Utils.core.stopping import Stopped, stop_asked
from Utils.data.loading import Part, TileLoader, TrainingLoader, make_loader
from Utils.data.tiles import Batch, TileDataset, natural
from Utils.training.board import Board, peak_memory_gigabytes
from Utils.training.checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint
from Utils.training.optimisation import Optimisation, OptimisationSettings

logger = logging.getLogger(__name__)

_PICTURES = 4


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

    def loss(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The mean, over a batch's tiles, of a loss in which no tile depends on another.

        Random draws for a tile come from its own generator (CPU): neither its neighbours nor the number of processes
        change them.
        """

    def draw(self, batch: Batch) -> Tensor:
        """Maps (B, 1, H, W) in [0, 1] of a batch, to look at; the network is in evaluation mode."""

    def validate(self, loader: TileLoader) -> dict[str, float]:
        """Scores over a loader, a shared one, the network being in evaluation mode."""


@dataclass(frozen=True)
class LoopSettings(OptimisationSettings):
    """How to train; the names are the config's."""

    batch_size: int
    accumulate: int
    seed: int
    num_workers: int
    save_n_epoch: int
    save_i_epoch: tuple[int, ...]
    save_minutes: float
    validate_every: int


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

    In a launch of several processes all of them call this, and the first one writes.

    Args:
        task: what learns.
        train: training tiles.
        validation: tiles to validate on; None: the plateau follows the training loss, and ``best`` is the last.
        settings: how to train.
        folder: for checkpoints, ``log.jsonl`` and TensorBoard's files.

    Raises:
        UserError: a non-finite loss or gradient, named with its tiles; a tile that cannot be read; a checkpoint that
            cannot be written or does not fit.
        Stopped: a signal came; what was done is saved.
    """
    task.to(launch().device)
    loop = _Loop(task, settings, folder)
    if on_main(last_checkpoint(folder).is_file):
        everywhere(loop.restore)
    if validation is None:
        logger.info("%s: no validation tiles; 'best' is the last epoch, the plateau follows the training loss", folder)
    loader = TrainingLoader(
        train, settings.batch_size, settings.num_workers, settings.seed, accumulate=settings.accumulate
    )
    checked = None
    if validation is not None:
        checked = make_loader(validation, settings.batch_size, settings.num_workers, shared=True)
    if loop.progress.epoch < settings.epochs:
        with _Journal(folder, loop.progress.epoch) as journal:
            while loop.progress.epoch < settings.epochs:
                row = loop.run_epoch(loader, checked)
                # The log before the checkpoint: a row that a kill leaves over is dropped on resuming.
                journal.append(row)
                if validation is not None and any(key.startswith("validation/") for key in row):
                    loop.picture(validation, journal)
                loop.save_epoch()
                logger.info(_summary(folder, row, settings.epochs))
    best = everywhere(lambda: load_checkpoint(best_checkpoint(folder)))
    load_weights(task.network, best.weights, str(best_checkpoint(folder)))
    task.network.eval()
    return loop.progress


class _Loop:
    """One stage's optimisation and progress."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path) -> None:
        self.task = task
        self.settings = settings
        self.folder = folder
        self.progress = Progress()
        self.improved = False
        self.saved_at = time.monotonic()
        self.optimisation = Optimisation(task.network, settings, launch().device)
        # Parts of a backbone that the decoder does not use get no gradient.  And a search for them in every step keeps
        # torch from summing gradients in another order from the second step on, which a resumed run would not do.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Mixed precision is the optimisation's.
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[parallel])
        self.module = self.accelerator.prepare_model(_LossModule(task))

    def restore(self) -> None:
        """Continue from the last checkpoint.

        Raises:
            UserError: it does not fit, or was written by a version that drew other random numbers.
        """
        source = last_checkpoint(self.folder)
        checkpoint = load_checkpoint(source)
        if not checkpoint.can_be_continued:
            raise UserError(
                f"'{source}' was written by an older version, whose random draws were others; "
                "finish the run with that version, or start a new one with pretrained_model_path"
            )
        load_weights(self.task.network, checkpoint.network, str(source))
        self.progress = checkpoint.progress
        self.optimisation.restore(checkpoint)
        part = f" and {self.progress.step_in_epoch} steps" if self.progress.step_in_epoch else ""
        logger.info("%s: continuing after epoch %d%s", self.folder, self.progress.epoch, part)

    def run_epoch(self, train: TrainingLoader, validation: TileLoader | None) -> dict[str, Any]:
        """Train one epoch, or the rest of it, validate, move the schedule; returns the log row."""
        settings, progress = self.settings, self.progress
        epoch = progress.epoch + 1
        self._train(train, epoch)
        sums = progress.sums
        mean_loss = sums["loss"] / len(train.tiles)
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": progress.step,
            "lr": self.optimisation.rate,
            f"train/{self.task.loss_name}": mean_loss,
            "gradient_norm": sums["gradient_norm"] / sums["finite_norms"] if sums["finite_norms"] else math.nan,
            "tiles_per_second": len(train.tiles) / sums["seconds"],
            "data_wait_share": sums["waited"] / sums["seconds"],
            "memory_gigabytes": peak_memory_gigabytes(launch().device),
        }
        if settings.precision == "fp16":
            row["skipped_steps"] = train.steps - round(sums["finite_norms"])
        started = time.perf_counter()
        monitored: float | None = mean_loss if validation is None else None
        if validation is not None and (epoch % settings.validate_every == 0 or epoch == settings.epochs):
            scores = self._validate(validation)
            row |= {f"validation/{name}": value for name, value in scores.items()}
            # No score where no validation tile has a valid pixel.
            monitored = scores.get(self.task.monitor, mean_loss)
        self._check(row)
        progress.epoch, progress.step_in_epoch, progress.sums = epoch, 0, {}
        self.improved = validation is None
        self.optimisation.end_epoch(monitored)
        if validation is not None and monitored is not None and _is_lower(monitored, progress.best):
            progress.best, self.improved = monitored, True
        if self.improved:
            progress.best_epoch = epoch
        row["seconds"] = sums["seconds"] + time.perf_counter() - started
        return row

    def _train(self, train: TrainingLoader, epoch: int) -> None:
        """The optimiser steps of an epoch that are not done yet."""
        progress = self.progress
        names = ("loss", "gradient_norm", "finite_norms", "seconds", "waited")
        sums = progress.sums = dict.fromkeys(names, 0.0) | progress.sums
        self.task.network.train()
        steps = train.epoch(epoch, progress.step_in_epoch)
        bar = progress_bar(
            desc=f"{self.task.name} {epoch}/{self.settings.epochs}",
            total=train.steps,
            initial=progress.step_in_epoch,
            unit="step",
        )
        with bar:
            while progress.step_in_epoch < train.steps:
                started, waited = time.perf_counter(), train.seconds
                parts = self._next_parts(steps)
                loss, norm = self._step(parts, epoch, train.steps)
                sums["loss"] += loss * parts[0].step_tiles
                if math.isfinite(norm):
                    sums["gradient_norm"] += norm
                    sums["finite_norms"] += 1.0
                sums["waited"] += train.seconds - waited
                sums["seconds"] += time.perf_counter() - started
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
            next(steps, None)  # lets the loader end the epoch
        if launch().num_processes > 1:
            # Validation cannot be stopped where others wait for this process; launchers give it half a minute.
            self.save()
            self._stop_if_asked()

    def _next_parts(self, steps: Iterator[list[Part]]) -> list[Part]:
        """What this process computes for the next optimiser step; all processes come here before each of them.

        Raises:
            Stopped: a signal came to one of them.
            UserError: one of them cannot read a tile.
        """
        parts, failure = list[Part](), None
        if not stop_asked():
            try:
                parts = next(steps)
            except UserError as error:
                failure = error
        is_due = is_main() and 0.0 < self.settings.save_minutes * 60.0 <= time.monotonic() - self.saved_at
        failed, due = add_up([failure is not None, is_due])
        if failed:
            (failure, *_) = [error for error in gather([failure]) if error is not None]
            raise agreed(self._saved(failure))
        self._stop_if_asked()
        if due:
            self.save()
        return parts

    def _stop_if_asked(self) -> None:
        """Save and raise ``Stopped`` where a signal came to any process of the launch."""
        (asked,) = add_up([bool(stop_asked())])
        if asked:
            self.save()
            raise Stopped(stop_asked() or "a signal to another process")

    def _saved(self, error: UserError) -> UserError:
        """The error, after what was done before it is saved."""
        self.save()
        return UserError(f"{error}; the steps before it are saved: mend it, and continue with --resume")

    def _step(self, parts: Sequence[Part], epoch: int, steps: int) -> tuple[float, float]:
        """One optimiser step; its loss, a mean over all its tiles, and the norm of its gradients.

        Raises:
            UserError: one of them is no finite number; the weights are as they were before the step.
        """
        place, losses = launch(), []
        for part in parts:
            # Dropout has no generator of its own: seeding it anew keeps it the same after resuming.
            torch.manual_seed(derive_seed(self.settings.seed, "dropout", epoch, part.number, place.process_index))
            batch = send_to_device(part.batch, place.device, non_blocking=True)
            # Gradients are averaged over the processes once, with the step's last part.
            waits = part is not parts[-1] and place.num_processes > 1
            with self.accelerator.no_sync(self.module) if waits else nullcontext():
                with self.optimisation.autocast():
                    loss = self.module(batch, self._generators(part.batch, epoch))
                # The mean over processes of these is the mean over the step's tiles.
                self.optimisation.backward(loss * (part.weight * place.num_processes))
            losses.append(loss.detach().float() * part.weight)
        norm = self.optimisation.gradient_norm()
        # One look at the device a step: it waits until everything is computed.
        own_loss, gradient_norm = torch.stack([torch.stack(losses).sum(), norm.detach().float()]).tolist()
        (step_loss,) = add_up([own_loss])
        if not math.isfinite(step_loss):
            tiles = self._unusable_tiles(parts, epoch)
            raise self._diverged(f"the loss became {step_loss} in epoch {epoch} on {tiles}")
        if not math.isfinite(gradient_norm):
            tiles, names = self._unusable_gradients(parts, epoch)
            # In fp16 gradients overflow now and then, and the optimisation leaves the step out: what is no number in
            # fp32 either is another matter.
            if names or self.settings.precision != "fp16":
                what = f"the gradient of {names or 'the weights'} is no finite number, the loss being {step_loss:.6g},"
                raise self._diverged(f"{what} in epoch {epoch} on {tiles}")
        self.optimisation.step(self.progress, norm, steps)
        return step_loss, gradient_norm

    def _generators(self, batch: Batch, epoch: int) -> list[torch.Generator]:
        return [named_generator(self.settings.seed, "draws", epoch, tile) for tile in batch["id"]]

    def _single_losses(self, parts: Sequence[Part], epoch: int) -> Iterator[tuple[str, Tensor]]:
        """The loss of each of a step's tiles by itself."""
        for part in parts:
            for place, tile in enumerate(part.batch["id"]):
                single = {key: value[place : place + 1] for key, value in part.batch.items()}
                yield tile, self.task.loss(send_to_device(single, launch().device), self._generators(single, epoch))

    def _unusable_tiles(self, parts: Sequence[Part], epoch: int) -> str:
        """Which of a step's tiles have a loss that is no finite number."""
        with torch.no_grad(), self.optimisation.autocast():
            own = [tile for tile, loss in self._single_losses(parts, epoch) if not loss.isfinite()]
        return _name_tiles(gather(own), parts)

    def _unusable_gradients(self, parts: Sequence[Part], epoch: int) -> tuple[str, str]:
        """Which of a step's tiles have a gradient that is no finite number, in fp32; and of which parameters."""
        named = dict(self.task.network.named_parameters())
        trained = {name: value for name, value in named.items() if value.requires_grad}
        own_tiles: list[str] = []
        own_names: list[str] = []
        for tile, loss in self._single_losses(parts, epoch):
            gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            pairs = zip(trained, gradients, strict=True)
            unusable = [name for name, value in pairs if value is not None and not value.isfinite().all()]
            own_tiles += [tile] if unusable else []
            own_names += unusable
        names = list(dict.fromkeys(gather(own_names)))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return _name_tiles(gather(own_tiles), parts), f"'{names[0]}'{more}" if names else ""

    def _validate(self, loader: TileLoader) -> dict[str, float]:
        """Scores of the weights that would be used: the averaged ones, where an average is kept."""
        try:
            with self._evaluating():
                return self.task.validate(loader)
        except Stopped:
            self.save()
            raise
        except UserError as error:
            raise agreed(self._saved(error)) from error

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.task.network.eval()
        # fp16 is for training, where its scaling helps: a large autoencoder overflows in it.
        autocast = nullcontext() if self.settings.precision == "fp16" else self.optimisation.autocast()
        with self.optimisation.averaged(), autocast:
            yield

    def picture(self, validation: TileDataset, journal: _Journal) -> None:
        """Show maps of some validation tiles: in the last epoch, and ever more rarely before."""
        epoch = self.progress.epoch
        is_time = epoch == self.settings.epochs or epoch & (epoch - 1) == 0
        if is_time and is_main():
            try:
                tiles = [validation[place] for place in range(min(_PICTURES, len(validation)))]
            except UserError as error:
                logger.warning("no pictures: %s", error)  # the next validation says so in earnest
                return
            batch = send_to_device(default_collate(tiles), launch().device)
            with self._evaluating():
                maps = self.task.draw(batch)
            journal.pictures(epoch, batch, maps)

    def _check(self, row: Mapping[str, Any]) -> None:
        """Stop before an epoch is saved that ended in weights or a validation score that are no numbers."""
        score = f"validation/{self.task.monitor}"
        scores = [score] if not math.isfinite(row.get(score, 0.0)) else []
        weights = [name for name, value in self.task.network.named_parameters() if not value.isfinite().all()]
        if scores or weights:
            raise self._diverged(f"{(scores or weights)[0]} is no finite number after epoch {row['epoch']}")

    def _diverged(self, what: str) -> UserError:
        last = last_checkpoint(self.folder)
        kept = f"the last good checkpoint is '{last}'" if last.is_file() else "no checkpoint was written yet"
        return agreed(UserError(f"{what}; look at these tiles, lower lr, or set gradient_clip; {kept}"))

    def save_epoch(self) -> None:
        """Write ``last`` after a whole epoch, and beside it what this epoch earned."""
        settings, epoch = self.settings, self.progress.epoch
        names = []
        if self.improved or not best_checkpoint(self.folder).is_file():
            names.append(best_checkpoint(self.folder))
        if (settings.save_n_epoch and epoch % settings.save_n_epoch == 0) or epoch in settings.save_i_epoch:
            names.append(self.folder / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
        # `last` goes last: what it says was done, was done.
        self.save(*names)

    def save(self, *before: Path) -> None:
        """Write ``last``, and ``before`` it the same to other files.

        Raises:
            UserError: a file cannot be written.
        """
        task = self.task
        self.optimisation.write_state(self.progress)

        def write() -> None:
            for path in [*before, last_checkpoint(self.folder)]:
                save_checkpoint(
                    path,
                    task.name,
                    task.architecture(),
                    task.network,
                    self.optimisation.optimiser,
                    self.progress,
                    self.optimisation.average(),
                )

        on_main(write)
        self.saved_at = time.monotonic()


class _LossModule(nn.Module):
    """A task's loss as a module, so that gradients are averaged over processes whatever the task calls inside."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self.task = task

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """The loss, a scalar."""
        return self.task.loss(batch, generators)


class _Journal:
    """``log.jsonl``, one JSON object an epoch, and TensorBoard; rows past ``epoch``, left by a run that died, go.

    The first process of a launch writes; the others know nothing of it.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.path = folder / "log.jsonl"
        self._lines: list[str] = []
        self._board: Board | None = None

        def start() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = [line for line in _complete_lines(self.path) if 0 < _epoch_of(line) <= epoch]
            self._board = Board(folder / "tensorboard", epoch)

        on_main(start)

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; the file is swapped in whole."""
        finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}

        def write() -> None:
            self._lines.append(json.dumps(finite))
            try:
                atomic_write_bytes(self.path, "".join(f"{line}\n" for line in self._lines).encode())
            except OSError as error:
                raise write_error(self.path, error, "the last checkpoint is intact: continue with --resume") from error

        on_main(write)
        if self._board is not None:
            self._board.row(row)

    def pictures(self, epoch: int, batch: Batch, maps: Tensor) -> None:
        """Show maps (B, 1, H, W) of a batch."""
        if self._board is not None:
            self._board.pictures(epoch, batch, maps)


def _complete_lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from path.read_text(encoding="utf-8").splitlines()


def _epoch_of(line: str) -> int:
    """The epoch of a row of the log; 0 of what is none, as a power cut may leave it."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return 0


def _is_lower(score: float, best: float | None) -> bool:
    return best is None or score < best


def _name_tiles(ids: Sequence[str], parts: Sequence[Part]) -> str:
    """Tile ids for a message; where there are none, those of the step in all processes."""
    found = set(ids) or set(gather([tile for part in parts for tile in part.batch["id"]]))
    return f"tile{'s' if len(found) > 1 else ''} {', '.join(sorted(found, key=natural))}"


def _summary(folder: Path, row: Mapping[str, Any], epochs: int) -> str:
    shown = {key: value for key, value in row.items() if key.startswith(("train/", "validation/"))}
    kept = [f"{key} {value:.4g}" for key, value in shown.items() if value is not None][:5]
    return f"{folder.name} {row['epoch']}/{epochs}: {', '.join(kept)} ({row['seconds']:.1f} s)"
