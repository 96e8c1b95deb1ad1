"""Where a raster lies: a file, a file inside an archive, or either of them as a URL; and the name that GDAL opens.

A place is a ``Path``, which keeps names, suffixes and messages simple. A path inside an archive begins with the kind of
the archive, as GDAL writes it: ``/vsizip/data/scene.zip/inner/scene.tif``. A ``Path`` merges the two slashes before an
absolute archive, so an archive is looked for at the root first and then in the working directory.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from Utils.core.errors import UserError

__all__ = ["container", "gdal_name", "is_file", "place_beside", "place_from", "raster_place", "stem"]

# What GDAL reads on this machine alone; its network file systems are refused.
_ARCHIVES = ("vsizip", "vsitar", "vsigzip", "vsi7z", "vsirar")
_URL = re.compile(r"(?P<scheme>[A-Za-z0-9][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
# Some bytes of a file: the only one of GDAL's names for them that reads from the disk.
_PART_OF_FILE = re.compile(r"/vsisubfile/\d+(?:_\d+)?,(?P<file>[^,]+)")
# An archive as ``place_beside`` writes it.
_BESIDE = re.compile(r"(?P<kinds>(?:/vsi[a-z0-9]+)+)/\{(?P<archive>[^}]+)\}(?P<inner>.*)", re.DOTALL)
_NETWORK = frozenset("http https ftp ftps s3 gs az azure abfs oss swift webhdfs".split())
_SCHEMES = {"zip": "vsizip", "tar": "vsitar", "gzip": "vsigzip", "7z": "vsi7z", "rar": "vsirar"}
_KINDS = {".zip": "vsizip", ".tar": "vsitar", ".tgz": "vsitar", ".tar.gz": "vsitar", ".gz": "vsigzip"}
# Rasters among the files of an archive; one that is named itself may have any suffix.
_RASTERS = frozenset(
    ".tif .tiff .jp2 .vrt .png .jpg .jpeg .img .hgt .asc .bil .dem .dt0 .dt1 .dt2 .flt .grd .ntf .nc .webp".split()
)
_LISTED = 5


def raster_place(given: str | os.PathLike[str]) -> Path:
    """Give the place that a user names.

    Args:
        given: a path; ``/vsizip/``, ``/vsitar/`` or ``/vsigzip/`` and a path; ``zip://ARCHIVE!FILE``, ``tar://``,
            ``gzip://`` or ``file://``; or an archive with one raster in it.

    Raises:
        UserError: a place in the network; an archive that cannot be read, or from which the raster must be chosen.
    """
    text = os.fspath(given)
    if is_file(Path(text)):
        return _in_archive(Path(text))
    url = _URL.fullmatch(text)
    if url is not None:
        return _from_url(text, url["scheme"].lower(), url["rest"], absolute="///" in text)
    first = text.lstrip("/").partition("/")[0]
    if text.startswith("/vsi") and first not in (*_ARCHIVES, "vsisubfile"):
        raise _in_the_network(text)
    return _in_archive(Path(text))


def gdal_name(place: str | os.PathLike[str]) -> str:
    """The name by which GDAL opens a place."""
    parts = _archive_parts(os.fspath(place))
    if parts is None:
        return os.fspath(place)
    kinds, archive, inner = parts
    # Braces, so that an archive may have any suffix; only these two kinds know them.
    braced = len(kinds) == 1 and kinds[0] in ("vsizip", "vsitar")
    name = "".join(f"/{kind}/" for kind in kinds) + (f"{{{archive}}}" if braced else str(archive))
    return f"{name}/{inner}" if inner else name


def container(place: str | os.PathLike[str]) -> Path:
    """The file on the disk that holds a place: itself, or its archive."""
    part = _PART_OF_FILE.fullmatch(os.fspath(place))
    if part is not None:
        return Path(part["file"])
    parts = _archive_parts(os.fspath(place))
    return Path(place) if parts is None else parts[1]


def is_file(place: str | os.PathLike[str]) -> bool:
    """Whether there is a file, or for a place in an archive the archive; False also for a name that cannot exist."""
    try:
        return container(place).is_file()
    except OSError:  # a name that is too long
        return False


def place_beside(place: Path, folder: Path) -> str:
    """A place as seen from a folder, for a file there: ``../dem.tif``, ``/vsizip/{../dems.zip}/inner/dem.tif``.

    Args:
        place: what ``raster_place`` gave.
        folder: an existing folder; :func:`place_from` finds the place from it, also where both were moved together.
    """
    if _PART_OF_FILE.fullmatch(os.fspath(place)) is not None:
        return os.fspath(place)
    file = container(place)
    path = Path(os.path.relpath(Path(os.path.realpath(file.parent)) / file.name, os.path.realpath(folder))).as_posix()
    parts = _archive_parts(os.fspath(place))
    if parts is None:
        return path
    kinds, _, inner = parts
    return "".join(f"/{kind}" for kind in kinds) + f"/{{{path}}}" + (f"/{inner}" if inner else "")


def place_from(text: str, folder: Path) -> Path:
    """The place that :func:`place_beside` wrote for a folder; it may have gone since."""
    found = _BESIDE.fullmatch(text)
    path = Path(os.path.normpath(Path(os.path.realpath(folder)) / (text if found is None else found["archive"])))
    return path if found is None else Path(f"{found['kinds']}/{path}{found['inner']}")


def stem(place: Path) -> str:
    """The place's name without its suffix, and without that of a compression."""
    return Path(place.stem).stem if place.suffix.lower() == ".gz" else place.stem


