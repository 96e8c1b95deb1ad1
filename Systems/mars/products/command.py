"""``python -m Systems.mars.products``: list, download and check HiRISE stereo products.

    python -m Systems.mars.products list     --output /data/HiRISE --limit 5
    python -m Systems.mars.products download --output /data/HiRISE --grid C --limit 5
    python -m Systems.mars.products check    --output /data/HiRISE

The archive has some 500 GB. What has come is not asked for again: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from Systems.mars.products.catalogue import ARCHIVE, Archive, ProductFile, Wanted, WantedPair
from Systems.mars.products.download import download
from Systems.mars.products.kept_files import KeptFiles
from Systems.mars.products.web import Manners, NotThere, Web
from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.rasters.planetary.hirise_names import PRODUCERS

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 also where files failed or are missing."""
    given = _parser().parse_args(arguments)
    work = {"list": _list, "download": _download, "check": _check}[given.what]
    return run_script(lambda: work(given))


def _list(given: argparse.Namespace) -> None:
    pairs = _pairs(given)
    for pair in pairs:
        print(f"{pair.dtm.name}  {_bytes(pair.size):>9}  {PRODUCERS.get(pair.dtm.producer, 'other')}")
    print(_sum(pairs))


def _download(given: argparse.Namespace) -> None:
    pairs = _pairs(given)
    if given.dry_run:
        for pair in pairs:
            for file in pair.files:
                print(f"{file.place.as_posix()}  {_bytes(file.size or 0)}")
        print(f"{_sum(pairs)}; nothing was downloaded (dry run)")
        return
    kept, web = KeptFiles(given.output), Web(_manners(given))
    counts = {"were there": 0, "downloaded": 0}
    failed: list[str] = []
    transferred = 0
    for number, pair in enumerate(pairs, start=1):
        logger.info("%d of %d: %s", number, len(pairs), pair.dtm.name)
        for file in pair.files:
            if kept.has(file.place):
                counts["were there"] += 1
                continue
            url = _archive(given) + file.place.as_posix()
            try:
                found = download(web, url, given.output / file.place)
            except (NotThere, UserError) as error:
                failed.append(file.place.as_posix())
                logger.warning("%s: %s", url, error)
                continue
            transferred += found.transferred
            counts["downloaded"] += 1
            kept.add(file.place, found.size, url)
    words = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"{len(pairs)} pairs: {words}, {len(failed)} failed; {_bytes(transferred)} came over the network")
    if failed:
        raise UserError(
            f"{len(failed)} files failed, first '{failed[0]}'; the same command tries them again and goes on where "
            "they broke off"
        )


def _check(given: argparse.Namespace) -> None:
    """Check the files that downloads have brought, without the network."""
    checked, problems = KeptFiles(given.output).check()
    for problem in problems:
        print(problem)
    print(f"{checked} files: {checked - len(problems)} in order, {len(problems)} missing, cut or damaged")
    if problems:
        raise UserError(f"{len(problems)} of {checked} files are not in order; download brings them again")


def _pairs(given: argparse.Namespace) -> list[WantedPair]:
    if given.limit is not None and given.limit < 1:
        raise UserError(f"--limit {given.limit}: give 1 or more")
    wanted = Wanted(
        tuple(given.mission),
        tuple(given.producer),
        tuple(given.grid),
        tuple(given.reference),
        given.all_versions,
        given.image_grid,
        given.both_images,
        tuple(given.name),
    )
    archive = Archive(_archive(given), Web(_manners(given)), given.output, given.refresh)
    pairs = list(islice(archive.pairs(wanted), given.limit))
    if not pairs:
        raise UserError(f"nothing in '{archive.url}' is what was asked for; leave out --producer, --grid or --name")
    return pairs


def _archive(given: argparse.Namespace) -> str:
    return str(given.archive).rstrip("/") + "/"


def _manners(given: argparse.Namespace) -> Manners:
    for name, value, least in (
        ("--pause", given.pause, 0.0),
        ("--attempts", given.attempts, 1),
        ("--timeout", given.timeout, 0.1),
        ("--rate", given.rate, 0.0),
        ("--first-wait", given.first_wait, 0.0),
    ):
        if value < least:
            raise UserError(f"{name} {value:g}: give {least:g} or more")
    return Manners(given.pause, given.attempts, given.timeout, given.rate * 1e6, given.slowest * 1e3, given.first_wait)


def _sum(pairs: Sequence[WantedPair]) -> str:
    files: list[ProductFile] = [file for pair in pairs for file in pair.files]
    return f"{len(pairs)} pairs, {len(files)} files, about {_bytes(sum(file.size or 0 for file in files))}"


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000.0 and len(units) > 1:
        value, units = value / 1000.0, units[1:]
    return f"{value:.3g} {units[0]}"


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m Systems.mars.products", description=__doc__, formatter_class=text)
    parser.add_argument("what", choices=("list", "download", "check"), help="what to do")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="products, laid out as there")
    parser.add_argument("--archive", default=ARCHIVE, metavar="URL", help="folder that holds ESP and PSP (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after so many pairs")
    parser.add_argument("--dry-run", action="store_true", help="list what would be downloaded, and stop")
    parser.add_argument("--refresh", action="store_true", help="ask for listings again that are there")

    wanted = parser.add_argument_group("which products")
    missions, letters = ("ESP", "PSP"), tuple("ABCD")
    wanted.add_argument("--mission", nargs="+", default=missions, choices=missions, help="(both)")
    wanted.add_argument("--producer", nargs="+", default=(), choices=tuple(PRODUCERS), help="letters (all)")
    wanted.add_argument("--grid", nargs="+", default=(), choices=letters, help="of DTMs: A .25, B .5, C 1, D 2 m (all)")
    references = ("areoid", "radius")
    wanted.add_argument("--reference", nargs="+", default=references, choices=references, help="of heights (both)")
    wanted.add_argument("--all-versions", action="store_true", help="older versions of DTMs too")
    wanted.add_argument("--image-grid", choices=letters, help="of orthoimages (the one that fits the DTM)")
    wanted.add_argument("--both-images", action="store_true", help="of the second observation too")
    wanted.add_argument("--name", nargs="+", default=(), metavar="PART", help="of a pair's name; one has to fit")

    manners = parser.add_argument_group("how the archive is asked")
    manners.add_argument("--pause", type=float, default=1.0, metavar="S", help="from request to request (1)")
    manners.add_argument("--rate", type=float, default=0.0, metavar="MB", help="most megabytes a second (no limit)")
    manners.add_argument("--attempts", type=int, default=5, metavar="N", help="of each request (5)")
    manners.add_argument("--timeout", type=float, default=60.0, metavar="S", help="without a byte (60)")
    manners.add_argument("--slowest", type=float, default=1.0, metavar="KB", help="a second, or it has failed (1)")
    manners.add_argument("--first-wait", type=float, default=2.0, metavar="S", help="then twice as long each time (2)")
    return parser
