"""The files that a scored scene leaves: tables, numbers, and the folder that they go to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table, write_csv, write_json
from Utils.scenes.accuracy.scene_scores import (
    BICUBIC,
    BICUBIC_LACKS,
    DEM_ALONE,
    NOMINAL,
    PREDICTION,
    SCORES,
    Coverage,
    SceneScores,
    Stratum,
)
from Utils.scoring.scores import Metric

RESULTS = ("metrics.json", "table.md", "classes.csv", "blocks.csv", "figure.png", "report.html", "errors.tif")
"""Names of the files that evaluateScene.py may write into its folder."""

Rows = tuple[list[str], list[list[str]]]
"""The headings of a table, and its rows, which have as many cells."""

NO_SLOPES = "No slopes: without a georeference the size of a pixel is unknown."


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make a folder for the body to write into; a failed write becomes a UserError.

    Raises:
        UserError: the folder or a file in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise write_error(Path(error.filename or folder), error, "what was written before is whole") from error


def check_output(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse a folder that cannot be made, or in which a result would overwrite an input.

    Raises:
        UserError: a file stands in the way.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise UserError(f"output '{folder}': '{part}' is a file; give a folder")
    taken = {(folder / name).resolve() for name in RESULTS}
    for path in inputs:
        if path.resolve() in taken:
            raise UserError(f"output '{folder}': the input '{path}' would be overwritten; give another folder")


def write_tables(scores: SceneScores, folder: Path) -> str:
    """Write ``metrics.json``, ``table.md`` and ``classes.csv`` into an existing folder; returns the table.

    Raises:
        OSError: a file cannot be written.
    """
    table = format_scores(scores)
    if scores.before is not None:
        as_it_lies = format_scores(scores.before)
        table = f"As the files lie\n\n{as_it_lies}\n\nAfter coregistration (Nuth and Kaab)\n\n{table}"
    write_csv(folder / "classes.csv", [row for stratum in scores.strata for row in _csv_rows(stratum)])
    write_json(folder / "metrics.json", scores.to_document())
    atomic_write_bytes(folder / "table.md", (table + "\n").encode("utf-8"))
    return table


def format_scores(scores: SceneScores) -> str:
    """All tables, with a line for each map on how it was aligned."""
    texts = [format_table(*rows) for rows in tables(scores)]
    if not scores.classes:
        texts.insert(1, NO_SLOPES)
    return "\n\n".join(["  \n".join(notes(scores)), *texts])


def tables(scores: SceneScores) -> list[Rows]:
    """The tables: over all pixels; by slope class, if slopes are known; coverage and reliability, if sigma is known."""
    found = [_overall_table(scores)]
    if scores.classes:
        found.append(_class_table(scores))
    if scores.terrain:
        found.append(_terrain_table(scores))
    if scores.ground:
        found.append(_ground_table(scores))
    return found + (_coverage_tables(scores.coverage) if scores.coverage is not None else [])


def notes(scores: SceneScores) -> list[str]:
    """Notes on the numbers, above all on how each map was aligned."""
    lines = [f"{name}{_origin(scores, name)}: {alignment}." for name, alignment in scores.alignments.items()]
    lines += [f"{name}: {shift}." for name, shift in scores.shifts.items()]
    lost = scores.pixels.get(BICUBIC_LACKS, 0)
    if lost:
        lines.append(
            f"{lost:,} pixels that only {BICUBIC} does not know are scored in no map; --no-reference scores them."
        )
    lines += _datum_notes(scores)
    lines += _correlation_notes(scores)
    if scores.drainage:
        shares = ", ".join(f"{scores.label(name)} {100 * share:.0f} %" for name, share in scores.drainage.items())
        lines.append(f"Channels that agree with the truth's, to a cell: {shares}.")
    lines.append("Errors are prediction minus truth.")
    if not scores.sampling["exact"]:
        lines.append(f"Median, NMAD and LE90 are over a random sample of {scores.sampling['sampled']:,} pixels.")
    return lines


def _datum_notes(scores: SceneScores) -> list[str]:
    """What the heights of prediction and truth refer to, and what was brought to another datum."""
    found = {name: facts["vertical_datum"] for name, facts in scores.inputs.items() if "vertical_datum" in facts}
    said = [f"{name} {found[name]['code']}" for name in (PREDICTION, "truth") if name in found]
    if not said or scores.inputs[PREDICTION]["kind"] != "metric":
        return []
    unknown = any(text.endswith("unknown") for text in said)
    lines = [f"Vertical datum: {', '.join(said)}{'; what is unknown was compared as it is' if unknown else ''}."]
    for name, facts in found.items():
        if "brought_to" in facts:
            to, metres = facts["brought_to"]["code"], facts["metres_in_the_middle"]
            lines.append(f"{name}: heights brought from {facts['code']} to {to}, {metres:+.2f} m in the middle.")
    return lines


def _origin(scores: SceneScores, name: str) -> str:
    """What a map of the reference is."""
    if name not in (BICUBIC, DEM_ALONE):
        return ""
    file = Path(scores.inputs[name]["path"]).name
    if name == BICUBIC:
        return f", '{file}' interpolated"
    return f", the ground of least error that '{file}' tells without image and model"


def _overall_table(scores: SceneScores) -> Rows:
    scored = f"{scores.overall.pixels:,} pixels ({100 * scores.valid_share:.1f} % of the scene)"
    error_label = f"± standard error, {scores.blocks} blocks"
    return [scored, *_headings()], _rows(scores, scores.overall, error_label)


def _class_table(scores: SceneScores) -> Rows:
    rows = []
    for stratum in scores.classes:
        for row in _rows(scores, stratum, "± standard error"):
            rows.append([stratum.label, f"{100 * stratum.share:.1f}", *row])
    return ["true slope (deg)", "pixels (%)", "map", *_headings()], rows


def _terrain_table(scores: SceneScores) -> Rows:
    rows = [
        [scores.label(name), *("—" if math.isnan(value) else f"{value:.3f}" for value in found.values())]
        for name, found in scores.terrain.items()
    ]
    return ["variance left unexplained ↓", *(next(iter(scores.terrain.values())))], rows


def _ground_table(scores: SceneScores) -> Rows:
    rows = [
        [
            f"{row['class']} {row['name']}".strip(),
            f"{100 * row['share']:.1f}",
            scores.label(row["map"]),
            *(f"{row[key]:.3f}" for key in ("bias", "mae", "rmse")),
        ]
        for row in scores.ground
    ]
    return ["class of the ground", "pixels (%)", "map", "Bias (m)", "MAE (m)", "RMSE (m)"], rows


def _correlation_notes(scores: SceneScores) -> list[str]:
    """How far the errors are alike, and what that makes of their number."""
    found = scores.variogram
    if found is None or not found.effective > 0.0:
        return []
    unit = "m" if scores.inputs[PREDICTION]["metres_per_pixel"] else "pixels"
    known = [(reach, sill) for reach, sill in zip(found.ranges, found.sills, strict=True) if sill > 0.0]
    reaches = " and ".join(f"{reach:,.0f} {unit} ({100 * sill / sum(found.sills):.0f} %)" for reach, sill in known)
    return [
        f"The prediction's errors are alike over {reaches}: {scores.overall.pixels:,} pixels are worth "
        f"{found.effective:,.0f} independent ones, and the bias has a standard error of "
        f"{found.standard_error_of_mean:.3f} m."
    ]


def _headings() -> list[str]:
    return [f"{metric.heading} {metric.arrow}".rstrip() for metric in SCORES]


def _rows(scores: SceneScores, stratum: Stratum, error_label: str) -> list[list[str]]:
    """A row for each map; then, for each control, the change, absolute and in per cent, and its standard error."""
    rows = [
        [scores.label(name), *(metric.format(found[metric.key]) for metric in SCORES)]
        for name, found in stratum.scores.items()
    ]
    named = f"change from {stratum.control}" if stratum.change_from_dem_alone else "change"
    changes = {named: stratum.change, f"change from {DEM_ALONE}": stratum.change_from_dem_alone}
    for label, change in changes.items():
        if change:
            rows.append([label, *(_change_cell(change, metric, "change") for metric in SCORES)])
            rows.append([f"{label} (%)", *(_change_cell(change, metric, "percent") for metric in SCORES)])
            rows.append([error_label, *(_change_cell(change, metric, "standard_error") for metric in SCORES)])
            if any("correlated_error" in one for one in change.values()):
                cells = [_change_cell(change, metric, "correlated_error") for metric in SCORES]
                rows.append(["± from the variogram", *cells])
    return rows


def _change_cell(change: Mapping[str, Mapping[str, float]], metric: Metric, what: str) -> str:
    value = change.get(metric.key, {}).get(what, math.nan)
    if math.isnan(value):
        return "—"
    if what == "percent":
        return f"{value:+.1f}"
    text = metric.format(value)
    return text if what in ("standard_error", "correlated_error") or text.startswith("-") else f"+{text}"


def _coverage_tables(coverage: Coverage) -> list[Rows]:
    headings = [f"uncertainty, {coverage.pixels:,} pixels", "inside 1 sigma (%)", "inside 1.96 sigma (%)"]
    headings += ["mean sigma (m)", "RMS sigma (m)", "RMSE (m)", "factor for 68.27 %"]
    shares = [f"{100 * share:.2f}" for share in (coverage.within_68, coverage.within_95)]
    lengths = [f"{value:.3f}" for value in (coverage.mean_sigma, coverage.rms_sigma, coverage.rmse)]
    rows = [["measured", *shares, *lengths, f"{coverage.factor_68:.3f}"]]
    rows.append(["if right", f"{100 * NOMINAL[0]:.2f}", f"{100 * NOMINAL[1]:.2f}", "—", "—", "—", "1.000"])
    deciles = []
    for number, row in enumerate(coverage.deciles, start=1):
        low, high, stated, observed = (f"{row[key]:.3f}" for key in ("sigma_low", "sigma_high", "rms_sigma", "rmse"))
        deciles.append([f"{number}", low, high, f"{100 * row['share']:.1f}", stated, observed])
    reliability = ["sigma decile", "from (m)", "to (m)", "pixels (%)", "RMS sigma (m)", "observed RMSE (m)"]
    return [(headings, rows), (reliability, deciles)]


def _csv_rows(stratum: Stratum) -> list[dict[str, object]]:
    """A row for each map, and for each change and its standard error."""
    head: dict[str, object] = {"slope_class": stratum.label, "low_degrees": stratum.low, "high_degrees": stratum.high}
    head |= {"pixels": stratum.pixels, "share": stratum.share}
    rows = [head | {"map": name} | scores for name, scores in stratum.scores.items()]
    for suffix, change in (("", stratum.change), (f" from {DEM_ALONE}", stratum.change_from_dem_alone)):
        for what in ("change", "percent", "standard_error", "correlated_error") if change else ():
            found = {key: values[what] for key, values in change.items() if what in values}
            if found:
                rows.append(head | {"map": f"{what}{suffix}"} | found)
    return rows
