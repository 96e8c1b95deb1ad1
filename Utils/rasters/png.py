"""Checks that a PNG is whole: where its last bytes are missing, GDAL's fast path gives zeros and no error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 2**20


def is_png(path: Path) -> bool:
    """Whether a file begins as a PNG does."""
    with path.open("rb") as stream:
        return stream.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE


def png_is_whole(path: Path) -> bool:
    """Walk the chunks of a PNG: every checksum right and the end chunk there.

    Pillow's ``verify`` would refuse pictures beyond its own limit of pixels, and scenes may be larger.
    """
    with path.open("rb") as stream:
        stream.seek(len(PNG_SIGNATURE))
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            checksum = zlib.crc32(kind)
            while length:
                # Piece by piece: a chunk may be as long as 4 GB.
                piece = stream.read(min(length, _PIECE))
                if not piece:
                    return False
                checksum = zlib.crc32(piece, checksum)
                length -= len(piece)
            if stream.read(4) != struct.pack(">I", checksum):
                return False
            if kind == b"IEND":
                return True
    return False
