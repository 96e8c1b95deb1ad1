"""From a scene's tiles to their maps: batches through a model, and the spread of its maps under flips and turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from Utils.core.processes import everywhere, on_main, progress_bar, share
from Utils.core.watching import note_step
from Utils.rasters.source.scene_source import SceneSource
from Utils.scenes.tiles.tile_grid import Tile, TileGrid
from Utils.scenes.tiles.tile_store import TileStore

HeightModel = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] to heights (B, H, W), which rise with the ground; H and W are the tile size.

A ``Predictor`` is one, whatever the polarity of its model's own maps.
"""

# The eight ways to lay a square tile, as mirroring and quarter turns: unchanged, both mirror images, turned by half,
# and then those that are turned by a quarter.
_ORIENTATIONS = [(0, False), (0, True), (2, True), (2, False), (1, False), (3, False), (1, True), (3, True)]


Layers = Callable[[Sequence[Tile], Sequence[NDArray[np.float32]]], NDArray[np.floating]]
"""Tiles, and their images (3, size, size) in [0, 1], to what is kept of each: (B, layers, size, size)."""


def predict_tiles(
    source: SceneSource,
    grid: TileGrid,
    predictor: HeightModel,
    store: TileStore,
    *,
    batch_size: int,
    orientations: int = 1,
    device: torch.device | None = None,
    scale_known: bool = False,
) -> int:
    """Predict every tile that the store does not hold yet; tiles without a valid pixel are kept as all NaN.

    The processes of a launch share the tiles.

    Args:
        source: the scene.
        grid: its tiles.
        predictor: the model.
        store: where maps are kept. Layer 0 is the map of the model; layer 1, with several orientations, is the standard
            deviation of its maps of the turned tile, which are turned back and fitted to the first.
        batch_size: number of tiles that are predicted at once.
        orientations: number of ways in which each tile is laid, 1 to 8.
        device: where the images go.
        scale_known: whether the maps are in metres, so that turned ones differ from the first by a shift alone.

    Returns:
        How many tiles were predicted now, by all processes.
    """

    @torch.no_grad()
    def layers(tiles: Sequence[Tile], images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return _predict_batch(predictor, images, grid.size, orientations, device, scale_known)

    return draw_tiles(source, grid, layers, store, batch_size)


def draw_tiles(source: SceneSource, grid: TileGrid, layers: Layers, store: TileStore, batch_size: int) -> int:
    """Draw every tile that the store does not hold yet; what is invalid in the scene is NaN in all layers.

    The processes of a launch share the tiles.

    Args:
        source: the scene.
        grid: its tiles.
        layers: what is kept of a batch of tiles.
        store: where it is kept.
        batch_size: number of tiles that are drawn at once.

    Returns:
        How many tiles were drawn now, by all processes.
    """
    # Agreed on before any process begins, because tiles that are done meanwhile must not change the division of work.
    todo = on_main(lambda: [tile for tile in grid.tiles if not store.holds(tile)])
    batches = share([todo[start : start + batch_size] for start in range(0, len(todo), batch_size)])

    def draw() -> None:
        done = len(grid) - len(todo)
        bar = progress_bar(total=done + sum(map(len, batches)), initial=done, desc="predicting", unit="tile")
        # One and the same thread reads ahead, because a GDAL dataset belongs to one thread at a time.
        with bar, ThreadPoolExecutor(max_workers=1) as reader:
            for tiles, images, valids in _read_ahead(reader, source, grid, batches):
                note_step("tiles", done, len(grid))
                drawn = layers(tiles, images)
                for place, tile in enumerate(tiles):
                    found = drawn[place][:, : tile.height, : tile.width]
                    store.save(tile, np.where(valids[place], found, found.dtype.type(np.nan)))
                    bar.update()
                done += len(tiles)

    everywhere(draw)
    return len(todo)


_Batch = tuple[Sequence[Tile], list[NDArray[np.float32]], list[NDArray[np.bool_]]]


def _read_ahead(
    reader: ThreadPoolExecutor, source: SceneSource, grid: TileGrid, batches: Sequence[Sequence[Tile]]
) -> Iterator[_Batch]:
    """Batches of tiles, images (3, size, size) and valid masks; the next is read while one is being used."""

    def read(tiles: Sequence[Tile]) -> _Batch:
        pairs = [source.read(tile.row, tile.column, tile.height, tile.width) for tile in tiles]
        return tiles, [fill_tile(image, valid, grid.size) for image, valid in pairs], [valid for _, valid in pairs]

    coming = None
    for tiles in batches:
        following = reader.submit(read, tiles)
        if coming is not None:
            yield coming.result()
        coming = following
    if coming is not None:
        yield coming.result()


def fill_tile(image: NDArray[np.float32], valid: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """Fill invalid pixels with the mean of the others, so that a hole is not a cliff; mirror a small scene.

    Args:
        image: (C, H, W).
        valid: (H, W).
        size: side of what is given back, (C, size, size).
    """
    if not valid.all() and valid.any():
        colours = image[:, valid].mean(axis=1)
        image = np.where(valid, image, colours[:, None, None])
    height, width = valid.shape
    margins = ((0, 0), (0, size - height), (0, size - width))
    return np.pad(image, margins, mode="symmetric") if (height, width) != (size, size) else image


def _predict_batch(
    predictor: HeightModel,
    images: Sequence[NDArray[np.float32]],
    size: int,
    orientations: int,
    device: torch.device | None,
    scale_known: bool,
) -> NDArray[np.float32]:
    """(B, C, size, size): the maps and, with several orientations, their spread."""
    batch = torch.from_numpy(np.stack(images)).to(device)
    first = _draw(predictor, batch, size)
    if orientations == 1:
        return first[:, None].cpu().numpy()
    others = [
        _lay_back(_draw(predictor, _lay(batch, turns, mirrored), size), turns, mirrored)
        for turns, mirrored in _ORIENTATIONS[1:orientations]
    ]
    deviations = torch.stack([_fitted(other, first, scale_known) - first for other in others])
    # The deviation from the map that is kept, not from the mean of all maps, which the user does not get.
    spread = deviations.square().mean(dim=0).sqrt()
    return torch.stack([first, spread], dim=1).cpu().numpy()


def _draw(predictor: HeightModel, batch: Tensor, size: int) -> Tensor:
    maps = predictor(batch)
    if maps.shape != (len(batch), size, size):
        raise ValueError(f"the model made {tuple(maps.shape)} of {len(batch)} images of {size} x {size}")
    return maps.float()


def _lay(values: Tensor, turns: int, mirrored: bool) -> Tensor:
    values = values.flip(-1) if mirrored else values
    return torch.rot90(values, turns, dims=(-2, -1))


def _lay_back(values: Tensor, turns: int, mirrored: bool) -> Tensor:
    values = torch.rot90(values, -turns, dims=(-2, -1))
    return values.flip(-1) if mirrored else values


def _fitted(maps: Tensor, targets: Tensor, scale_known: bool) -> Tensor:
    """Maps (B, H, W) with the scale (never negative; 1 if known) and shift that bring them closest to their targets."""
    means, goals = maps.mean(dim=(1, 2), keepdim=True), targets.mean(dim=(1, 2), keepdim=True)
    centred = maps - means
    if scale_known:
        return centred + goals
    power = centred.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    scale = (centred * (targets - goals)).mean(dim=(1, 2), keepdim=True) / power
    return scale.clamp_min(0.0) * centred + goals
