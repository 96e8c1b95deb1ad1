"""The command ``d3`` of an installed copy: ``d3 predict --model ...`` calls the main of ``predict.py``, and so on.

``setup.py`` puts all folders and scripts under one package, ``d3_rsmde``, so that no name of ours lies beside those of
other packages. In a clone, ``python d3.py`` is the same command.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Where the scripts and the folders Modules, Utils, Systems and Config lie, in a clone and in an installed copy."""

COMMANDS: Mapping[str, str] = {
    "predict": "predict",
    "predict-stereo": "predictStereo",
    "evaluate-scene": "evaluateScene",
    "train-vit": "trainViT",
    "evaluate-vit": "evaluateViT",
    "train-diffusion": "trainDiffusion",
    "evaluate-diffusion": "evaluateDiffusion",
    "train-depth": "trainDepth",
    "evaluate-depth": "evaluateDepth",
    "train-stereo": "trainStereo",
    "evaluate-stereo": "evaluateStereo",
    "train-segmentation": "trainSegmentation",
    "evaluate-segmentation": "evaluateSegmentation",
    "prepare-mars": "prepareMars",
    "app": "app",
    "relative-depth": "Systems.relative_depth",
    "cut": "Utils.data.cut",
    "splits": "Utils.data.splits",
    "audit": "Systems.audit",
    "export": "Systems.export.command",
    "model-card": "Utils.training.runs.model_card",
    "push": "Systems.push",
    "runs": "Utils.training.runs.listing",
    "demo": "Systems.d3rsmde.demo",
}
"""The module whose ``main`` each command calls."""

USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Call a command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else USER_ERROR
    if given[0] == "--version":
        print(_version())
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        print(f"error: d3 has no command '{name}'; it has {', '.join(COMMANDS)}", file=sys.stderr)
        return USER_ERROR
    _find_our_folders()
    sys.argv[0] = f"d3 {name}"  # what the command's own help calls it
    return int(importlib.import_module(COMMANDS[name]).main(rest) or 0)


def _find_our_folders() -> None:
    """Let this process, which is ours alone, and those that it starts import the folders by their short names."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    before = os.environ.get("PYTHONPATH")
    if str(FOLDER) not in (before or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(FOLDER), before)))


def _help() -> str:
    commands = "\n".join(f"  d3 {name:<23}{_does(module)}" for name, module in COMMANDS.items())
    return (
        "usage: d3 COMMAND [--help | its arguments]\n\n"
        f"Height and depth from remote-sensing images.\n\n{commands}\n\n"
        f"configs that came with it: {FOLDER / 'Config'}"
    )


def _does(module: str) -> str:
    """The first line of a module, which says what it does; nothing is imported for it."""
    path = FOLDER / f"{module.replace('.', '/')}.py"
    folder = path.with_suffix("") / "__main__.py"
    first = (path if path.is_file() else folder).read_text(encoding="utf-8").partition("\n")[0]
    return re.split(r"[:;.]", first.strip('"').replace("``", ""))[0]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("d3-rsmde")
    except PackageNotFoundError:
        return "a clone that is not installed"


if __name__ == "__main__":
    raise SystemExit(main())
