"""Voids and frames that a file does not declare: values far from all others, and borders of one colour."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, label

__all__ = ["Suspects", "find_suspects"]

# Usual marks of "no data" that no picture has beside ordinary values, and the size from which any value is one.
_MARKS = (-999.0, -9999.0, -99999.0, -32767.0, -32768.0)
_HUGE = 1e19
# Marks of "no data" or "saturated" in whole numbers that were perhaps converted to floats.
_ENDS = (32767.0, 65535.0)
_MOST_MARKS = 8
# A frame of one colour takes at least this share of the border.
_LEAST_BORDER = 0.1
# What it frames is a picture, of at least so many different values.
_FEWEST_VALUES = 16
# In a lossy file a frame's values are smeared by up to this much, while at least this share of it keeps one value.
_SMEAR = 4.0
_LEAST_EXACT = 0.5
# So large a share of a frame's pixels has only the frame around it.
_LEAST_INSIDE = 0.5

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Suspects:
    """What looks like no data though nobody says so.

    Attributes:
        voids: for each band, the values that lie far from all others: no ground has them.
        frame: (h, w) bool, the sample's pixels in a frame of one colour, which may be ground all the same.
        colours: of these frames: a value, and by how much a lossy file smears it.
    """

    voids: tuple[tuple[float, ...], ...]
    frame: NDArray[np.bool_]
    colours: tuple[tuple[float, float], ...] = ()


def find_suspects(
    path: Path,
    sample: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    lossy: bool,
    palette: bool,
    log: logging.Logger,
    frames_are_void: bool = False,
) -> Suspects:
    """Look for voids and frames in a sample of a scene; what is found is said in the log, a line for each value.

    Args:
        path: the file, for the log.
        sample: (C, h, w) in the file's values.
        valid: (h, w) bool, the pixels that the file does not call invalid; at least one.
        lossy: whether the file's compression changes values.
        palette: whether the sample holds the colours of a palette.
        log: where to say so.
        frames_are_void: whether the reader takes frames as no data, for what is said about them.
    """
    colours: list[tuple[float, float]] = []
    voids: list[list[float]] = [[] for _ in sample]
    if sample.dtype.itemsize > 1:
        voids = [_far_marks(band[valid], sample.dtype) for band in sample]
        for value in dict.fromkeys(value for found in voids for value in found):
            has = np.logical_or.reduce(
                [band == value for band, found in zip(sample, voids, strict=True) if value in found]
            )
            _tell_void(path, value, has & valid, sample[:, valid], log)
        valid = valid & ~_any_void(sample, voids)
    frame = np.zeros_like(valid)
    for candidate in _frame_candidates(sample[:, valid], sample.dtype):
        smear = _SMEAR if lossy and candidate in (0.0, 255.0) else 0.0
        framing = _frame_of(sample, valid & ~frame, candidate, smear)
        if framing is None:
            continue
        value, found = framing
        others = valid & ~frame & ~found
        if len(np.unique(sample[:, others])) < _FEWEST_VALUES:
            continue
        if sample.dtype.kind in "if" and sample.dtype.itemsize > 1 and _stands_apart(sample, others, value):
            for known in voids:
                known.append(value)
            _tell_void(path, value, found, sample[:, valid], log)
        else:
            colours.append((candidate, smear))
            _tell_frame(path, value, found, palette, frames_are_void, log)
        frame |= found
    return Suspects(tuple(map(tuple, voids)), frame, tuple(colours))


def _far_marks(values: NDArray[Any], dtype: np.dtype[Any]) -> list[float]:
    """The marks of no data in one band's values (n,) that lie far from all others."""
    rest = values.astype(np.float64)
    found: list[float] = []
    while len(found) < _MOST_MARKS and rest.size:
        ends = (float(rest.min()), float(rest.max()))
        mark = next((value for value in ends if _is_far_mark(value, rest, dtype)), None)
        if mark is None:
            break
        found.append(mark)
        rest = rest[rest != mark]
    return found


