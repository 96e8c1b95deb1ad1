"""Coarse priors: the maps that stage 1 writes and stage 2 refines, 16-bit PNGs in the published layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from Utils.core.errors import RasterError, write_error
from Utils.core.processes import everywhere
from Utils.data.published_layout import prior_file
from Utils.rasters.tile_files import write_map_16bit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from Utils.data.tile_dataset import TileDataset

PRIORS_FOLDER = "priors"


def write_priors(
    draw: Callable[[Tensor], Tensor],
    device: torch.device,
    dataset: TileDataset,
    part: str,
    folder: Path,
    batch_size: int,
    num_workers: int,
) -> None:
    """Write the coarse map of every tile as a 16-bit prior; the processes of a launch share the tiles.

    Args:
        draw: images (B, 3, H, W) in [0, 1] to priors (B, 1, H, W) in [0, 1], which rise with the ground.
        device: where it draws.
        dataset: the tiles.
        part: the part of the dataset that they belong to.
        folder: folder of the priors.
        batch_size: tiles at once.
        num_workers: processes that read tiles.

    Raises:
        UserError: a file that cannot be written.
    """
    import torch

    from Utils.data.loaders import make_loader, on_device

    @torch.no_grad()
    def write() -> None:
        for batch in on_device(make_loader(dataset, batch_size, num_workers, shared=True), device):
            maps = draw(batch["image"])[:, 0].float().cpu().numpy()
            for tile, values in zip(batch["id"], maps, strict=True):
                save_prior(prior_file(folder, part, tile), values)

    everywhere(write)


def save_prior(path: Path, values: object) -> None:
    """Write one prior (H, W) in [0, 1] as a 16-bit PNG, making its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map_16bit(path, values)  # type: ignore[arg-type]
    except (OSError, RasterError) as error:
        raise write_error(path, error, "set prior_path to a folder that can be written, and continue") from error
