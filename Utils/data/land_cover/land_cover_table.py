"""Land-cover tiles of one's own as a table: a CSV that names image, mask and relative depth of each, wherever they lie.

With a header: columns image, mask, part, domain, and where wanted relative_depth and id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError
from Utils.data.dataset_table import table_cells
from Utils.data.table_paths import TablePaths, short_names

__all__ = ["COLUMNS", "LandCoverRow", "LandCoverTable", "read_land_cover_table"]

REQUIRED = ("image", "mask", "part", "domain")
COLUMNS = (*REQUIRED, "relative_depth", "id")
HINT = "give a CSV with the columns image, mask, part, domain and, where wanted, relative_depth and id"
PARTS = {"train": "Train", "val": "Val", "validation": "Val", "test": "Test"}
_NAME = re.compile(r"[\w.-]{1,150}")


@dataclass(frozen=True)
class LandCoverRow:
    """One tile, with its paths as they are written; empty where there is none.

    Attributes:
        line: its number in the file.
        id: its name within the domain.
        part: Train, Val or Test.
        domain: such as ``Urban``.
        image: path of the image.
        mask: path of the classes.
        relative_depth: path of the map.
    """

    line: int
    id: str
    part: str
    domain: str
    image: str
    mask: str
    relative_depth: str


@dataclass(frozen=True)
class LandCoverTable:
    """A table, and where the files lie that it names."""

    path: Path
    rows: Sequence[LandCoverRow]

    def paths(self, root: Path | None) -> TablePaths:
        """Finds the files; ``root`` is the config's.

        Raises:
            UserError: ``root`` is no folder.
        """
        return TablePaths(self.path, root, [row.image for row in self.rows])

    def domains(self, part: str) -> list[str]:
        """The domains of a part."""
        return sorted({row.domain for row in self.rows if row.part == part})

    def of(self, part: str, domain: str) -> list[LandCoverRow]:
        """The tiles of one domain of a part."""
        return [row for row in self.rows if (row.part, row.domain) == (part, domain)]


def read_land_cover_table(path: Path) -> LandCoverTable:
    """Read a table; the files that it names are not looked at.

    Raises:
        UserError: a file that cannot be read, missing or unknown columns, a wrong value, or an id that stands twice.
    """
    lines = list(table_cells(path, HINT))
    if not lines:
        raise UserError(f"table '{path}' is empty; {HINT}")
    header = [cell.lower() for cell in lines[0][1]]
    for column in header:
        if column not in COLUMNS or header.count(column) > 1:
            what = "stands twice" if column in COLUMNS else "is unknown"
            raise UserError(f"table '{path}': the column '{column}' {what}; {HINT}")
    for column in REQUIRED:
        if column not in header:
            raise UserError(f"table '{path}' has no column '{column}'; {HINT}")
    cells = [_cells_of(path, number, header, line) for number, line in lines[1:]]
    if not cells:
        raise UserError(f"table '{path}' has a header and no line below it; add the tiles")
    names = short_names([cell["image"] for _, cell in cells])
    rows = [_row(path, number, cell, name) for (number, cell), name in zip(cells, names, strict=True)]
    first: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = row.part, row.domain, row.id
        if first.setdefault(key, row.line) != row.line:
            raise UserError(
                f"table '{path}': id {row.id} of {row.domain} stands in line {first[key]} and again in line "
                f"{row.line}; keep one of each"
            )
    return LandCoverTable(path, rows)


def _cells_of(path: Path, number: int, header: Sequence[str], line: Sequence[str]) -> tuple[int, dict[str, str]]:
    where = f"table '{path}', line {number}"
    if len(line) != len(header):
        raise UserError(f"{where}: {len(line)} cells, and the header has {len(header)} columns; correct the line")
    cell = dict(zip(header, line, strict=True))
    if not Path(cell["image"]).name:
        raise UserError(f"{where}: no image; fill the cell, or remove the line")
    return number, cell


def _row(path: Path, number: int, cell: dict[str, str], name: str) -> LandCoverRow:
    where = f"table '{path}', line {number}"
    part = PARTS.get(cell["part"].lower())
    if part is None:
        raise UserError(f"{where}: part '{cell['part'][:60]}'; write Train, Val or Test")
    for column, text in (("domain", cell["domain"]), ("id", cell.get("id", "") or name)):
        if _NAME.fullmatch(text) is None:
            raise UserError(f"{where}: {column} '{text[:60]}'; use letters, digits, '_', '.' and '-'")
    if not cell["mask"] and part != "Test":
        raise UserError(f"{where}: no mask, and only tiles of the part Test do without; fill the cell")
    known = cell.get("id", "") or name
    return LandCoverRow(
        number, known, part, cell["domain"], cell["image"], cell["mask"], cell.get("relative_depth", "")
    )
