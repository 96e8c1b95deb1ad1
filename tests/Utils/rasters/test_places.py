"""Places of rasters: files, archives, URLs."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.scenes import write_raster
from Utils.core.errors import UserError
from Utils.rasters.environment import gdal_environment
from Utils.rasters.places import container, gdal_name, is_file, place_beside, place_from, raster_place, stem


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder with a raster, plain and packed in every way."""
    raster = write_raster(tmp_path / "a scene é.tif", np.arange(12, dtype=np.uint8).reshape(3, 4))
    for name in ("one.zip", "odd.dat"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(raster, "inner/scene.tif")
            archive.writestr("inner/readme.txt", "words")
            archive.writestr("__MACOSX/inner/._scene.tif", "none")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(raster, "b.tif")
        archive.write(raster, "a.TIF")
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as archive:
        archive.add(raster, "inner/scene.tif")
    (tmp_path / "dem.tif.gz").write_bytes(gzip.compress(raster.read_bytes()))
    return tmp_path


@pytest.mark.parametrize(
    "given",
    [
        "{0}/a scene é.tif",
        "file://{0}/a scene é.tif",
        "file://{0}/a%20scene%20%C3%A9.tif",
        "file://localhost{0}/a scene é.tif",
        "/vsizip/{0}/one.zip/inner/scene.tif",
        "/vsizip{0}/one.zip/inner/scene.tif",
        "/vsizip/one.zip/inner/scene.tif",
        "/vsizip/{{{0}/odd.dat}}/inner/scene.tif",
        "zip://{0}/one.zip!inner/scene.tif",
        "zip://{0}/one.zip!/inner/scene.tif",
        "zip://one.zip!inner/scene.tif",
        "zip+file://{0}/one.zip!inner/scene.tif",
        "zip://{0}/one.zip",
        "{0}/one.zip",
        "one.zip",
        "{0}/one.tar.gz",
        "tar://{0}/one.tar.gz!inner/scene.tif",
        "/vsitar/{0}/one.tar.gz/inner/scene.tif",
        "{0}/dem.tif.gz",
        "/vsigzip/{0}/dem.tif.gz",
        "gzip://dem.tif.gz",
        "/vsisubfile/0_{1},{0}/a scene é.tif",
    ],
)
def test_the_same_raster_by_many_names(packed: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed)
    before = sorted(os.listdir(packed))
    text = given.format(packed, (packed / "a scene é.tif").stat().st_size)
    # Command lines make a Path of it, which merges slashes.
    for form in (text, Path(text), raster_place(text)):
        place = raster_place(form)
        assert is_file(place) and container(place).is_file()
        with gdal_environment(), rasterio.open(gdal_name(place)) as source:
            np.testing.assert_array_equal(source.read(1), np.arange(12).reshape(3, 4))
    assert stem(place) in ("a scene é", "scene", "dem")
    assert sorted(os.listdir(packed)) == before, "nothing is left beside an archive"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{0}/two.zip", "2 rasters (a.TIF, b.tif); choose one, for example /vsizip/{0}/two.zip/a.TIF"),
        ("{0}/empty.zip", "holds no raster"),
        ("{0}/broken.zip", "no archive that can be read"),
        ("https://example.org/scene.tif", "this machine only"),
        ("/vsicurl/https://example.org/scene.tif", "this machine only"),
        ("/vsis3/bucket/scene.tif", "this machine only"),
    ],
)
def test_places_that_need_a_word(packed: Path, given: str, says: str) -> None:
    zipfile.ZipFile(packed / "empty.zip", "w").close()
    (packed / "broken.zip").write_bytes((packed / "one.zip").read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        raster_place(given.format(packed))
    assert says.format(packed) in str(caught.value)


def test_names_that_cannot_exist_are_no_files() -> None:
    for name in ("x" * 300, "/vsizip/" + "x" * 300, "/vsizip", "NETCDF:/a.nc:height", ""):
        assert not is_file(raster_place(name))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("{0}/a scene é.tif", "../a scene é.tif"),
        ("{0}/one.zip", "/vsizip/{{../one.zip}}/inner/scene.tif"),
        ("/vsizip/{{{0}/odd.dat}}/inner/scene.tif", "/vsizip/{{../odd.dat}}/inner/scene.tif"),
        ("tar://{0}/one.tar.gz!inner/scene.tif", "/vsitar/{{../one.tar.gz}}/inner/scene.tif"),
        ("{0}/dem.tif.gz", "/vsigzip/{{../dem.tif.gz}}"),
    ],
)
def test_a_place_is_found_from_a_folder_that_moved_with_it(packed: Path, given: str, written: str) -> None:
    (packed / "results").mkdir()
    place = raster_place(given.format(packed))
    text = place_beside(place, packed / "results")
    assert text == written.format(packed)
    moved = packed.rename(packed.with_name(f"{packed.name}-moved"))
    found = place_from(text, moved / "results")
    assert gdal_name(found) == gdal_name(str(place).replace(str(packed), str(moved)))
    assert is_file(found) and is_file(place_from(text, moved / "inner" / ".." / "results"))
    with gdal_environment(), rasterio.open(gdal_name(found)) as source:
        assert source.read(1)[2, 3] == 11
