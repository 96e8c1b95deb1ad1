"""The same points in any table give the same heights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS

from tests.Utils.scenes.metamorphic.disguises import named
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
from Utils.core.errors import UserError
from Utils.scenes.fusion.points_on_scene import read_points
from Utils.scenes.fusion.reference import Geometry

# What changes only the text of a table is read and compared; what changes the points goes through all of predict.py.
READ = [*COLUMNS, *NAMES, *FORMS, *ENDS, *SYSTEMS]
RUN = [*ORDER, *FILLS]
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
    return named(" + ".join(one.name for one in disguises), disguises)


def drawn(count: int) -> list:
    """Three disguises at once, of different slots."""
    rng = np.random.default_rng(13)
    pool = [one for one in (*READ, *RUN) if not one.refusal]
    found: dict[str, list[PointDisguise]] = {}
    while len(found) < count:
        chosen = [pool[number] for number in rng.choice(len(pool), 3, replace=False)]
        slots = {one.slot for one in chosen}
        # Rows that are added as text stand for the canonical form of the others.
        if len(slots) == 3 and not ("fill" in slots and slots & {"form", "columns", "crs", "rows"}):
            chosen.sort(key=lambda one: SLOTS.index(one.slot))
            found[" + ".join(one.name for one in chosen)] = chosen
    return [parameter(chosen) for chosen in found.values()]


def worn(disguises: Sequence[PointDisguise]) -> Table:
    table = canonical_points()
    for disguise in disguises:
        table = disguise.change(table)
    return table


@pytest.fixture(scope="module")
def wanted_points(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Rows, columns and heights of the undisguised points."""
    return read(canonical_points().write(tmp_path_factory.mktemp("table")), canonical_points())


def read(path: Path, table: Table) -> Floats:
    """Points (3, N) in an order of their own, each once."""
    image = canonical_image()
    scene = Geometry(*image.valid.shape, CRS.from_user_input(image.crs), image.transform)
    found = read_points(path, table.crs or "EPSG:4326", scene)
    points = np.stack([found.heights, found.rows, found.columns])
    return points[:, np.lexsort(np.round(points, 4)[::-1])]


@pytest.mark.parametrize("disguises", [parameter([one]) for one in READ])
def test_disguised_points_are_read_alike(
    tmp_path: Path, wanted_points: Floats, disguises: Sequence[PointDisguise]
) -> None:
    (disguise,) = disguises
    table = worn(disguises)
    try:
        found = read(table.write(tmp_path), table)
    except UserError as error:
        if not (disguise.refusal and re.search(disguise.refusal, str(error))):
            raise
        return
    np.testing.assert_allclose(found, wanted_points, rtol=0.0, atol=disguise.tolerance)


@pytest.mark.parametrize("disguises", [parameter([one]) for one in RUN] + drawn(10))
def test_disguised_points(tmp_path: Path, wanted_at_points: Floats, disguises: Sequence[PointDisguise]) -> None:
    outcome = run(tmp_path, worn(disguises))
    for disguise in disguises:
        if disguise.refusal and refused_rightly(outcome, disguise.refusal):
            return
        assert re.search(disguise.says, outcome.said), f"the log does not say {disguise.says}: {outcome.said}"
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    tolerance = sum(one.tolerance for one in disguises)
    assert_same(outcome.heights, wanted_at_points, tolerance, disguises[-1].reason)
