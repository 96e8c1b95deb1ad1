"""HiRISE stereo products to tiles for trainDepth.py, divided so that no ground stands on two sides.

python prepareMars.py --products /data/HiRISE --output Dataset/BASE_DATA_DIR/Mars
python prepareMars.py --dtm DTEEC_....IMG --ortho ESP_..._ORTHO.JP2 --output Dataset/BASE_DATA_DIR/OneMars
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from Utils.core.command_line import run_script
from Utils.core.processes import tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    given = _parser().parse_args(arguments)

    def work() -> None:
        # Only now, so that --help and a wrong argument are answered at once.
        from Systems.mars.preparing.options import PrepareOptions
        from Systems.mars.preparing.run import prepare

        options = PrepareOptions(
            output=given.output,
            products=given.products,
            dtms=given.dtm,
            orthos=given.ortho,
            size=given.size,
            step=given.step or max(1, given.size * 3 // 4),
            most_void=given.max_nodata,
            test=given.test,
            validation=given.validation,
            split=given.split,
            margin=given.margin,
            folds=given.folds,
            seed=given.seed,
            band=given.band,
            reference=given.height_reference,
            plain_rdr=given.plain_rdr,
            workers=given.workers,
        )
        tell(prepare(options, given.dry_run))

    return run_script(work)


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="prepareMars.py", description=__doc__, formatter_class=text)
    products = parser.add_argument_group("products")
    products.add_argument(
        "--products", type=Path, nargs="+", default=[], metavar="FOLDER", help="searched with all below"
    )
    products.add_argument("--dtm", type=Path, nargs="+", default=[], metavar="FILE", help="DTMs, named one by one")
    products.add_argument("--ortho", type=Path, nargs="+", default=[], metavar="FILE", help="the image of each DTM")
    products.add_argument("--band", type=int, metavar="N", help="of colour products, which are refused without it")
    products.add_argument(
        "--height-reference", choices=("areoid", "radius"), help="of DTMs whose name and label do not say it"
    )
    products.add_argument("--plain-rdr", action="store_true", help="take images that are not orthorectified")

    tiles = parser.add_argument_group("tiles")
    tiles.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder of the dataset")
    tiles.add_argument("--size", type=int, default=512, metavar="PIXELS", help="side of a tile (512)")
    tiles.add_argument("--step", type=int, metavar="PIXELS", help="from tile to tile (three quarters of --size)")
    tiles.add_argument(
        "--max-nodata", type=float, default=0.2, metavar="SHARE", help="a tile may lack so much of its data (0.2)"
    )

    sides = parser.add_argument_group("training, validation and test")
    sides.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="of the groups of pairs (0.1)")
    sides.add_argument("--validation", type=float, default=0.1, metavar="SHARE", help="of the groups (0.1)")
    sides.add_argument(
        "--split",
        default="footprint",
        metavar="HOW",
        help="footprint keeps ground and source images on one side (default); published shuffles names, as 381/48/48; "
        "or a CSV with the columns pair and side",
    )
    sides.add_argument(
        "--margin", type=float, default=0.0, metavar="METRES", help="around footprints, still the same ground (0)"
    )
    sides.add_argument("--folds", type=int, default=0, metavar="N", help="of the training tiles, by group (0: none)")
    sides.add_argument("--seed", type=int, default=42, help="from which the sides follow (42)")

    running = parser.add_argument_group("running")
    running.add_argument("--workers", type=int, default=2, metavar="N", help="pairs that are cut at once (2)")
    running.add_argument("--dry-run", action="store_true", help="check and divide the pairs, write nothing")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
