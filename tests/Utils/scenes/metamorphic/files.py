"""Disguises of files: blocks, compression, formats, overviews, virtual rasters, archives and names."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy

from tests.Utils.scenes.metamorphic.disguises import Disguise, step
from tests.Utils.scenes.metamorphic.rasters import Raster


def _stored(**creation: Any) -> Callable[[Raster], Raster]:
    return lambda raster: replace(raster, creation=raster.creation | creation)


def _format(driver: str, **creation: Any) -> Callable[[Raster], Raster]:
    return lambda raster: replace(raster, driver=driver, creation=creation)


STORAGE = [
    Disguise("strips of one row", "storage", _stored(blockysize=1)),
    Disguise("one strip", "storage", _stored(blockysize=4096)),
    Disguise("tiles of 16", "storage", _stored(tiled=True, blockxsize=16, blockysize=16)),
    Disguise("tiles of 32 x 64", "storage", _stored(tiled=True, blockxsize=32, blockysize=64)),
    Disguise("tiles larger than the raster", "storage", _stored(tiled=True, blockxsize=512, blockysize=512)),
    Disguise("deflate, predictor 2", "storage", _stored(compress="deflate", predictor=2)),
    Disguise("deflate, predictor 3", "storage", _stored(compress="deflate", predictor=3)),
    Disguise("LZW, predictor 2, tiled", "storage", _stored(compress="lzw", predictor=2, tiled=True)),
    Disguise("zstd", "storage", _stored(compress="zstd")),
    Disguise("packbits", "storage", _stored(compress="packbits")),
    Disguise("LZMA", "storage", _stored(compress="lzma")),
    Disguise("LERC without loss", "storage", _stored(compress="lerc", max_z_error=0)),
    Disguise("bands one after the other", "storage", _stored(interleave="band")),
    Disguise("bands one after the other, tiled", "storage", _stored(interleave="band", tiled=True)),
    Disguise("BigTIFF", "storage", _stored(bigtiff="YES")),
    Disguise("big endian", "storage", _stored(endianness="BIG")),
    Disguise("sparse", "storage", _stored(sparse_ok=True)),
    Disguise("GeoTIFF 1.1", "storage", _stored(geotiff_version="1.1")),
    Disguise("ESRI keys", "storage", _stored(geotiff_keys_flavor="ESRI_PE")),
    Disguise("world file and .aux.xml", "storage", _stored(profile="BASELINE", tfw="YES")),
    Disguise("COG", "storage", _format("COG", blocksize=128)),
    Disguise(
        "COG with overviews", "storage", _format("COG", blocksize=128, overview_count=2, overviews="IGNORE_EXISTING")
    ),
    Disguise(
        "HFA", "storage", _format("HFA"), 0.05, "its transform and the names of its CRS are stored in another way"
    ),
    Disguise("ENVI", "storage", _format("ENVI")),
]
HEIGHT_FORMATS = [
    Disguise("ESRI ASCII", "storage", _format("AAIGrid", decimal_precision=6)),
    Disguise("SAGA", "storage", _format("SAGA")),
    Disguise("EHdr", "storage", _format("EHdr")),
    Disguise("netCDF", "storage", _format("netCDF")),
]
PICTURE_FORMATS = [
    Disguise("PNG with world file", "storage", _format("PNG", worldfile="YES")),
    Disguise("JPEG 2000", "storage", _format("JP2OpenJPEG", quality=100, reversible="YES")),
]


def _overviews(path: Path, method: Resampling, outside: bool) -> str:
    with rasterio.Env(TIFF_USE_OVR=outside), rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target:
        target.build_overviews([2, 4, 8], method)
    return str(path)


def _wrong_overviews(path: Path) -> str:
    """Overviews of another state of the file, as after an edit: nobody who needs full resolution reads them."""
    _overviews(path, Resampling.nearest, outside=True)
    side = path.with_name(f"{path.name}.ovr")
    with rasterio.open(side, "r+") as target:
        target.write(np.full((target.count, *target.shape), 3).astype(target.dtypes[0]))
    return str(path)


OVERVIEWS = [
    Disguise("overviews inside", "overviews", step(partial(_overviews, method=Resampling.nearest, outside=False))),
    Disguise(
        "averaged overviews inside", "overviews", step(partial(_overviews, method=Resampling.average, outside=False))
    ),
    Disguise("overviews in .ovr", "overviews", step(partial(_overviews, method=Resampling.average, outside=True))),
    Disguise("cubic overviews in .ovr", "overviews", step(partial(_overviews, method=Resampling.cubic, outside=True))),
]
WRONG_OVERVIEWS = [Disguise("other overviews in .ovr", "overviews", step(_wrong_overviews))]


# Containers


def _vrt(path: Path) -> str:
    target = path.with_name(f"{path.name}.vrt")
    copy(path, target, driver="VRT")
    return str(target)


def _vrt_of_halves(path: Path) -> str:
    """A virtual mosaic: the left and the right half of every band, and of the mask, come from sources of their own."""
    whole = Path(_vrt(path))
    with rasterio.open(path) as source:
        height, width = source.shape
    middle = width // 2

    def halves(match: re.Match[str]) -> str:
        parts = []
        for left, right in ((0, middle), (middle, width)):
            box = f'xOff="{left}" yOff="0" xSize="{right - left}" ySize="{height}"'
            parts.append(re.sub(r"<(Src|Dst)Rect [^>]*/>", rf"<\1Rect {box} />", match[0]))
        return "".join(parts)

    text = re.sub(r"(?s)<(SimpleSource|ComplexSource)\b.*?</\1>", halves, whole.read_text())
    whole.write_text(text)
    return str(whole)


def _archive(path: Path, form: str, prefix: str = "/vsi") -> str:
    """All files of the raster's folder in an archive, in a folder inside, and nothing beside it."""
    archive = path.parent.with_name(f"{path.parent.name}.{form}")
    members = [(one, f"inner/{one.name}") for one in sorted(path.parent.iterdir())]
    if form == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for one, name in members:
                target.write(one, name)
    else:
        with tarfile.open(archive, "w:gz" if form == "tar.gz" else "w") as target:
            for one, name in members:
                target.add(one, name)
    shutil.rmtree(path.parent)
    kind = form.split(".")[0]
    if prefix == "/vsi":
        return f"/vsi{kind}/{archive}/inner/{path.name}"
    return f"{kind}://{archive}!inner/{path.name}"


