"""Reading every stereo sample once before the long work: damaged files, cameras that do not fit, truth out of range."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from Utils.core.errors import UserError
from Utils.core.processes import progress_bar
from Utils.data.stereo.reading import StereoArrays, read_stereo
from Utils.data.stereo.sets import relations
from Utils.data.stereo.view_choice import Relation
from Utils.data.stereo.view_files import StereoFiles
from Utils.data.tile_check import TileCheck

__all__ = ["SampleLook", "check_samples", "look_at", "look_of"]

logger = logging.getLogger(__name__)

_LISTED_IDS = 8
_MUCH_OUTSIDE = 0.5  # share of a truth outside of its range from which the range is called wrong
_LITTLE_OVERLAP = 0.2


@dataclass(frozen=True)
class SampleLook:
    """What one sample looks like.

    Attributes:
        id: the sample.
        size: height and width of the reference.
        known: share of the reference's pixels whose truth is known.
        outside: share of the known ones that lie outside of the range.
        spread: difference between the largest and smallest known truth in metres; 0 where none is known.
        blank: whether the reference has one colour.
        relations: how its sources stand to it.
    """

    id: str
    size: tuple[int, int]
    known: float
    outside: float
    spread: float
    blank: bool
    relations: Sequence[Relation]

    @property
    def least_overlap(self) -> float:
        """The smallest overlap of a source with the reference."""
        return min(relation.overlap for relation in self.relations)


def look_at(name: str, files: StereoFiles) -> SampleLook:
    """Read one sample and look at it.

    Raises:
        UserError: a file that cannot be read, or files that do not fit one another.
    """
    return look_of(name, files, read_stereo(files))


def look_of(name: str, files: StereoFiles, arrays: StereoArrays) -> SampleLook:
    """What a sample that was read looks like.

    Raises:
        UserError: a camera or image that cannot be read.
    """
    truth = arrays.target[arrays.known]
    low, high = arrays.value_range
    image = arrays.images[0]
    return SampleLook(
        name,
        (image.shape[-2], image.shape[-1]),
        float(arrays.known.mean()),
        float(np.mean((truth < low) | (truth > high))) if truth.size else 0.0,
        float(np.ptp(truth)) if truth.size else 0.0,
        bool((image.max(axis=(1, 2)) == image.min(axis=(1, 2))).all()),
        relations(files),
    )


def check_samples(
    files: Mapping[str, StereoFiles], ids: Sequence[str], one_size: bool = True, truth: bool = True
) -> TileCheck:
    """Read every sample once, in threads.

    Args:
        files: the files of the part's samples.
        ids: the samples to read.
        one_size: whether all must have one size; not where each makes a batch of its own.
        truth: whether a depth or height map is needed.

    Raises:
        UserError: a file that cannot be used; samples of several sizes; sources that see nothing of a reference; truth
            that is missing, or for the most part outside of the range.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        looked = pool.map(lambda name: look_at(name, files[name]), ids)
        looks = list(progress_bar(looked, total=len(ids), desc="checking samples", unit="sample"))
    _refuse_blind(files, looks)
    if truth:
        _refuse_unknown(files, looks)
    sizes = {look.size for look in looks}
    if one_size and len(sizes) > 1:
        other = next(look for look in looks if look.size != looks[0].size)
        raise UserError(
            f"'{files[other.id].reference.image}' is {other.size[1]} x {other.size[0]} pixels but "
            f"'{files[looks[0].id].reference.image}' is {looks[0].size[1]} x {looks[0].size[0]}; all samples of a "
            "dataset have one size, unless batch_size is 1"
        )
    empty = [look.id for look in looks if truth and look.known * (1.0 - look.outside) == 0.0]
    flat = [look.id for look in looks if look.known > 0.0 and look.spread == 0.0]
    gaps = [look.id for look in looks if 0.0 < look.known < 1.0]
    outside = [look.id for look in looks if look.outside > 0.0]
    blank = [look.id for look in looks if look.blank]
    little = [look.id for look in looks if look.least_overlap < _LITTLE_OVERLAP]
    for found, what in (
        (blank, "a reference of one colour, in which nothing can be matched"),
        (empty, "no truth within their range: they teach nothing and score nothing"),
        (gaps, "some pixels without truth, which are masked"),
        (outside, "some truth outside of their range, which is masked; value_range sets another"),
        (little, f"a source that sees less than {_LITTLE_OVERLAP:.0%} of the reference"),
    ):
        if found:
            listed = ", ".join(found[:_LISTED_IDS]) + (", ..." if len(found) > _LISTED_IDS else "")
            logger.warning("%d of %d samples have %s (ids: %s)", len(found), len(ids), what, listed)
    smallest = min(size[0] for size in sizes), min(size[1] for size in sizes)
    return TileCheck(smallest, empty, flat, gaps, blank)


def _refuse_blind(files: Mapping[str, StereoFiles], looks: Sequence[SampleLook]) -> None:
    """Refuse sources that see nothing of their reference."""
    blind = [(look, place) for look in looks for place, found in enumerate(look.relations, 1) if found.overlap == 0.0]
    if blind:
        look, place = blind[0]
        sample = files[look.id]
        raise UserError(
            f"'{sample.views[place].image}' sees nothing of '{sample.reference.image}' by their cameras ({len(blind)} "
            f"of {sum(len(look.relations) for look in looks)} sources see nothing): do the camera files belong to "
            "these images, are cameras (pose or world_to_camera) and value_range right?"
        )


def _refuse_unknown(files: Mapping[str, StereoFiles], looks: Sequence[SampleLook]) -> None:
    """Refuse references without a truth, and ranges that miss the truth."""
    without = [look.id for look in looks if files[look.id].reference.truth is None]
    if without:
        raise UserError(
            f"view {files[without[0]].reference.view} of '{files[without[0]].name}' has no depth or height map "
            f"({len(without)} of {len(looks)} have none); add it, or leave the scene out"
        )
    missed = [look for look in looks if look.outside > _MUCH_OUTSIDE]
    if missed:
        truth = files[missed[0].id].reference.truth
        raise UserError(
            f"{missed[0].outside:.0%} of '{truth}' lies outside of its camera's range ({len(missed)} of {len(looks)} "
            "samples miss more than half): is the truth in metres, and of this view? value_range sets another range"
        )
