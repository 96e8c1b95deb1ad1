"""evaluateScene's scores are the same whatever truth, baseline and prediction are disguised as."""

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
from tests.Utils.scenes.metamorphic.landscape import canonical_truth
from tests.Utils.scenes.metamorphic.numbers import HEIGHT_TYPES, UNITS, VOIDS
from tests.Utils.scenes.metamorphic.places import CALLED, GRIDS, HORIZONTAL_UNITS, VERTICAL_UNITS
from tests.Utils.scenes.metamorphic.running import MAPS, score
from Utils.scenes.accuracy.scene_scores import SceneScores

NUMBERS = [*UNITS, *HEIGHT_TYPES, *VOIDS]
FILES = [*STORAGE[::3], *HEIGHT_FORMATS, *OVERVIEWS, *WRONG_OVERVIEWS, *CONTAINERS, *SINGLE_FILE]
PLACES = [*GRIDS, *CALLED, *HORIZONTAL_UNITS, *VERTICAL_UNITS]
SINGLE = [one for one in (*PLACES, *NUMBERS, *FILES) if one.name != "zip://"]  # a path, not a string, is given here
COMBINED = [one for one in (*PLACES, *NUMBERS, *STORAGE, *OVERVIEWS, *CONTAINERS) if one.name != "zip://"]
# The truth goes the longest way; of the maps beside it, what is read in another way is tried.
OTHERS = [*GRIDS, *CALLED[::4], *HORIZONTAL_UNITS[:1], *VERTICAL_UNITS, *UNITS, *HEIGHT_TYPES[::2], *VOIDS]
# Slopes of heights that differ by a millimetre from pixel to pixel of 10 m.
_DEGREES_A_METRE = 6.0


@pytest.fixture(scope="session")
def wanted_scores(plain_maps: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> SceneScores:
    """Scores of the undisguised maps."""
    found = score(plain_maps, tmp_path_factory.mktemp("scores"))
    assert 1.0 < found.overall.scores["prediction"]["rmse"] < 10.0
    assert found.pixels["scored"] < 0.97 * found.pixels["grid"]
    return found


def check(maps: dict[str, Path], folder: Path, wanted: SceneScores, role: str, disguises: Sequence[Disguise]) -> None:
    found = score(maps, folder, **{role: wear(MAPS[role](), disguises)})
    assert found.pixels == wanted.pixels
    tolerance = sum(one.tolerance for one in disguises)
    for name, scores in wanted.overall.scores.items():
        for key, value in scores.items():
            allowed = _DEGREES_A_METRE * tolerance if "degrees" in key else tolerance
            allowed = 2.0 if key == "aspect_pixels" else allowed
            assert found.overall.scores[name][key] == pytest.approx(value, abs=allowed), f"{name}: {key}"


@pytest.mark.parametrize("disguise", parameters(SINGLE))
def test_a_disguised_truth(
    plain_maps: dict[str, Path], tmp_path: Path, wanted_scores: SceneScores, disguise: Disguise
) -> None:
    check(plain_maps, tmp_path, wanted_scores, "truth", [disguise])


@pytest.mark.parametrize("disguise", parameters(OTHERS))
def test_a_disguised_baseline(
    plain_maps: dict[str, Path], tmp_path: Path, wanted_scores: SceneScores, disguise: Disguise
) -> None:
    check(plain_maps, tmp_path, wanted_scores, "baseline", [disguise])


@pytest.mark.parametrize("disguise", parameters(OTHERS))
def test_a_disguised_prediction(
    plain_maps: dict[str, Path], tmp_path: Path, wanted_scores: SceneScores, disguise: Disguise
) -> None:
    check(plain_maps, tmp_path, wanted_scores, "prediction", [disguise])


@pytest.mark.parametrize("disguises", draw(COMBINED, canonical_truth(), count=16))
def test_a_truth_in_three_disguises(
    plain_maps: dict[str, Path], tmp_path: Path, wanted_scores: SceneScores, disguises: Sequence[Disguise]
) -> None:
    check(plain_maps, tmp_path, wanted_scores, "truth", disguises)
