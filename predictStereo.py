"""Heights from several images of the same ground: a raster of images with RPCs, or maps of a dataset folder's views.

python predictStereo.py --images a.tif b.tif --output dsm.tif --preview --report
python predictStereo.py --images a.tif b.tif c.tif --output dsm.tif --reference dem.tif --aoi 55.71,-21.24,55.72,-21.23
python predictStereo.py --images a.tif b.tif --output dsm.tif --model output/WHU_TLC/model
python predictStereo.py --dataset WHU_MVS/test --output maps --model output/WHU_MVS/model --dsm dsm.tif
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.core.reading_arguments import NO_VOIDS, reading_bands, reading_nodata
from Utils.core.stopping import interrupted_by_termination

if TYPE_CHECKING:
    import torch

    from Systems.stereo.dsm.matchers import Matcher
    from Systems.stereo.dsm.options import DsmOptions
    from Systems.stereo.folder.folder_options import FolderOptions
    from Systems.stereo.folder.map_drawers import MapDrawer
    from Utils.data.stereo.view_files import CameraKind

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = _parser().parse_args(arguments)

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

    _refuse(given, _FOLDER_ONLY, "belongs to --dataset")
    if given.relative_depth is not None and given.model is None:
        raise UserError("--relative-depth is for a network: give --model too, or leave it out")
    options, device = _options(given), pick_device()
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

    _refuse(given, _IMAGES_ONLY, "belongs to --images; a dataset folder says it itself")
    options, device = _folder_options(given), pick_device()

    def drawer_for(cameras: CameraKind) -> MapDrawer:
        if given.model is None:
            return SweepDrawer(options.window, device)
        return NetworkDrawer(given.model, cameras, options.relative_depth is not None, device)

    document = predict_folder(options, drawer_for)
    for line in folder_summary(document):
        logger.info("%s", line)
    check_folder_coverage(options, document)


# Options that only one of the two kinds of input knows.
_IMAGES_ONLY = (
    "rpcs", "bands", "nodata", "aoi", "heights", "reference", "reference_geoid", "references", "no_pointing", "geoid",
    "fill", "report", "points",
)  # fmt: skip
_FOLDER_ONLY = ("part", "views", "interval", "values", "dsm")


def _refuse(given: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(given, name) not in (None, "", False):
            raise UserError(f"--{name.replace('_', '-')} {why}; leave it out")


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--images", type=Path, nargs="+", metavar="IMAGE", help="two or more, not rectified")
    inputs.add_argument(
        "--dataset", type=Path, metavar="FOLDER", help="WHU-MVS, WHU-TLC or a views.csv: maps of each of its views"
    )
    parser.add_argument(
        "--rpcs", type=Path, nargs="+", metavar="FILE", help="their RPCs, where they are not beside them"
    )
    parser.add_argument("--output", type=Path, required=True, help="GeoTIFF to write; with --dataset the maps' folder")

    folder = parser.add_argument_group("a dataset folder (--dataset)")
    folder.add_argument("--part", help="train or test (test, or the part that is named)")
    folder.add_argument("--views", type=int, help="views that are matched together (all, at most 5)")
    folder.add_argument(
        "--values", type=_numbers(2), metavar="LOW,HIGH", help="metres of depth or height to search (the cameras' own)"
    )
    folder.add_argument(
        "--interval",
        type=float,
        metavar="METRES",
        help="to which a network's steps refer (the cameras'; RPCs: 2.5)",
    )
    folder.add_argument("--dsm", type=Path, metavar="FILE", help="also one height raster of all scenes")

    reading = parser.add_argument_group("reading")
    reading.add_argument(
        "--bands", type=reading_bands, metavar="N[,N,N]", help="bands whose mean is matched (all, up to 3)"
    )
    reading.add_argument(
        "--nodata",
        type=reading_nodata,
        metavar="VALUE",
        help="value without data, if the file does not say; 'none' takes frames that are only suspected as ground",
    )

    where = parser.add_argument_group("where")
    where.add_argument("--aoi", type=_numbers(4), metavar="W,S,E,N", help="only this ground (all that two images see)")
    where.add_argument("--aoi-crs", default="EPSG:4326", help="of --aoi (EPSG:4326)")
    where.add_argument("--crs", help="of the output, in metres (the UTM zone)")
    where.add_argument("--resolution", type=float, metavar="METRES", help="of a cell (the images' own)")
    where.add_argument(
        "--heights",
        type=_numbers(2),
        metavar="LOW,HIGH",
        help="metres above the ellipsoid to search (what the RPCs were made for)",
    )
    where.add_argument("--reference", type=Path, metavar="DEM", help="a DEM that says where to search")
    where.add_argument(
        "--reference-geoid",
        default="",
        metavar="GEOID",
        help="what the DEM's heights refer to, as --geoid (the ellipsoid)",
    )

    how = parser.add_argument_group("matching")
    how.add_argument("--model", type=Path, metavar="FOLDER", help="a trained stereo network (the NCC sweep)")
    how.add_argument(
        "--relative-depth",
        metavar="FOLDER",
        help="a model that draws relative depth, for a network that uses it; with --dataset the maps' folder beside "
        "the images', as depthAnything",
    )
    how.add_argument(
        "--references", type=_places, metavar="N[,N]", help="images whose pixels become points, from 1 (all)"
    )
    how.add_argument("--sources", type=int, default=4, help="images that each is matched with, at most (4)")
    how.add_argument("--agreeing", type=int, default=1, help="other images that must find the same height (1)")
    how.add_argument("--tolerance", type=float, default=1.0, metavar="PIXELS", help="by which they may differ (1)")
    how.add_argument("--window", type=int, default=9, metavar="PIXELS", help="side of the windows of the sweep (9)")
    how.add_argument("--no-pointing", action="store_true", help="use the RPCs as they are")
    how.add_argument("--tile-size", type=int, default=512, metavar="CELLS", help="(512)")

    writing = parser.add_argument_group("writing")
    writing.add_argument(
        "--geoid",
        default="",
        metavar="GEOID",
        help="write heights above it, not above the ellipsoid: a raster of undulations, or EPSG:5773 (needs pyproj)",
    )
    writing.add_argument("--fill", action="store_true", help="fill holes from around them, and flag them")
    writing.add_argument(
        "--min-coverage",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the ground that two images see; with less the exit status is 2 (0.5)",
    )
    writing.add_argument("--preview", action="store_true", help="also a PNG: relief in colours")
    writing.add_argument("--report", action="store_true", help="also report as HTML beside the output")
    writing.add_argument("--points", type=Path, metavar="FILE", help="also a point cloud: .ply, .las or .laz")
    writing.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    writing.add_argument("--overwrite", action="store_true", help="replace an output, or an interrupted run's remains")
    return parser


def _options(given: argparse.Namespace) -> DsmOptions:
    from Systems.stereo.dsm.options import DsmOptions

    return DsmOptions(
        images=tuple(given.images),
        output=given.output,
        rpcs=None if given.rpcs is None else tuple(given.rpcs),
        resolution=given.resolution,
        aoi=given.aoi,
        aoi_crs=given.aoi_crs,
        crs=given.crs,
        heights=given.heights,
        reference=given.reference,
        reference_geoid=given.reference_geoid,
        references=given.references,
        sources=given.sources,
        agreeing=given.agreeing,
        window=given.window,
        tolerance=given.tolerance,
        correct_pointing=not given.no_pointing,
        fill=given.fill,
        geoid=given.geoid,
        bands=given.bands,
        nodata=None if given.nodata == NO_VOIDS else given.nodata,
        suspect_voids=given.nodata != NO_VOIDS,
        tile_size=given.tile_size,
        least_coverage=given.min_coverage,
        preview=given.preview,
        report=given.report,
        points=given.points,
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _folder_options(given: argparse.Namespace) -> FolderOptions:
    from Systems.stereo.folder.folder_options import FolderOptions

    return FolderOptions(
        dataset=given.dataset,
        output=given.output,
        part=given.part,
        views=given.views,
        interval=given.interval,
        values=given.values,
        relative_depth=given.relative_depth,
        window=given.window,
        agreeing=given.agreeing,
        tolerance=given.tolerance,
        dsm=given.dsm,
        resolution=given.resolution,
        crs=given.crs,
        least_coverage=given.min_coverage,
        preview=given.preview,
        resume=given.resume,
        overwrite=given.overwrite,
    )


def _network(given: argparse.Namespace, device: torch.device) -> Matcher:
    from Systems.stereo.dsm.network_matcher import NetworkMatcher
    from Systems.stereo.dsm.relative_crops import RelativeCrops

    relative = None
    if given.relative_depth is not None:
        from Systems.models import load_predictor

        relative = RelativeCrops(load_predictor(given.relative_depth, device), device)
    return NetworkMatcher(given.model, device, relative)


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    def numbers(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count:
            raise argparse.ArgumentTypeError(f"'{text}': give {count} numbers with commas between")
        return found

    return numbers


def _places(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) - 1 for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': give numbers like 1,3") from None


if __name__ == "__main__":
    raise SystemExit(main())
