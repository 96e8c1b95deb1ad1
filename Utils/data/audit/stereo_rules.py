"""What an audit finds in the samples of a stereo dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from Utils.data.audit.findings import ERROR, WARNING, Finding
from Utils.data.audit.stereo_inspection import StereoRow
from Utils.data.stereo.listing import PARTS

__all__ = ["judge_stereo"]

_MUCH_OUTSIDE = 0.5
_LITTLE_OVERLAP, _LITTLE_BASE = 0.2, 0.02
_MOST_SHARE = 0.5  # of the samples that can be told, above which cameras are called wrong


def judge_stereo(rows: Sequence[StereoRow]) -> list[Finding]:
    """All that is wrong or unusual in the samples; what training refuses in its own part is an error."""
    findings: list[Finding] = []

    def add(level: str, code: str, what: str, found: Sequence[StereoRow], say: Callable[[StereoRow], str]) -> None:
        # A test part that cannot be used does not keep the training from starting.
        for part in PARTS:
            own = [f"{row.id}: {say(row)}" for row in found if row.part == part]
            if own:
                findings.append(Finding(level if part == "train" else WARNING, code, f"{what} ({part})", own))

    read = [row for row in rows if not row.problem]
    add(
        ERROR,
        "unreadable",
        "samples that cannot be read",
        [row for row in rows if row.problem],
        lambda row: row.problem,
    )
    blind = [row for row in read if row.least_overlap == 0.0]
    what = "sources that see nothing of their reference: do the cameras belong to the images?"
    add(ERROR, "no_overlap", what, blind, lambda row: "a source sees nothing")
    little = [row for row in read if 0.0 < row.least_overlap < _LITTLE_OVERLAP]
    what = "sources that see little of their reference"
    add(WARNING, "little_overlap", what, little, lambda row: f"{row.least_overlap:.0%}")
    narrow = [row for row in read if row.least_overlap > 0.0 and row.least_base < _LITTLE_BASE]
    what = "sources from nearly the same place, which tell no height"
    add(WARNING, "little_base", what, narrow, lambda row: f"base-to-height {row.least_base:.3f}")
    missed = [row for row in read if row.outside > _MUCH_OUTSIDE]
    what = "truth outside of its camera's range: value_range sets another"
    add(ERROR, "out_of_range", what, missed, _range)
    partly = [row for row in read if 0.0 < row.outside <= _MUCH_OUTSIDE]
    add(
        WARNING,
        "partly_out_of_range",
        "truth of which a part is masked, as it lies outside of the range",
        partly,
        _range,
    )
    without = [row for row in read if row.known == 0.0]
    add(ERROR, "no_truth", "references without truth", without, lambda row: "none known")
    blank = [row for row in read if row.blank]
    add(WARNING, "blank", "references of one colour, in which nothing can be matched", blank, lambda row: "one colour")
    findings += _judge_cameras(read) + _judge_polarity(read) + _judge_copies(read)
    return findings


def _range(row: StereoRow) -> str:
    looked_for = f"{row.range_low:g} to {row.range_high:g}"
    return f"{row.outside:.0%} outside, {row.lowest:g} to {row.highest:g} m where {looked_for} is looked for"


def _judge_cameras(rows: Sequence[StereoRow]) -> list[Finding]:
    # A truth out of range is named already, and puts nothing anywhere.
    told = [row for row in rows if np.isfinite(row.at_truth) and row.outside <= _MUCH_OUTSIDE]
    wrong = [row for row in told if row.at_truth <= row.beside]
    if not told or len(wrong) <= _MOST_SHARE * len(told):
        return []
    what = (
        "samples whose views look less alike at the truth than 3 pixels beside it: cameras, their convention (cameras: "
        "pose or world_to_camera) or truths are wrong"
    )
    items = [f"{row.id}: correlation {row.at_truth:.2f} at the truth, {row.beside:.2f} beside it" for row in wrong]
    return [Finding(WARNING, "cameras_do_not_fit", f"{what} ({len(wrong)} of {len(told)} that can be told)", items)]


def _judge_polarity(rows: Sequence[StereoRow]) -> list[Finding]:
    told = [row for row in rows if np.isfinite(row.relative)]
    turned = [row for row in told if row.relative < -0.2]
    if not told or len(turned) <= _MOST_SHARE * len(told):
        return []
    what = "relative depth maps that are bright where the ground is near: set relative_depth_rises to the other one"
    items = [f"{row.id}: correlation {row.relative:.2f}" for row in turned]
    return [Finding(WARNING, "turned_relative_depth", what, items)]


def _judge_copies(rows: Sequence[StereoRow]) -> list[Finding]:
    first: dict[str, StereoRow] = {}
    leaks: list[str] = []
    copies: list[str] = []
    for row in rows:
        original = first.setdefault(row.fingerprint, row)
        if original is not row:
            listed = leaks if row.part != original.part else copies
            listed.append(f"{row.part} {row.id} is {original.part} {original.id}")
    found = (
        ("leak", "test references that are training references: scores on them mean nothing", leaks),
        ("duplicate", "references that are there twice", copies),
    )
    return [Finding(WARNING, code, what, items) for code, what, items in found if items]
