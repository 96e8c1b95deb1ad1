"""The driver of every run: its stages one after another, each claimed once, all of them resumable."""

from __future__ import annotations

import logging
from pathlib import Path

from Utils.core.errors import UserError
from Utils.core.processes import everywhere, on_main
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.claims import ClaimedError, claim, claimed_elsewhere
from Utils.training.runs.model_card import write_card
from Utils.training.runs.run import Run
from Utils.training.runs.run_folder import open_run, resumable

logger = logging.getLogger(__name__)


def carry_out(run: Run, folder: Path, resume: bool) -> None:
    """Train a run to its end.

    If stages do not need one another, those that another launch has claimed are left to it. So several launches can
    work on one run, on any machines that share its folder, each started with ``--resume``.

    Args:
        run: the run to train.
        folder: folder of the run.
        resume: whether to continue the run in ``folder``.

    Raises:
        UserError: an error that the user can correct; checkpoints up to then are kept.
        Stopped: a signal asked for it.
    """
    setup = on_main(run.check)
    chosen = everywhere(lambda: run.chosen(setup.plan))
    everywhere(lambda: run.build(setup))
    on_main(lambda: open_run(folder, run, setup.plan, resume))
    elsewhere: list[ClaimedError] = []
    with resumable(run.script, folder):
        for stage in chosen:
            try:
                with claim(folder / stage.name):
                    counts = f"{len(stage.train)} training, {len(stage.validation)} validation tiles"
                    logger.info("%s: %s", stage.name, counts)
                    run.train(setup, stage, folder)
            except ClaimedError as error:
                elsewhere.append(error)
                if run.in_turn:
                    raise claimed_elsewhere(folder, elsewhere) from error
    if len(elsewhere) == len(chosen):
        raise claimed_elsewhere(folder, elsewhere)
    for other in elsewhere:
        logger.info("left to another process: %s", other)
    if (folder / MODEL_FOLDER).is_dir():
        on_main(lambda: _write_card(folder))
    run.finish(setup, folder, whole=len(chosen) == len(setup.plan) and not elsewhere)


def _write_card(folder: Path) -> None:
    """A card that cannot be written does not end a run whose model is there."""
    try:
        write_card(folder)
    except UserError as error:
        logger.warning("the model has no card: %s", error)
