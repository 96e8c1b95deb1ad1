"""The common course of all training scripts: arguments, config, then a dry run or the run itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from Utils.config.training_keys import TrainingConfig
from Utils.core.command_line import config_parser, parse_arguments, run_script
from Utils.core.processes import everywhere, on_main, tell
from Utils.training.runs.run import Run
from Utils.training.runs.run_config import default_folder, resolve_config

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def training_script(
    arguments: Sequence[str] | None,
    description: str,
    config_class: type[ConfigT],
    make_run: Callable[[ConfigT], Run],
) -> int:
    """Carry out a training script; returns its exit status.

    Args:
        arguments: arguments of the command line; None takes those of the process.
        description: the text of ``--help``.
        config_class: class of the config.
        make_run: makes the run of a config; torch and the networks are imported only then.
    """
    given = parse_arguments(config_parser(description, resumable=True), arguments)

    def work() -> None:
        config = everywhere(lambda: resolve_config(given.config, given.resume, given.overrides, config_class))
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
