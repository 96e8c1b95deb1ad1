"""Convert the raw release of WHU-MVS to the processed layout, in one command.

    python -m Utils.data.stereo.convert_whu --input WHU_MVS_dataset --output Dataset/BASE_DATA_DIR/WHU_MVS

Each part (train, test) loses its level of scenes: ``Images/<scene>/<view>/<tile>.png`` becomes
``image/<view>/<scene>_<tile>.png``; depth in 1/64 m becomes PFM in metres; camera files lose their first line. What is
there already is left, so the same command goes on after it was interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from Modules.common.plain_json import read_text
from Utils.core.command_line import run_script
from Utils.core.errors import RasterError, UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.core.processes import progress_bar
from Utils.data.stereo.listing import PARTS, ListedScene, Part, list_scenes
from Utils.data.stereo.pinhole_camera import PinholeCamera, read_camera
from Utils.data.stereo.reading import read_truth_map
from Utils.data.stereo.view_files import ViewFiles
from Utils.rasters.pfm import write_pfm

__all__ = ["convert"]

logger = logging.getLogger(__name__)


def convert(source: Path, target: Path, workers: int) -> int:
    """Convert all parts that are there; returns how many views were written.

    Args:
        source: folder of the raw release, which holds train and test, or one of them.
        target: folder of the processed dataset; made if it does not exist.
        workers: threads.

    Raises:
        UserError: no part, a file that is missing or cannot be used, or files that cannot be written.
    """
    parts = [part for part in PARTS if (source / part).is_dir()]
    if not parts:
        raise UserError(f"'{source}' holds neither train nor test; give the folder of the raw release that holds them")
    if target.resolve() == source.resolve():
        raise UserError(f"--output '{target}' is the folder of the raw release; give another one")
    written = 0
    for part in parts:
        scenes = list_scenes(source, part, "whu_mvs_raw")
        views = [(scene, view) for scene in scenes for view in scene.views]
        _make_folders(target, part, sorted({view.view for _, view in views}))
        with ThreadPoolExecutor(max_workers=workers) as pool:
            done = pool.map(partial(_convert_view, target / part), *zip(*views, strict=True))
            try:
                count = sum(progress_bar(done, total=len(views), desc=part, unit="view"))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        without = sum(view.truth is None for _, view in views)
        if without:
            logger.warning("%s: %d of %d views have no depth map; they can be sources only", part, without, len(views))
        there = len(views) - count
        logger.info("%s: %d views of %d scenes, %d of them were there already", part, len(views), len(scenes), there)
        written += count
    return written


def _make_folders(target: Path, part: Part, views: Sequence[str]) -> None:
    for name in ("image", "camera", "depth"):
        for view in views:
            folder = target / part / name / view
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(folder, error, "choose another folder with --output") from error


def _convert_view(folder: Path, scene: ListedScene, view: ViewFiles) -> bool:
    """Write the files of one view that are not there yet; whether there were any. The camera comes last."""
    image = folder / "image" / view.view / f"{scene.name}{view.image.suffix.lower()}"
    depth = folder / "depth" / view.view / f"{scene.name}.pfm"
    camera = folder / "camera" / view.view / f"{scene.name}.txt"
    if camera.exists():
        return False
    assert not isinstance(view.camera, PinholeCamera), "the raw release has camera files"
    read_camera(view.camera, "pose")  # refuses what is no camera
    first, _, rest = read_text(view.camera).partition("\n")
    text = rest.lstrip("\n") if first.strip().lower().startswith("extrinsic") else f"{first}\n{rest}"
    try:
        atomic_write_bytes(image, view.image.read_bytes())
        if view.truth is not None:
            values, known = read_truth_map(scene.truth_format, scene.kind, view.truth)
            write_pfm(depth, np.where(known, values, np.float32(0.0)))
        atomic_write_bytes(camera, text.encode("utf-8"))
    except RasterError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise write_error(folder, error, "views written so far stay; the same command goes on") from error
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the conversion; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m Utils.data.stereo.convert_whu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="the raw release")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the processed dataset")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads, default %(default)s")
    given = parser.parse_args(arguments)

    def work() -> None:
        if given.workers < 1:
            raise UserError(f"--workers {given.workers}: give 1 or more")
        written = convert(given.input, given.output, given.workers)
        print(f"{given.output}: {written} views written")

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
