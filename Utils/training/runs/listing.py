"""List runs: how far each came, how good it is, why it stopped, and how their configs differ.

python -m Utils.training.runs [FOLDER ...] [--diff | --json | --csv] [--sort updated|best|name] [--state failed]
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.tables import format_table
from Utils.training.runs.run_history import (
    DAMAGED,
    FAILED,
    KILLED,
    STATES,
    STOPPED,
    UNKNOWN,
    Run,
    find_runs,
    read_run,
    visible,
)

_RESUMABLE = (STOPPED, FAILED, KILLED)
_ABSENT = "-"
_LONGEST_VALUE = 40
# The common beginning of several long values is left out but for its end.
_KEPT_IN_COMMON = 10
_COLUMNS_OF_DIFFERENCES = 5

NamedRun = tuple[str, Run]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        runs = [(n, r) for n, r in list_runs(given.folders) if not given.states or r.state in given.states]
        runs = sort_runs(runs, given.sort)
        if given.json:
            # JSON in ASCII escapes all control characters but this one.
            _print(json.dumps([_facts(*run) for run in runs], indent=2).replace("\x7f", "\\u007f"))
        elif given.csv:
            _print_csv(runs)
        elif not runs:
            _print(f"no runs{' of that state' if given.states else ''} in {', '.join(map(str, given.folders))}")
        else:
            _print(_table(runs))
            for line in [*_reasons(runs), *(_differences(runs) if given.diff else [])]:
                _print(line)

    return run_script(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m Utils.training.runs", description="list the runs below folders")
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("output")], metavar="FOLDER")
    parser.add_argument("--sort", choices=("updated", "best", "name"), default="updated")
    parser.add_argument(
        "--state", dest="states", choices=STATES, action="append", help="only runs of this state; may be given again"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--diff", action="store_true", help="also show what differs between the configs of one kind")
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--csv", action="store_true", help="for programs")
    return parser


def list_runs(folders: Sequence[Path]) -> list[NamedRun]:
    """All runs at and below folders, each once, with short names.

    Raises:
        UserError: a folder that does not exist.
    """
    found: dict[Path, NamedRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder '{folder}'; give one that holds runs")
        for path in find_runs(folder):
            short = path if path == folder or len(folders) > 1 else path.relative_to(folder)
            found.setdefault(path.resolve(), (short.as_posix(), read_run(path)))
    return list(found.values())


def sort_runs(runs: Sequence[NamedRun], by: str) -> list[NamedRun]:
    """Newest first, or best first (validation scores before training losses), or by name."""

    def key(named: NamedRun) -> Any:
        name, run = named
        if by == "updated":
            return -(run.updated or 0.0), name
        if by == "best" and run.best is not None:
            value = run.best.value if run.best.lower_is_better else -run.best.value
            return not run.best.validated, value, name
        return (2, 0.0, name) if by == "best" else name

    return sorted(runs, key=key)


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The keys whose values differ among runs' configs, and their values as text, one a run.

    ``output_dir`` differs by necessity and is left out.  A list of one is the same as its item, as in configs; an
    empty value is the same as none.
    """
    differing = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [_plain(run.settings.get(key)) for run in runs]
        if key != "output_dir" and len({json.dumps(value) for value in values}) > 1:
            differing[key] = _shorten([_text(value) for value in values])
    return differing


def _table(runs: Sequence[NamedRun]) -> str:
    headings = ["run", "kind", "state", "stage", "best", "score", "updated", "tiles/s", "hours"]
    rows = []
    for name, run in runs:
        score = _ABSENT
        if run.best is not None:
            _, _, score = run.best.name.partition("/")
            score += f"{'' if run.best.validated else ' (training loss)'}, epoch {run.best.epoch}"
        rows.append(
            [
                visible(name),
                run.kind,
                run.state,
                visible(f"{run.stage} {run.epoch}/{'?' if run.epochs is None else run.epochs}" if run.stage else "-"),
                f"{run.best.value:.4g}" if run.best is not None else _ABSENT,
                visible(score),
                _local_time(run.updated),
                f"{run.tiles_per_second:.3g}" if run.tiles_per_second is not None else _ABSENT,
                f"{run.hours:.2f}" if run.state != DAMAGED else _ABSENT,
            ]
        )
    return format_table(headings, rows)


