"""Uploads that mean harm, or are damaged, with the status that each deserves: for the tests and the load test."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
from PIL import Image

VRT = (
    b'<VRTDataset rasterXSize="10" rasterYSize="10"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    b"<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)


def png_of(width: int, height: int) -> bytes:
    """A whole picture of zeros."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(file, format="PNG")
    return file.getvalue()


def png_bomb(side: int) -> bytes:
    """A few bytes whose header says side x side pixels."""
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    pixels = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def hostile_images() -> dict[str, tuple[int, bytes]]:
    """Status and bytes by name."""
    from tests.scripts.test_untrusted_files import tiff_bytes

    whole = png_of(40, 40)
    return {
        "a VRT that names /etc/passwd": (415, VRT),
        "a VRT behind the first bytes of a TIFF": (415, b"II*\0" + VRT),
        "an empty file": (422, b""),
        "text": (415, b"hello"),
        "a PDF": (415, b"%PDF-1.7\n"),
        "a PNG of 60,000 x 60,000 pixels by its header": (413, png_bomb(60_000)),
        "a TIFF of 100,000 x 100,000 pixels by its header": (
            413,
            tiff_bytes(100_000, 100_000, 256, 256, zlib.compress(bytes(256**2))),
        ),
        "a TIFF in one block of 4 GB": (413, tiff_bytes(32, 32, 65_536, 65_536, zlib.compress(bytes(1000)))),
        "a PNG cut short": (422, whole[: len(whole) // 2]),
        "JSON": (415, json.dumps({"type": "FeatureCollection"}).encode()),
    }


def hostile_points() -> dict[str, tuple[int, bytes]]:
    """Status and bytes by name, of tables of points."""
    return {
        "a VRT of OGR": (415, b"<OGRVRTDataSource><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTDataSource>"),
        "bytes": (415, bytes(range(256))),
        "JSON that links elsewhere": (415, b'{"type": "FeatureCollection", "links": [{"href": "http://a/"}]}'),
        "cut JSON": (422, b'{"type": "FeatureCollection", "features": ['),
        "nested brackets": (422, b"[" * 100_000),
        "a table of other columns": (422, b"a,b\n1,2\n"),
    }
