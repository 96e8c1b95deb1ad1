"""The app in a browser, and the HTTP API: any trained model, any image, on this machine.

python app.py
python app.py --models output FOLDER --host 0.0.0.0 --port 8000 --no-page
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from Utils.core.command_line import run_script
from Utils.core.stopping import interrupted_by_termination

_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", 7860


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        # Only now, so that --help and a wrong argument are answered at once.
        from Systems.app.serving import serve

        serve(given.models, given.host, given.port, _limits(given), page=not given.no_page)

    with interrupted_by_termination():
        return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument(
        "--models", nargs="+", default=["output"], metavar="PLACE", help="folders with models, or names on the hub"
    )
    parser.add_argument(
        "--host", default=_DEFAULT_HOST, help=f"address to listen at; {_DEFAULT_HOST}: this machine only"
    )
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT)
    parser.add_argument("--no-page", action="store_true", help="the API alone")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--upload-megabytes", type=float, default=200.0, help="of one request (200)")
    limits.add_argument("--megapixels", type=float, default=50.0, help="of an image or a DEM (50)")
    limits.add_argument("--seconds", type=float, default=600.0, help="until a scene is given up (600)")
    limits.add_argument("--at-once", type=int, default=1, help="scenes that are predicted at the same time (1)")
    limits.add_argument("--memory-gigabytes", type=float, default=16.0, help="of the process of one scene (16)")
    limits.add_argument("--waiting", type=int, default=8, help="requests that are received or wait, those included (8)")
    return parser


def _limits(given: argparse.Namespace) -> object:
    from Systems.app.limits import Limits
    from Utils.core.errors import UserError

    for name in ("upload_megabytes", "megapixels", "seconds", "at_once", "waiting", "memory_gigabytes"):
        if not getattr(given, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(given, name):g}: give more than 0")
    if given.waiting < given.at_once:
        raise UserError(f"--waiting {given.waiting}: give at least as many as --at-once, {given.at_once}")
    return Limits(
        round(given.upload_megabytes * 1e6),
        round(given.megapixels * 1e6),
        given.seconds,
        given.at_once,
        given.waiting,
        round(given.memory_gigabytes * 1e9),
    )


if __name__ == "__main__":
    raise SystemExit(main())
