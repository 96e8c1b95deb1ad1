"""What the numbers of a height file mean, where something else than the file says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeightCoding:
    """How heights are stored: height = stored number * scale + offset, or baseline * focal length / that.

    Attributes:
        scale: factor, in place of the file's own; None for that of the file.
        offset: the same for the number that is added.
        nodata: stored number that stands for no height, beside what the file says; None for none.
        disparity: baseline in metres times focal length in pixels of the stereo camera, where number * scale + offset
            is a disparity in pixels; the heights are then depths in metres. None where the numbers are heights.
    """

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    disparity: float | None = None


AS_THE_FILE_SAYS = HeightCoding()
