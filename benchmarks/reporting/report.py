"""The page of a run: tables in Markdown, with its pictures beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import summarise_machine
from benchmarks.models.subject import Steps
from benchmarks.plan import (
    ENC_DEC,
    LOSS,
    MARIGOLD,
    PLAIN_LARGE,
    REFERENCE,
    REFERENCE_STEPS,
    case_name,
    frame_case_name,
)
from benchmarks.records import Record, Results, Row, describe_run
from benchmarks.reporting.bars import bars
from benchmarks.reporting.pictures import save_pictures
from benchmarks.roofline import roofline_share
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table

PAGE = "report.md"
_DASH = "—"


def write_report(results: Results, folder: Path) -> str:
    """Write the page and the pictures into ``folder``; returns the page."""
    pictures = save_pictures(results, folder)
    page = make_page(results, pictures)
    atomic_write_bytes(folder / PAGE, page.encode())
    return page


def make_page(results: Results, pictures: list[str]) -> str:
    """The page, of whatever was measured so far."""
    sections = [f"# Benchmarks, {results.date}\n\n{summarise_machine(results.machine)}"]
    makers = {
        "An image in, a map out": _inference,
        "Depth networks on frames": _frames,
        "Parts, and their share of what the device can do": _parts,
        "Training": _training,
        "The hierarchical loss": _loss,
        "Growth with image size and batch": _growth,
        "Bars": _bars,
        "Failed": _failures,
    }
    for title, make in makers.items():
        text = make(results)
        if text:
            sections.append(f"## {title}\n\n{text}")
    sections += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join(sections) + "\n"


def describe_steps(steps: Steps) -> str:
    """A number of steps, or that there are none."""
    return _DASH if steps is None else str(steps)


def seconds(value: float) -> str:
    """Seconds with three digits."""
    return f"{value:.3g}" if value < 100.0 else f"{value:.0f}"


def describe_spread(row: Row) -> str:
    """The quartiles of the repeats; of a single run there are none."""
    spread = row["seconds"]
    return _DASH if spread["repeats"] == 1 else f"{seconds(spread['low'])} to {seconds(spread['high'])}"


def _inference(results: Results) -> str:
    """The main table: a line for a model and a number of steps."""
    records = results.of_kind("inference")
    lines = [line for record in records for line in _model_lines(results, record)]
    if not lines:
        return ""
    headings = [
        "model", "steps", "precision", "size", "parameters (M)", "TFLOP / image", "s / image, batch 1", "spread (s)",
        "runs", "best batch", "s / image, best batch", "peak memory (MB)", "weights (MB)", "x our time",
    ]  # fmt: skip
    notes = list(
        dict.fromkeys(
            f"{row['label']}: {note}" for record in records for row in record.rows[:1] for note in row.get("notes", [])
        )
    )
    explained = [
        f"Batch 1: the median, and the quartiles as spread (of fewer than four runs their extremes). `x our time` is "
        f"the time over that of {REFERENCE} with {REFERENCE_STEPS} steps in the same precision. Peak memory is that of "
        "batch 1, weights included. Random weights everywhere; the same image for all.",
        "`*`: computed from the measured parts, not run as a whole.",
        *notes,
        *(_check_of_computing(results)),
    ]
    return format_table(headings, lines) + "\n\n" + "\n".join(f"- {line}" for line in explained)


def _check_of_computing(results: Results) -> Iterator[str]:
    """Marigold's loops that were really run, beside what would have been computed for them."""
    for record in results.of_kind("inference"):
        for row in results.rows(record.case.name):
            if record.case.subject == MARIGOLD and row.get("computed_seconds"):
                run, computed = row["seconds"]["median"], row["computed_seconds"]
                yield f"{describe_run(row)}: {seconds(run)} s run, {seconds(computed)} s by computing from its parts"


