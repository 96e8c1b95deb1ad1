"""A legend: squares of colour beside their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_legend"]

_POINTS = 14.0
_NARROWEST = 210


def draw_legend(entries: Mapping[str, tuple[int, int, int]], scale: float = 1.0) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of colours beside their names.

    Args:
        entries: red, green and blue (0..255) of each line, by its text.
        scale: 1 for letters of 14 pixels.
    """
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", _POINTS * scale)
    line, square, margin = round(24 * scale), round(15 * scale), round(6 * scale)
    widest = max(font.getlength(text) for text in entries)
    # Pages enlarge what is narrower than 200 pixels.
    size = (max(round(widest) + square + 4 * margin, _NARROWEST), line * len(entries) + 2 * margin)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for number, (text, colour) in enumerate(entries.items()):
        middle = margin + number * line + line // 2
        corner = (margin, middle - square // 2)
        draw.rectangle((*corner, corner[0] + square, corner[1] + square), fill=colour, outline="black")
        draw.text((2 * margin + square, middle), text, fill="black", font=font, anchor="lm")
    return np.asarray(picture)
