"""The same points in any table give the same heights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.Utils.scenes.metamorphic.disguises import named
from tests.Utils.scenes.metamorphic.known import failing
from tests.Utils.scenes.metamorphic.landscape import canonical_image
from tests.Utils.scenes.metamorphic.rasters import Floats
from tests.Utils.scenes.metamorphic.running import Outcome, assert_same, error_of, refused_rightly, run_predict
from tests.Utils.scenes.metamorphic.tables import (
    COLUMNS,
    ENDS,
    FILLS,
    FORMS,
    NAMES,
    ORDER,
    SYSTEMS,
    PointDisguise,
    Table,
    canonical_points,
)

SINGLE = [*ORDER, *COLUMNS, *NAMES, *FORMS, *ENDS, *SYSTEMS, *FILLS]
SLOTS = ("rows", "crs", "columns", "names", "form", "text", "fill")


def run(folder: Path, table: Table) -> Outcome:
    image = canonical_image().write(folder / "image", "image")
    crs = [] if table.crs is None else [f"--points-crs={table.crs}"]
    return run_predict(folder, "--input", image, "--points", str(table.write(folder)), *crs)


@pytest.fixture(scope="session")
def wanted_at_points(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Heights of the canonical scene with its points."""
    outcome = run(tmp_path_factory.mktemp("points"), canonical_points())
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    assert error_of(outcome.heights, canonical_image()) < 6.0
    return outcome.heights


def parameter(disguises: Sequence[PointDisguise]) -> object:
    return named("points", " + ".join(one.name for one in disguises), disguises)


def drawn(count: int) -> list:
    """Three disguises at once, of different slots."""
    rng = np.random.default_rng(13)
    pool = [one for one in SINGLE if not (failing("points", one.name) or one.refusal)]
    found: dict[str, list[PointDisguise]] = {}
    while len(found) < count:
        chosen = [pool[number] for number in rng.choice(len(pool), 3, replace=False)]
        slots = {one.slot for one in chosen}
        # Rows that are added as text stand for the canonical form of the others.
        if len(slots) == 3 and not ("fill" in slots and slots & {"form", "columns", "crs", "rows"}):
            chosen.sort(key=lambda one: SLOTS.index(one.slot))
            found[" + ".join(one.name for one in chosen)] = chosen
    return [parameter(chosen) for chosen in found.values()]


@pytest.mark.parametrize("disguises", [parameter([one]) for one in SINGLE] + drawn(12))
def test_disguised_points(tmp_path: Path, wanted_at_points: Floats, disguises: Sequence[PointDisguise]) -> None:
    table = canonical_points()
    for disguise in disguises:
        table = disguise.change(table)
    outcome = run(tmp_path, table)
    for disguise in disguises:
        if disguise.refusal and refused_rightly(outcome, disguise.refusal):
            return
        assert re.search(disguise.says, outcome.said), f"the log does not say {disguise.says}: {outcome.said}"
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    tolerance = sum(one.tolerance for one in disguises)
    assert_same(outcome.heights, wanted_at_points, tolerance, disguises[-1].reason)
