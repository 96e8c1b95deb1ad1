"""The dataset of land-cover tiles, as networks see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from Utils.config.land_cover_keys import AugmentationSection, DepthSource
from Utils.core.errors import RasterError, UserError
from Utils.data.dataset import SampleDataset
from Utils.data.land_cover.class_table import ClassTable, read_mask
from Utils.data.land_cover.listing import LandCoverFiles
from Utils.data.land_cover.photometric import change_colours, change_depth
from Utils.data.land_cover.windows import random_window, turn
from Utils.data.sample import IGNORED_LABEL, Kind, Kinds, Sample, draw_below, mirror
from Utils.data.stereo.relative_maps import told
from Utils.data.tile_check import same_size
from Utils.rasters.tile_files import read_height, read_image

__all__ = ["DEPTH_PERCENTILES", "HowRead", "LandCoverDataset", "read_depth", "read_land_cover"]

Rises = Literal["depth", "height"]

DEPTH_PERCENTILES = (2.0, 98.0)
"""What becomes 0 and 1 in a map: a pixel in fifty at each end may be an artefact of the model that drew it."""

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class HowRead:
    """How tiles are read.

    Attributes:
        table: the classes.
        depth_source: what stands for the relative depth map; None where none is read.
        rises: what rises in the maps; None for what the JSON beside a map says, and height where there is none.
        full_scale: the value that counts as 1 in images of 16 bits; None for what the files say.
    """

    table: ClassTable
    depth_source: DepthSource | None = "true"
    rises: Rises | None = None
    full_scale: float | None = None

    @property
    def from_files(self) -> bool:
        """Whether maps are read from files."""
        return self.depth_source in ("true", "shuffled")


class LandCoverDataset(SampleDataset):
    """Land-cover tiles as tensors.

    A sample holds ``image`` (3, H, W) in [0, 1]; ``label`` (H, W) class numbers, ``IGNORED_LABEL`` where none is known;
    ``valid`` (1, H, W), where one is known; ``id``; and with relative depth ``depth`` (1, H, W) in [0, 1], in which
    larger is nearer to the camera.

    Args:
        files: the files of the tiles.
        ids: ids of the tiles to serve, in order.
        how: how they are read.
        augmentation: how they change at random; None leaves them.
        options: ``flips``, ``seed``, ``cache_bytes``, ``target`` and ``one_size`` of ``SampleDataset``.
    """

    def __init__(
        self,
        files: Mapping[str, LandCoverFiles],
        ids: Sequence[str],
        how: HowRead,
        augmentation: AugmentationSection | None = None,
        **options: Any,
    ) -> None:
        assert not options.get("crop"), "the augmentation crops"
        if augmentation is not None and augmentation.crop is not None:
            options["one_size"] = False  # crops have one size whatever they are cut from
        super().__init__(ids, **options)
        self.files = files
        self.how = how
        self.augmentation = augmentation

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of a tile's entries."""
        kinds = {"image": Kind.IMAGE, "label": Kind.LABEL, "valid": Kind.MASK, "id": Kind.TEXT}
        return kinds | ({} if self.how.depth_source is None else {"depth": Kind.MAP})

    def read(self, sample_id: str) -> Sample:
        """One tile from its files.

        Raises:
            UserError: a file that cannot be read, or files that differ in size.
        """
        return read_land_cover(sample_id, self.files[sample_id], self.how)

    def place(self, sample_id: str) -> object:
        """The tile's image."""
        return self.files[sample_id].image

    def _augment(self, sample: Sample, sample_id: str) -> Sample:
        """Move everything together, then change the image's colours, and the map's scale."""
        generator = self._generator(sample_id)
        return self.recoloured(self._moved(sample, generator), self.augmentation, generator)

    def moved(self, sample_id: str, generator: torch.Generator) -> Sample:
        """A tile cut, turned and mirrored at random; its colours and its map are as they were read."""
        return self._moved(dict(self._prepared(sample_id)), generator)

    def _moved(self, sample: Sample, generator: torch.Generator) -> Sample:
        options = self.augmentation
        if options is not None and options.crop is not None:
            scales = options.scales[0], options.scales[1]
            sample = random_window(sample, self.kinds, options.crop, scales, options.largest_share, generator)
            if options.turns:
                sample = turn(sample, self.kinds, draw_below(3, generator))
        return dict(mirror(sample, self.kinds, self._draw_flips(generator)))

    def recoloured(self, sample: Sample, options: AugmentationSection | None, generator: torch.Generator) -> Sample:
        """The sample with its image's colours and its map's scale changed at random; with None as they are."""
        sample = dict(sample)
        if options is not None:
            sample["image"] = change_colours(sample["image"], options.colours, options.grey, options.blur, generator)
            if self.how.from_files:
                sample["depth"] = change_depth(sample["depth"], options.depth_jitter, options.depth_drop, generator)
        if self.how.depth_source == "grey":
            # Of the image that the network sees, so that the control knows nothing beyond it.
            weights = torch.tensor(_GREY).view(3, 1, 1)
            sample["depth"] = (sample["image"] * weights).sum(dim=0, keepdim=True)
        return sample


def read_land_cover(tile: str, files: LandCoverFiles, how: HowRead) -> Sample:
    """Read one tile as ``LandCoverDataset`` does.

    Raises:
        UserError: a file that cannot be read, or an image, mask and map that differ in size.
    """
    try:
        image = read_image(files.image, how.full_scale)
        size = image.shape[-2:]
        label = np.full(size, IGNORED_LABEL, np.uint8) if files.mask is None else read_mask(files.mask, how.table)
        if files.mask is not None:
            same_size(files.image, size, files.mask, label.shape, "image and mask of a tile")
        depth = np.zeros(size, np.float32)
        if how.from_files:
            assert files.depth is not None, "the listing asks for maps"
            depth = read_depth(files.depth, how.rises)
            same_size(files.image, size, files.depth, depth.shape, "image and relative depth map of a tile")
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    sample: Sample = {
        "image": torch.from_numpy(image),
        "label": torch.from_numpy(label.astype(np.int64)),
        "valid": torch.from_numpy(label != IGNORED_LABEL)[None],
        "id": tile,
    }
    return sample | ({} if how.depth_source is None else {"depth": torch.from_numpy(depth)[None]})


def read_depth(path: Path, rises: Rises | None = None) -> NDArray[np.float32]:
    """Read a relative depth map, stretched by its 2nd and 98th percentiles to [0, 1] and clipped.

    Args:
        path: any raster of one band.
        rises: what rises in the file; None for what the JSON beside it says, and height where there is none.

    Returns:
        (H, W) float32; larger is nearer to the camera. A map of one value, and what has no value, is 0.

    Raises:
        RasterError: a file that cannot be read.
        UserError: a JSON beside it that cannot be read.
    """
    rises = rises or told(path) or "height"
    raster = read_height(path)
    known = raster.values[raster.valid]
    if not known.size:
        return np.zeros_like(raster.values)
    low, high = np.percentile(known, DEPTH_PERCENTILES)
    if not high > low:
        return np.zeros_like(raster.values)
    share = np.clip((raster.values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    nearer = 1.0 - share if rises == "depth" else share
    return np.where(raster.valid, nearer, np.float32(0.0))
