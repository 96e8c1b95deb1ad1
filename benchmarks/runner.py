"""Cases, each in a process of its own: what fails there becomes a line in the results, and the run goes on."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path

from benchmarks.case import PRELOADED, run
from benchmarks.plan import Case
from benchmarks.records import Record, Results

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]


def run_cases(cases: Sequence[Case], results: Results, folder: Path) -> None:
    """Run those of the cases that ``results`` does not hold yet; the file in ``folder`` is rewritten after each."""
    left = [case for case in cases if not results.has_finished(case)]
    if len(left) < len(cases):
        logger.info("%d of %d cases are done already", len(cases) - len(left), len(cases))
    context = make_context()
    for number, case in enumerate(left, start=1):
        record = run_case(case, context)
        results.records.pop(case.name, None)
        results.records[case.name] = record
        results.save(folder)
        outcome = record.failure or f"{len(record.rows)} rows"
        logger.info("[%d/%d] %s: %s (%.0f s)", number, len(left), case.name, outcome, record.wall_seconds)


def make_context() -> BaseContext:
    """How processes are made: forked from one that has imported everything and done nothing, else from scratch."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no model is fetched, and none may wait for a network
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def run_case(case: Case, context: BaseContext) -> Record:
    """Measure a case in a process that starts and ends with it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        lines, errors = Path(scratch) / "rows.jsonl", Path(scratch) / "errors.txt"
        process = context.Process(target=run, args=(case.model_dump_json(), lines, errors))  # type: ignore[attr-defined]
        process.start()
        try:
            process.join(case.effort.timeout)
            late = process.is_alive()
        finally:  # an interrupted run leaves no process behind
            process.kill()
            process.join()
        if late:
            failure: str | None = f"ended after {case.effort.timeout:.0f} s, the most that a case may take"
        else:
            failure = _why(process.exitcode, errors)
        rows = [json.loads(line) for line in _complete_lines(lines)]
    return Record(case=case, rows=rows, failure=failure, wall_seconds=time.monotonic() - started)


def _why(status: int, errors: Path) -> str | None:
    """Why a process failed, if it did, without paths of this machine."""
    if status == 0:
        return None
    if status < 0:
        reason = f"killed by signal {-status}"
        return f"{reason}, most likely for want of memory" if status == -9 else reason
    said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    return said[-1].replace(str(_ROOT), ".").replace(str(Path.home()), "~")


def _complete_lines(path: Path) -> list[str]:
    """The lines of a file that end in a line break: a killed process may leave half a line."""
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
