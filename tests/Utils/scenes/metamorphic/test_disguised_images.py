"""The same image in any disguise gives the same heights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from tests.Utils.scenes.metamorphic import rasters
from tests.Utils.scenes.metamorphic.disguises import Disguise, draw, named, parameters, wear
from tests.Utils.scenes.metamorphic.files import (
    CONTAINERS,
    OVERVIEWS,
    PICTURE_FORMATS,
    SINGLE_FILE,
    STORAGE,
)
from tests.Utils.scenes.metamorphic.landscape import canonical_dem, canonical_image, whole
from tests.Utils.scenes.metamorphic.numbers import BANDS, IMAGE_TYPES, IMAGE_VOIDS, with_infrared
from tests.Utils.scenes.metamorphic.places import CALLED, GRIDS, HORIZONTAL_UNITS
from tests.Utils.scenes.metamorphic.rasters import Floats, Raster
from tests.Utils.scenes.metamorphic.running import assert_heights, assert_same, predict_with, rms
from Utils.rasters.source.scene_source import open_scene

# These change what is read, not where it lies: reading them is the whole test. The others go through all of predict.py.
READ = [*IMAGE_TYPES, *IMAGE_VOIDS, *BANDS, *STORAGE, *PICTURE_FORMATS, *OVERVIEWS]
READ = [one for one in READ if wear(canonical_image(), [one]).can_be_written]
RUN = [*GRIDS, *CALLED[::3], *HORIZONTAL_UNITS, *CONTAINERS, *SINGLE_FILE]
COMBINED = [one for one in (*RUN, *CALLED, *READ) if one not in SINGLE_FILE and one not in PICTURE_FORMATS]


@pytest.fixture(scope="module")
def wanted_pixels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Floats, Floats]:
    """What the model sees of the undisguised image: (3, H, W) in [0, 1], and valid pixels."""
    image = canonical_image()
    return read(image, image.write(tmp_path_factory.mktemp("image") / "image", "image"))


def read(image: Raster, name: str) -> tuple[Floats, Floats]:
    given = image.given
    bands = tuple(int(one) for one in given["--bands"].split(",")) if "--bands" in given else None
    nodata = float(given["--nodata"]) if "--nodata" in given else None
    with open_scene(name, bands, nodata) as source:
        pixels, valid = source.read(0, 0, source.height, source.width)
    return pixels.astype(np.float64), valid


@pytest.mark.parametrize("disguise", parameters(READ))
def test_a_disguised_image_is_read_alike(
    tmp_path: Path, wanted_pixels: tuple[Floats, Floats], disguise: Disguise
) -> None:
    image = wear(canonical_image(), [disguise])
    pixels, valid = read(image, image.write(tmp_path / "image", "image"))
    np.testing.assert_array_equal(valid, wanted_pixels[1])
    np.testing.assert_allclose(pixels, wanted_pixels[0], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("disguise", parameters(RUN))
def test_a_disguised_image(tmp_path: Path, wanted: Floats, disguise: Disguise) -> None:
    check(tmp_path, wanted, [disguise])


@pytest.mark.parametrize("disguises", draw(COMBINED, canonical_image(), count=18))
def test_an_image_in_three_disguises(tmp_path: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    check(tmp_path, wanted, disguises)


def check(folder: Path, wanted: Floats, disguises: Sequence[Disguise]) -> None:
    """The heights of the canonical scene."""
    image = wear(canonical_image(), disguises)
    assert_heights(predict_with(folder, image, canonical_dem()), image, wanted, disguises)


@pytest.mark.parametrize("void", [rasters.INTERNAL, rasters.EXTERNAL, rasters.ALPHA, rasters.UNDECLARED, rasters.TAG])
def test_a_way_to_tell_voids_where_there_are_none(tmp_path: Path, wanted_whole: Floats, void: str) -> None:
    image, dem = (replace(whole(raster), void=void) for raster in (canonical_image(), canonical_dem()))
    outcome = predict_with(tmp_path, image, dem)
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    assert_same(outcome.heights, wanted_whole, 1e-3, "nothing is void")


@pytest.mark.parametrize("name", [named("infrared as alpha makes holes")])
def test_infrared_tagged_as_alpha_makes_no_silent_holes(tmp_path: Path, wanted: Floats, name: str) -> None:
    image = with_infrared(canonical_image(), first=False, kind=ColorInterp.alpha)
    outcome = predict_with(tmp_path, image, canonical_dem())
    assert outcome.heights is not None, outcome.said
    has_holes = (np.isnan(outcome.heights) & ~np.isnan(wanted)).any()
    assert not has_holes or re.search("(?i)alpha|opacity|infrared", outcome.said)
    assert_same(np.where(np.isnan(outcome.heights), np.nan, wanted), outcome.heights, 5.0, "tiles with holes")


@pytest.mark.parametrize("name", [named("band asked for is alpha")])
def test_a_band_that_is_asked_for_is_no_alpha(tmp_path: Path, name: str) -> None:
    plain, tagged = (
        replace(with_infrared(canonical_image(), first=False, kind=kind), given={"--bands": "4,1,2"})
        for kind in (ColorInterp.undefined, ColorInterp.alpha)
    )
    wanted = predict_with(tmp_path / "plain", plain, canonical_dem())
    found = predict_with(tmp_path / "tagged", tagged, canonical_dem())
    assert found.heights is not None and wanted.heights is not None, found.said
    assert_same(found.heights, wanted.heights, 1e-3, "the same values")


def framed(value: float, dtype: str, told: bool) -> Raster:
    """The image in a frame of one value, 12 pixels wide on the left and 6 below, told or untold."""
    image = whole(canonical_image())
    rows, columns = np.mgrid[: image.valid.shape[0], : image.valid.shape[1]]
    inside = (columns >= 12) & (rows < image.valid.shape[0] - 6)
    factor = {"uint8": 1.0, "int16": 10.0, "uint16": 100.0, "float32": 0.01}[dtype]
    void = rasters.TAG if told else rasters.UNDECLARED
    return replace(image, values=factor * image.values, valid=inside, dtype=dtype, nodata=value, void=void)


FRAMES = [
    (0.0, "uint8"),
    (255.0, "uint8"),
    (-9999.0, "float32"),
    (-32768.0, "int16"),
    (0.0, "uint16"),
    (65535.0, "uint16"),
]


@pytest.mark.parametrize(
    ("value", "dtype"), [named(f"frame of {value:g} in {dtype}", value, dtype) for value, dtype in FRAMES]
)
def test_an_untold_frame_does_not_make_the_stretch(tmp_path: Path, value: float, dtype: str) -> None:
    """The stretch is that of the told frame, and a line names the value and --nodata."""
    told = predict_with(tmp_path / "told", framed(value, dtype, told=True), canonical_dem())
    untold = predict_with(tmp_path / "untold", framed(value, dtype, told=False), canonical_dem())
    assert told.heights is not None and untold.heights is not None, told.said + untold.said
    assert "--nodata" in untold.said and f"{value:g}" in untold.said
    assert untold.stretch == told.stretch
    # If the frame stays in the image, the model sees it in the tiles that reach into it, so they get another scale.
    inside = framed(value, dtype, told=True).valid
    assert rms((untold.heights - told.heights)[inside]) < 5.0
