"""Latents of the training tiles, kept on disk: encoded once for every flip in use, then read instead of the rasters.

A tile's latents are one safetensors file. The name of the file is a hash of the tile's files, and the name of its
folder is a hash of everything else that the latents depend on. So a file that exists fits, and tiles that have changed
are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from Modules.d3rsmde.autoencoders import latent_channels, latent_stride
from Modules.d3rsmde.pipeline import D3RSMDE
from Systems.d3rsmde.targets import RELATIVE_HEIGHT, relative_height
from Systems.d3rsmde.tasks.common import plain_config
from Systems.d3rsmde.tasks.refiner_task import LATENTS, WHOLE, RefinerTask
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.files import atomic_write_bytes
from Utils.core.processes import everywhere, gather_in_turn, on_main, progress_bar, share
from Utils.core.shared_cache import NoRoomError, SharedCache
from Utils.data.loaders import make_loader, on_device
from Utils.data.sample import AXES, Batch, Kind, Kinds, Sample, mirror
from Utils.data.tile_dataset import TileDataset, read_truth
from Utils.rasters.height_coding import AS_THE_FILE_SAYS
from Utils.rasters.tile_files import raster_size

logger = logging.getLogger(__name__)

# Part of every key. Increase it when the format of these files changes, or the way from a tile's files to the encoder's
# input.
FORMAT = "d3-rsmde-latents-2"
# GDAL also reads nodata values and masks from files beside a raster.
_SIDE_FILES = (".aux.xml", ".msk")
# The entries of a batch that ``RefinerTask.encode`` reads.
_ENCODED = ("image", "height", "prior", "valid")
# One entry, because safetensors writes several in any order, and equal latents must give equal files.
_HEADER = "d3rsmde"
_BYTES = 2**30


class LatentDataset(TileDataset):
    """Tiles as latents from disk, mirrored as the tiles would be.

    An item holds the latents (C, h, w), ``whole`` (1, h, w) bool and ``id``; and, with maps, ``height`` and ``valid``
    (1, H, W).  Without maps no raster is opened.

    Args:
        tiles: the tiles, which are not cropped.
        paths: latent file of each tile id.
        with_maps: whether the loss needs the maps as well.
    """

    def __init__(self, tiles: TileDataset, paths: Mapping[str, Path], with_maps: bool) -> None:
        super().__init__(
            tiles.files, tiles.ids, tiles.priors, flips=tiles.flips, seed=tiles.seed, cache_bytes=tiles.cache_bytes
        )
        self.paths = paths
        self.with_maps = with_maps
        self._variants = flip_variants(tiles.flips)

    def __getitem__(self, index: int) -> Batch:
        """One tile."""
        item = super().__getitem__(index)
        tile = item["id"]
        return item | _read(self.paths[tile], self._variants.index(tuple(self.mirrored(tile))))

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of the entries that are read from rasters; latents are stored mirrored."""
        maps = {"height": Kind.MAP, "valid": Kind.MASK} if self.with_maps else {}
        return {"id": Kind.TEXT, **maps}

    def read(self, sample_id: str) -> Sample:
        """The maps, where the loss needs them."""
        if not self.with_maps:
            return {"id": sample_id}
        files = self.files[sample_id]
        truth = read_truth(files.height, files.coding)
        return {"id": sample_id, "valid": truth["valid"], **relative_height(truth)}


