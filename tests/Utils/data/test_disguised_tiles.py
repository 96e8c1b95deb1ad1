"""The same tiles in any disguise train the same: whatever files are called, hold and lie beside."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from tests.conftest import HEIGHTS, IMAGES, TRAINING, TRAINING_IDS, make_dataset
from Utils.data.audit.listing import list_part
from Utils.data.published_layout import list_tiles
from Utils.data.sample import Sample
from Utils.data.tile_dataset import read_tile

Files = list[Path]
Change = Callable[[Files, Files], object]

# Levels of 8 bits in 16 are exact; 12 bits are levels of 1/4095, and 8 bits in between move by half of one.
EXACT, TWELVE_BITS = 1e-6, 0.5 / 4095 + 1e-6


def read(dataset: Path) -> dict[str, Sample]:
    """All training tiles."""
    return {tile: read_tile(tile, files) for tile, files in list_tiles(dataset, TRAINING).items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    return read(make_dataset(tmp_path_factory.mktemp("plain") / "dataset", priors=False))


def rewritten(path: Path, change: Callable[[NDArray], NDArray], **options: object) -> None:
    """The raster with other values, written anew in its place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            values = change(source.read())
            driver = source.driver
        path.unlink()
        colours = options.pop("colours", None)
        profile = {"driver": driver, "count": len(values), "height": values.shape[1], "width": values.shape[2]}
        with rasterio.open(path, "w", **profile | {"dtype": values.dtype} | options) as target:
            target.write(values)
            if colours:
                target.colorinterp = colours


def each(kind: int, change: Callable[[NDArray], NDArray], **options: object) -> Change:
    """Rewrite all images (0) or all maps (1)."""
    return lambda *files: [rewritten(path, change, **options) for path in files[kind]]


def renamed(kind: int, change: Callable[[Path], Path]) -> Change:
    return lambda *files: [path.rename(change(path)) for path in files[kind]]


def beside(write: Callable[[Path], object]) -> Change:
    """Something beside every tile's files."""
    return lambda images, heights: [write(path) for path in (*images, *heights)]


def in_each_folder(name: str, content: bytes = b"x") -> Change:
    return lambda images, heights: [(one[0].parent / name).write_bytes(content) for one in (images, heights)]


def with_suffix(suffix: str) -> Callable[[Path], Path]:
    return lambda path: path.with_suffix(suffix)


def opaque(values: NDArray) -> NDArray:
    return np.concatenate([values, np.full_like(values[:1], 255)])


_RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
DISGUISES: dict[str, tuple[Change, float]] = {
    "images .PNG": (renamed(0, with_suffix(".PNG")), EXACT),
    "images .Png": (renamed(0, with_suffix(".Png")), EXACT),
    "maps .TIF": (renamed(1, with_suffix(".TIF")), EXACT),
    "images .PNG, maps .TIF": (
        lambda *files: (renamed(0, with_suffix(".PNG"))(*files), renamed(1, with_suffix(".TIF"))(*files)),
        EXACT,
    ),
    "images of 16 bits": (each(0, lambda values: values.astype(np.uint16) * 257), EXACT),
    "images with alpha": (each(0, opaque, colours=_RGBA), EXACT),
    "images that are TIFFs": (each(0, lambda values: values, driver="GTiff", compress="deflate"), EXACT),
    "maps of float32": (each(1, lambda values: values.astype(np.float32)), EXACT),
    "maps of float64": (each(1, lambda values: values.astype(np.float64)), EXACT),
    "maps of int16": (each(1, lambda values: values.astype(np.int16)), EXACT),
    "maps of uint16": (each(1, lambda values: values.astype(np.uint16)), EXACT),
    "maps in three equal bands": (each(1, lambda values: np.repeat(values, 3, axis=0)), EXACT),
    "maps in tiles, LZW": (
        each(1, lambda values: values, tiled=True, blockxsize=16, blockysize=16, compress="lzw", predictor=2),
        EXACT,
    ),
    "maps with a nodata tag that none has": (
        each(1, lambda values: values.astype(np.float32), nodata=-9999.0),
        EXACT,
    ),
    ".aux.xml beside": (beside(lambda path: Path(f"{path}.aux.xml").write_text("<PAMDataset></PAMDataset>")), EXACT),
    "world files beside": (
        beside(lambda path: path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n0\n0\n")),
        EXACT,
    ),
    ".ovr beside": (beside(lambda path: shutil.copy(path, f"{path}.ovr")), EXACT),
    "hidden files of Macs beside": (
        beside(lambda path: path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")),
        EXACT,
    ),
    "backups of editors beside": (beside(lambda path: shutil.copy(path, f"{path}~")), EXACT),
    ".DS_Store": (in_each_folder(".DS_Store"), EXACT),
    "Thumbs.db": (in_each_folder("Thumbs.db"), EXACT),
    "desktop.ini": (in_each_folder("desktop.ini"), EXACT),
    "a readme": (in_each_folder("README.txt"), EXACT),
    "a folder of previews": (
        lambda images, heights: shutil.copytree(images[0].parent, images[0].parent / "previews"),
        EXACT,
    ),
    "folders that are links": (
        lambda images, heights: [
            (
                one[0].parent.rename(place := one[0].parent.with_name(f"{one[0].parent.name} moved")),
                one[0].parent.symlink_to(place),
            )
            for one in (images, heights)
        ],
        EXACT,
    ),
}


def wear(folder: Path, *names: str) -> Path:
    """The dataset in these disguises."""
    dataset = make_dataset(folder / "dataset", priors=False)
    for name in names:
        sides = [sorted((dataset / TRAINING / side).glob("tile_*")) for side in (IMAGES, HEIGHTS)]
        files = [[path for path in side if path.suffix.lower() in (".png", ".tif")] for side in sides]
        DISGUISES[name][0](*files)
    return dataset


def assert_same(dataset: Path, plain: dict[str, Sample], tolerance: float) -> None:
    found = read(dataset)
    assert list(found) == list(plain) == list(TRAINING_IDS)
    for tile, wanted in plain.items():
        torch.testing.assert_close(found[tile]["image"], wanted["image"], rtol=0.0, atol=tolerance)
        torch.testing.assert_close(found[tile]["target"], wanted["target"], rtol=0.0, atol=0.0)
        assert torch.equal(found[tile]["valid"], wanted["valid"])
    listing = list_part(dataset, TRAINING, needed=True)
    assert list(listing.pairs) == list(TRAINING_IDS)
    assert not [one for one in listing.findings if one.level == "error"]


def parameter(*names: str) -> object:
    name = " + ".join(names)
    return pytest.param(names, id=name)


def drawn(count: int) -> list:
    """Three disguises at once, of which at most one changes a kind of file."""
    rng = np.random.default_rng(13)
    pool = list(DISGUISES)
    found: set[tuple[str, ...]] = set()
    while len(found) < count:
        names = [pool[number] for number in rng.choice(len(pool), 3, replace=False)]
        kinds = [name.split()[0] for name in names if name.startswith(("images", "maps"))]
        if len(set(kinds)) == len(kinds):
            # What lies beside the files is added last, and links at the very end.
            found.add(tuple(sorted(names, key=lambda name: (not name.startswith(("images", "maps")), "links" in name))))
    return [parameter(*names) for names in sorted(found)]


@pytest.mark.parametrize("names", [parameter(name) for name in DISGUISES] + drawn(12))
def test_disguised_tiles(tmp_path: Path, plain: dict[str, Sample], names: tuple[str, ...]) -> None:
    assert_same(wear(tmp_path, *names), plain, max(DISGUISES[name][1] for name in names))


@pytest.mark.parametrize("change", ["image flipped", "map one level higher", "tile without a map"])
def test_another_dataset_is_noticed(tmp_path: Path, plain: dict[str, Sample], change: str) -> None:
    dataset = make_dataset(tmp_path / "dataset", priors=False)
    image, height = (next((dataset / TRAINING / side).glob("tile_2.*")) for side in (IMAGES, HEIGHTS))
    if change == "image flipped":
        rewritten(image, lambda values: values[:, ::-1])
    elif change == "map one level higher":
        rewritten(height, lambda values: values.astype(np.int16) + 1)
    else:
        height.unlink()
    with pytest.raises((AssertionError, ValueError)):
        assert_same(dataset, plain, TWELVE_BITS)
