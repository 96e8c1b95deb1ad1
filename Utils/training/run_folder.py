"""A run's folder: the effective config, the plan it follows, and what may change when it is resumed."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from Modules.common.untrusted import parse_json, read_text
from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.build import MODEL_FOLDER
from Utils.config.settings import TrainingConfig, load_config
from Utils.core.errors import UserError, write_error
from Utils.core.files import remove_leftovers
from Utils.core.stopping import Stopped, stopping_on_signals
from Utils.core.tables import write_json
from Utils.data.tiles import TEST_PART, TileCheck
from Utils.training.claims import claimed_by
from Utils.training.loop import LoopSettings

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
PLAN_FILE = "plan.json"
# What each launch that works on a run may have for itself.
_OF_THE_MACHINE = frozenset({"num_workers", "cache_gigabytes", "latent_path", "latent_gigabytes", "save_minutes"})
_OPENING_LOCK = "opening.lock"
_LISTED_IDS = 8
# A plan names every tile once a stage.
_LARGEST_PLAN = 2**28
# Keys that may differ from the run's own when it is resumed: none of them changes an epoch that was already trained.
_MAY_CHANGE = frozenset(
    {
        "epochs",
        "num_workers",
        "save_n_epoch",
        "save_i_epoch",
        "save_minutes",
        "validate_every",
        "cache_gigabytes",
        "latent_path",
        "latent_gigabytes",
        "output_dir",
    }
)

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


@dataclass(frozen=True)
class StagePlan:
    """One training stage: which tiles it learns from, is validated on, and predicts afterwards.

    Attributes:
        name: folder of the stage within the run.
        train: training tile ids.
        validation: validation tile ids, of the part that ``validation_part`` names; may be empty.
        validation_part: folder of the validation tiles.
        held_out: tile ids that get their coarse prior from this stage.
    """

    name: str
    train: list[str]
    validation: list[str]
    validation_part: str
    held_out: list[str]


def resolve_config(config: Path | None, resume: Path | None, overrides: Sequence[str], kind: type[ConfigT]) -> ConfigT:
    """The config of a new run, or that of the run to resume with ``overrides`` applied.

    Raises:
        UserError: a bad config; a folder that holds no run; a difference that resuming does not allow.
    """
    if resume is None:
        assert config is not None
        return load_config(config, kind, overrides)
    stored_path = resume / CONFIG_FILE
    if not stored_path.is_file():
        raise UserError(f"'{resume}' holds no run to resume (it has no {CONFIG_FILE}); give the folder that it printed")
    stored = load_config(stored_path, kind)
    wanted = load_config(config or stored_path, kind, overrides)
    before, after = stored.model_dump(mode="json"), wanted.model_dump(mode="json")
    allowed = _MAY_CHANGE - {"epochs"} if stored.lr_schedule == "cosine" else _MAY_CHANGE
    changed = [key for key in after if after[key] != before[key] and key not in allowed]
    if changed:
        listed = "; ".join(f"{key}: {json.dumps(before[key])} -> {json.dumps(after[key])}" for key in changed)
        raise UserError(f"run '{resume}' cannot be resumed with another config ({listed}); start a new run for that")
    return wanted.model_copy(update={"output_dir": str(resume)})


def default_folder(kind: str, config: Path | None) -> Path:
    """Where a run goes whose config names no ``output_dir``: ``output/<kind>/<config's name>``."""
    return Path("output") / kind / (config.stem if config is not None else "run")


def describe_plan(plan: Sequence[StagePlan], check: TileCheck, folder: Path, config: TrainingConfig) -> str:
    """What a run would do, for ``--dry-run``."""
    height, width = check.size
    lines = [f"config and dataset are in order: tiles of {width} x {height} pixels in '{config.dataset_path}'"]
    for stage in plan:
        on_test = stage.validation_part == TEST_PART and bool(stage.validation)
        validated = f"{len(stage.validation)} {'TEST ' if on_test else ''}tiles" if stage.validation else "nothing"
        lines.append(
            f"  {stage.name}: train on {len(stage.train)} tiles, validate on {validated}"
            + (f", write the priors of {len(stage.held_out)}" if stage.held_out else "")
        )
    lines.append(f"the run would go to '{folder}'")
    return "\n".join(lines)


def open_run(folder: Path, config: TrainingConfig, plan: Sequence[StagePlan], resume: bool) -> None:
    """Make a run's folder, or check that the run in it follows the same plan.

    Raises:
        UserError: a new run into a folder that holds one; tiles that changed since the run began; another config while
            another process trains.
    """
    is_new = False
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        # Of two that start in one folder at the same time, the second one finds the first one's run.
        with FileLock(folder / _OPENING_LOCK):
            remove_leftovers(folder, recursively=False)
            _open(folder, config, plan, resume)
    except OSError as error:
        if is_new and not (folder / CONFIG_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise write_error(folder, error, "nothing was started") from error


def _open(folder: Path, config: TrainingConfig, plan: Sequence[StagePlan], resume: bool) -> None:
    stages = [asdict(stage) for stage in plan]
    effective = config.model_dump(mode="json") | {"output_dir": str(folder)}
    effective = _without_none({key: "" if value is None else value for key, value in effective.items()})
    if resume:
        _same_plan(folder, stages)
        stored = _read_json(folder / CONFIG_FILE)
        # Its folder may have another name on another machine.
        changed = {key for key, value in effective.items() if stored.get(key) != value} - {"output_dir"}
        if not changed:
            return
        owners = [owner for stage in plan if (owner := claimed_by(folder / stage.name))]
        if owners and changed <= _OF_THE_MACHINE:
            return  # this launch uses its own, the run keeps those that it has
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
    """What became of a list of tile ids, or of another value of a plan."""
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
    """Around the long work of a run: Ctrl-C and SIGTERM end it in good order, with the line that resumes it.

    Raises:
        Stopped: it was asked to stop, and what was done is saved.
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
    """The loop's part of a config, with ``changes`` for a stage of its own."""
    given = {name: getattr(config, name) for name in LoopSettings.__dataclass_fields__}
    given["save_i_epoch"] = tuple(config.save_i_epoch)
    return LoopSettings(**given | changes)


def save_model(model: D3RSMDE, run: Path) -> Path:
    """Write a run's model folder; it appears under its name only when whole.

    Raises:
        UserError: it cannot be written; the checkpoints are intact.
    """
    folder = run / MODEL_FOLDER
    save_folder(folder, model.save_pretrained)
    return folder


def save_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a folder beside the one of that name, and swap it in.

    Raises:
        UserError: it cannot be written; an older folder and the checkpoints are intact.
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