def _model_lines(results: Results, record: Record) -> Iterator[list[str]]:
    case = record.case
    reference = results.find(case_name(REFERENCE, case.switches.precision), REFERENCE_STEPS)
    for steps in sorted(case.steps, key=lambda value: value or 0):
        row = results.find(case.name, steps)
        if row is None:
            continue
        best = results.best(case.name, steps)
        assert best is not None
        # Stage 2 alone is no pipeline.
        compared = None if case.subject == PLAIN_LARGE else reference
        ratio = row["seconds_per_image"] / compared["seconds_per_image"] if compared else None
        yield [
            row["label"],
            describe_steps(steps),
            case.switches.precision,
            str(case.size),
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['flops'] / 1e12:.3g}",
            seconds(row["seconds_per_image"]) + ("*" if row["computed"] else ""),
            describe_spread(row),
            _DASH if row["computed"] else str(row["seconds"]["repeats"]),
            str(best["batch"]),
            seconds(best["seconds_per_image"]) + ("*" if best["computed"] else ""),
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['weight_bytes'] / 1e6:.0f}",
            _DASH if ratio is None else f"{ratio:.2f}",
        ]


def _frames(results: Results) -> str:
    """Depth networks at the size of Enc-Dec-IRv2's frames."""
    lines, notes = [], []
    for record in results.of_kind("frames"):
        precision = record.case.switches.precision
        row, best = results.find(record.case.name), results.best(record.case.name)
        if row is None or best is None:
            continue
        ours = results.find(frame_case_name(ENC_DEC, precision)), results.best(frame_case_name(ENC_DEC, precision))
        ratios = [
            f"{mine['seconds_per_image'] / its['seconds_per_image']:.2f}" if its else _DASH
            for mine, its in zip((row, best), ours, strict=True)
        ]
        lines.append(
            [
                row["label"],
                precision,
                f"{row['parameters'] / 1e6:.1f}",
                f"{row['flops'] / 1e9:.1f}",
                *_milliseconds(row),
                f"{row['peak_bytes'] / 1e6:.0f}",
                str(best["batch"]),
                *_milliseconds(best),
                f"{best['peak_bytes'] / 1e6:.0f}",
                *ratios,
            ]
        )
        notes += [f"{row['label']}: {note}" for note in row["notes"]]
    if not lines:
        return ""
    height, width = next(record.case.frame for record in results.of_kind("frames") if record.case.frame)
    headings = [
        "model", "precision", "parameters (M)", "GFLOP / image", "ms / image, batch 1", "spread (ms)",
        "peak memory (MB)", "best batch", "ms / image, best batch", "spread (ms)", "peak memory, best batch (MB)",
        "x our time, batch 1", "x our time, best batch",
    ]  # fmt: skip
    text = f"Images of {height} x {width} pixels, random weights. Spreads: quartiles (of two or three runs extremes)."
    return format_table(headings, lines) + "\n\n" + "\n".join(f"- {line}" for line in [text, *dict.fromkeys(notes)])


def _milliseconds(row: Row) -> list[str]:
    """Time of an image and its spread."""
    spread, batch = row["seconds"], row["batch"]
    low, high = (1000.0 * spread[key] / batch for key in ("low", "high"))
    return [f"{1000.0 * row['seconds_per_image']:.1f}", f"{low:.1f} to {high:.1f}"]


def _parts(results: Results) -> str:
    lines = [line for record in results.of_kind("inference") for line in _part_lines(results, record)]
    if not lines:
        return ""
    headings = [
        "model", "precision", "part", "calls", "seconds", "share of time (%)", "GFLOP", "GFLOP/s", "GB moved",
        "share of roofline (%)", "limit",
    ]  # fmt: skip
    text = format_table(headings, lines)
    if results.rates:
        found = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in results.rates["matrix_rates"].items())
        text += (
            f"\n\nMeasured on this device: matrix products {found} GFLOP/s; "
            f"memory {results.rates['bandwidth'] / 1e9:.1f} GB/s. The share of the roofline is the "
            "larger of FLOPs over that rate and bytes over that bandwidth, over the time. Bytes are what each "
            "operator reads and writes by itself: caches lift the share of a part that memory limits, even past 100."
        )
    return text


