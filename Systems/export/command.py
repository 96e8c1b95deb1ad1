"""The command that exports: a trained model as an ONNX file, compared with torch before it is kept.

    python -m Systems.export --model output/Demo/diffusion/model --output height.onnx
    python -m Systems.export --model output/Demo/vit/model --output coarse.onnx --side 512 --resolution 0.5

It runs onnxruntime and torch on images of several sizes, and keeps no file where they differ by more than a limit.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Utils.core.command_line import run_script
from Utils.core.errors import UserError, write_error
from Utils.core.files import replacing
from Utils.core.predictor import DIRECTIONS

if TYPE_CHECKING:
    from Systems.export.comparison import Difference
    from Systems.export.exportable import Exportable

logger = logging.getLogger(__name__)

_LIMIT = 1e-3
_LARGEST_SIDE = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a model; returns the exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        _check(given)
        # Only now, so that --help and a wrong argument are answered at once.
        from Systems.export.exportable import open_exportable

        subject = open_exportable(given.model, given.steps, given.stage_one, given.polarity, given.image_alone)
        if given.side and given.side % subject.multiple:
            raise UserError(f"--side {given.side}: this model takes multiples of {subject.multiple} pixels")
        logger.info("%s: %s", given.model, _sizes(subject, given.side))
        if subject.facts.get("steps") and not given.side:
            tile = subject.tile
            logger.info("both stages with free sizes take minutes to export; --side %d takes a part of that", tile)
        try:
            with replacing(given.output) as temporary:
                differences = _export(subject, temporary, given)
        except OSError as error:
            raise write_error(given.output, error, "nothing was kept") from error
        _write_record(given.output, subject, differences, given)
        logger.info("%s: %.1f MB; %s", given.output, given.output.stat().st_size / 1e6, subject.predicts)

    return run_script(work)


def _export(subject: Exportable, path: Path, given: argparse.Namespace) -> list[Difference]:
    """Write the file, and compare what it draws with what torch draws."""
    from Systems.export.comparison import compare, compared_sizes, open_session
    from Systems.export.deepness import deepness_metadata
    from Systems.export.onnx_file import write_onnx

    metadata = {f"d3_{name}": str(value) for name, value in _facts(subject, given).items()}
    if len(subject.inputs) == 1:
        metadata |= deepness_metadata(subject, given.side or subject.tile, given.resolution)
    else:
        logger.warning("Deepness gives a model one image and no relative depth: this file has no entries for it")
    write_onnx(subject, path, given.side, metadata)
    differences = compare(subject, open_session(path), compared_sizes(subject, given.side))
    of = "" if subject.classes else " of the span"
    for each in differences:
        others = "" if each.other_classes is None else f"; another class in {each.other_classes:.2%} of the pixels"
        logger.info("%d x %d x %d: largest difference from torch %.1e%s%s", *each.size, each.largest, of, others)
    worst = max(differences, key=lambda each: each.largest)
    if worst.largest > given.limit:
        raise UserError(
            f"onnxruntime differs from torch by {worst.largest:.1e}{of} at {' x '.join(map(str, worst.size))}, and the "
            f"limit is {given.limit:.1e} (--limit); nothing was kept"
        )
    return differences


def _sizes(subject: Exportable, side: int | None) -> str:
    if side:
        return f"any number of images of {side} x {side} pixels"
    if subject.multiple == 1:
        return f"any number of images of any height and width from {subject.smallest} pixels"
    return (
        f"any number of images whose height and width are multiples of {subject.multiple} pixels, from "
        f"{subject.smallest} (its networks' strides); whoever calls it pads others"
    )


def _facts(subject: Exportable, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "images": "RGB in [0, 1]",
        **subject.facts,
        "predicts": subject.predicts,
        "sizes": _sizes(subject, given.side),
    }


def _write_record(
    path: Path, subject: Exportable, differences: Sequence[Difference], given: argparse.Namespace
) -> None:
    """What was exported and how far it is from torch, beside the file."""
    import onnxruntime
    import torch

    from Utils.core.tables import write_json

    document = {
        **_facts(subject, given),
        "inputs": dict(subject.inputs),
        "output": subject.output,
        "classes": list(subject.classes),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "limit": given.limit,
        "differences": [
            {"size": list(each.size), "largest": each.largest, "other_classes": each.other_classes}
            for each in differences
        ],
    }
    try:
        write_json(path.with_suffix(".json"), document)
    except OSError as error:
        raise write_error(path.with_suffix(".json"), error, f"'{path}' is whole") from error


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m Systems.export", description=__doc__, formatter_class=text)
    parser.add_argument("--model", required=True, help="model folder, or folder of a run")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.onnx", help="a JSON is written beside it")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="height and width of all images (free)")
    parser.add_argument("--steps", type=int, help="blending steps of a D³ model, unrolled (the model's own)")
    parser.add_argument("--stage-one", action="store_true", help="stage 1 of a D³ model alone")
    parser.add_argument("--polarity", choices=DIRECTIONS, help="what rises in a depth network's own maps")
    parser.add_argument("--image-alone", action="store_true", help="land cover without relative depth")
    parser.add_argument(
        "--resolution", type=float, metavar="METRES", help="metres a pixel that the model was trained on, for Deepness"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=_LIMIT,
        metavar="FRACTION",
        help="the largest difference from torch: a fraction of a height map's span, or of probabilities (%(default)s)",
    )
    return parser


def _check(given: argparse.Namespace) -> None:
    if given.output.suffix != ".onnx":
        raise UserError(f"--output '{given.output}': give a name that ends in .onnx")
    if given.side is not None and not 16 <= given.side <= _LARGEST_SIDE:
        raise UserError(f"--side {given.side}: give 16 to {_LARGEST_SIDE} pixels")
    if not 0.0 < given.limit < 1.0:
        raise UserError(f"--limit {given.limit}: give a fraction between 0 and 1")
    if given.resolution is not None and not 0.0 < given.resolution < 1e5:
        raise UserError(f"--resolution {given.resolution}: give metres a pixel, above 0")


if __name__ == "__main__":
    raise SystemExit(main())