def _braces(path: Path) -> str:
    """The form with braces, for archives with any suffix."""
    inside = _archive(path, "zip")
    archive = Path(inside.removeprefix("/vsizip/").split("/inner/")[0])
    other = archive.with_suffix(".kmz")
    archive.rename(other)
    return f"/vsizip/{{{other}}}/inner/{path.name}"


def _gzip(path: Path) -> str:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return f"/vsigzip/{packed}"


def _part_of_a_file(path: Path) -> str:
    size = path.stat().st_size
    path.write_bytes(b"a header of 32 bytes, then a file"[:32] + path.read_bytes())
    return f"/vsisubfile/32_{size},{path}"


def _renamed(path: Path, name: str) -> str:
    """Another name in a folder of another name; side files keep up."""
    folder = path.parent.with_name(f"{path.parent.name} ü.v2 #1 100% [a]")
    path.parent.rename(folder)
    for one in folder.iterdir():
        if one.name.startswith(path.stem):
            one.rename(folder / one.name.replace(path.stem, name, 1))
    return str(folder / path.name.replace(path.stem, name, 1))


def _capitals(path: Path) -> str:
    other = path.with_suffix(path.suffix.upper())
    for one in path.parent.iterdir():
        if one.name.startswith(path.name):
            one.rename(path.parent / one.name.replace(path.name, other.name, 1))
    return str(other)


def _linked(path: Path) -> str:
    link = path.parent.with_name(f"{path.parent.name} linked")
    link.symlink_to(path.parent, target_is_directory=True)
    return str(link / path.name)


CONTAINERS = [
    Disguise("VRT", "container", step(_vrt)),
    Disguise("VRT of VRT", "container", step(lambda path: _vrt(Path(_vrt(path))))),
    Disguise("VRT of two halves", "container", step(_vrt_of_halves)),
    Disguise("/vsizip/", "container", step(partial(_archive, form="zip"))),
    Disguise("/vsizip/{}", "container", step(_braces)),
    Disguise("zip://", "container", step(partial(_archive, form="zip", prefix="://"))),
    Disguise("/vsitar/", "container", step(partial(_archive, form="tar"))),
    Disguise("/vsitar/ of .tar.gz", "container", step(partial(_archive, form="tar.gz"))),
    Disguise("VRT in an archive", "container", step(lambda path: _archive(Path(_vrt(path)), form="zip"))),
    Disguise("odd name", "container", step(partial(_renamed, name="scene 1, v2.1 (ä) & 50% #b [c]"))),
    Disguise("suffix in capitals", "container", step(_capitals)),
    Disguise("folder that is a link", "container", step(_linked)),
]
SINGLE_FILE = [
    Disguise("/vsigzip/", "container", step(_gzip)),
    Disguise("/vsisubfile/", "container", step(_part_of_a_file)),
]
