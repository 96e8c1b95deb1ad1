"""Results of the canonical scene, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.Utils.scenes.metamorphic.landscape import canonical_dem, canonical_image, whole
from tests.Utils.scenes.metamorphic.rasters import Floats
from tests.Utils.scenes.metamorphic.running import MAPS, on_canonical_grid, predict_with


@pytest.fixture(scope="session")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Heights of the canonical scene with its DEM."""
    outcome = predict_with(tmp_path_factory.mktemp("canonical"), canonical_image(), canonical_dem())
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    return on_canonical_grid(outcome.heights, canonical_image())


@pytest.fixture(scope="session")
def wanted_whole(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Heights of the scene without voids, neither in the image nor in the DEM."""
    outcome = predict_with(tmp_path_factory.mktemp("whole"), whole(canonical_image()), whole(canonical_dem()))
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    return outcome.heights


@pytest.fixture(scope="session")
def plain_maps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The undisguised maps that are scored, by role."""
    folder = tmp_path_factory.mktemp("maps")
    return {role: Path(make().write(folder / role, role)) for role, make in MAPS.items()}
