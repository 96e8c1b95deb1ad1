"""What downloads have brought: a table of files with their lengths, against which the folder can be checked."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from Utils.core.errors import RasterError, UserError
from Utils.rasters.planetary.whole_files import check_whole_product

__all__ = ["KeptFiles"]

_TABLE = "downloaded.csv"
_HEADER = ("file", "bytes", "url")


class KeptFiles:
    """The files below a folder that were downloaded whole; a line is added for each when it is."""

    def __init__(self, folder: Path) -> None:
        """Read what is known of ``folder``, which need not exist.

        Raises:
            UserError: the table cannot be read.
        """
        self.folder = folder
        self._table = folder / _TABLE
        self._sizes = dict(self._rows())

    def has(self, place: Path) -> bool:
        """Whether a file is there with the length that it had."""
        file, size = self.folder / place, self._sizes.get(place.as_posix())
        return size is not None and file.is_file() and file.stat().st_size == size

    def add(self, place: Path, size: int, url: str) -> None:
        """Note a file that has come."""
        self._sizes[place.as_posix()] = size
        is_new = not self._table.is_file()
        with self._table.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if is_new:
                writer.writerow(_HEADER)
            writer.writerow((place.as_posix(), size, url))

    def check(self) -> tuple[int, list[str]]:
        """How many files were looked at, and a line for each that is not in order.

        Raises:
            UserError: nothing was downloaded into this folder.
        """
        if not self._sizes:
            raise UserError(f"'{self._table}' lists no file: nothing was downloaded into this folder")
        return len(self._sizes), list(self._problems())

    def _problems(self) -> Iterator[str]:
        for name, size in sorted(self._sizes.items()):
            file = self.folder / name
            if not file.is_file():
                yield f"{name}: is missing"
            elif file.stat().st_size != size:
                yield f"{name}: has {file.stat().st_size} bytes, and {size} were downloaded"
            else:
                try:
                    check_whole_product(file)
                except RasterError as error:
                    yield str(error)

    def _rows(self) -> Iterator[tuple[str, int]]:
        if not self._table.is_file():
            return
        try:
            with self._table.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    # The last line may have been cut by a power failure.
                    if row.get("bytes") and str(row["bytes"]).isdecimal():
                        yield str(row["file"]), int(row["bytes"])
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"'{self._table}' cannot be read ({error}); remove it, and all is checked anew") from error
