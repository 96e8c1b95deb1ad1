"""The dataset of tiles in the published layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from Utils.core.errors import RasterError, UserError
from Utils.data.dataset import SampleDataset
from Utils.data.published_layout import TileFiles
from Utils.data.sample import Kind, Kinds, Sample
from Utils.data.tile_check import same_size
from Utils.rasters.height_coding import AS_THE_FILE_SAYS, HeightCoding
from Utils.rasters.tile_files import read_height, read_image, read_prior


class TileDataset(SampleDataset):
    """Tiles as tensors.

    A sample holds ``image`` (3, H, W) in [0, 1]; ``target`` (1, H, W), the map in the file's unit; ``valid`` (1, H, W)
    bool; ``id``; with priors, ``prior`` (1, H, W) in [0, 1]; and what the task's transform adds.

    Args:
        files: the files of the part's tiles.
        ids: ids of the tiles to serve, in order.
        priors: prior file of each id, None for none.
        options: see ``SampleDataset``.
    """

    def __init__(
        self,
        files: Mapping[str, TileFiles],
        ids: Sequence[str],
        priors: Mapping[str, Path] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(ids, **options)
        self.files = files
        self.priors = priors

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of a tile's entries."""
        kinds = {"image": Kind.IMAGE, "target": Kind.MAP, "valid": Kind.MASK, "id": Kind.TEXT}
        return kinds | ({} if self.priors is None else {"prior": Kind.MAP})

    def read(self, sample_id: str) -> Sample:
        """One tile from its files.

        Raises:
            UserError: a file that cannot be read, or an image, map and prior that differ in size.
        """
        return read_tile(sample_id, self.files[sample_id], None if self.priors is None else self.priors[sample_id])

    def place(self, sample_id: str) -> object:
        """The tile's image."""
        return self.files[sample_id].image


def read_tile(tile: str, files: TileFiles, prior: Path | None = None) -> Sample:
    """Read one tile as ``TileDataset`` does.

    Raises:
        UserError: a file that cannot be read, or an image, map and prior that differ in size.
    """
    try:
        image = read_image(files.image, files.full_scale)
        coarse = None if prior is None else read_prior(prior)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    sample: Sample = {"image": torch.from_numpy(image), "id": tile}
    sample |= read_truth(files.height, files.coding)
    same_size(files.image, image.shape[-2:], files.height, sample["target"].shape[-2:])
    if coarse is not None and prior is not None:
        same_size(files.image, image.shape[-2:], prior, coarse.shape)
        sample["prior"] = torch.from_numpy(coarse)[None]
    return sample


def read_truth(path: Path, coding: HeightCoding = AS_THE_FILE_SAYS) -> Sample:
    """A tile's ``target`` and ``valid``.

    Raises:
        UserError: a file that cannot be read.
    """
    try:
        raster = read_height(path, coding)
    except (RasterError, OSError) as error:
        raise UserError(str(error)) from error
    return {"target": torch.from_numpy(raster.values)[None], "valid": torch.from_numpy(raster.valid)[None]}
