"""The training loop.  It knows a task by its hooks, never a network by name."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import default_collate

from Utils.core.errors import UserError
from Utils.core.processes import add_up, agreed, everywhere, gather, is_main, launch, on_main, progress_bar
from Utils.core.stopping import Stopped, stop_asked
from Utils.data.dataset import SampleDataset
from Utils.data.loaders import Part, SampleLoader, TrainingLoader, make_loader
from Utils.scoring.validation import scores_over
from Utils.training.board import peak_memory_gigabytes
from Utils.training.checkpoint import FORMAT, Progress, load_checkpoint, load_weights, save_checkpoint
from Utils.training.journal import Journal
from Utils.training.loop_settings import Length, LoopSettings
from Utils.training.optimisation import Optimisation
from Utils.training.optimiser_step import OptimiserStep, diverged
from Utils.training.run_files import best_checkpoint, last_checkpoint
from Utils.training.task import Task, TaughtByAverage

logger = logging.getLogger(__name__)

_PICTURES = 4


def fit(
    task: Task, train: SampleDataset, validation: SampleDataset | None, settings: LoopSettings, folder: Path
) -> Progress:
    """Train a task, or continue with the checkpoints in ``folder``; at the end ``best`` is loaded.

    In a launch of several processes all of them call this, and the first one writes.

    Args:
        task: the task to train.
        train: training tiles.
        validation: validation tiles. With None the plateau follows the training loss, and ``best`` is the last epoch.
        settings: how to train.
        folder: folder for checkpoints, ``log.jsonl`` and TensorBoard's files.

    Raises:
        UserError: a non-finite loss or gradient, named with its tiles; a tile that cannot be read; a checkpoint that
            cannot be written or does not fit.
        Stopped: a signal came; everything done is saved.
    """
    task.to(launch().device)
    loader = TrainingLoader(
        train,
        settings.batch_size,
        settings.num_workers,
        settings.seed,
        settings.accumulate,
        settings.epoch_share,
        settings.whole_batches,
    )
    loop = _Loop(task, settings, folder, Length.of(settings, loader.steps), validation is not None)
    if on_main(last_checkpoint(folder).is_file):
        everywhere(loop.restore)
    if validation is None:
        logger.info("%s: no validation tiles; 'best' is the last epoch, the plateau follows the training loss", folder)
    checked = None
    if validation is not None:
        checked = make_loader(validation, settings.batch_size, settings.num_workers, shared=True)
    if not loop.is_done:
        with Journal(folder, loop.progress.epoch) as journal:
            while not loop.is_done:
                row = loop.run_epoch(loader, checked)
                # The log is written before the checkpoint: a row too many, after a kill, is dropped on resuming.
                journal.append(row)
                if validation is not None and any(key.startswith("validation/") for key in row):
                    loop.picture(validation, journal, row["epoch"])
                loop.save_epoch(row["epoch"])
                logger.info(_summary(folder, row, loop.length.epochs))
    best = everywhere(lambda: load_checkpoint(best_checkpoint(folder)))
    load_weights(task.network, best.weights, str(best_checkpoint(folder)))
    task.network.eval()
    return loop.progress


class _Loop:
    """One stage's optimisation and progress."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path, length: Length, validates: bool) -> None:
        self.task = task
        self.settings = settings
        self.folder = folder
        self.length = length
        self.progress = Progress()
        self.improved = False
        self.saved_at = time.monotonic()
        # A training loss is better when it is lower, whatever the monitored score.
        lower = task.monitor.lower_is_better if validates else True
        self.optimisation = Optimisation(
            task.network,
            task.parameter_groups(),
            settings,
            launch().device,
            length.steps,
            length.steps_per_epoch,
            lower,
        )
        if isinstance(task, TaughtByAverage):
            task.be_taught(self.optimisation.average)
        self.step = OptimiserStep(task, self.optimisation, settings, folder)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done and the last epoch is ended."""
        return self.progress.epoch >= self.length.epochs or self.progress.ended_at >= self.length.steps

    def restore(self) -> None:
        """Continue from the last checkpoint.

        Raises:
            UserError: the checkpoint does not fit, or was written by a version that took other steps.
        """
        source = last_checkpoint(self.folder)
        checkpoint = load_checkpoint(source)
        settings, step = self.settings, checkpoint.progress.step
        # Format 2 differs in how it keeps warm-up, cosine and averages; format 1 in all random draws.
        same_steps = settings.lr_schedule == "plateau" and step >= settings.warmup_steps and not settings.ema_decay
        if not (checkpoint.format == FORMAT or (checkpoint.format == 2 and same_steps)):
            raise UserError(
                f"'{source}' was written by an older version, whose further steps would have been others; "
                "finish the run with that version, or start a new one with pretrained_model_path"
            )
        load_weights(self.task.network, checkpoint.network, str(source))
        self.progress = checkpoint.progress
        self.optimisation.restore(checkpoint)
        part = f" and {self.progress.step_in_epoch} steps" if self.progress.step_in_epoch else ""
        logger.info("%s: continuing after epoch %d%s", self.folder, self.progress.epoch, part)

    def run_epoch(self, train: TrainingLoader, validation: SampleLoader | None) -> dict[str, Any]:
        """Train one epoch, or the rest of it, validate, move the schedule; returns the log row."""
        settings, progress = self.settings, self.progress
        epoch = progress.epoch + 1
        steps = self.length.steps_of(epoch)
        self._train(train, epoch, steps)
        sums = progress.sums
        tiles = min(train.tiles_an_epoch, steps * settings.batch_size * settings.accumulate)
        mean_loss = sums["loss"] / tiles
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": progress.step,
            "lr": progress.rate,
            f"train/{self.task.loss_name}": mean_loss,
            "gradient_norm": sums["gradient_norm"] / sums["finite_norms"] if sums["finite_norms"] else math.nan,
            "tiles_per_second": tiles / sums["seconds"],
            "data_wait_share": sums["waited"] / sums["seconds"],
            "memory_gigabytes": peak_memory_gigabytes(launch().device),
        }
        if settings.precision == "fp16":
            row["skipped_steps"] = steps - round(sums["finite_norms"])
        started = time.perf_counter()
        monitored: float | None = mean_loss if validation is None else None
        unscored = False
        if validation is not None and (epoch % settings.validate_every == 0 or epoch == self.length.epochs):
            scores = self._validate(validation)
            row |= {f"validation/{name}": value for name, value in scores.items()}
            monitored = scores.get(self.task.monitor.score)
            unscored = monitored is None
        self._check(row)
        if steps < self.length.steps_per_epoch:
            # The epoch is not whole: a run that is given more steps continues within it.
            progress.ended_at = progress.step
        else:
            progress.epoch, progress.step_in_epoch, progress.sums = epoch, 0, {}
            self.optimisation.end_epoch(monitored)
        # Where no validation tile has a valid pixel, `best` is the last epoch, as without validation.
        self.improved = validation is None or unscored
        if validation is not None and monitored is not None and self.task.monitor.is_better(monitored, progress.best):
            progress.best, self.improved = monitored, True
        if self.improved:
            progress.best_epoch = epoch
        row["seconds"] = sums["seconds"] + time.perf_counter() - started
        return row

    def _train(self, train: TrainingLoader, epoch: int, count: int) -> None:
        """The optimiser steps of an epoch, ``count`` in all, that are not done yet."""
        progress = self.progress
        names = ("loss", "gradient_norm", "finite_norms", "seconds", "waited")
        sums = progress.sums = dict.fromkeys(names, 0.0) | progress.sums
        self.task.network.train()
        steps = train.epoch(epoch, progress.step_in_epoch)
        bar = progress_bar(
            desc=f"{self.task.name} {epoch}/{self.length.epochs}",
            total=count,
            initial=progress.step_in_epoch,
            unit="step",
        )
        with bar:
            while progress.step_in_epoch < count:
                started, waited = time.perf_counter(), train.seconds
                parts = self._next_parts(steps)
                loss, norm = self.step.take(parts, epoch, progress)
                sums["loss"] += loss * parts[0].step_tiles
                if math.isfinite(norm):
                    sums["gradient_norm"] += norm
                    sums["finite_norms"] += 1.0
                sums["waited"] += train.seconds - waited
                sums["seconds"] += time.perf_counter() - started
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
            if count == train.steps:
                next(steps, None)  # the loader can end the epoch
        if launch().num_processes > 1:
            # Validation cannot be stopped while other processes wait for this one; launchers give it half a minute.
            self.save()
            self._stop_if_asked()

    def _next_parts(self, steps: Iterator[list[Part]]) -> list[Part]:
        """The parts that this process computes for the next optimiser step; all processes call this before every step.

        Raises:
            Stopped: a signal came to one of the processes.
            UserError: one of the processes cannot read a tile.
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
        """If a signal came to any process of the launch, save and raise ``Stopped``."""
        (asked,) = add_up([bool(stop_asked())])
        if asked:
            self.save()
            raise Stopped(stop_asked() or "a signal to another process")

    def _saved(self, error: UserError) -> UserError:
        """Save what was done before the error, and return the error."""
        self.save()
        return UserError(f"{error}; the steps before it are saved: mend it, and continue with --resume")

    def _validate(self, loader: SampleLoader) -> dict[str, float]:
        """Scores of the weights that would be used: the averaged ones, where an average is kept."""
        try:
            with self._evaluating():
                return scores_over(loader, self.task.scorer, launch().device, self.task.predict)
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

    def picture(self, validation: SampleDataset, journal: Journal, epoch: int) -> None:
        """Show some validation tiles: in the last epoch, and before it less and less often."""
        is_time = epoch == self.length.epochs or epoch & (epoch - 1) == 0
        if is_time and is_main():
            try:
                tiles = [validation[place] for place in range(min(_PICTURES, len(validation)))]
            except UserError as error:
                logger.warning("no pictures: %s", error)  # the next validation raises the error
                return
            batch = send_to_device(default_collate(tiles), launch().device)
            with self._evaluating(), torch.no_grad():
                views = self.task.panels(batch)
            journal.pictures(epoch, views)

    def _check(self, row: Mapping[str, Any]) -> None:
        """Stop before saving an epoch whose weights or validation score are not finite."""
        score = f"validation/{self.task.monitor.score}"
        scores = [score] if not math.isfinite(row.get(score, 0.0)) else []
        weights = [name for name, value in self.task.network.named_parameters() if not value.isfinite().all()]
        if scores or weights:
            raise diverged(self.folder, f"{(scores or weights)[0]} is no finite number after epoch {row['epoch']}")

    def save_epoch(self, epoch: int) -> None:
        """Write ``last`` after an epoch, and ``best`` or numbered checkpoints if they are due."""
        settings = self.settings
        names = []
        if self.improved or not best_checkpoint(self.folder).is_file():
            names.append(best_checkpoint(self.folder))
        if (settings.save_n_epoch and epoch % settings.save_n_epoch == 0) or epoch in settings.save_i_epoch:
            names.append(self.folder / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
        # `last` is written last, so that everything that it counts as done is done.
        self.save(*names)

    def save(self, *before: Path) -> None:
        """Write ``last``; ``before`` it, the same content to other files.

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


def _summary(folder: Path, row: Mapping[str, Any], epochs: int) -> str:
    shown = {key: value for key, value in row.items() if key.startswith(("train/", "validation/"))}
    kept = [f"{key} {value:.4g}" for key, value in shown.items() if value is not None][:5]
    return f"{folder.name} {row['epoch']}/{epochs}: {', '.join(kept)} ({row['seconds']:.1f} s)"
