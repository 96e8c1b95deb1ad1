"""The common course of all training scripts: arguments, config, then a dry run or the run itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from Utils.config.config_files import read_merged
from Utils.config.training_keys import TrainingConfig
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere, on_main, tell
from Utils.training.run_files import CONFIG_FILE
from Utils.training.runs.run import Run
from Utils.training.runs.run_config import default_folder, resolve_config


def training_script(
    arguments: Sequence[str] | None,
    description: str,
    config_class: type[TrainingConfig],
    make_run: Callable[[Any], Run],
    variants: Mapping[str, type[TrainingConfig]] | None = None,
) -> int:
    """Carry out a training script; returns its exit status.

    Args:
        arguments: arguments of the command line; None takes those of the process.
        description: the text of ``--help``.
        config_class: class of the config.
        make_run: makes the run of a config; torch and the networks are imported only then.
        variants: classes of the configs that have a certain key, by that key.
    """
    given = parse_arguments(config_parser(description, resumable=True), arguments)

    def work() -> None:
        kind = everywhere(lambda: _variant(given, variants or {}) or config_class)
        config = everywhere(lambda: resolve_config(given.config, given.resume, given.overrides, kind))
        run = make_run(config)
        run.only = given.stages
        folder = given.resume or Path(config.output_dir or default_folder(run.kind, given.config))
        if given.dry_run:
            setup = on_main(run.check)
            tell(run.describe(setup, folder))
            return
        from Utils.training.runs.driver import carry_out

        carry_out(run, folder, resume=given.resume is not None)

    return run_script(work)


def _variant(given: argparse.Namespace, variants: Mapping[str, type[TrainingConfig]]) -> type[TrainingConfig] | None:
    """The class whose key a config has; None where it has none of them, or there is no config."""
    path = given.config or given.resume / CONFIG_FILE
    if not variants or not path.is_file():
        return None
    keys = read_merged(path)[0]
    return next((kind for key, kind in variants.items() if keys.get(key) not in (None, "")), None)
