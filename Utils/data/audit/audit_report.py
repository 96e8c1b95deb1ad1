"""The audit's files, ``audit.json`` and ``tiles.csv``, and what it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from Utils.core.errors import write_error
from Utils.core.tables import format_table, write_csv, write_json
from Utils.data.audit.findings import ERROR, Finding, printable
from Utils.data.audit.inspection import Inspection, TileRow
from Utils.data.audit.listing import PARTS

_LISTED_ITEMS = 5
_LONGEST_ITEM = 300


def summarise(dataset: Path, inspections: Sequence[Inspection], findings: Sequence[Finding]) -> dict[str, Any]:
    """The audit in numbers, as ``audit.json`` holds it."""
    errors = sum(finding.level == ERROR for finding in findings)
    return {
        "dataset": printable(str(dataset)),
        "training_would_start": not errors,
        "errors": errors,
        "warnings": len(findings) - errors,
        "parts": {part: _summarise_part(part, inspections) for part in PARTS},
        "findings": [
            {
                "level": finding.level,
                "code": finding.code,
                "what": finding.what,
                "count": len(finding.items),
                "items": [printable(item) for item in finding.items],
            }
            for finding in findings
        ],
    }


def _summarise_part(part: str, inspections: Sequence[Inspection]) -> dict[str, Any]:
    rows = [item.row for item in inspections if item.row.part == part]
    readable = [row for row in rows if row.size]
    judged = [item.alignment for item in inspections if item.row.part == part and item.alignment is not None]

    def count(kinds: Sequence[str]) -> dict[str, int]:
        return dict(Counter(kinds).most_common())

    return {
        "pairs": len(rows),
        "unreadable": len(rows) - len(readable),
        "sizes": count([f"{row.width} x {row.height}" for row in readable]),
        "images": count([f"{row.image_bands} x {row.image_dtype}" for row in readable]),
        "maps": count([f"{row.map_bands} x {row.map_dtype}" for row in readable]),
        "lowest_height": min((row.min for row in readable if row.min is not None), default=None),
        "highest_height": max((row.max for row in readable if row.max is not None), default=None),
        "nodata_share": _mean([row.nodata_share for row in readable if row.nodata_share is not None]),
        "alignment": {
            "judged": len(judged),
            "trusted": sum(found.trusted for found in judged),
            "shifted": sum(found.shifted for found in judged),
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def write_audit(folder: Path, summary: dict[str, Any], rows: Sequence[TileRow]) -> None:
    """Write ``audit.json`` and ``tiles.csv``.

    Raises:
        UserError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "tiles.csv", [row.as_row() for row in rows])
        write_json(folder / "audit.json", summary)
    except OSError as error:
        raise write_error(folder, error, "choose another folder with --output") from error


def describe(summary: dict[str, Any]) -> str:
    """The summary for people: a table of the parts, a table of the findings with their first items, and the verdict."""
    return "\n".join([_describe_parts(summary), "", describe_findings(summary)])


def describe_findings(summary: dict[str, Any]) -> str:
    """The findings of any audit as a table with their first items, and the verdict."""
    lines: list[str] = []
    findings = summary["findings"]
    if findings:
        rows = [[finding["level"], finding["code"], str(finding["count"]), finding["what"]] for finding in findings]
        lines += [format_table(["level", "finding", "count", "what"], rows), ""]
        for finding in findings:
            lines += _first_items(finding)
        lines.append("")
    told = " and ".join(_counted(summary[key], what) for key, what in (("errors", "error"), ("warnings", "warning")))
    lines.append(f"training would {'' if summary['training_would_start'] else 'NOT '}start ({told})")
    return "\n".join(lines)


def _counted(kinds: int, what: str) -> str:
    """As "no errors", "1 kind of error", "3 kinds of error"."""
    return f"{kinds} kind{'s' if kinds > 1 else ''} of {what}" if kinds else f"no {what}s"


def _describe_parts(summary: dict[str, Any]) -> str:
    headings = ["part", "pairs", "unreadable", "pixels", "images", "maps", "heights", "nodata", "alignment told"]
    rows = []
    for name, part in summary["parts"].items():
        known = part["lowest_height"] is not None
        rows.append(
            [
                name,
                str(part["pairs"]),
                str(part["unreadable"]),
                *(", ".join(part[key]) or "-" for key in ("sizes", "images", "maps")),
                f"{part['lowest_height']:g} to {part['highest_height']:g}" if known else "-",
                f"{100.0 * part['nodata_share']:.2f} %" if part["nodata_share"] is not None else "-",
                f"{part['alignment']['trusted']} of {part['alignment']['judged']}",
            ]
        )
    return format_table(headings, rows)


def _first_items(finding: Mapping[str, Any]) -> list[str]:
    """The first items of a finding, a line each; ``audit.json`` holds all."""
    items = finding["items"]
    shown = [item if len(item) <= _LONGEST_ITEM else f"{item[:_LONGEST_ITEM]}..." for item in items[:_LISTED_ITEMS]]
    more = [f"and {len(items) - len(shown)} more"] if len(items) > len(shown) else []
    return [f"{finding['code']}: {line}" for line in [*shown, *more]]
