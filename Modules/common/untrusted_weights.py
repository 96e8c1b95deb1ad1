"""Checks of weights from strangers: they are plain, and no larger than their file.

A file can promise more than it holds: an archive that inflates a thousandfold, a tensor of terabytes spread over four
bytes, a network of a million layers.  Each is refused by the sizes that the file states, before memory is taken for it.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

# Weights that are tied or kept in half precision take more in memory than in their file, but not this much more.
_MOST_GROWTH = 4
# A small network may be larger than its file by some megabytes: that is harmless, and loading tells what is missing.
_SPARE_NUMBERS = 2**20


def check_network(build: Callable[[], nn.Module], weights: int, numbers: int) -> None:
    """Build a network without memory, and refuse it if it is far larger than the weights that it is meant for.

    So a few bytes of config cannot ask for terabytes. Whether names and shapes fit is checked later, by the code that
    loads the weights and names what is missing.

    Args:
        build: makes the network; it is called on the meta device, where tensors have no memory.
        weights: how many tensors the file holds.
        numbers: how many numbers they hold together.

    Raises:
        ValueError: the network is more than twice as large.
    """
    with torch.device("meta"), _at_most(weights):
        described = sum(value.numel() for value in build().state_dict().values())
    if described > 2 * numbers + _SPARE_NUMBERS:
        raise ValueError(f"its config describes a network of {described:,} numbers, and the weights are {numbers:,}")


@contextmanager
def _at_most(weights: int) -> Iterator[None]:
    """Stop the construction of a network with far more parameters than there are weights, which could take hours."""
    count = 0
    # Parts may be made and thrown away again, as a ViT's head and last blocks are.
    most = 4 * weights + 1000

    def register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f"its config describes far more than the {weights} weights that are there")

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()


def safetensors_size(path: Path) -> tuple[int, int]:
    """How many tensors a safetensors file holds, and how many numbers they hold together; none is read.

    Raises:
        OSError: no such file.
        SafetensorError: a damaged file.
    """
    with safe_open(path, framework="pt") as reader:
        sizes = [math.prod(reader.get_slice(name).get_shape()) for name in reader.keys()]
    return len(sizes), sum(sizes)


def load_pickled(path: Path) -> object:
    """Read what ``torch.save`` wrote: tensors and plain containers, never code.

    A tensor may still be a view that is larger than the file: see ``check_tensors``.

    Raises:
        pickle.UnpicklingError: it holds code, which is not run.
        ValueError: an archive that promises more than it holds.
        Exception: of nearly any kind, for a damaged file.
    """
    check_archive(path)
    # Only the zip format can be mapped, which spares reading the parts of a large file that are left out anyway.
    content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    return content


def check_archive(path: Path) -> None:
    """Refuse a zip file, torch's container, that would take more memory than disk: torch itself never compresses.

    Any other file passes: it is read from its first to its last byte.

    Raises:
        ValueError: compressed entries, or entries that overlap.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"damaged, cut short or not a checkpoint ({error})") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which torch never does; save it again with torch.save")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("its entries promise more bytes than the file has; save it again with torch.save")


def check_tensors(content: object, file_bytes: int) -> None:
    """Refuse tensors that are larger than the file they came from: views that repeat one number a billion times.

    Args:
        content: what was read; mappings in it are searched at any depth.
        file_bytes: size of the file.

    Raises:
        ValueError: tensors of more than a few times the file's size, or without plain memory.
    """
    total, pending, seen = 0, [content], set()
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))  # a pickle may contain itself
            pending += value.values()
        elif isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized:
                raise ValueError("it holds a sparse, quantised or empty tensor; save plain ones")
            total += value.numel() * value.element_size()
    if total > _MOST_GROWTH * file_bytes:
        raise ValueError(f"its tensors would take {total:,} bytes, and the file has {file_bytes:,}; save it again")
