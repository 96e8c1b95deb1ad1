"""Send a model folder to the hub: weights, configs and its card, and nothing else.

    python -m Systems.push --model output/Demo/diffusion/model --name someone/demo-heights --private

The hub's own client logs in first: hf auth login.  HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from Utils.core.command_line import run_script
from Utils.core.errors import UserError, first_line
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.model_card import CARD_FILE

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send a folder; returns the exit status."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m Systems.push", description=__doc__, formatter_class=text)
    parser.add_argument("--model", required=True, type=Path, help="model folder, or folder of a run")
    parser.add_argument("--name", required=True, metavar="OWNER/NAME", help="the repository, made if there is none")
    parser.add_argument("--private", action="store_true", help="hide a new repository from others")
    given = parser.parse_args(arguments)
    return run_script(lambda: _send(given.model, given.name, given.private))


def _send(model: Path, name: str, private: bool) -> None:
    from Modules.common.hub import push_folder

    folder = model / MODEL_FOLDER if (model / MODEL_FOLDER).is_dir() else model
    if not any((folder / file).is_file() for file in ("model_index.json", "config.json")):
        raise UserError(f"--model '{model}': no model folder; it has neither model_index.json nor config.json")
    if not (folder / CARD_FILE).is_file():
        command = f"python -m Utils.training.runs.model_card --run {folder.parent}"
        raise UserError(f"--model '{model}' has no card ({CARD_FILE}), and is not sent without one: {command}")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"--name '{name}': give OWNER/NAME")
    try:
        logger.info("%s", push_folder(folder, name, private))
    except OSError as error:
        raise UserError(first_line(error)) from error


if __name__ == "__main__":
    raise SystemExit(main())