@contextmanager
def keep_latents(
    task: RefinerTask, model: D3RSMDE, tiles: TileDataset, folder: Path, gigabytes: float, num_workers: int
) -> Iterator[TileDataset]:
    """Give the tiles as latents on disk, encoding those that are missing; they are not evicted while the context lasts.

    The processes of a launch share the encoding.

    Where latents cannot be kept, the tiles themselves are given, to be encoded in every step, and a line says why.

    Args:
        task: the task, which encodes the tiles.
        model: the model that the task trains, with its frozen autoencoder.
        tiles: the training tiles, all of one size, with priors, not cropped.
        folder: folder of the latents, which runs may share.
        gigabytes: most disk space that the folder may take, in units of 2^30 bytes.
        num_workers: processes that read the tiles to encode.

    Raises:
        UserError: a tile that cannot be read.
    """
    with ExitStack() as use:
        given = tiles
        try:
            given = _fill(task, model, tiles, SharedCache(folder, gigabytes * _BYTES), num_workers, use)
        except NoRoomError as error:
            needed, in_use = (f"{size / _BYTES:.4g} GiB" for size in (error.needed, error.in_use))
            where = f"in '{folder}', where latent_gigabytes allows {gigabytes:g}"
            others = f" and other processes use {in_use}" if error.in_use else ""
            logger.warning("latents are encoded in every step: they would need %s %s%s", needed, where, others)
        except OSError as error:
            reason = error.strerror or error
            logger.warning("latents are encoded in every step: '%s' cannot be written (%s)", folder, reason)
        if given is tiles:
            use.close()
        yield given


def _fill(
    task: RefinerTask, model: D3RSMDE, tiles: TileDataset, cache: SharedCache, num_workers: int, use: ExitStack
) -> LatentDataset:
    """Encode the missing tiles; afterwards ``use`` holds the locks that protect the files.

    Raises:
        NoRoomError: the latents do not fit.
        OSError: the latents cannot be written.
    """
    device = pick_device()
    task.to(device)
    model.vae.eval()
    variants = flip_variants(tiles.flips)
    blank = _blank(model, raster_size(tiles.files[tiles.ids[0]].image), len(variants))
    shapes = {name: values.shape for name, values in blank.items()}
    # The key of the main process, on whose lock the others rely: another device might give another key.
    key = on_main(lambda: latent_key(model, variants, device))
    names = _tile_hashes(tiles)
    folder = cache.folder(key)
    paths = {tile: folder / name[:2] / f"{name[2:]}.safetensors" for tile, name in names.items()}
    # Tiles with equal files share one latent file.
    owners = {path: tile for tile, path in paths.items()}
    with ExitStack() as filling:

        def prepare() -> list[str]:
            """Lock the key and make room, in one process; returns the tiles to encode."""
            filling.enter_context(cache.filling(key))
            whole = _whole_files(owners, shapes)
            missing = {path: tile for path, tile in owners.items() if path not in whole}
            added = len(missing) * len(_serialise(blank))
            use.enter_context(cache.using(key, whole, added))
            return list(missing.values())

        if missing := on_main(prepare):
            own = TileDataset(tiles.files, share(missing), tiles.priors, target=RELATIVE_HEIGHT)
            everywhere(lambda: _encode(task, own, paths, variants, num_workers))
    return LatentDataset(tiles, paths, task.needs_maps)


def flip_variants(flips: Sequence[str]) -> list[tuple[str, ...]]:
    """The ways in which a tile may be mirrored: the axes of each, in the order of the random draws."""
    variants: list[tuple[str, ...]] = [()]
    for axis in AXES:
        if axis in flips:
            variants += [(*variant, axis) for variant in variants]
    return variants


