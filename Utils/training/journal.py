"""The record of a training stage: ``log.jsonl``, one JSON object an epoch, and TensorBoard's view of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from Utils.core.errors import write_error
from Utils.core.files import atomic_write_bytes
from Utils.core.processes import on_main
from Utils.training.board import Board
from Utils.training.run_files import LOG_FILE
from Utils.training.task import View


class Journal:
    """Both records of a stage; rows after ``epoch``, which a run that died has left, are removed.

    Only the first process of a launch writes.

    Args:
        folder: folder of the stage; made if it is missing.
        epoch: number of epochs done.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self.path = folder / LOG_FILE
        self._lines: list[str] = []
        self._board: Board | None = None

        def start() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = [line for line in _complete_lines(self.path) if 0 < _epoch_of(line) <= epoch]
            self._board = Board(folder / "tensorboard", epoch)

        on_main(start)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; the file is rewritten and renamed as a whole.

        Raises:
            UserError: the file cannot be written.
        """
        finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}

        def write() -> None:
            self._lines.append(json.dumps(finite))
            try:
                atomic_write_bytes(self.path, "".join(f"{line}\n" for line in self._lines).encode())
            except OSError as error:
                raise write_error(self.path, error, "the last checkpoint is intact: continue with --resume") from error

        on_main(write)
        if self._board is not None:
            self._board.row(row)

    def pictures(self, epoch: int, views: Sequence[View]) -> None:
        """Show some samples."""
        if self._board is not None:
            self._board.pictures(epoch, views)


def _complete_lines(path: Path) -> Iterator[str]:
    if path.is_file():
        yield from path.read_text(encoding="utf-8").splitlines()


def _epoch_of(line: str) -> int:
    """The epoch of a row of the log; 0 for a damaged row, such as a power cut may leave."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return 0
