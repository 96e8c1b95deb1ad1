"""One stereo sample read and measured: the row of the audit's table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from Utils.core.errors import UserError
from Utils.data.stereo.agreement import agreements
from Utils.data.stereo.listing import Part
from Utils.data.stereo.reading import StereoArrays, read_stereo
from Utils.data.stereo.sample_check import look_of
from Utils.data.stereo.view_files import StereoFiles

__all__ = ["StereoRow", "inspect_stereo"]


@dataclass(frozen=True)
class StereoRow:
    """What was found in one sample.

    Attributes:
        part: train or test.
        id: the sample.
        height: height of the reference in pixels; 0 where it cannot be read.
        width: width in pixels.
        views: how many views there are.
        known: share of the reference's pixels with a truth.
        lowest: smallest truth in metres; NaN where none is known.
        highest: largest truth.
        range_low: smallest depth or height that is looked for.
        range_high: largest.
        outside: share of the truth outside of that.
        least_overlap: smallest share of the reference that a source sees.
        least_base: smallest base-to-height ratio of a source.
        at_truth: correlation of fine detail, reference and sources at the truth, the mean over sources; NaN: unknown.
        beside: the same for truths that are wrong by 3 pixels of parallax.
        blank: whether the reference has one colour.
        relative: correlation of the relative depth map with distance from the camera; NaN where none is read.
        fingerprint: of the reference's image.
        problem: why it cannot be read; empty where it can.
    """

    part: str
    id: str
    height: int = 0
    width: int = 0
    views: int = 0
    known: float = 0.0
    lowest: float = float("nan")
    highest: float = float("nan")
    range_low: float = float("nan")
    range_high: float = float("nan")
    outside: float = 0.0
    least_overlap: float = float("nan")
    least_base: float = float("nan")
    at_truth: float = float("nan")
    beside: float = float("nan")
    blank: bool = False
    relative: float = float("nan")
    fingerprint: str = ""
    problem: str = ""


def inspect_stereo(part: Part, name: str, files: StereoFiles) -> StereoRow:
    """Read one sample, and hold its cameras, truth and images against each other."""
    try:
        arrays = read_stereo(files)
        look = look_of(name, files, arrays)
        told = [each for each in agreements(files, arrays) if np.isfinite(each.at_truth + each.beside)]
    except UserError as error:
        return StereoRow(part, name, problem=str(error))
    truth = arrays.target[arrays.known]
    return StereoRow(
        part,
        name,
        *look.size,
        views=len(files.views),
        known=look.known,
        lowest=float(truth.min()) if truth.size else float("nan"),
        highest=float(truth.max()) if truth.size else float("nan"),
        range_low=arrays.value_range[0],
        range_high=arrays.value_range[1],
        outside=look.outside,
        least_overlap=look.least_overlap,
        least_base=min(relation.ratio for relation in look.relations),
        at_truth=float(np.mean([each.at_truth for each in told])) if told else float("nan"),
        beside=float(np.mean([each.beside for each in told])) if told else float("nan"),
        blank=look.blank,
        relative=_polarity(files, arrays),
        fingerprint=hashlib.sha256(arrays.images[0].tobytes()).hexdigest()[:16],
    )


def _polarity(files: StereoFiles, arrays: StereoArrays) -> float:
    """Correlation of the reference's relative map with the distance from the camera; NaN where it cannot be told."""
    if not arrays.relative or not arrays.known.any():
        return float("nan")
    away = arrays.target[arrays.known] * (1.0 if files.kind == "pinhole" else -1.0)
    drawn = arrays.relative[0][0][arrays.known]
    return float(np.corrcoef(away, drawn)[0, 1]) if away.std() > 0 and drawn.std() > 0 else float("nan")
