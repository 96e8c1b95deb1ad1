"""What all writers of synthetic datasets share: the folder that they may write to, and processes that make scenes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Plan = TypeVar("Plan")


def claim(folder: Path, description: str, parts: Iterable[str]) -> None:
    """Put README.txt into ``folder``, unless it holds other data: a mistake must not overwrite real tiles.

    Args:
        folder: made if it does not exist.
        description: the text, which also tells whether two datasets are the same.
        parts: names of files and folders that a dataset of this kind has.

    Raises:
        FileExistsError: ``folder`` holds another dataset.
    """
    readme = folder / "README.txt"
    same = readme.is_file() and readme.read_text(encoding="utf-8") == description
    if not same and any((folder / part).exists() for part in parts):
        raise FileExistsError(f"{folder} already holds another dataset; delete it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    readme.write_text(description, encoding="utf-8")


def make_scenes(work: Callable[[Plan], None], plans: Sequence[Plan], workers: int | None) -> None:
    """Call ``work``, which can be pickled, for every plan, in so many processes; None for one a core."""
    workers = min(workers or _available_cores(), len(plans))
    if workers <= 1:
        for plan in plans:
            work(plan)
    else:
        # Spawned, not forked: a fork of a process that has used threads, as PyTorch does, can hang.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(work, plans))


def _available_cores() -> int:
    """Cores that this process may use; a container's limit on them, where the platform tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
