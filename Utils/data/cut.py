"""From rasters to a dataset: images and DEMs in any CRS and resolution, cut into tiles for training and test.

    python -m Utils.data.cut --image ortho.tif --height dem.tif --output Dataset/BASE_DATA_DIR/MyTiles

Test part and folds are spatial blocks with a gap between them. The output is in the published layout, with tiles.csv,
split files for ``k_folds``, an audit and a map.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from Utils.core.command_line import run_script
from Utils.core.processes import tell
from Utils.core.reading_arguments import NO_VOIDS, add_reading_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        # Only now, so that --help and a wrong argument are answered at once.
        from Utils.data.cutting.options import CutOptions
        from Utils.data.cutting.run import cut
        from Utils.rasters.source.inputs import find_scenes

        options = CutOptions(
            images=find_scenes(given.image),
            heights=find_scenes(given.height),
            output=given.output,
            coarse=find_scenes(given.coarse) if given.coarse else [],
            coarsen=given.coarsen,
            size=given.size,
            overlap=given.overlap,
            distance=given.gsd,
            max_nodata=given.max_nodata,
            test=given.test,
            folds=given.folds,
            block=given.block,
            gap=given.gap,
            seed=given.seed,
            bands=given.bands,
            nodata=None if given.nodata == NO_VOIDS else given.nodata,
            suspect_voids=given.nodata != NO_VOIDS,
            stretch=given.stretch,
            height_nodata=given.height_nodata,
            height_unit=given.height_unit,
            keep_outliers=given.keep_outliers,
            crs=given.crs,
        )
        tell(cut(options, given.resume, given.dry_run))

    return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m Utils.data.cut", description=__doc__, formatter_class=text)
    parser.add_argument("--image", required=True, nargs="+", metavar="ORTHO", help="images: files, folders or patterns")
    parser.add_argument("--height", required=True, nargs="+", metavar="DEM", help="DEMs: files, folders or patterns")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder of the dataset")

    tiles = parser.add_argument_group("tiles")
    tiles.add_argument("--size", type=int, default=512, metavar="PIXELS", help="side of a tile (512)")
    tiles.add_argument("--overlap", type=int, default=0, metavar="PIXELS", help="shared by neighbouring tiles (0)")
    tiles.add_argument("--gsd", type=float, metavar="METRES", help="from pixel to pixel (each image's own grid)")
    tiles.add_argument(
        "--max-nodata", type=float, default=0.05, metavar="SHARE", help="a tile may lack so much of its data (0.05)"
    )

    blocks = parser.add_argument_group("test part and folds")
    blocks.add_argument("--test", type=float, default=0.2, metavar="SHARE", help="of the tiles (0.2); 0 for none")
    blocks.add_argument("--folds", type=int, default=5, metavar="N", help="of the training part (5); 0 for none")
    blocks.add_argument("--block", type=int, default=0, metavar="N", help="tiles along the side of a block (chosen)")
    blocks.add_argument("--gap", type=int, metavar="PIXELS", help="between blocks (a quarter of a tile)")
    blocks.add_argument("--seed", type=int, default=42, help="from which the draw of the blocks follows (42)")

    images = parser.add_argument_group("images")
    add_reading_arguments(images, "each image")

    heights = parser.add_argument_group("heights")
    heights.add_argument("--height-nodata", type=float, metavar="VALUE", help="void value, if the files do not say")
    heights.add_argument(
        "--height-unit", choices=("m", "dm", "cm", "mm", "km", "ft", "us-ft"), help="(what the files say, or metres)"
    )
    heights.add_argument(
        "--keep-outliers",
        action="store_true",
        help="use undeclared void values, spikes and impossible heights",
    )
    heights.add_argument("--crs", metavar="EPSG:N", help="of images and DEMs that name none")
    heights.add_argument("--coarse", nargs="+", metavar="DEM", help="coarse DEMs, written beside the tiles as priors")
    heights.add_argument(
        "--coarsen", type=int, default=0, metavar="PIXELS", help="make the coarse DEM: means of so many pixels a side"
    )

    running = parser.add_argument_group("running")
    running.add_argument("--resume", action="store_true", help="go on with an interrupted cut")
    running.add_argument("--dry-run", action="store_true", help="look at all tiles, say what would be written, stop")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
