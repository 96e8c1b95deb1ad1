"""Measure this project beside its peers: a table, a JSON file and pictures.

python -m benchmarks                   # CPU, 512 x 512, 40 to 60 minutes on two cores
python -m benchmarks --quick           # CPU, 256 x 256, under five minutes
python -m benchmarks --device cuda     # a GPU
python -m benchmarks --resume benchmarks/results/R --full --only 'marigold*'    # the fifty steps, really run
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe_machine, folder_name, summarise_machine
from benchmarks.models.sizes import SIZES
from benchmarks.plan import Case, Settings, plan
from benchmarks.records import Results
from benchmarks.reporting.report import write_report
from benchmarks.runner import run_cases
from Modules.common.number_formats import DTYPES

logger = logging.getLogger("benchmarks")

_RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 for a mistake in its arguments."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    if options.device == "cpu" and "fp16" in options.precision:
        parser.error("--precision fp16: processors compute in it slowly or not at all; give fp32 or bf16")
    try:
        cases = _choose(plan(_settings(options)), options.only, options.skip)
        if options.list:
            print("\n".join(case.name for case in cases))
            return 0
        folder, results = _open(options)
        run_cases(cases, results, folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(write_report(results, folder))
    logger.info("written to %s", folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=text)
    parser.add_argument("--quick", action="store_true", help="fewest repeats, half the size, steps computed")
    long = "really run every number of steps and every size, however long it takes; best with --only"
    parser.add_argument("--full", action="store_true", help=long)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, help="pixels of an image's side (512; 256 with --quick)")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=sorted(DTYPES),
        default=["fp32"],
        help="of both sides; several are measured one after the other",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--only", action="append", metavar="NAME", help="cases to run, * allowed; repeatable")
    parser.add_argument("--skip", action="append", metavar="NAME", default=[], help="cases to leave out, likewise")
    parser.add_argument("--list", action="store_true", help="print the cases' names and stop")
    parser.add_argument("--output", type=Path, help="folder for results (benchmarks/results/<date>-<machine>)")
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="add to a run: cases it has finished with these options stay"
    )
    parser.add_argument("--sizes", choices=sorted(SIZES), default="published", help="toy: only to test the command")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    size = options.size or (256 if options.quick else 512)
    if size < 32 or size % 32:
        raise ValueError(f"--size {size}: give a multiple of 32, which all models' strides divide")
    return Settings(
        device=options.device,
        size=size,
        precisions=tuple(dict.fromkeys(options.precision)),
        quick=options.quick,
        full=options.full,
        compile=options.compile,
        scale=options.sizes,
    )


def _choose(cases: Sequence[Case], only: Sequence[str] | None, skip: Sequence[str]) -> list[Case]:
    """The cases that were asked for."""
    names = [case.name for case in cases]
    for pattern in [*(only or []), *skip]:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no case is called '{pattern}'; --list prints the names")
    chosen = {name for pattern in only or ["*"] for name in fnmatch.filter(names, pattern)}
    chosen -= {name for pattern in skip for name in fnmatch.filter(names, pattern)}
    return [case for case in cases if case.name in chosen]


def _open(options: argparse.Namespace) -> tuple[Path, Results]:
    """The folder of this run, and what it holds already."""
    machine = describe_machine(options.device)
    date = datetime.date.today().isoformat()
    if options.resume:
        results = Results.load(options.resume)
        if results.machine != machine:
            was = summarise_machine(results.machine)
            raise ValueError(f"'{options.resume}' was measured on another machine, or with other versions: {was}")
        return options.resume, results
    folder = options.output or _RESULTS / folder_name(date, machine)
    if (folder / "results.json").is_file():
        raise ValueError(f"'{folder}' holds a run already; go on with --resume, or choose another --output")
    return folder, Results(date=date, machine=machine)


if __name__ == "__main__":
    sys.exit(main())