def _reasons(runs: Sequence[NamedRun]) -> list[str]:
    """Why runs stopped, and the commands that continue them."""
    lines = []
    for name, run in runs:
        if run.reason or run.state in _RESUMABLE:
            lines += ["", f"{visible(name)} {run.state}: {visible(run.reason) or 'no reason was given'}"]
        if command := _resume_command(run):
            lines.append(f"  continue: python {visible(command)}")
    return lines


def _resume_command(run: Run) -> str:
    """The command that continues a run; empty where there is none."""
    if run.state not in _RESUMABLE or not run.script:
        return ""
    return f"{run.script} --resume {shlex.quote(str(run.folder))}"


def _differences(runs: Sequence[NamedRun]) -> list[str]:
    lines = []
    for kind in dict.fromkeys(run.kind for _, run in runs if run.kind != UNKNOWN):
        alike = [(name, run) for name, run in runs if run.kind == kind]
        if len(alike) < 2:
            continue
        rows = differences([run for _, run in alike])
        lines += ["", f"{kind} runs, where their configs differ:" if rows else f"{kind} runs: the configs are the same"]
        for start in range(0, len(alike) if rows else 0, _COLUMNS_OF_DIFFERENCES):
            part = slice(start, start + _COLUMNS_OF_DIFFERENCES)
            headings = ["key", *(visible(name) for name, _ in alike[part])]
            lines += ["", format_table(headings, [[visible(key), *values[part]] for key, values in rows.items()])]
    return lines or ["", "nothing to compare: there are no two runs of one kind"]


def _plain(value: Any) -> Any:
    """One form for values that mean the same in a config; None for a value that is not given."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if value == "" else value


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shorten(texts: list[str]) -> list[str]:
    """Cut long texts so that they stay different: their common beginning goes first, then their ends."""
    if max(map(len, texts)) <= _LONGEST_VALUE:
        return texts
    given = {text for text in texts if text != _ABSENT}
    common = _length_in_common(given) - _KEPT_IN_COMMON if len(given) > 1 else 0

    def cut(text: str) -> str:
        text = f"...{text[common:]}" if common > len("...") and text != _ABSENT else text
        return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."

    short = [cut(text) for text in texts]
    return short if len(set(short)) == len(set(texts)) else texts


def _length_in_common(texts: Collection[str]) -> int:
    """How many characters all texts begin with; all lie between the first and the last in order."""
    first, last = min(texts), max(texts)
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _facts(name: str, run: Run) -> dict[str, Any]:
    """A run for programs; times in UTC."""
    best = run.best
    return {
        "run": name,
        "folder": str(run.folder),
        "kind": run.kind,
        "state": run.state,
        "reason": run.reason,
        "stage": run.stage,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "best": best.value if best else None,
        "best_name": best.name if best else None,
        "best_epoch": best.epoch if best else None,
        "updated": _utc_time(run.updated),
        "tiles_per_second": run.tiles_per_second,
        "hours": run.hours,
        "resume": _resume_command(run),
    }


def _print_csv(runs: Sequence[NamedRun]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    facts = [_facts(*run) for run in runs]
    writer.writerow(facts[0] if facts else _facts("", Run(Path())))
    for row in facts:
        writer.writerow([_encodable(visible(v)) if isinstance(v, str) else v for v in row.values()])


def _local_time(seconds: float | None) -> str:
    try:
        return _ABSENT if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    except (OverflowError, OSError, ValueError):  # a file's date may be anything
        return _ABSENT


def _utc_time(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return None


def _encodable(text: str) -> str:
    """A text with question marks for characters that the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _print(text: str) -> None:
    print(_encodable(text))


if __name__ == "__main__":
    raise SystemExit(main())
