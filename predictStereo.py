"""Heights from several images of the same ground: a raster of images with RPCs, or maps of a dataset folder's views.

python predictStereo.py --images a.tif b.tif --output dsm.tif --preview --report
python predictStereo.py --images a.tif b.tif c.tif --output dsm.tif --reference dem.tif --aoi 55.71,-21.24,55.72,-21.23
python predictStereo.py --images a.tif b.tif --output dsm.tif --model output/WHU_TLC/model
python predictStereo.py --dataset WHU_MVS/test --output maps --model output/WHU_MVS/model --dsm dsm.tif
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from Systems.stereo.predict_arguments import dsm_options, folder_options, stereo_parser
from Utils.core.command_line import run_script
from Utils.core.stopping import interrupted_by_termination

if TYPE_CHECKING:
    import torch

    from Systems.stereo.dsm.matchers import Matcher
    from Systems.stereo.folder.map_drawers import MapDrawer
    from Utils.data.stereo.view_files import CameraKind

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = stereo_parser(__doc__).parse_args(arguments)

    def work() -> None:
        if given.dataset is None:
            _predict_images(given)
        else:
            _predict_folder(given)

    with interrupted_by_termination():
        return run_script(work)


def _predict_images(given: argparse.Namespace) -> None:
    """A height raster from images with RPCs."""
    # Only now, so that --help and a wrong argument are answered at once.
    from Systems.stereo.dsm.dsm_report import summary
    from Systems.stereo.dsm.dsm_run import check_coverage, predict_dsm
    from Systems.stereo.dsm.matchers import SweepMatcher
    from Utils.core.device import pick_device

    options, device = dsm_options(given), pick_device()
    looker: Matcher = SweepMatcher(options.window, device)
    document = predict_dsm(options, _network(given, device) if given.model else looker, looker)
    for line in summary(document):
        logger.info("%s", line)
    check_coverage(options, document)


def _predict_folder(given: argparse.Namespace) -> None:
    """Maps of all views of a dataset folder, and a height raster on request."""
    from Systems.stereo.folder.folder_run import check_folder_coverage, folder_summary, predict_folder
    from Systems.stereo.folder.map_drawers import NetworkDrawer, SweepDrawer
    from Utils.core.device import pick_device

    options, device = folder_options(given), pick_device()

    def drawer_for(cameras: CameraKind) -> MapDrawer:
        if given.model is None:
            return SweepDrawer(options.window, device)
        return NetworkDrawer(given.model, cameras, options.relative_depth is not None, device)

    document = predict_folder(options, drawer_for)
    for line in folder_summary(document):
        logger.info("%s", line)
    check_folder_coverage(options, document)


def _network(given: argparse.Namespace, device: torch.device) -> Matcher:
    from Systems.stereo.dsm.network_matcher import NetworkMatcher
    from Systems.stereo.dsm.relative_crops import RelativeCrops

    relative = None
    if given.relative_depth is not None:
        from Systems.models import load_predictor

        relative = RelativeCrops(load_predictor(given.relative_depth, device), device)
    return NetworkMatcher(given.model, device, relative)


if __name__ == "__main__":
    raise SystemExit(main())
