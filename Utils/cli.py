"""What all command lines share: arguments, logging, and one line for an error that the user can mend."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from rasterio.errors import NotGeoreferencedWarning

from Utils.device import keep_freed_memory
from Utils.errors import UserError
from Utils.rasters import RasterError

logger = logging.getLogger(__name__)

EXIT_USER_ERROR = 2


def run_script(work: Callable[[], None]) -> int:
    """Run a script's work with logging set up; return its exit status, 2 for an error that the user can mend."""
    # Handlers are set anew: a test or notebook may call several scripts in one process.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("diffusers", "timm", "huggingface_hub", "rasterio", "accelerate", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # PNG tiles have no georeference.  Tiles are read in threads, where a filter around one reading does not hold.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    keep_freed_memory()
    try:
        work()
    except (UserError, RasterError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def _one_line(error: Exception) -> str:
    """The message; of an error that a loader's worker sent, wrapped in a traceback, the last line, which is its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught ") and len(lines) > 1:
        return lines[-1].partition(": ")[2] or lines[-1]
    # A file name or a key may hold a line break.
    return " ".join(lines)


def config_parser(description: str, resumable: bool) -> argparse.ArgumentParser:
    """The arguments of the four scripts."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=not resumable, help="JSON config")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a config key; dots enter nested objects; may be given several times",
    )
    parser.add_argument("--dry-run", action="store_true", help="check config and dataset, say what would run, stop")
    if resumable:
        parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder, exactly")
    return parser


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and insist on either ``--config`` or ``--resume`` where both exist."""
    given = parser.parse_args(arguments)
    if getattr(given, "resume", None) is None and given.config is None:
        parser.error("give --config FILE, or --resume RUN")
    return given
