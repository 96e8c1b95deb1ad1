"""Cases that are measured one by one, each in a process of its own, with results that a later call completes."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from Utils.core.tables import write_json

__all__ = ["Found", "in_own_process", "measure_all"]

logger = logging.getLogger("benchmarks")

Found = dict[str, float]
"""What was measured of a case, by name; ``died`` where its process was killed, most likely because memory ran out."""
_RESULTS, _TABLE = "results.json", "table.md"
_LIBRARIES = ("torch", "diffusers", "timm")
"""What takes seconds to import."""


class _Case(Protocol):
    """A dataclass with a name that no other case has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str: ...


CaseT = TypeVar("CaseT", bound=_Case)


def in_own_process(measure: Callable[[CaseT], Found], case: CaseT) -> Found:
    """``measure`` of a case, in a new process; where the system can fork, the libraries are imported once for all."""
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload(list(_LIBRARIES))
    try:
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(measure, case).result()
    except BrokenProcessPool:
        return {"died": 1.0}


def measure_all(
    folder: Path,
    cases: Iterable[CaseT],
    measure: Callable[[CaseT], Found],
    tables: Callable[[Mapping[str, dict[str, Any]]], str],
) -> None:
    """Measure the cases that ``results.json`` in a folder does not have yet, and write it and ``table.md``.

    Args:
        folder: made if it is missing.
        cases: the cases.
        measure: measures one; see ``in_own_process``.
        tables: gives Markdown for what was found, by the cases' keys, as ``{"case": ..., "found": ...}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _RESULTS
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for case in cases:
        if case.key in found:
            continue
        logger.info("%s", case.key)
        found[case.key] = {"case": asdict(case), "found": measure(case)}
        write_json(path, found)
        (folder / _TABLE).write_text(tables(found) + "\n", encoding="utf-8")
