"""Reading the folder of a run: how far the run came, whether it still runs, how good it is.

Folders may come from strangers or be damaged: everything that is read is checked, nothing is written, and no checkpoint
is opened.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from Utils.training.run_files import CONFIG_FILE, KIND_FILE, LOCK_FILE, LOG_FILE, MODEL_FOLDER, PLAN_FILE, STATUS_FILE

logger = logging.getLogger(__name__)

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
KILLED, WAITING, DAMAGED = "killed", "waiting", "damaged"
STATES = (RUNNING, FINISHED, STOPPED, FAILED, KILLED, WAITING, DAMAGED)
UNKNOWN = "unknown"
_WRITTEN_STATES = (RUNNING, FINISHED, STOPPED, FAILED)
_LARGEST = 2**31 - 1
# A kind, a script or a score in a run's folder, which may come from a stranger: nothing that a shell would act on.
_PLAIN = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True)
class Best:
    """The best score of a run's last stage.

    Attributes:
        value: the score.
        name: name of the score in the log; it is the training loss where the stage was not validated.
        epoch: the first epoch that reached the score.
        lower_is_better: the score's direction.
    """

    value: float
    name: str
    epoch: int
    lower_is_better: bool = True

    @property
    def validated(self) -> bool:
        """Whether this is a validation score."""
        return self.name.startswith("validation/")


@dataclass(frozen=True)
class Run:
    """One run, as described by its folder.

    Attributes:
        folder: folder of the run.
        kind: what is trained, such as ``ViT``; ``unknown`` where the folder does not tell.
        script: the script that trains it; empty where unknown.
        state: one of ``STATES``.
        reason: why the run is neither finished nor running, or which stages ended while others run; may be empty.
        stage: the stage that is trained, or in which the run ended.
        epoch: number of epochs done in that stage.
        epochs: number of epochs that this stage will have, None where the config does not say.
        best: best score of the last stage, None before it has a row in its log.
        updated: time of the last change in seconds since 1970, None where unknown.
        tiles_per_second: speed in the last epoch of that stage.
        hours: time spent in all epochs of all stages.
        settings: the effective config, nested keys dotted.
    """

    folder: Path
    kind: str = UNKNOWN
    script: str = ""
    state: str = DAMAGED
    reason: str = ""
    stage: str = ""
    epoch: int = 0
    epochs: int | None = None
    best: Best | None = None
    updated: float | None = None
    tiles_per_second: float | None = None
    hours: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunKind:
    """What a run's folder says of its kind; see ``Utils.training.runs.run.Run``."""

    name: str
    script: str
    monitor: str
    lower_is_better: bool
    epochs: Mapping[str, Any]


@dataclass(frozen=True)
class _Stage:
    name: str
    state: str
    reason: str
    epochs: int | None
    updated: float | None
    rows: Sequence[Mapping[str, Any]]

    @property
    def epoch(self) -> int:
        return int(self.rows[-1]["epoch"]) if self.rows else 0


