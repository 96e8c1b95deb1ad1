"""What a run has found so far: one JSON file, rewritten after every case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmarks.models.subject import Steps
from benchmarks.plan import RATES, Case
from Utils.core.tables import write_json

Row = dict[str, Any]
FILE = "results.json"


class Record(BaseModel):
    """A case and what came of it.

    Attributes:
        case: what its process was told.
        rows: what it measured, complete rows only.
        failure: why it ended early, if it did; what it measured before still holds.
        wall_seconds: its process's life.
    """

    case: Case
    rows: list[Row]
    failure: str | None = None
    wall_seconds: float


class Results(BaseModel):
    """A run.

    Attributes:
        date: on which it began, ISO.
        machine: see ``describe_machine``.
        records: by the cases' names, in the order in which they ran.
    """

    date: str
    machine: dict[str, Any]
    records: dict[str, Record] = {}

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read a run's file.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"'{folder}' holds no {FILE}; name the folder of a run of the benchmarks") from None
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, json.loads(self.model_dump_json()))

    def has_finished(self, case: Case) -> bool:
        """Whether this very case has ended well."""
        record = self.records.get(case.name)
        return record is not None and record.case == case and record.failure is None

    def find(self, name: str, steps: Steps = None, batch: int = 1) -> Row | None:
        """The row of a case at a number of steps and a batch size, if it was measured (or computed)."""
        for row in self.rows(name):
            if row.get("steps") == steps and row.get("batch") == batch:
                return row
        return None

    def best(self, name: str, steps: Steps = None) -> Row | None:
        """The row of the batch size that takes the least time an image."""
        found = [row for row in self.rows(name) if row.get("steps") == steps]
        return min(found, key=lambda row: row["seconds_per_image"], default=None)

    def rows(self, name: str) -> Iterator[Row]:
        """The rows of a case that hold a measurement."""
        if name in self.records:
            yield from (row for row in self.records[name].rows if "failure" not in row)

    def of_kind(self, kind: str) -> list[Record]:
        """The records of one kind of case."""
        return [record for record in self.records.values() if record.case.kind == kind]

    @property
    def rates(self) -> Row | None:
        """What the device can do."""
        return next(self.rows(RATES), None)


def describe_run(row: Row) -> str:
    """A model and its number of steps."""
    if row["steps"] is None:
        return row["label"]
    return f"{row['label']}, {row['steps']} step{'s' if row['steps'] > 1 else ''}"
