"""The tests of disguises can fail: what is no disguise is noticed, and a disguise says what it claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.Utils.scenes.metamorphic.disguises import EXACT, Disguise, draw, wear
from tests.Utils.scenes.metamorphic.files import CONTAINERS, OVERVIEWS, STORAGE
from tests.Utils.scenes.metamorphic.landscape import (
    HIGH,
    LOW,
    canonical_dem,
    canonical_image,
    terrain,
)
from tests.Utils.scenes.metamorphic.numbers import BANDS, HEIGHT_TYPES, IMAGE_TYPES, UNITS, VOIDS
from tests.Utils.scenes.metamorphic.places import GRIDS
from tests.Utils.scenes.metamorphic.rasters import Floats, Raster
from tests.Utils.scenes.metamorphic.running import (
    MAPS,
    assert_same,
    error_of,
    on_canonical_grid,
    predict_with,
    refused_rightly,
    rms,
    run_predict,
    score,
)
from tests.Utils.scenes.metamorphic.tables import canonical_points
from tests.Utils.scenes.metamorphic.test_disguised_points import run as run_with_points

Change = Callable[[Raster], Raster]
SOUTH_UP = next(one for one in GRIDS if one.name == "south-up")


def with_values(change: Callable[[Floats], Floats]) -> Change:
    return lambda raster: replace(raster, values=change(raster.values))


WRONG_DEMS: dict[str, Change] = {
    "1 m higher": with_values(lambda values: values + 1.0),
    "in feet, untold": with_values(lambda values: values / 0.3048),
    "mirrored, its transform kept": with_values(lambda values: values[..., ::-1]),
    "south-up, its transform kept": lambda dem: replace(SOUTH_UP.change(dem), transform=dem.transform),
    "one cell to the east": lambda dem: replace(dem, transform=dem.transform @ Affine.translation(1, 0)),
    "a tenth of a cell to the east": lambda dem: replace(dem, transform=dem.transform @ Affine.translation(0.1, 0)),
    "one cell 20 m too high": with_values(
        lambda values: values + 20.0 * (np.arange(values.size) == 800).reshape(values.shape)
    ),
    "another void": lambda dem: replace(dem, valid=np.roll(dem.valid, 3, axis=1)),
    "in the next zone": lambda dem: replace(dem, crs="+proj=utm +zone=43 +ellps=bessel +units=m"),
}
WRONG_IMAGES: dict[str, Change] = {
    "flipped": with_values(lambda values: values[:, ::-1]),
    "bands swapped": with_values(lambda values: values[::-1]),
    "10 levels brighter in a part": with_values(
        lambda values: np.where(np.arange(96) < 40, np.minimum(values + 10, 255), values)
    ),
    "more void": lambda image: replace(image, valid=image.valid & (image.places[0] < 900.0)),
}


def by_name(disguise: Disguise) -> str:
    return disguise.name


def heights_with(folder: Path, image: Raster, dem: Raster) -> Floats:
    outcome = predict_with(folder, image, dem)
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    return on_canonical_grid(outcome.heights, image)


@pytest.mark.parametrize("name", WRONG_DEMS)
def test_another_dem_is_noticed(tmp_path: Path, wanted: Floats, name: str) -> None:
    found = heights_with(tmp_path, canonical_image(), WRONG_DEMS[name](canonical_dem()))
    with pytest.raises(AssertionError, match="differ by up to"):
        assert_same(found, wanted, 0.2, "larger than the tolerance of any disguise that keeps the cells")


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_another_image_is_noticed(tmp_path: Path, wanted: Floats, name: str) -> None:
    found = heights_with(tmp_path, WRONG_IMAGES[name](canonical_image()), canonical_dem())
    with pytest.raises(AssertionError):
        assert_same(found, wanted, 0.2, "larger than the tolerance of any disguise that keeps the pixels")


def test_other_points_are_noticed(tmp_path: Path) -> None:
    table = canonical_points()
    found = []
    for number, shift in enumerate((0.0, 1.0)):
        (tmp_path / str(number)).mkdir()
        moved = replace(table, columns=table.columns | {"height": np.asarray(table.columns["height"]) + shift})
        found.append(run_with_points(tmp_path / str(number), moved).heights)
    with pytest.raises(AssertionError, match="differ by up to 1 m"):
        assert_same(found[1], found[0], 0.2, "heights are a metre higher")


@pytest.mark.parametrize("role", ["truth", "baseline", "prediction"])
def test_another_map_changes_the_scores(plain_maps: dict[str, Path], tmp_path: Path, role: str) -> None:
    raster = MAPS[role]()
    plain = score(plain_maps, tmp_path / "plain").overall.scores
    moved = score(plain_maps, tmp_path / "moved", **{role: replace(raster, values=raster.values + 1.0)}).overall.scores
    changed = [name for name in plain if abs(moved[name]["bias"] - plain[name]["bias"]) > 0.9]
    assert changed == (["baseline", "prediction"] if role == "truth" else [role])


def test_the_scene_is_worth_testing(wanted: Floats) -> None:
    """The model adds to the DEM, the terrain is rough, and everything has its voids."""
    image, dem = canonical_image(), canonical_dem()
    heights = terrain(image.places)
    assert LOW < heights.min() and heights.max() < HIGH and np.std(heights) > 20.0
    assert error_of(wanted, image) < 3.0
    blocks = np.kron(dem.values[0, 12:36, 12:36], np.ones((4, 4)))
    assert error_of(wanted, image) < 0.6 * rms(blocks - heights)
    assert 0.01 < 1.0 - image.valid.mean() < 0.1 and 8 <= (~dem.valid).sum() < 40
    assert len({round(float(dem.values[0, row, column])) for row in range(48) for column in range(48)}) > 100


@pytest.mark.parametrize(
    "disguise", [*GRIDS, *UNITS, *HEIGHT_TYPES, *VOIDS, *STORAGE, *OVERVIEWS, *CONTAINERS], ids=by_name
)
def test_a_disguised_file_holds_the_same_heights(tmp_path: Path, disguise: Disguise) -> None:
    """Read with rasterio alone, value by value, with nothing of the product between."""
    raster = wear(canonical_dem(), [disguise])
    with rasterio.open(raster.write(tmp_path / "dem", "dem")) as source:
        stored = source.read(1).astype(np.float64)
        known = (source.read(2) if disguise.name == "voids in alpha" else source.read_masks(1)) > 0
        heights = stored * source.scales[0] + source.offsets[0]
    wanted = raster.values[0]
    np.testing.assert_array_equal(known & np.isfinite(stored), raster.valid)
    np.testing.assert_allclose(heights[raster.valid], wanted[raster.valid], rtol=1e-6)


@pytest.mark.parametrize("disguise", [*IMAGE_TYPES, *BANDS], ids=by_name)
def test_a_disguised_image_is_another_file(disguise: Disguise) -> None:
    image, plain = wear(canonical_image(), [disguise]), canonical_image()
    same = image.values.shape == plain.values.shape and (image.values == plain.values).all()
    assert not same or image != plain or image.colours != plain.colours


def test_drawn_disguises_are_the_same_every_time_and_of_different_kinds() -> None:
    pool = [*GRIDS, *UNITS, *HEIGHT_TYPES, *VOIDS, *STORAGE, *CONTAINERS]
    first, again = (draw(pool, canonical_dem(), count=20) for _ in range(2))
    assert [one.id for one in first] == [one.id for one in again]
    assert all(one.id == " + ".join(each.name for each in one.values[0]) for one in first)
    assert all(len({each.slot for each in one.values[0]}) == 3 for one in first)


def test_a_refusal_is_one_line_of_the_wanted_kind(tmp_path: Path) -> None:
    outcome = run_predict(tmp_path, "--input", str(tmp_path / "absent.tif"))
    assert refused_rightly(outcome, "absent.tif")
    assert not refused_rightly(outcome, "nodata") and outcome.left == ()
    assert not refused_rightly(replace(outcome, status=0), "absent.tif")


def test_the_tolerance_is_the_stated_one() -> None:
    heights = np.full((2, 2), 600.0)
    assert_same(heights + 0.9 * EXACT, heights, EXACT, "just below")
    with pytest.raises(AssertionError):
        assert_same(heights + 1.1 * EXACT, heights, EXACT, "just above")
    with pytest.raises(AssertionError):
        assert_same(np.where([[True, False]], np.nan, heights), heights, 1e9, "a hole is no difference of heights")
