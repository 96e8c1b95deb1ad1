"""The same DEM in any disguise gives the same heights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

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
from tests.Utils.scenes.metamorphic.running import assert_heights, predict_with

OPTION = "--reference-nodata"
SINGLE = [
    *GRIDS,
    *TURNED_SLIGHTLY,
    *LARGER,
    *CALLED,
    *HORIZONTAL_UNITS,
    *VERTICAL_UNITS,
    *UNITS,
    *HEIGHT_TYPES,
    *VOIDS,
    *undeclared(OPTION),
    *suspected(OPTION),
    *STORAGE,
    *HEIGHT_FORMATS,
    *OVERVIEWS,
    *WRONG_OVERVIEWS,
    *CONTAINERS,
    *SINGLE_FILE,
]
COMBINED = [one for one in SINGLE if one not in SINGLE_FILE and one not in HEIGHT_FORMATS]


@pytest.mark.parametrize("disguise", parameters("dem", SINGLE))
def test_a_disguised_reference(tmp_path: Path, wanted: Floats, disguise: Disguise) -> None:
    check(tmp_path, wanted, [disguise])


@pytest.mark.parametrize("disguises", draw("dem", COMBINED, canonical_dem(), count=24))
def test_a_reference_in_three_disguises(tmp_path: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    check(tmp_path, wanted, disguises)


def check(folder: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    """The heights of the canonical scene, or a refusal that is right."""
    image = canonical_image()
    assert_heights(predict_with(folder, image, wear(canonical_dem(), disguises)), image, wanted, disguises)