def _is_far_mark(value: float, values: Values, dtype: np.dtype[Any]) -> bool:
    usual = dtype.kind != "u" and (value in _MARKS or abs(value) >= _HUGE)
    saturated = value in _ENDS or (dtype.kind in "iu" and value == np.iinfo(dtype).max)
    if not (usual or saturated):
        return False
    others = values[values != value]
    # Overviews blend a void with what is beside it, so a few values may lie between.
    if usual and others.size and _gap(value, others, 1.0):
        return True
    return saturated and len(np.unique(others)) >= _FEWEST_VALUES and _gap(value, others, 0.0)


def _gap(value: float, others: Values, cut: float) -> bool:
    """Whether a value lies farther from the others than these spread; so many per cent of them, at each end, aside."""
    low, high = np.percentile(others, (cut, 100.0 - cut)) if cut else (others.min(), others.max())
    return bool(max(low - value, value - high) > max(high - low, 0.0))


def _stands_apart(sample: NDArray[Any], others: NDArray[np.bool_], value: float) -> bool:
    return all(_gap(value, band[others].astype(np.float64), 0.0) for band in sample)


def _any_void(sample: NDArray[Any], voids: list[list[float]]) -> NDArray[np.bool_]:
    """Where any band (h, w) has one of its voids."""
    return np.logical_or.reduce([np.isin(band, found) for band, found in zip(sample, voids, strict=True)])


def _frame_candidates(values: NDArray[Any], dtype: np.dtype[Any]) -> list[float]:
    """The values that a frame may have, for valid values (C, n)."""
    if not values.size:
        return []
    found = [0.0, float(values.max())]
    if dtype.kind == "u":
        found.append(float(np.iinfo(dtype).max))
    else:
        found.append(float(values.min()))
    return list(dict.fromkeys(found))


def _frame_of(
    sample: NDArray[Any], valid: NDArray[np.bool_], value: float, smear: float
) -> tuple[float, NDArray[np.bool_]] | None:
    """The pixels (h, w) of one value in all bands that hang together with the border, and that value; or None.

    With ``smear`` the value is the commonest of those that differ from the given one by no more.
    """
    edges = np.stack([_border(band) for band in sample])
    if (_near(edges, value, smear) & _border(valid)).mean() <= _LEAST_BORDER:
        return None
    alike = _near(sample, value, smear) & valid
    pieces, count = label(alike)
    touching = np.zeros(count + 1, bool)
    touching[_border(pieces)] = True
    touching[0] = False
    frame: NDArray[np.bool_] = touching[pieces]
    # A picture's brightest or darkest pixels may hang together too, but in a net with holes.
    if binary_erosion(frame, border_value=1).sum() < _LEAST_INSIDE * frame.sum():
        return None
    levels, counts = np.unique(sample[0][frame], return_counts=True)
    return (float(levels[counts.argmax()]), frame) if counts.max() >= _LEAST_EXACT * counts.sum() else None


def _near(bands: NDArray[Any], value: float, by: float) -> NDArray[np.bool_]:
    """Where all bands (C, ...) differ from a value by no more."""
    if not by:
        return np.logical_and.reduce([band == value for band in bands])
    return np.logical_and.reduce([np.abs(band.astype(np.float32) - value) <= by for band in bands])


def _border(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _tell_void(path: Path, value: float, has: NDArray[np.bool_], values: NDArray[Any], log: logging.Logger) -> None:
    others = values[values != value]
    log.warning(
        "%s: %.9g in %s of the pixels lies far from all other values (%g to %g) and is not declared as no data: it is "
        "taken as such, without stretch and heights. --nodata none takes it as ground",
        path,
        value,
        _share(has),
        *np.percentile(others.astype(np.float64), (1.0, 99.0)),
    )


def _tell_frame(
    path: Path, value: float, frame: NDArray[np.bool_], palette: bool, void: bool, log: logging.Logger
) -> None:
    given = "with that colour's index" if palette else f"{value:.9g}"
    but = f"but gets heights. --nodata {given} leaves it without heights; "
    log.warning(
        "%s: a frame of %.9g takes %s of the pixels and %.0f %% of the border, and is not declared as no data: it is "
        "left out of the stretch, %s--nodata none takes it as ground",
        path,
        value,
        _share(frame),
        100.0 * _border(frame).mean(),
        "and its pixels are no data. " if void else but,
    )


def _share(pixels: NDArray[np.bool_]) -> str:
    share = 100.0 * pixels.mean()
    return f"{share:.1f} %" if share >= 0.1 else f"{share:.2g} %"
