"""An ONNX file from a network, by torch's own exporter; sizes stay free where the network lets them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from Systems.export.exportable import Exportable
from Utils.core.errors import UserError, first_line

# Sides, in multiples, of the images with which a network is traced: unequal, so that the two stay apart.
_TRACED = (3, 4)
_LARGEST_SIDE = 2**15
# A file is a message of protocol buffers, which ends at 2 GB; the network's graph takes a few MB of it.
_MOST_NUMBERS = 2**29 - 2**24


def write_onnx(subject: Exportable, path: Path, side: int | None, metadata: Mapping[str, str]) -> None:
    """Export a network.

    Args:
        subject: the network.
        path: the file.
        side: height and width of all images; None leaves them free. The number of images is free in any case.
        metadata: entries of the file's own table, which onnxruntime gives back.

    Raises:
        UserError: an installation without the exporter; a network that cannot be exported with these sizes.
        OSError: the file cannot be written.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401 - torch's exporter asks for it
    except ImportError as error:
        raise UserError(
            f"export needs onnx and onnxscript ({error}): pip install -r requirements-export.txt"
        ) from error
    numbers = sum(value.numel() for value in subject.network.parameters())
    if numbers > _MOST_NUMBERS:
        raise UserError(f"this network has {numbers:,} weights, and an ONNX file of one part holds {_MOST_NUMBERS:,}")
    height, width = _traced_size(subject, side)
    example = tuple(torch.rand(2, channels, height, width) for channels in subject.inputs.values())
    shapes = {name: _free(subject, side) for name in subject.inputs}
    try:
        with _quiet(), torch.no_grad():
            # Deferred: that a traced image was padded is no bound of the file; padding by nothing is right too.
            traced = torch.export.export(
                subject.network.eval(),
                example,
                dynamic_shapes=shapes,
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=not side,
            )
            names = {"input_names": list(subject.inputs), "output_names": [subject.output]}
            program: Any = torch.onnx.export(traced, dynamo=True, verbose=False, **names)
    except Exception as error:  # every layer of the exporter raises a kind of its own
        sizes = f"images of {side} x {side} pixels" if side else "free sizes"
        remedy = "there is no other way" if side else f"give --side, such as {subject.tile_size}, for tiles of one size"
        raise UserError(f"this network cannot be exported with {sizes}: {first_line(error)}; {remedy}") from error
    model = program.model
    sides = (side, side) if side else ("height", "width")
    for value, channels in zip(model.graph.inputs, subject.inputs.values(), strict=True):
        value.shape = onnx_ir.Shape(["batch", channels, *sides])
    for value in model.graph.outputs:
        value.shape = onnx_ir.Shape(["batch", len(subject.classes) or 1, *sides])
    model.metadata_props.update(metadata)
    program.save(path)


def _traced_size(subject: Exportable, side: int | None) -> tuple[int, int]:
    if side:
        return side, side
    if subject.multiple == 1:
        # No multiples of a stride, so that padding is part of the file.
        return subject.smallest + 6, 2 * subject.smallest - 10
    return _TRACED[0] * subject.multiple, _TRACED[1] * subject.multiple


def _free(subject: Exportable, side: int | None) -> dict[int, Any]:
    """Which sizes of an input (B, C, H, W) are free."""
    if side:
        return {0: Dim.DYNAMIC}
    if subject.multiple == 1:
        height, width = (Dim(name, min=subject.smallest, max=_LARGEST_SIDE) for name in ("height", "width"))
        return {0: Dim.DYNAMIC, 2: height, 3: width}
    least = subject.smallest // subject.multiple
    rows, columns = (Dim(name, min=least, max=_LARGEST_SIDE // subject.multiple) for name in ("rows", "columns"))
    return {0: Dim.DYNAMIC, 2: subject.multiple * rows, 3: subject.multiple * columns}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own inner working away from whoever exports."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
