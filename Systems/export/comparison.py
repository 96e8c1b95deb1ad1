"""What an ONNX file draws, beside what torch draws of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from Systems.export.exportable import Exportable
from Utils.core.errors import UserError, first_line

_SEED = 1


@dataclass(frozen=True)
class Difference:
    """One size.

    Attributes:
        size: images, height and width.
        largest: the largest difference of a value, as a fraction of the span of torch's map, or of 1 for probabilities.
        other_classes: share of the pixels whose likeliest class is another one; None for heights.
    """

    size: tuple[int, int, int]
    largest: float
    other_classes: float | None = None


def open_session(path: Path) -> Any:
    """Open a file with onnxruntime, on a CPU.

    Raises:
        UserError: it is not installed, or does not take the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"export needs onnxruntime ({error}): pip install -r requirements-export.txt") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise UserError(f"onnxruntime does not take what was exported: {first_line(error)}") from error


def compared_sizes(subject: Exportable, side: int | None) -> list[tuple[int, int, int]]:
    """Images, heights and widths at which the two are compared: the trained size, others, and several images."""
    tile = side or subject.tile
    if side:
        return [(1, tile, tile), (3, tile, tile)]
    step, least = subject.multiple, subject.smallest
    if step == 1:  # odd sides, which the network pads
        return [(1, tile, tile), (2, max(least, tile // 2 + 5), tile + 19), (3, tile + 1, least)]
    return [(1, tile, tile), (2, max(least, tile // 2 // step * step), tile + step), (3, least, least + step)]


def compare(subject: Exportable, session: Any, sizes: Sequence[tuple[int, int, int]]) -> list[Difference]:
    """Draw the same images with both.

    Raises:
        UserError: onnxruntime stops at a size.
    """
    return [_compared(subject, session, size) for size in sizes]


def _compared(subject: Exportable, session: Any, size: tuple[int, int, int]) -> Difference:
    inputs = {name: _images(size, channels) for name, channels in subject.inputs.items()}
    with torch.no_grad():
        wanted = subject.network(*(torch.from_numpy(values) for values in inputs.values())).numpy()
    try:
        (found,) = session.run([subject.output], inputs)
    except Exception as error:  # as above
        count, height, width = size
        raise UserError(
            f"onnxruntime stops at {count} images of {height} x {width} pixels: {first_line(error)}; give --side, such "
            f"as {subject.tile_size}, for tiles of one size"
        ) from error
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise UserError(f"onnxruntime gives maps of shape {found.shape}, or not finite ones, and torch {wanted.shape}")
    span = 1.0 if subject.classes else max(float(np.ptp(wanted)), 1e-6)
    largest = float(np.abs(found - wanted).max()) / span
    others = float((found.argmax(1) != wanted.argmax(1)).mean()) if subject.classes else None
    return Difference(size, largest, others)


def _images(size: tuple[int, int, int], channels: int) -> NDArray[np.float32]:
    """Smooth shapes with noise on them, in [0, 1]: (B, channels, H, W), the same for the same size."""
    count, height, width = size
    draw = np.random.default_rng((_SEED, *size, channels))
    y, x = np.mgrid[0:height, 0:width] / 40.0
    turns = draw.uniform(0.0, 6.3, (2, count, channels, 1, 1))
    shapes = 0.5 + 0.2 * np.sin(x + turns[0]) + 0.2 * np.cos(0.7 * y + turns[1])
    return np.clip(shapes + draw.normal(0.0, 0.03, shapes.shape), 0.0, 1.0).astype(np.float32)
