"""The audit of a stereo dataset: samples are read once, and cameras, truth and images held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from Utils.config.stereo_keys import WithViews
from Utils.core.errors import UserError, write_error
from Utils.core.processes import progress_bar
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.audit.audit_report import describe_findings
from Utils.data.audit.findings import ERROR, WARNING, Finding, printable
from Utils.data.audit.stereo_inspection import StereoRow, inspect_stereo
from Utils.data.audit.stereo_rules import judge_stereo
from Utils.data.stereo.listing import PARTS, Part
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.view_files import StereoFiles

__all__ = ["StereoAudit", "audit_stereo", "describe_stereo", "summarise_stereo", "write_stereo_audit"]


@dataclass(frozen=True)
class StereoAudit:
    """What an audit found: a row for each sample, and all findings, errors first."""

    rows: list[StereoRow]
    findings: list[Finding]


def audit_stereo(
    dataset: Path,
    options: WithViews,
    check: Callable[[], object],
    root: Path | None,
    full_scale: float | None,
    workers: int,
) -> StereoAudit:
    """Audit a dataset of views.

    Args:
        dataset: folder that holds train and test, or a table.
        options: how its views are read.
        check: makes the checks with which the training begins; raises UserError with what is wrong.
        root: where a table's paths start; None for its own folder.
        full_scale: the value that counts as 1 in images of 16 bits; None for what the files say.
        workers: threads that read samples.
    """
    findings: list[Finding] = []
    rows: list[StereoRow] = []
    for part in PARTS:
        try:
            samples = find_samples(dataset, part, options, root, full_scale)
        except UserError as error:
            level = ERROR if part == "train" else WARNING
            findings.append(Finding(level, "unusable_part", "what keeps a part from being used", [f"{part}: {error}"]))
            continue
        rows += _read_all(part, samples, workers)
    findings += judge_stereo(rows)
    if not any(finding.level == ERROR for finding in findings):
        try:
            check()
        except UserError as error:
            findings.append(Finding(ERROR, "refused", "what training says to this dataset and config", [str(error)]))
    return StereoAudit(rows, sorted(findings, key=lambda finding: finding.level != ERROR))


def _read_all(part: Part, samples: Mapping[str, StereoFiles], workers: int) -> list[StereoRow]:
    with ThreadPoolExecutor(max_workers=workers) as pool:
        looked = pool.map(partial(inspect_stereo, part), samples, samples.values())
        try:
            return list(progress_bar(looked, total=len(samples), desc=f"reading {part}", unit="sample"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def summarise_stereo(dataset: Path, found: StereoAudit) -> dict[str, Any]:
    """The audit in numbers, as ``audit.json`` holds it."""
    errors = sum(finding.level == ERROR for finding in found.findings)
    return {
        "dataset": printable(str(dataset)),
        "training_would_start": not errors,
        "errors": errors,
        "warnings": len(found.findings) - errors,
        "parts": {part: _part([row for row in found.rows if row.part == part]) for part in PARTS},
        "findings": [
            {
                "level": finding.level,
                "code": finding.code,
                "what": finding.what,
                "count": len(finding.items),
                "items": [printable(item) for item in finding.items],
            }
            for finding in found.findings
        ],
    }


def _part(rows: Sequence[StereoRow]) -> dict[str, Any]:
    read = [row for row in rows if not row.problem]
    told = [row for row in read if np.isfinite(row.at_truth)]
    sizes = sorted({f"{row.width} x {row.height}" for row in read})
    return {
        "samples": len(rows),
        "unreadable": len(rows) - len(read),
        "views": sorted({row.views for row in read}),
        "sizes": sizes,
        "lowest": min((row.lowest for row in read if np.isfinite(row.lowest)), default=None),
        "highest": max((row.highest for row in read if np.isfinite(row.highest)), default=None),
        "known": float(np.mean([row.known for row in read])) if read else None,
        "least_overlap": min((row.least_overlap for row in read), default=None),
        "cameras": {"told": len(told), "fit": sum(row.at_truth > row.beside for row in told)},
    }


def write_stereo_audit(folder: Path, summary: dict[str, Any], rows: Sequence[StereoRow]) -> None:
    """Write ``audit.json`` and ``samples.csv``.

    Raises:
        UserError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "samples.csv", [asdict(row) for row in rows])
        write_json(folder / "audit.json", summary)
    except OSError as error:
        raise write_error(folder, error, "choose another folder with --output") from error


def describe_stereo(summary: dict[str, Any]) -> str:
    """The summary for people: a table of the parts, the findings, and the verdict."""
    headings = ["part", "samples", "unreadable", "views", "pixels", "truth, m", "known", "least overlap", "cameras fit"]
    lines = []
    for name, part in summary["parts"].items():
        known = part["lowest"] is not None
        lines.append(
            [
                name,
                str(part["samples"]),
                str(part["unreadable"]),
                ", ".join(map(str, part["views"])) or "-",
                ", ".join(part["sizes"]) or "-",
                f"{part['lowest']:g} to {part['highest']:g}" if known else "-",
                f"{100.0 * part['known']:.1f} %" if part["known"] is not None else "-",
                f"{100.0 * part['least_overlap']:.0f} %" if part["least_overlap"] is not None else "-",
                f"{part['cameras']['fit']} of {part['cameras']['told']}",
            ]
        )
    return "\n".join([format_table(headings, lines), "", describe_findings(summary)])
