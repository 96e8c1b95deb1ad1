"""The same DEM in any disguise gives the same heights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from rasterio.crs import CRS

from tests.Utils.scenes.metamorphic.disguises import Disguise, draw, parameters, wear
from tests.Utils.scenes.metamorphic.files import (
    CONTAINERS,
    HEIGHT_FORMATS,
    OVERVIEWS,
    SINGLE_FILE,
    STORAGE,
    WRONG_OVERVIEWS,
)
from tests.Utils.scenes.metamorphic.landscape import canonical_dem, canonical_image
from tests.Utils.scenes.metamorphic.numbers import HEIGHT_TYPES, UNITS, VOIDS, suspected, undeclared
from tests.Utils.scenes.metamorphic.places import (
    CALLED,
    GRIDS,
    HORIZONTAL_UNITS,
    LARGER,
    TURNED_SLIGHTLY,
    VERTICAL_UNITS,
)
from tests.Utils.scenes.metamorphic.rasters import Floats
from tests.Utils.scenes.metamorphic.running import assert_heights, assert_same, predict_with
from Utils.scenes.fusion.reference import CoarseHeights, Geometry, read_reference

OPTION = "--reference-nodata"
# These change what is read and nothing else: reading them is the whole test. The others go through all of predict.py.
READ = [*UNITS, *HEIGHT_TYPES, *VOIDS, *undeclared(OPTION), *STORAGE, *HEIGHT_FORMATS, *OVERVIEWS, *WRONG_OVERVIEWS]
RUN = [
    *GRIDS,
    *TURNED_SLIGHTLY,
    *LARGER,
    *CALLED,
    *HORIZONTAL_UNITS,
    *VERTICAL_UNITS,
    *suspected(OPTION),
    *CONTAINERS,
    *SINGLE_FILE,
]
COMBINED = [one for one in (*READ, *RUN) if one not in SINGLE_FILE and one not in HEIGHT_FORMATS]


@cache
def scene() -> Geometry:
    image = canonical_image()
    return Geometry(*image.valid.shape, CRS.from_user_input(image.crs), image.transform)


@pytest.fixture(scope="module")
def wanted_cells(tmp_path_factory: pytest.TempPathFactory) -> CoarseHeights:
    """The cells of the undisguised DEM."""
    return read_reference(Path(canonical_dem().write(tmp_path_factory.mktemp("dem") / "dem", "dem")), scene())


@pytest.mark.parametrize("disguise", parameters(READ))
def test_a_disguised_reference_is_read_alike(tmp_path: Path, wanted_cells: CoarseHeights, disguise: Disguise) -> None:
    dem = wear(canonical_dem(), [disguise])
    nodata = float(dem.given[OPTION]) if OPTION in dem.given else None
    found = read_reference(Path(dem.write(tmp_path / "dem", "dem")), scene(), nodata)
    assert found.geometry.transform.almost_equals(wanted_cells.geometry.transform, 1e-6)
    assert_same(found.heights, wanted_cells.heights, disguise.tolerance, disguise.reason)


@pytest.mark.parametrize("disguise", parameters(RUN))
def test_a_disguised_reference(tmp_path: Path, wanted: Floats, disguise: Disguise) -> None:
    check(tmp_path, wanted, [disguise])


@pytest.mark.parametrize("disguises", draw(COMBINED, canonical_dem(), count=18))
def test_a_reference_in_three_disguises(tmp_path: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    check(tmp_path, wanted, disguises)


def check(folder: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    """The heights of the canonical scene, or a refusal that is right."""
    image = canonical_image()
    assert_heights(predict_with(folder, image, wear(canonical_dem(), disguises)), image, wanted, disguises)