def latent_key(model: D3RSMDE, variants: Sequence[Sequence[str]], device: torch.device) -> str:
    """A hash of everything that latents depend on except the tiles' files: autoencoder, padding, flips, precision."""
    facts = {
        "format": FORMAT,
        "autoencoder": [type(model.vae).__name__, plain_config(model.vae.config)],
        "size_multiple": model.size_multiple,
        "variants": [list(variant) for variant in variants],
        # Devices round differently, and reduced precision differs by more than rounding.
        "device": device.type,
        "matrix_products": torch.get_float32_matmul_precision(),
        "reduced_convolutions": torch.backends.cudnn.allow_tf32,
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    _add_tensors(digest, model.vae.state_dict())
    return f"cache-{digest.hexdigest()}"


def _add_tensors(digest: hashlib.blake2b, tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)


def _tile_hashes(tiles: TileDataset) -> dict[str, str]:
    """A hash of the files of every tile."""
    ids = list(dict.fromkeys(tiles.ids))
    own = share(ids)

    def hash_own() -> list[str]:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            hashes = pool.map(lambda tile: _hash_files(tiles, tile), own)
            return list(progress_bar(hashes, total=len(own), desc="hashing tiles", unit="tile"))

    return dict(zip(ids, gather_in_turn(everywhere(hash_own)), strict=True))


def _hash_files(tiles: TileDataset, tile: str) -> str:
    assert tiles.priors is not None
    digest = hashlib.blake2b(digest_size=20)
    if tiles.files[tile].full_scale is not None:
        digest.update(f"{tiles.files[tile].full_scale!r} is 1".encode())
    if tiles.files[tile].coding != AS_THE_FILE_SAYS:
        digest.update(repr(tiles.files[tile].coding).encode())
    for path in (tiles.files[tile].image, tiles.files[tile].height, tiles.priors[tile]):
        for suffix in ("", *_SIDE_FILES):
            part = path.with_name(path.name + suffix)
            try:
                content = part.read_bytes() if not suffix or part.is_file() else b""
            except OSError as error:
                raise UserError(f"'{part}' cannot be read: {error.strerror or error}; restore it") from error
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.hexdigest()


def _encode(
    task: RefinerTask,
    tiles: TileDataset,
    paths: Mapping[str, Path],
    variants: Sequence[Sequence[str]],
    num_workers: int,
) -> None:
    """Write the latent files of some tiles.

    Each tile is encoded alone, so what is stored depends neither on its neighbours nor on where a build was stopped.
    """
    written: list[Path] = []
    batches = on_device(make_loader(tiles, 1, num_workers), pick_device())
    try:
        for batch in progress_bar(batches, total=len(tiles), desc="encoding tiles", unit="tile"):
            mirrored = [mirror(batch, tiles.kinds, variant) for variant in variants]
            maps = {name: torch.cat([item[name] for item in mirrored]) for name in _ENCODED}
            path = paths[batch["id"][0]]
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(path, _serialise(task.encode(maps)))
            written.append(path)
    except OSError:
        # The rest of the room is kept for checkpoints.
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _blank(model: D3RSMDE, size: tuple[int, int], variants: int) -> dict[str, Tensor]:
    """The result of ``RefinerTask.encode`` for tiles of ``size`` (height, width), with zeros for values."""
    stride, multiple = latent_stride(model.vae), model.size_multiple
    height, width = (-(-side // multiple) * multiple // stride for side in size)
    latents = {name: torch.zeros(variants, latent_channels(model.vae), height, width) for name in LATENTS}
    return latents | {WHOLE: torch.zeros(variants, 1, height, width, dtype=torch.bool)}


def _serialise(latents: Mapping[str, Tensor]) -> bytes:
    """The content of a latent file: tensors (variants, ...), and a header with the format and a checksum."""
    tensors = {name: values.cpu().contiguous() for name, values in latents.items()}
    return save(tensors, metadata={_HEADER: _header(tensors)})


def _header(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    _add_tensors(digest, tensors)
    return json.dumps({"format": FORMAT, "checksum": digest.hexdigest()})


def _whole_files(owners: Mapping[Path, str], shapes: Mapping[str, torch.Size]) -> set[Path]:
    """The latent files that exist and are whole; a line names the damaged ones."""

    def look(path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with safe_open(path, framework="pt") as reader:
                header = (reader.metadata() or {}).get(_HEADER)
                tensors = {name: reader.get_tensor(name) for name in reader.keys()}
        except (OSError, SafetensorError):
            header, tensors = None, {}
        found = {name: values.shape for name, values in tensors.items()}
        if found == shapes and header == _header(tensors):
            return True
        logger.warning("'%s' is damaged; tile %s is encoded again", path, owners[path])
        return False

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        looked = zip(owners, pool.map(look, owners), strict=True)
        bar = progress_bar(looked, total=len(owners), desc="checking latents", unit="tile")
        return {path for path, is_whole in bar if is_whole}


def _read(path: Path, variant: int) -> dict[str, Tensor]:
    """One variant of a tile's latents (C, h, w) and of their mask; nothing else of the file is read."""
    try:
        with safe_open(path, framework="pt") as reader:
            return {name: reader.get_slice(name)[variant] for name in reader.keys()}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the latents '{path}' are gone or damaged ({error}); continue with --resume, which makes them again"
        ) from error