def _archive_parts(text: str) -> tuple[list[str], Path, str] | None:
    """Kinds of archive; the archive on the disk, absolute; the path in it. None for a plain path."""
    parts = [part for part in text.split("/") if part] if text.startswith("/") else []
    kinds: list[str] = []
    while parts and parts[0] in _ARCHIVES:
        kinds.append(parts.pop(0))
    if not kinds or not parts:
        return None
    rest = "/".join(parts)
    if rest.startswith("{") and "}" in rest:
        archive, _, inner = rest[1:].partition("}")
        return kinds, _absolute(archive.lstrip("/")), inner.lstrip("/")
    for count in range(1, len(parts) + 1):
        archive_path = _absolute("/".join(parts[:count]))
        if _is_plain_file(archive_path):
            return kinds, archive_path, "/".join(parts[count:])
    return kinds, _absolute(rest), ""


def _absolute(path: str) -> Path:
    """A path whose first slash may be lost."""
    at_root = Path("/", path)
    return at_root if _is_plain_file(at_root) or not _is_plain_file(Path(path)) else Path(path).absolute()


def _is_plain_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _from_url(text: str, scheme: str, rest: str, absolute: bool) -> Path:
    rest = f"/{rest}" if absolute else rest
    if scheme == "file":
        # file://localhost/path and file:///path are the same.
        rest = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        for path in (rest, unquote(rest), f"/{rest}", f"/{unquote(rest)}"):
            if _is_plain_file(Path(path)):
                return _in_archive(Path(path))
        return Path(unquote(rest))
    kind = _SCHEMES.get(scheme.removesuffix("+file"))
    if kind is None:
        if scheme in _NETWORK or scheme.partition("+")[2] in _NETWORK:
            raise _in_the_network(text)
        return Path(text)
    archive, _, inner = rest.partition("!")
    found = next((path for path in (archive, unquote(archive), f"/{archive}") if _is_plain_file(Path(path))), archive)
    place = f"/{kind}/{Path(found).absolute()}"
    return _in_archive(Path(f"{place}/{inner.lstrip('/')}" if inner else place))


def _in_the_network(text: str) -> UserError:
    return UserError(f"'{text}': rasters are read from files of this machine only; copy it here, and give its path")


def _in_archive(place: Path) -> Path:
    """The place itself or, for a whole archive, the one raster in it."""
    parts = _archive_parts(os.fspath(place))
    kinds, archive, inner = parts if parts is not None else ([_kind(place)], place, "")
    if inner or not all(kinds) or len(kinds) > 1 or not _is_plain_file(archive):
        return place
    lister = _LISTERS.get(kinds[0])
    if lister is None:
        return Path(f"/{kinds[0]}/{archive.absolute()}")
    try:
        names = lister(archive)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(f"'{archive}' is no archive that can be read ({error}); copy it again") from error
    rasters = sorted(name for name in names if _is_raster(name))
    root = f"/{kinds[0]}/{archive.absolute()}"
    if len(rasters) == 1:
        return Path(f"{root}/{rasters[0]}")
    if not rasters:
        raise UserError(f"'{archive}' holds no raster; one that is there under an unusual name is given as {root}/NAME")
    more = f" and {len(rasters) - _LISTED} more" if len(rasters) > _LISTED else ""
    raise UserError(
        f"'{archive}' holds {len(rasters)} rasters ({', '.join(rasters[:_LISTED])}{more}); choose one, for example "
        f"{root}/{rasters[0]}"
    )


def _kind(path: Path) -> str:
    """The kind of archive that a suffix names; empty for any other file."""
    name = path.name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), "")


def _is_raster(name: str) -> bool:
    path = Path(name)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.lower() in _RASTERS and not hidden


def _zip_names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


def _tar_names(archive: Path) -> list[str]:
    with tarfile.open(archive) as opened:
        return [member.name for member in opened if member.isfile()]


_LISTERS: dict[str, Callable[[Path], list[str]]] = {"vsizip": _zip_names, "vsitar": _tar_names}
