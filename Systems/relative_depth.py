"""Relative depth or height of whole images: one 16-bit PNG an image, with a JSON that says what its values mean.

    python -m Systems.relative_depth --model FOLDER --input images/ --output maps/
    python -m Systems.relative_depth --model depth-anything/Depth-Anything-V2-Small-hf --input images/ --output maps/

Higher values are higher ground, nearer to the camera, whatever the model itself draws. Images are drawn whole, because
the scale of a relative map jumps from crop to crop. Maps that are there already are left; launchers may start any
number of processes.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Modules.common.plain_json import parse_json, read_text
from Modules.common.precision import PRECISIONS
from Utils.core.command_line import run_script
from Utils.core.errors import UserError, write_error
from Utils.core.predictor import DIRECTIONS, Predictor
from Utils.core.processes import everywhere, gather, on_main, progress_bar, share, tell
from Utils.core.stopping import interrupted_by_termination

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_LARGEST_SIDE = 8192
_POLARITY = "higher values are higher ground, nearer to the camera"
_WHITE = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the maps; returns the exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        from Systems.models import load_predictor
        from Utils.core.device import pick_device
        from Utils.rasters.source.inputs import find_scenes

        _check(given)
        images = on_main(lambda: find_scenes(given.input))
        outputs = on_main(lambda: _name_outputs(images, given.output))
        device = pick_device()
        predictor = everywhere(
            lambda: load_predictor(given.model, device, given.precision, None, given.compile, given.polarity)
        )
        meaning = {"model": predictor.describe(), "polarity": _POLARITY, "side": given.side or predictor.side}
        todo = on_main(lambda: _unfinished(images, outputs, meaning, given.overwrite))
        batches = on_main(lambda: _batches(todo, given.batch_size))
        flat = _draw_all(predictor, share(batches), sum(map(len, batches)), meaning, device)
        if flat:
            logger.warning("%d maps are flat, such as '%s': the model saw nothing there", len(flat), flat[0])
        tell(f"{given.output}: {len(todo)} maps written, {len(images) - len(todo)} were there already")

    with interrupted_by_termination():
        return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="relative_depth", description=__doc__, formatter_class=text)
    parser.add_argument("--model", required=True, help="model folder, folder of a run, or name on the hub")
    parser.add_argument("--input", required=True, nargs="+", metavar="IMAGE", help="images, folders or patterns")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder of the maps")
    parser.add_argument(
        "--polarity", choices=DIRECTIONS, help="what rises in the model's own maps, where its type does not tell"
    )
    parser.add_argument(
        "--side",
        type=int,
        metavar="PIXELS",
        help="shorter side at which the model sees an image (the model's own; D³ models see images as they are); maps "
        "have the image's size",
    )
    parser.add_argument("--batch-size", type=int, default=4, help="images of one size at once (4)")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--overwrite", action="store_true", help="draw again what is there")
    return parser


def _check(given: argparse.Namespace) -> None:
    if given.batch_size < 1:
        raise UserError(f"--batch-size {given.batch_size}: give 1 or more")
    if given.side is not None and not 16 <= given.side <= _LARGEST_SIDE:
        raise UserError(f"--side {given.side}: give 16 to {_LARGEST_SIDE} pixels")


def _name_outputs(images: Sequence[Path], folder: Path) -> list[Path]:
    """A PNG for each image; the folder is made."""
    from Utils.scenes.output.output_checks import outputs_in_folder

    outputs = outputs_in_folder(images, folder, ".png")
    for image in images:
        if image.resolve().parent == folder.resolve():
            raise UserError(f"--output '{folder}': the image '{image}' lies there; give another folder")
    return outputs


_Pair = tuple[Path, Path]


def _unfinished(
    images: Sequence[Path], outputs: Sequence[Path], meaning: dict[str, Any], overwrite: bool
) -> list[_Pair]:
    """Images and outputs of the maps that are not there yet; a map of another model is not taken for one of this."""
    todo = []
    for image, output in zip(images, outputs, strict=True):
        if overwrite or not output.exists():
            todo.append((image, output))
        elif not _is_ours(output, image, meaning):
            raise UserError(
                f"'{output}' exists and is another map (another model, option or image); give another folder, or "
                "--overwrite to replace it"
            )
    return todo


def _is_ours(output: Path, image: Path, meaning: dict[str, Any]) -> bool:
    try:
        document = parse_json(read_text(output.with_suffix(".json")))
        return all(document.get(key) == value for key, value in (meaning | {"image": str(image.resolve())}).items())
    except (OSError, ValueError, AttributeError):
        return False


def _batches(todo: Sequence[_Pair], batch_size: int) -> list[list[_Pair]]:
    """Images of one size go together."""
    from Utils.rasters.tile_files import raster_size

    by_size: dict[tuple[int, int], list[_Pair]] = {}
    for pair in todo:
        by_size.setdefault(raster_size(pair[0]), []).append(pair)
    return [
        pairs[start : start + batch_size] for pairs in by_size.values() for start in range(0, len(pairs), batch_size)
    ]


def _draw_all(
    predictor: Predictor,
    batches: Sequence[Sequence[_Pair]],
    total: int,
    meaning: dict[str, Any],
    device: torch.device,
) -> list[str]:
    """Draw this process's part; gives the names of all maps, of every process, that are flat."""

    def draw() -> list[str]:
        flat = []
        with progress_bar(total=total, desc="drawing", unit="image") as bar:
            for batch in batches:
                maps = _draw(predictor, [image for image, _ in batch], meaning["side"], device)
                for (image, output), values in zip(batch, maps, strict=True):
                    flat += _write(output, values, image, meaning)
                    bar.update()
        return flat

    return sorted(gather(everywhere(draw)))


def _draw(predictor: Predictor, images: Sequence[Path], side: int | None, device: torch.device) -> NDArray[Any]:
    """(B, H, W): maps of images of one size, drawn whole at the size that suits the model."""
    import numpy as np
    import torch

    from Utils.core.whole_images import draw_whole
    from Utils.rasters.tile_files import read_image

    batch = torch.from_numpy(np.stack([read_image(path) for path in images])).to(device)  # (B, 3, H, W)
    return draw_whole(predictor, batch, side).cpu().numpy()


def _write(output: Path, values: NDArray[Any], image: Path, meaning: dict[str, Any]) -> list[str]:
    """Write a map and its JSON; gives the map's name where it is flat."""
    import numpy as np

    from Utils.core.tables import write_json
    from Utils.rasters.tile_files import write_map_16bit

    if not np.isfinite(values).all():
        raise UserError(f"the map of '{image}' holds values that are no numbers; try --precision fp32")
    low, high = float(values.min()), float(values.max())
    span = high - low
    document = meaning | {
        "image": str(image.resolve()),
        "stretch": {"low": low, "high": high, "formula": f"value = low + (high - low) * png / {_WHITE}"},
    }
    try:
        # The JSON first: where the map is, its meaning is.
        write_json(output.with_suffix(".json"), document)
        write_map_16bit(output, (values - low) / span if span > 0 else np.zeros_like(values))
    except OSError as error:
        raise write_error(output, error, "maps written so far stay; the same command goes on") from error
    return [output.name] if span <= 0 else []


if __name__ == "__main__":
    raise SystemExit(main())