def visible(text: str) -> str:
    """A text from a file on one line, without characters that could control a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def find_runs(folder: Path) -> Iterator[Path]:
    """The folders of runs at and below ``folder``; runs are not searched for further runs, links not followed."""

    def warn(error: OSError) -> None:
        logger.warning("not searched for runs: '%s' (%s)", visible(str(error.filename)), error.strerror)

    for path, folders, files in os.walk(folder, onerror=warn):
        if CONFIG_FILE in files and PLAN_FILE in files:
            folders.clear()
            yield Path(path)
        folders.sort()


def read_run(folder: Path) -> Run:
    """Read a run's folder; what cannot be understood makes the run ``damaged``, with the reason."""
    name, script, settings = UNKNOWN, "", dict[str, Any]()
    try:
        has_model = (folder / MODEL_FOLDER).is_dir()
        config = _read_json(folder, CONFIG_FILE)
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG_FILE}: no JSON object")
        kind = read_kind(folder, config)
        name, script, settings = kind.name, kind.script, dict(flatten(config))
        stages = [_read_stage(folder, stage, kind) for stage in _stage_names(folder)]
    except RecursionError:
        return Run(folder, name, script, DAMAGED, "JSON nested too deeply", settings=settings)
    except (OSError, ValueError) as error:
        updated = _changed(folder / CONFIG_FILE)
        return Run(folder, name, script, DAMAGED, str(error), updated=updated, settings=settings)
    running = [stage for stage in stages if stage.state == RUNNING]
    unfinished = [stage for stage in stages if stage.state != FINISHED]
    stage = (running or unfinished or stages[-1:])[0]
    state, reason = stage.state, stage.reason
    if state == RUNNING:
        # Several launches can share the stages of a run: a running stage must not hide one that ended early.
        ended = [each for each in unfinished if each.state in (STOPPED, FAILED, KILLED)]
        reason = "; ".join(f"{each.name} {each.state}: {each.reason}" for each in ended)
    if not unfinished and not has_model:
        state, reason = STOPPED, f"every stage is trained, but there is no folder '{MODEL_FOLDER}' yet"
    rows = [row for each in stages for row in each.rows]
    return Run(
        folder,
        name,
        script,
        state,
        reason,
        stage.name,
        stage.epoch,
        stage.epochs,
        _best(stages[-1].rows, kind),
        max((each.updated for each in stages if each.updated is not None), default=_changed(folder / CONFIG_FILE)),
        _number(stage.rows[-1].get("tiles_per_second")) if stage.rows else None,
        _number(sum(_number(row.get("seconds")) or 0.0 for row in rows) / 3600.0) or 0.0,
        settings,
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; lists are values."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_claimed(stage: Path) -> bool | None:
    """Whether a process works on a stage, on this host or another that shares the disk; None if that is unknown.

    The lock is held only for an instant, and its file is never created.
    """
    path = stage / LOCK_FILE
    if not path.is_file():
        return False
    if sys.platform == "win32":
        from filelock import FileLock, Timeout

        try:
            FileLock(path, timeout=0).acquire().lock.release()
        except Timeout:
            return True
        except OSError:
            return None
        return False
    import fcntl  # not on Windows

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # A shared lock needs no permission to write, and several listings do not take each other for runs.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None  # a file system without locks
    finally:
        os.close(descriptor)
    return False


def read_kind(folder: Path, config: Mapping[str, Any]) -> RunKind:
    """The kind of a run. Runs of versions before 2026-12 do not name it; it follows from the keys of their config.

    Raises:
        ValueError: there is no kind that this version knows.
    """
    epochs = config.get("epochs")
    if (folder / KIND_FILE).is_file():
        found = _read_json(folder, KIND_FILE)
        found = found if isinstance(found, dict) else {}
        name, script, monitor = (str(found.get(key, "")) for key in ("kind", "script", "monitor"))
        if not all(_PLAIN.fullmatch(text) for text in (name, script, monitor)):
            raise ValueError(f"{KIND_FILE}: it does not say what kind of run this is")
        of_stages = found["epochs"] if isinstance(found.get("epochs"), dict) else {}
        return RunKind(name, script, monitor, found.get("lower_is_better") is not False, of_stages)
    if "vae_type" in config:
        of_stages = {"vae": config.get("vae_epochs"), "unet": epochs}
        return RunKind("diffusion", "trainDiffusion.py", "paper.mae", True, of_stages)
    if "model" in config or "k_folds" in config:
        return RunKind("ViT", "trainViT.py", "paper.mae", True, dict.fromkeys(_stage_names(folder), epochs))
    raise ValueError(f"{CONFIG_FILE}: it is of no kind of run that this version knows")


def _stage_names(folder: Path) -> list[str]:
    plan = _read_json(folder, PLAN_FILE)
    stages = plan if isinstance(plan, list) else []
    names = [stage.get("name") if isinstance(stage, dict) else None for stage in stages]
    # A name must be that of a folder in the run, and must not lead out of it.
    if not names or not all(isinstance(n, str) and n not in ("", ".", "..") and Path(n).name == n for n in names):
        raise ValueError(f"{PLAN_FILE}: no list of named stages")
    return [str(name) for name in names]


def _read_stage(run: Path, name: str, kind: RunKind) -> _Stage:
    folder = run / name
    epochs = kind.epochs.get(name)
    epochs = epochs if _is_count(epochs) else None
    rows = list(_read_log(run, f"{name}/{LOG_FILE}"))
    if (folder / STATUS_FILE).is_file():
        state, reason, updated = _read_status(run, f"{name}/{STATUS_FILE}", folder)
        if state == FINISHED and rows and epochs is not None and rows[-1]["epoch"] < epochs:
            state, reason = STOPPED, f"{name} was finished at epoch {rows[-1]['epoch']}, and is to have {epochs} now"
    else:
        state, reason = _judge_by_log(folder, rows, epochs)
        updated = None
    if updated is None or state in (RUNNING, KILLED):
        # The status is written at a stage's beginning and end, the log every epoch.  When a stage is over, only the
        # status counts: in a copy of the folder the log has another date.
        updated = max((t for t in (updated, _changed(folder / LOG_FILE)) if t is not None), default=None)
    return _Stage(name, state, reason, epochs, updated, rows)


def _read_status(run: Path, name: str, stage: Path) -> tuple[str, str, float | None]:
    status = _read_json(run, name)
    if not isinstance(status, dict) or status.get("state") not in _WRITTEN_STATES:
        raise ValueError(f"{name}: no status of a stage")
    state, reason = status["state"], str(status.get("reason") or "")
    if state == RUNNING and is_claimed(stage) is False:
        state, reason = KILLED, f"process {status.get('process')} on {status.get('host')} ended without a word"
    return state, reason, _seconds_since_1970(status.get("updated"))


def _judge_by_log(folder: Path, rows: Sequence[Mapping[str, Any]], epochs: int | None) -> tuple[str, str]:
    """The state of a stage without a status: it has not begun, has just begun, or was trained by an older version."""
    if is_claimed(folder):
        return RUNNING, ""
    if not rows:
        return WAITING, ""
    if epochs is not None and rows[-1]["epoch"] >= epochs:
        return FINISHED, ""
    return STOPPED, f"an older version's run without a status; its log ends at epoch {rows[-1]['epoch']}"


def _read_log(run: Path, name: str) -> Iterator[Mapping[str, Any]]:
    path = run / name
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{name}: line {number} is no JSON ({error})") from error
        if not isinstance(row, dict) or not _is_count(row.get("epoch")):
            raise ValueError(f"{name}: line {number} is no row of an epoch")
        yield row


def _read_json(run: Path, name: str) -> Any:
    try:
        # Reading anything but a file, such as a pipe, might never end.
        if not (run / name).is_file():
            raise ValueError("no file")
        return json.loads((run / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _best(rows: Sequence[Mapping[str, Any]], kind: RunKind) -> Best | None:
    """The best validation score, or the lowest training loss where there is none."""
    losses = dict.fromkeys(key for row in rows for key in row if key.startswith("train/"))
    for name in (f"validation/{kind.monitor}", *losses):
        lower = kind.lower_is_better or name in losses
        sign = 1.0 if lower else -1.0
        scores = [(sign * value, row["epoch"]) for row in rows if (value := _number(row.get(name))) is not None]
        if scores:
            value, epoch = min(scores)
            return Best(sign * value, name, epoch, lower)
    return None


def _number(value: Any) -> float | None:
    """A finite number as float; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _seconds_since_1970(text: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
