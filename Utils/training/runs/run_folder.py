"""The folder of a run: the effective config, the plan that the run follows, and the folders of finished models."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from Modules.common.plain_json import parse_json, read_text
from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError, write_error
from Utils.core.files import remove_leftovers
from Utils.core.stopping import Stopped, stopping_on_signals
from Utils.core.tables import write_json
from Utils.data.stage_plan import StagePlan
from Utils.training.loop import LoopSettings
from Utils.training.run_files import CONFIG_FILE, KIND_FILE, PLAN_FILE
from Utils.training.runs.claims import claimed_by
from Utils.training.runs.run import Run

logger = logging.getLogger(__name__)

_OPENING_LOCK = "opening.lock"
_LISTED_IDS = 8
# A plan names every tile once a stage.
_LARGEST_PLAN = 2**28


def open_run(folder: Path, run: Run, plan: Sequence[StagePlan], resume: bool) -> None:
    """Make a run's folder, or check that the run in it is of the same kind and follows the same plan.

    Raises:
        UserError: a new run into a folder that holds one; tiles that changed since the run began; another config while
            another process trains.
    """
    is_new = False
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        # If two start in one folder at the same time, the second one finds the run of the first.
        with FileLock(folder / _OPENING_LOCK):
            remove_leftovers(folder, recursively=False)
            _open(folder, run, plan, resume)
    except OSError as error:
        if is_new and not (folder / CONFIG_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise write_error(folder, error, "nothing was started") from error


def _open(folder: Path, run: Run, plan: Sequence[StagePlan], resume: bool) -> None:
    stages = [asdict(stage) for stage in plan]
    config = run.config
    effective = config.model_dump(mode="json") | {"output_dir": str(folder)}
    effective = _without_none({key: "" if value is None else value for key, value in effective.items()})
    if resume:
        _same_plan(folder, stages)
        stored = _read_json(folder / CONFIG_FILE)
        # The folder may have another name on another machine.
        changed = {key for key, value in effective.items() if stored.get(key) != value} - {"output_dir"}
        if not changed:
            return
        owners = [owner for stage in plan if (owner := claimed_by(folder / stage.name))]
        if owners and changed <= config.keys_that_may_change(own_of_launch=True):
            return  # this launch uses its value, and the run keeps the value that it has
        if owners:
            raise UserError(
                f"the config of run '{folder}' ({', '.join(sorted(changed))}) cannot change while {owners[0]} trains "
                "it; stop that first"
            )
    elif (folder / CONFIG_FILE).exists():
        raise UserError(
            f"'{folder}' already holds a run; continue it with --resume {folder}, "
            "or choose another folder with --set output_dir=FOLDER"
        )
    described = {
        "script": run.script,
        "kind": run.kind,
        "monitor": run.monitor,
        "lower_is_better": run.lower_is_better,
        "epochs": {stage.name: run.epochs_of(stage.name) for stage in plan},
    }
    write_json(folder / KIND_FILE, described)
    write_json(folder / PLAN_FILE, stages)
    write_json(folder / CONFIG_FILE, effective)


def _same_plan(folder: Path, stages: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where a run's stored plan differs from ``stages``."""
    stored = _read_json(folder / PLAN_FILE)
    if not isinstance(stored, list) or not all(isinstance(stage, dict) for stage in stored):
        raise UserError(f"'{folder / PLAN_FILE}' is no plan of a run; the run cannot be resumed, start a new one")
    before, now = ([stage.get("name") for stage in plan] for plan in (stored, stages))
    if before != now:
        raise UserError(f"run '{folder}' cannot be resumed: its stages were {before}, now {now}; start a new one")
    for old, new in zip(stored, stages, strict=True):
        changed = [f"{key}: {_difference(old.get(key), new[key])}" for key in new if old.get(key) != new[key]]
        if changed:
            raise UserError(
                f"run '{folder}' cannot be resumed: "
                f"the tiles of stage '{new['name']}' changed ({'; '.join(changed)}); "
                "restore the dataset and split files, or start a new run"
            )


def _difference(old: Any, new: Any) -> str:
    """How a list of tile ids, or another value of a plan, has changed."""
    if not (isinstance(old, list) and isinstance(new, list)):
        return f"{json.dumps(old)} -> {json.dumps(new)}"
    parts = []
    for what, one, other in (("added", new, old), ("gone", old, new)):
        ids = [str(tile) for tile in one if tile not in set(map(str, other))]
        if ids:
            more = f" and {len(ids) - _LISTED_IDS} more" if len(ids) > _LISTED_IDS else ""
            parts.append(f"{', '.join(ids[:_LISTED_IDS])}{more} {what}")
    return ", ".join(parts) or "the same in another order"


@contextmanager
def resumable(script: str, folder: Path) -> Iterator[None]:
    """A context for the long work of a run: Ctrl-C and SIGTERM end it in good order and tell how to resume it.

    Raises:
        Stopped: the run was asked to stop, and everything done is saved.
    """
    with stopping_on_signals():
        try:
            yield
        except Stopped as stop:
            command = f"python {script} --resume {shlex.quote(str(folder))}"
            raise Stopped(f"stopped ({stop}); everything done is saved, continue with: {command}") from stop


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_text(path, _LARGEST_PLAN))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; the run cannot be resumed, start a new one") from error


def loop_settings(config: TrainingConfig, **changes: Any) -> LoopSettings:
    """The settings of the loop in a config, with ``changes`` for a particular stage."""
    given = {name: getattr(config, name) for name in LoopSettings.__dataclass_fields__}
    for name in ("save_i_epoch", "lr_milestones"):
        given[name] = tuple(given[name])
    return LoopSettings(**given | changes)


def save_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a folder under a temporary name, which then replaces the one of that name.

    Raises:
        UserError: the folder cannot be written; an older folder and the checkpoints stay unchanged.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        save(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except Exception as error:  # safetensors and diffusers raise their own kinds when a disk is full
        shutil.rmtree(unfinished, ignore_errors=True)
        raise write_error(folder, error, "the checkpoints are intact: continue with --resume") from error
