"""True heights, with an image of them or without, from tiles, from scenes of any size, and from the generator."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.windows import Window

from Systems.d3rsmde.dem_prior.config import GroundSection
from Utils.core.errors import RasterError, UserError
from Utils.core.seeds import derive_seed
from Utils.data.published_layout import TileFiles
from Utils.data.tile_dataset import read_tile
from Utils.rasters.environment import gdal_environment
from Utils.rasters.source.scene_source import SceneSource, open_scene
from Utils.rasters.tile_files import GDAL_ERRORS

# Scenes are taken in parts of at most so many pixels along a side.
_MOST_PIXELS = 1024
_SYNTHETIC_PIXELS = 480
# Far from the seeds of the demo's tiles and scenes.
_FIRST_SYNTHETIC = 3_000_000


@dataclass(frozen=True)
class Ground:
    """A piece of ground.

    Attributes:
        heights: (H, W) in any unit, NaN where unknown.
        image: (3, H, W) in [0, 1], NaN where unknown; None where there is no image.
    """

    heights: NDArray[np.float64]
    image: NDArray[np.float32] | None


@dataclass(frozen=True)
class _Part:
    """A rectangle of a scene."""

    scene: int
    row: int
    column: int
    height: int
    width: int


class Grounds:
    """All the ground of a training, by id.

    Args:
        tiles: files of the tiles, by id.
        scenes: further scenes.
        synthetic: number of synthetic scenes.
        seed: from which the synthetic terrain follows.

    Raises:
        UserError: a scene that cannot be opened, or whose image does not lie on its heights.
    """

    def __init__(
        self, tiles: Mapping[str, TileFiles], scenes: Sequence[GroundSection], synthetic: int, seed: int
    ) -> None:
        self._tiles, self._scenes, self._seed = tiles, scenes, seed
        self._parts: dict[str, _Part] = {}
        for number, scene in enumerate(scenes):
            for part in _parts_of(number, scene):
                self._parts[f"scene {number} at {part.row}, {part.column}"] = part
        self._synthetic = {f"synthetic {number}": number for number in range(synthetic)}

    @property
    def further(self) -> list[str]:
        """Ids of the ground beside the tiles."""
        return [*self._parts, *self._synthetic]

    def size(self, name: str) -> tuple[int, int]:
        """Rows and columns of a piece of ground that is no tile."""
        part = self._parts.get(name)
        return (_SYNTHETIC_PIXELS,) * 2 if part is None else (part.height, part.width)

    def read(self, name: str) -> Ground:
        """Read a piece of ground.

        Raises:
            UserError: a file that cannot be read.
        """
        if name in self._synthetic:
            return _synthetic(derive_seed(self._seed, name) % 2**31 + _FIRST_SYNTHETIC)
        if name in self._parts:
            part = self._parts[name]
            return _read_part(self._scenes[part.scene], part)
        sample = read_tile(name, self._tiles[name])
        valid = sample["valid"][0].numpy()
        return Ground(np.where(valid, sample["target"][0].numpy(), np.nan).astype(np.float64), sample["image"].numpy())


def _parts_of(number: int, scene: GroundSection) -> list[_Part]:
    with _opened(scene) as heights:
        height, width, has_crs = heights.height, heights.width, heights.crs is not None
        if scene.image is not None:
            with open_scene(Path(scene.image), _bands(scene), tell=False) as image:
                fits = (image.height, image.width) == (height, width)
                if not fits and not (has_crs and image.crs is not None):
                    raise UserError(
                        f"scenes: '{scene.image}' has {image.width} x {image.height} pixels, and '{scene.height}' "
                        f"{width} x {height}; without a CRS in both they must be the same pixels"
                    )
        rows, columns = _starts(height), _starts(width)
        parts = [_Part(number, row, column, rows[row], columns[column]) for row in rows for column in columns]
        return [part for part in parts if _has_heights(heights, part)]


def _has_heights(heights: rasterio.DatasetReader, part: _Part) -> bool:
    """Whether a part has known heights, as far as some of its pixels tell."""
    window = Window(part.column, part.row, part.width, part.height)
    some = heights.read(1, window=window, out_shape=(32, 32), masked=True).astype(np.float64).filled(np.nan)
    return bool(np.isfinite(some).any())


def _starts(length: int) -> dict[int, int]:
    """The parts along a side: first pixel and length."""
    count = -(-length // _MOST_PIXELS)
    ends = [round(length * place / count) for place in range(count + 1)]
    return {first: last - first for first, last in itertools.pairwise(ends)}


def _opened(scene: GroundSection) -> rasterio.DatasetReader:
    try:
        with gdal_environment():
            return rasterio.open(scene.height)
    except GDAL_ERRORS as error:
        raise UserError(f"scenes: '{scene.height}' cannot be read ({error}); correct its path") from error


def _bands(scene: GroundSection) -> tuple[int, ...] | None:
    return None if scene.bands is None else tuple(scene.bands)


def _read_part(scene: GroundSection, part: _Part) -> Ground:
    window = Window(part.column, part.row, part.width, part.height)
    try:
        with gdal_environment(), _opened(scene) as source:
            heights = source.read(1, window=window, masked=True).astype(np.float64).filled(np.nan)
            image = None
            if scene.image is not None:
                with open_scene(Path(scene.image), _bands(scene), tell=False) as given:
                    image = _image_on(source, given, part)
    except GDAL_ERRORS as error:
        raise UserError(f"scenes: '{scene.height}' or its image cannot be read ({error})") from error
    except RasterError as error:
        raise UserError(str(error)) from error
    return Ground(heights, image)


def _image_on(heights: rasterio.DatasetReader, image: SceneSource, part: _Part) -> NDArray[np.float32]:
    """An image at the pixels of a part of the heights."""
    same = (image.height, image.width) == (heights.height, heights.width)
    if same and (heights.crs is None or image.transform is None or image.transform.almost_equals(heights.transform)):
        values, valid = image.read(part.row, part.column, part.height, part.width)
        return np.where(valid, values, np.float32(np.nan))
    values, valid = image.read(0, 0, image.height, image.width)
    values = np.where(valid, values, np.float32(np.nan))
    found = np.full((3, part.height, part.width), np.nan, np.float32)
    target = heights.window_transform(Window(part.column, part.row, part.width, part.height))
    # Coarser pixels than those of the heights are interpolated, finer ones averaged.
    fine = np.sqrt(abs(target.determinant)) if image.crs == heights.crs else 0.0
    finer = not fine or np.sqrt(abs(image.transform.determinant)) < fine
    for band in range(3):
        reproject(
            values[band],
            found[band],
            src_transform=image.transform,
            src_crs=image.crs,
            dst_transform=target,
            dst_crs=heights.crs,
            src_nodata=np.nan,
            dst_nodata=np.nan,
            resampling=Resampling.average if finer else Resampling.bilinear,
        )
    return found


def _synthetic(seed: int) -> Ground:
    from Utils.synthetic.terrain_scene import write_scene

    with tempfile.TemporaryDirectory() as folder:
        files = write_scene(Path(folder), _SYNTHETIC_PIXELS, seed)
        return _read_part(
            GroundSection(height=str(files.truth), image=str(files.image)),
            _Part(0, 0, 0, _SYNTHETIC_PIXELS, _SYNTHETIC_PIXELS),
        )
