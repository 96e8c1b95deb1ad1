"""Is a product whole?

GDAL opens a JPEG 2000 that was cut short, or a PDS3 file without all its data, and fails where the data end, perhaps
hours later, without a word on why.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import BinaryIO

from Utils.core.errors import RasterError
from Utils.rasters.planetary.product_label import ProductLabel, read_label

__all__ = ["check_whole_product"]

_JP2_START = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CODESTREAM_START, _CODESTREAM_END = b"\xff\x4f\xff\x51", b"\xff\xd9"
_CODESTREAM_BOX = b"jp2c"


def check_whole_product(path: Path) -> None:
    """Refuse a JPEG 2000 that is cut short, and a PDS3 file that holds less than its label says.

    Raises:
        RasterError: as described; the line says how many bytes are there and how many should be.
    """
    if not path.is_file():
        return  # whoever opens it says so
    with path.open("rb") as stream:
        start = stream.read(len(_JP2_START))
        if start == _JP2_START or start.startswith(_CODESTREAM_START):
            _check_jpeg2000(path, stream)
            return
    label = read_label(path)
    if label is not None:
        _check_data(path, label)


def _check_jpeg2000(path: Path, stream: BinaryIO) -> None:
    """Walk through the boxes to the codestream, which must end with its mark (ISO/IEC 15444-1, annexes A and I)."""
    size = os.fstat(stream.fileno()).st_size
    stream.seek(0)
    place = 0
    if stream.read(4) == _CODESTREAM_START:
        _check_end(path, stream, size, size)
        return
    while place < size:
        stream.seek(place)
        head = stream.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        end = size if length == 0 else place + length
        if len(head) < 8 or end <= place or end > size:
            raise _cut(path, size, f"a part that begins at byte {place} should end at byte {end}")
        if kind == _CODESTREAM_BOX:
            _check_end(path, stream, end, size)
            return
        place = end
    raise _cut(path, size, "it holds no image")


def _check_end(path: Path, stream: BinaryIO, end: int, size: int) -> None:
    stream.seek(end - len(_CODESTREAM_END))
    if stream.read(len(_CODESTREAM_END)) != _CODESTREAM_END:
        raise _cut(path, size, "its image does not end with the mark that ends every JPEG 2000 image")


def _cut(path: Path, size: int, what: str) -> RasterError:
    problem = f"the JPEG 2000 is cut short or damaged: it has {size} bytes, and {what}"
    return RasterError(path, problem, "download it again")


def _check_data(path: Path, label: ProductLabel) -> None:
    """Compare a file with the sizes that its PDS3 label names; other labels do not say enough."""
    pointer, lines, samples = label.get("^IMAGE"), label.number("LINES"), label.number("LINE_SAMPLES")
    if not lines or not samples or pointer is None:
        return
    size = path.stat().st_size
    if label.attached:
        wanted = _bytes_wanted(label, lines, samples)
        if pointer.number is not None and size < wanted:
            raise RasterError(
                path,
                f"the label is there, and {size} of the {wanted} bytes of {lines:g} x {samples:g} pixels that it names",
                "download the file again, with its data",
            )
        return
    data = path.parent / label.text("FILE_NAME")
    if path == label.path and label.get("FILE_NAME") is not None:
        if not data.is_file():
            raise RasterError(path, f"a label whose data, '{data.name}', are not beside it", "download the data too")
        check_whole_product(data)


def _bytes_wanted(label: ProductLabel, lines: float, samples: float) -> int:
    bits, bands = label.number("SAMPLE_BITS") or 8.0, label.number("BANDS") or 1.0
    pointer, record = label.get("^IMAGE"), label.number("RECORD_BYTES") or 0.0
    assert pointer is not None
    first = pointer.number or 1.0
    before = first - 1.0 if pointer.unit == "BYTES" else (first - 1.0) * record
    return math.ceil(before + lines * samples * bands * bits / 8.0)
