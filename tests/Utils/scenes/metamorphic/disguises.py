"""What a disguise is, and how several are drawn and worn at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.Utils.scenes.metamorphic.rasters import Raster

EXACT = 1e-3
"""Metres. Only roundings of single precision differ: heights of 740 m have steps of 6e-5 m, and some are added up."""

SLOTS = ("place", "grid", "crs", "unit", "type", "void", "bands", "storage", "overviews", "container")
"""The order in which disguises are put on; a raster wears at most one of each kind."""


@dataclass(frozen=True)
class Disguise:
    """A change of a raster that must not change the heights.

    Attributes:
        name: for the test's id.
        slot: the kind of change, one of ``SLOTS``.
        change: the change.
        tolerance: largest difference of a height, metres.
        reason: where the tolerance comes from.
        says: a pattern that the log must contain.
        refusal: a pattern; a refusal that fits it is right too.
    """

    name: str
    slot: str
    change: Callable[[Raster], Raster]
    tolerance: float = EXACT
    reason: str = "rounding to single precision"
    says: str = ""
    refusal: str = ""

    def __post_init__(self) -> None:
        if self.slot not in SLOTS:
            raise ValueError(f"{self.name}: no slot {self.slot}")


def wear(raster: Raster, disguises: Sequence[Disguise]) -> Raster:
    """The raster in all of these disguises."""
    for disguise in sorted(disguises, key=lambda one: SLOTS.index(one.slot)):
        raster = disguise.change(raster)
    return raster


def step(do: Callable) -> Callable[[Raster], Raster]:
    """A change that adds one step after the writing."""
    return lambda raster: replace(raster, steps=(*raster.steps, do))


def named(name: str, *values: object) -> object:
    """A parameter of a test with a name, which is its value where no other is given."""
    return pytest.param(*(values or (name,)), id=name)


def parameters(disguises: Sequence[Disguise]) -> list:
    """One parameter of a test each."""
    return [named(one.name, one) for one in disguises]


# GDAL adds no overviews beside those inside, and HFA has one name for two kinds of feet.
_APART = (("COG", ".ovr"), ("HFA", "coordinates in"))


def _go_together(raster: Raster, chosen: Sequence[Disguise]) -> bool:
    names = " ".join(one.name for one in chosen)
    return wear(raster, chosen).can_be_written and not any(one in names and other in names for one, other in _APART)


def draw(disguises: Sequence[Disguise], raster: Raster, count: int, together: int = 3) -> list:
    """So many different sets of disguises that can be worn and written together, as parameters of a test."""
    rng = np.random.default_rng(13)
    pool = [one for one in disguises if not (one.refusal or one.says)]
    found: dict[str, list[Disguise]] = {}
    while len(found) < count:
        chosen = [pool[number] for number in rng.choice(len(pool), together, replace=False)]
        chosen.sort(key=lambda one: SLOTS.index(one.slot))
        if len({one.slot for one in chosen}) == together and _go_together(raster, chosen):
            found[" + ".join(one.name for one in chosen)] = chosen
    return [named(name, chosen) for name, chosen in found.items()]
