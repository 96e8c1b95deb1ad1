"""What all command lines share: arguments, logging, and one line for an error that the user can correct."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from Utils.core.device import keep_freed_memory
from Utils.core.errors import RasterError, UserError, one_line
from Utils.core.processes import agreed, disconnect, is_agreed, is_main, tell
from Utils.core.stopping import Stopped

logger = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
# The exit status that shells give a program that Ctrl-C has ended.
EXIT_INTERRUPTED = 130


def run_script(work: Callable[[], None]) -> int:
    """Run a script's work with logging set up; return its exit status, 2 for an error that the user can correct.

    In a launch of several processes only the main one prints.
    """
    set_up_process()
    try:
        _with_short_names(work)
    except (UserError, RasterError) as error:
        if not getattr(error, "told_elsewhere", False):
            print(f"error: {one_line(str(error) or type(error).__name__)}", file=sys.stderr)
        if not is_agreed(error):
            return EXIT_USER_ERROR  # disconnecting might wait for processes that wait for this one
        status = EXIT_USER_ERROR
    except Stopped as stop:
        tell(stop)
        status = 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    else:
        status = 0
    disconnect()
    return status


def set_up_process() -> None:
    """Logging, warnings and memory as the scripts have them."""
    # Handlers are set anew: a test or notebook may call several scripts in one process.
    level = logging.INFO if is_main() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in (
        "diffusers",
        "timm",
        "huggingface_hub",
        "rasterio",
        "accelerate",
        "transformers",
        "httpx",
        "filelock",
    ):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # PNG tiles have no georeference.  Tiles are read in threads, where a filter around one reading does not hold.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    # Several processes average gradients, some of which have an unusual layout; torch warns that this is slow.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    keep_freed_memory()


def _with_short_names(work: Callable[[], None]) -> None:
    """Do the work; a name that is too long, at which any look at a path may fail, becomes an error of the user's."""
    try:
        work()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        told = UserError(f"'{error.filename}': this name is too long; give a shorter one")
        raise (agreed(told) if is_agreed(error) else told) from error


@contextmanager
def each_line_once() -> Iterator[None]:
    """Log no line a second time, as where a file is opened again."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        known = line in seen
        seen.add(line)
        return not known

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_new)


def say_new_name(module: str) -> int:
    """Say that a command has another name now; returns the exit status."""
    arguments = " ".join(sys.argv[1:])
    print(f"error: this command has a new name: python -m {module} {arguments}".rstrip(), file=sys.stderr)
    return EXIT_USER_ERROR


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
        parser.add_argument(
            "--stages",
            nargs="+",
            metavar="STAGE",
            help="train only these stages of the run, in this order; --dry-run lists them, --resume trains the others",
        )
    return parser


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and insist on either ``--config`` or ``--resume`` where both exist."""
    given = parser.parse_args(arguments)
    if getattr(given, "resume", None) is None and given.config is None:
        parser.error("give --config FILE, or --resume RUN")
    return given
