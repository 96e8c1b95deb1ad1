"""The config that a training script follows: from a file, or from the run that it resumes; without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from Utils.config.config_files import load_config
from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError
from Utils.training.run_files import CONFIG_FILE

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


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
    changed = [key for key in after if after[key] != before[key] and key not in stored.changeable_keys]
    if changed:
        listed = "; ".join(f"{key}: {json.dumps(before[key])} -> {json.dumps(after[key])}" for key in changed)
        raise UserError(f"run '{resume}' cannot be resumed with another config ({listed}); start a new run for that")
    return wanted.model_copy(update={"output_dir": str(resume)})


def default_folder(kind: str, config: Path | None) -> Path:
    """The folder of a run whose config names no ``output_dir``: ``output/<kind>/<config's name>``."""
    return Path("output") / kind / (config.stem if config is not None else "run")
