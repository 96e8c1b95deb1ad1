"""Tables for readers (plain text that is also Markdown) and for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from Utils.core.files import atomic_write_bytes

__all__ = ["format_table", "read_csv", "write_csv", "write_json"]

# No leading zeros, no underscores: 0012 and 1_2 are tile ids, though int() and float() would take them.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?inf")
# For people: also 1,234 and 12.5 % and 13.5 s and 21.6 ± 0.2 and **20.2**, with a hyphen or a minus sign.
_NUMERIC_CELL = re.compile(
    r"[*_<>~\u2248\u2264\u2265\u00b1]*\s*[-+\u2212]?(\d[\d.,]*|\.\d+|inf|nan)(e[-+]?\d+)?([%*_]*|\s.*)", re.IGNORECASE
)
_BLANK_CELLS = frozenset({"", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a"})


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Set a table as an aligned pipe table: fit for the terminal and valid Markdown.

    Columns that hold numbers (with or without unit, sign or deviation; blanks and dashes allowed) are aligned to
    the right, others to the left. Pipes in cells are escaped, line breaks become blanks.

    Returns:
        The lines of the table joined by line breaks, without a last one.

    Raises:
        ValueError: no headings, or a row with more or fewer cells than headings.
    """
    if not headings:
        raise ValueError("A table needs at least one heading")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(headings):
            raise ValueError(f"Row {number} has {len(row)} cells for {len(headings)} headings: {list(row)}")
    grid = [[_cell_text(cell) for cell in line] for line in [headings, *rows]]
    to_right = [_is_numeric(column[1:]) for column in zip(*grid, strict=True)]
    from tabulate import tabulate

    return tabulate(
        grid[1:],
        headers=grid[0],
        tablefmt="pipe",
        disable_numparse=True,  # cells are written as they are to be read
        colalign=["right" if numeric else "left" for numeric in to_right] if rows else None,
    )


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as UTF-8 CSV; the file is whole or absent.

    The header is the union of the rows' keys in order of appearance. Floats keep all digits; NaN, None and missing
    keys are empty cells.

    Raises:
        OSError: the file cannot be written.
    """
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    if header:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_csv_cell(row.get(key)) for key in header] for row in rows)
    atomic_write_bytes(path, text.getvalue().encode("utf-8"))


def read_csv(path: str | os.PathLike[str], text_columns: Collection[str] = ()) -> list[dict[str, object]]:
    """Read a CSV file with a header, each column as the narrowest type that fits all its cells.

    Types are tried in the order bool (``True``, ``False``), int, float, str. Empty cells are NaN in columns of
    numbers, None in columns of bools or nothing but empty cells, and "" in columns of text. Cells that only look like
    numbers, as the ids ``0012`` and ``1_2``, make a column text.

    Args:
        path: a file that :func:`write_csv` has written, or a similar one.
        text_columns: columns to keep as text whatever they look like (tile ids).

    Raises:
        ValueError: a row with more or fewer cells than the header has.
        OSError: the file cannot be read.
    """
    with Path(path).open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream))
    if not lines:
        return []
    header, *body = lines
    # The csv module reads an empty line as no cells; it is how a lone empty cell may be written by others.
    body = [line if line or len(header) != 1 else [""] for line in body]
    for number, line in enumerate(body, start=2):
        if len(line) != len(header):
            raise ValueError(f"{os.fspath(path)}: row {number} has {len(line)} cells, the header {len(header)}")
    columns = [
        list(cells) if name in text_columns else _typed(cells)
        for name, cells in zip(header, zip(*body, strict=True), strict=False)
    ]
    return [dict(zip(header, values, strict=True)) for values in zip(*columns, strict=True)]


def write_json(path: str | os.PathLike[str], data: object) -> None:
    """Write data as JSON with an indent of 2; the file is whole or absent.

    JSON knows no NaN and no infinity: both become null. Numpy scalars and arrays become numbers and lists, paths
    strings with forward slashes, tuples lists.

    Raises:
        TypeError: a value that JSON cannot hold.
        OSError: the file cannot be written.
    """
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(path, (text + "\n").encode("utf-8"))


def _cell_text(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.lower() not in _BLANK_CELLS]
    return bool(filled) and all(_NUMERIC_CELL.fullmatch(cell) for cell in filled)


def _csv_cell(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _typed(cells: Sequence[str]) -> list[object]:
    filled = [cell for cell in cells if cell]
    if all(cell in ("True", "False") for cell in filled):
        return [cell == "True" if cell else None for cell in cells]
    if all(_INTEGER.fullmatch(cell) for cell in filled):
        return [int(cell) if cell else math.nan for cell in cells]
    if all(_NUMBER.fullmatch(cell) for cell in filled):
        return [float(cell) if cell else math.nan for cell in cells]
    return list(cells)


def _plain(value: object) -> object:
    """Reduce to what JSON knows; what is left over makes ``json.dumps`` raise TypeError."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    return value
