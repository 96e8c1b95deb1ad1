"""The command line of predictStereo.py: what may be said, and what it means for images and for a dataset folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from Utils.core.errors import UserError
from Utils.core.reading_arguments import NO_VOIDS, reading_bands, reading_nodata

if TYPE_CHECKING:
    from Systems.stereo.dsm.options import DsmOptions
    from Systems.stereo.folder.folder_options import FolderOptions

__all__ = ["dsm_options", "folder_options", "stereo_parser"]

# Options that only one of the two kinds of input knows, and those that only a height raster needs.
_IMAGES_ONLY = (
    "rpcs", "bands", "nodata", "aoi", "aoi_crs", "heights", "reference", "reference_geoid", "references", "sources",
    "no_pointing", "tile_size", "geoid", "fill", "report", "points",
)  # fmt: skip
_FOLDER_ONLY = ("part", "views", "interval", "values", "dsm")
_RASTER_ONLY = ("crs", "resolution", "preview")


def stereo_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=text)
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


def dsm_options(given: argparse.Namespace) -> DsmOptions:
    """What is said for images.

    Raises:
        UserError: an option that has no meaning there.
    """
    _refuse(given, _FOLDER_ONLY, "belongs to --dataset")
    if given.relative_depth is not None and given.model is None:
        raise UserError("--relative-depth is for a network: give --model too, or leave it out")
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


def folder_options(given: argparse.Namespace) -> FolderOptions:
    """What is said for a dataset folder.

    Raises:
        UserError: an option that has no meaning there.
    """
    _refuse(given, _IMAGES_ONLY, "belongs to --images; a dataset folder says it itself")
    if given.dsm is None:
        _refuse(given, _RASTER_ONLY, "is for a height raster: give --dsm too")
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


def _refuse(given: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    defaults = stereo_parser(None)
    for name in names:
        if getattr(given, name) != defaults.get_default(name):
            raise UserError(f"--{name.replace('_', '-')} {why}; leave it out")


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
