"""A dataset as a table: a CSV that names the files of each tile, wherever they lie.

With a header: columns id, image, height, and where wanted prior, part, fold, scene, scale, offset, nodata. Without a
header: two columns, image and height, as depth datasets are published. docs/own-data.md describes both.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from Modules.common.plain_json import read_text
from Utils.core.errors import UserError
from Utils.data.published_layout import TEST_PART, TRAINING_PART
from Utils.data.table_paths import short_names
from Utils.rasters.height_coding import AS_THE_FILE_SAYS, HeightCoding

REQUIRED = ("id", "image", "height")
OPTIONAL = ("prior", "part", "fold", "scene", "scale", "offset", "nodata")
# What a cut tells of its tiles besides: ``Utils.data.cutting.records`` writes them, and nothing here reads them.
TOLD = ("coarse", "row", "column", "block", "image_void", "height_void", "lowest", "highest")
PARTS = {"train": TRAINING_PART, "test": TEST_PART}

_ID = re.compile(r"[\w-]{1,150}")
_DELIMITERS = {";": "';'", "\t": "tabs", "|": "'|'"}
_HINT = "give a CSV with the columns id, image, height, or two columns without header: image, height"
_PATH_MARKS = ("/", "\\", ".")


@dataclass(frozen=True)
class TableRow:
    """One line of a table, with its paths as they are written.

    Attributes:
        line: its number in the file.
        id: the tile.
        image: path of the image.
        height: path of the height map.
        prior: path of the coarse prior; empty for none.
        part: folder name of the part; empty where the table does not say.
        fold: number of the fold; None for none.
        coding: what the numbers of the height map mean.
        scene: the place that the tile shows a part of; empty where the table does not say.
    """

    line: int
    id: str
    image: str
    height: str
    prior: str = ""
    part: str = ""
    fold: int | None = None
    coding: HeightCoding = AS_THE_FILE_SAYS
    scene: str = ""


@dataclass(frozen=True)
class Table:
    """A table; without parts, every row belongs to whichever part is asked for."""

    path: Path
    rows: Sequence[TableRow]
    has_parts: bool

    def of_part(self, part: str) -> list[TableRow]:
        """The rows of one part."""
        return [row for row in self.rows if row.part in ("", part)]


def read_table(path: Path) -> Table:
    """Read a table; the files that it names are not looked at.

    Raises:
        UserError: a missing or unreadable file, a wrong delimiter, missing or unknown columns, a wrong value, an id
            that occurs twice in a part.
    """
    lines = list(table_cells(path, _HINT))
    if not lines:
        raise UserError(f"table '{path}' is empty; {_HINT}")
    header = [cell.lower() for cell in lines[0][1]]
    if len(header) == 1:
        raise UserError(f"table '{path}' {_what_one_column_means(lines[0][1][0])}")
    if _is_header(header):
        _check_columns(path, header)
        rows = [_row(path, number, header, cells) for number, cells in lines[1:]]
    else:
        rows = _rows_without_header(path, lines)
    if not rows:
        raise UserError(f"table '{path}' has a header and no line below it; add the tiles")
    _check_ids(path, rows)
    return Table(path, rows, "part" in header)


def table_cells(path: Path, hint: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line of a CSV that is not blank; ``hint`` says in errors what is wanted.

    Raises:
        UserError: a file that cannot be read.
    """
    try:
        reader = csv.reader(read_text(path).splitlines(), strict=True)
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num, stripped
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"table '{path}' cannot be read: {reason}; {hint}") from error


def _what_one_column_means(text: str) -> str:
    for delimiter, name in _DELIMITERS.items():
        if delimiter in text:
            return f"separates its columns by {name}; save it with commas"
    return f"has one column; {_HINT}"


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the first line names columns: those that are known, or none that looks like a file."""
    known = any(cell in (*REQUIRED, *OPTIONAL) for cell in cells)
    return known or not any(mark in cell for cell in cells for mark in _PATH_MARKS)


def _check_columns(path: Path, header: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL, *TOLD)
    for column in header:
        if column not in known:
            near = difflib.get_close_matches(column, (*REQUIRED, *OPTIONAL), n=1)
            meant = f"did you mean '{near[0]}'? " if near else ""
            raise UserError(
                f"table '{path}': unknown column '{column}'; {meant}(known: {', '.join((*REQUIRED, *OPTIONAL))})"
            )
        if header.count(column) > 1:
            raise UserError(f"table '{path}': two columns are called '{column}'; remove one")
    for column in REQUIRED:
        if column not in header:
            raise UserError(f"table '{path}' has no column '{column}'; {_HINT}")


def _row(path: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> TableRow:
    where = f"table '{path}', line {number}"
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} cells, and the header has {len(header)} columns; correct the line")
    cell = dict(zip(header, cells, strict=True))
    for column in REQUIRED:
        if not cell[column]:
            raise UserError(f"{where}: no {column}; fill the cell, or remove the line")
    tile = cell["id"].removeprefix("tile_")  # as in split files
    if _ID.fullmatch(tile) is None:
        raise UserError(f"{where}: id '{tile[:60]}'; use letters, digits, '_' and '-', 150 at most")
    part = cell.get("part", "").lower()
    if part not in PARTS and "part" in cell:
        raise UserError(f"{where}: part '{part[:60]}'; write train or test")
    fold = cell.get("fold", "")
    if fold and not re.fullmatch(r"[0-9]{1,6}", fold):
        raise UserError(f"{where}: fold '{fold[:60]}' is no whole number; write 1, 2, 3 ...")
    scale, offset, nodata = (_number(where, name, cell.get(name, "")) for name in ("scale", "offset", "nodata"))
    if scale == 0.0:
        raise UserError(f"{where}: scale 0 would make all heights one; give the unit of the file, such as 0.001")
    coding = HeightCoding(scale, offset, nodata)
    prior = cell.get("prior", "")
    number_of_fold = int(fold) if fold else None
    files = cell["image"], cell["height"]
    return TableRow(number, tile, *files, prior, PARTS.get(part, ""), number_of_fold, coding, cell.get("scene", ""))


def _number(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isfinite(value) or (name == "nodata" and math.isnan(value)):
        return value
    raise UserError(f"{where}: {name} '{text[:60]}' is no number; write one with a decimal point, or leave it empty")


def _rows_without_header(path: Path, lines: Sequence[tuple[int, list[str]]]) -> list[TableRow]:
    for number, cells in lines:
        if len(cells) != 2 or not all(cells):
            raise UserError(
                f"table '{path}', line {number}: {len(cells)} cells in a table without header; write image,height in "
                f"every line, or a header with {', '.join(REQUIRED)}"
            )
        if not Path(cells[0]).name:
            raise UserError(f"table '{path}', line {number}: image '{cells[0][:60]}' names no file")
    names = short_names([cells[0] for _, cells in lines])
    ids = [(name.removeprefix("tile_") or name)[-150:] for name in names]
    return [TableRow(number, tile, cells[0], cells[1]) for tile, (number, cells) in zip(ids, lines, strict=True)]


def _check_ids(path: Path, rows: Sequence[TableRow]) -> None:
    lines: dict[tuple[str, str], int] = {}
    again: list[TableRow] = []
    for row in rows:
        if (row.part, row.id) in lines:
            again.append(row)
        lines.setdefault((row.part, row.id), row.line)
    if again:
        row = again[0]
        raise UserError(
            f"table '{path}': id {row.id} stands in line {lines[row.part, row.id]} and again in line {row.line} "
            f"({len(again)} of {len(rows)} lines repeat an id); keep one of each"
        )
