"""What heights of a raster refer to: the ellipsoid with a vendor's RPCs, else what the cameras' texts say."""

from __future__ import annotations

from pathlib import Path

import pytest

from Systems.stereo.dsm.dsm_files import datum_of
from Systems.stereo.dsm.options import DsmOptions
from Systems.stereo.dsm.views import opened_views
from tests.rational_views import write_views
from Utils.core.errors import UserError
from Utils.rasters.rational import RationalModel, read_rational
from Utils.rasters.rational.writing import write_rational


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_views(tmp_path_factory.mktemp("views"), size=(30, 34))


@pytest.fixture(scope="module")
def models(images: list[Path]) -> list[RationalModel]:
    return [read_rational(image) for image in images]


def words(images: list[Path], models: list[RationalModel], *datums: str | None, geoid: str = "") -> str:
    """The datum of a raster of views whose cameras' texts name these."""
    texts = [image.with_suffix(".txt") for image in images]
    for text, model, datum in zip(texts, models, datums, strict=True):
        write_rational(text, model, datum)
    options = DsmOptions(tuple(images), images[0].with_name("dsm.tif"), rpcs=tuple(texts), geoid=geoid)
    with opened_views(options) as views:
        return datum_of(options, views)


def test_only_what_is_known_is_called_ellipsoidal(images: list[Path], models: list[RationalModel]) -> None:
    assert words(images, models, None, None) == "the WGS 84 ellipsoid"
    assert words(images, models, "", "") == "a zero that is not known"
    assert words(images, models, "EPSG:5773", "EPSG:5773") == "EPSG:5773"


def test_unknown_datums_are_not_converted_and_two_are_not_mixed(
    images: list[Path], models: list[RationalModel]
) -> None:
    with pytest.raises(UserError, match="above a zero that is not known, and only those above the ellipsoid"):
        words(images, models, "", "", geoid="EPSG:5773")
    with pytest.raises(UserError, match=r"above the WGS 84 ellipsoid, those of 'view_2.tif' above EPSG:5773"):
        words(images, models, None, "EPSG:5773")
