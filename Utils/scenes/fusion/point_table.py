"""Reading x, y and height from a table as people have it: any separator, decimal commas, quotes, comments, bad rows."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import UserError

__all__ = ["COLUMNS", "PointTable", "read_table"]

logger = logging.getLogger(__name__)

COLUMNS = ("x", "y", "height")
"""The columns that are read where no others are named."""

_SEPARATORS = "\t;|,"
_COMMENTS = ("#", "%", "//")
_LONGEST_LINE = 2**20
_EXTRA = "more fields than the heading names; are there decimal commas? Then separate by semicolons"


@dataclass(frozen=True)
class PointTable:
    """Rows of a table.

    Attributes:
        values: (N, 3) x, y and height; a row that cannot be read is NaN.
        lines: (N,) the number of each row's line in the file.
        unreadable: what is wrong with the first row that cannot be read; empty if all can.
        labels: (N,) text of one more column; None where none was asked for.
    """

    values: NDArray[np.float64]
    lines: NDArray[np.intp]
    unreadable: str
    labels: NDArray[np.str_] | None = None


def read_table(path: Path, columns: Sequence[str] = COLUMNS, label: str = "") -> PointTable:
    """Read three or more columns of a text table with a heading line.

    Fields are separated by commas, semicolons, tabs, bars or spaces. Names of columns are compared without regard to
    capitals and outer spaces. Lines that begin with #, % or // are comments; the last one may be the heading.

    Args:
        path: the table.
        columns: the names of the columns with x, y and height, and of further ones with numbers.
        label: the name of a column whose text is wanted too; empty for none.

    Raises:
        UserError: no readable file, no such column or several of one name, no rows.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Reading a device may never end, and reading a pipe may never begin.
        raise UserError(f"--points '{path}' is no regular file; give a CSV file")
    try:
        with path.open(newline="", encoding=_encoding(path), errors="replace") as file:
            return _read(path, file, columns, label)
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"--points '{path}' cannot be read: {error}") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


class _Lines:
    """The lines of a table that are neither blank nor comments; knows the number of the line that it gave last."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.number = 0
        self.comment = ""

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(_LONGEST_LINE):
            self.number += 1
            if len(line) == _LONGEST_LINE:
                raise csv.Error(f"line {self.number} is longer than {_LONGEST_LINE:,} characters")
            text = line.strip()
            if text.startswith(_COMMENTS):
                self.comment = text.lstrip("#%/").strip()
            elif text.strip(_SEPARATORS + " "):
                yield line


def _read(path: Path, file: TextIO, columns: Sequence[str], label: str) -> PointTable:
    lines = _Lines(file)
    rows = iter(lines)
    heading = next(rows, "")
    first = None
    if heading and lines.comment and all(_number(field) is not None for field in _fields(heading)):
        heading, first = lines.comment, heading
    separator = _separator(heading)
    names = _fields(heading)
    places = [_place(path, names, wanted, columns) for wanted in columns]
    label_place = _place(path, names, label, columns) if label else -1
    labels: list[str] = []
    values, numbers, unreadable, commas = [], [], "", []
    dots = 0
    for line in rows if first is None else chain([first], rows):
        fields = _fields(line, separator)
        if len(fields) == 1:
            fields = _fields(line)  # another separator than the heading's
        numbers.append(lines.number)
        if label:
            labels.append(fields[label_place].strip() if label_place < len(fields) else "")
        found = [fields[place] if place < len(fields) else "" for place in places]
        read = [_number(field) for field in found]
        problem = ""
        if any(field.strip() for field in fields[len(names) :]):
            problem = _EXTRA
        elif None in read:
            problem = f"'{found[read.index(None)]}' is no number"
        if problem:
            unreadable = unreadable or f"line {lines.number}: {problem}"
            read = [None] * len(columns)
        values.append([np.nan if value is None else value for value in read])
        commas.append(not problem and any("," in field and "." not in field for field in found))
        dots += not problem and any("." in field and "," not in field for field in found)
    if not values:
        raise UserError(f"--points '{path}' holds no points")
    table = _of_one_sign(np.array(values, np.float64), np.array(numbers), np.array(commas), dots, unreadable)
    return replace(table, labels=np.array(labels, dtype=np.str_)) if label else table


def _of_one_sign(
    values: NDArray[np.float64], lines: NDArray[np.intp], commas: NDArray[np.bool_], dots: int, unreadable: str
) -> PointTable:
    """Take a comma as a decimal sign only in a table that has no decimal points: 1,234 may be a thousand, too."""
    if dots and commas.any():
        values[commas] = np.nan
        doubt = f"line {lines[commas.argmax()]}: a comma in a number, where other numbers have points"
        unreadable = unreadable or doubt
    return PointTable(values, lines, unreadable)


def _separator(heading: str) -> str:
    """The separator that occurs most often outside of quotes; a space where there is none."""
    bare = re.sub(r'"[^"]*"', "", heading)
    most = max(_SEPARATORS, key=bare.count)
    return most if most in bare else " "


def _fields(line: str, separator: str | None = None) -> list[str]:
    """The fields of one line; each line is parsed alone, so that a quote that nothing closes spoils no other."""
    separator = separator or _separator(line)
    line = line.strip(" \r\n")
    if separator == " ":
        line = line.replace("\t", " ")
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _place(path: Path, names: Sequence[str], wanted: str, columns: Sequence[str]) -> int:
    """The number of the column of a name, from 0."""
    exact = [place for place, name in enumerate(names) if name == wanted]
    alike = [place for place, name in enumerate(names) if _plain(name) == _plain(wanted)]
    if len(exact) == 1 or len(alike) == 1:
        return (exact or alike)[0]
    listed = ", ".join(f"'{name}'" for name in names) or "none"
    if alike:
        several = " and ".join(f"column {place + 1} '{names[place]}'" for place in alike)
        raise UserError(
            f"--points '{path}' has several columns that say {wanted}: {several}; name the right one with "
            "--points-columns X,Y,HEIGHT as it stands in the file, or rename one"
        )
    raise UserError(
        f"--points '{path}' has no column {wanted}; its columns are {listed}, needed are {', '.join(columns)}; "
        "--points-columns X,Y,HEIGHT gives other names"
    )


def _plain(name: str) -> str:
    return " ".join(name.strip(" \t\"'").casefold().split())


def _number(text: str) -> float | None:
    """A number with a decimal point or comma; NaN where the field is empty, None where it is no number."""
    text = text.strip(" \t\"'\xa0").replace("\N{MINUS SIGN}", "-")
    if not text:
        return float("nan")
    if "," in text:
        thousands = "," if text.rfind(".") > text.rfind(",") else "."
        text = text.replace(thousands, "").replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None