def _part_lines(results: Results, record: Record) -> Iterator[list[str]]:
    """The parts of a model at the first of its numbers of steps."""
    row = next((row for row in record.rows if row.get("parts")), None)
    if row is None:
        return
    whole = row["seconds"]["median"]
    name = describe_run(row)
    for part, work in row["parts"].items():
        bound = _bound(results, record, work)
        yield [
            name,
            record.case.switches.precision,
            part,
            str(work["calls"]),
            seconds(work["seconds"]),
            f"{100.0 * work['seconds'] / whole:.0f}",
            f"{work['flops'] / 1e9:.0f}",
            f"{work['flops'] / work['seconds'] / 1e9:.0f}",
            f"{work['traffic'] / 1e9:.2f}",
            *bound,
        ]


def _bound(results: Results, record: Record, work: Row) -> list[str]:
    if results.rates is None:
        return [_DASH, _DASH]
    found = roofline_share(work, results.rates, record.case.switches.precision)
    return [f"{100.0 * found['share']:.0f}", found["limit"]]


def _training(results: Results) -> str:
    rows = [row for record in results.of_kind("training") for row in results.rows(record.case.name)]
    lines = [
        [
            row["label"],
            str(row["batch"]),
            f"{row['steps_per_second']:.3g}",
            f"{row['tiles_per_second']:.3g}",
            seconds(row["seconds"]["median"]),
            describe_spread(row),
            str(row["seconds"]["repeats"]),
            f"{row['flops'] / 1e12:.3g}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['losses'][0]:.6f}",
        ]
        for row in rows
    ]
    if not lines:
        return ""
    headings = [
        "training", "batch", "steps / s", "tiles / s", "s / step", "spread (s)", "runs", "TFLOP / step",
        "peak memory (MB)", "first loss",
    ]  # fmt: skip
    text = "A step is the loss that the scripts use, its gradient, and AdamW. bf16 is mixed precision."
    return format_table(headings, lines) + f"\n\n{text}"


def _loss(results: Results) -> str:
    rows = list(results.rows(LOSS))
    lines = [
        [
            f"{row['size']}",
            f"{row['batch']}",
            *(seconds(row[f"{way}_seconds"]) for way in ("loss", "masks")),
            f"{row['times_faster']:.1f}",
            *(f"{row[f'{way}_peak_bytes'] / 1e6:.0f}" for way in ("loss", "masks")),
            f"{row['times_smaller']:.1f}",
        ]
        for row in rows
    ]
    headings = [
        "size", "batch", "HDNLoss (s)", "direct masks (s)", "times faster", "HDNLoss peak (MB)", "masks peak (MB)",
        "times smaller",
    ]  # fmt: skip
    return format_table(headings, lines) if lines else ""


def _growth(results: Results) -> str:
    lines = []
    for record in results.of_kind("growth"):
        for row in record.rows:
            done = "failure" not in row
            lines.append(
                [
                    row["label"],
                    describe_steps(row["steps"]),
                    str(row["size"]),
                    str(row["batch"]),
                    seconds(row["seconds_per_image"]) if done else _DASH,
                    f"{row['peak_bytes'] / 1e6:.0f}" if done else _DASH,
                    "" if done else row["failure"],
                ]
            )
    headings = ["model", "steps", "size", "batch", "s / image", "peak memory (MB)", "remark"]
    return format_table(headings, lines) if lines else ""


def _bars(results: Results) -> str:
    return "\n".join(f"- {bar.line()}" for bar in bars(results))


def _failures(results: Results) -> str:
    failed = [record for record in results.records.values() if record.failure]
    return "\n".join(f"- {record.case.name}: {record.failure}" for record in failed)
