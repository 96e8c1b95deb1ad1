"""The figures of the ASPRS Positional Accuracy Standards (edition 2, 2023) for height maps against checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.core.tables import format_table
from Utils.scenes.accuracy.shifts import Shift

__all__ = ["FEWEST", "MOST", "CheckpointScores", "PointErrors", "figures"]

Floats = NDArray[np.float64]

FEWEST, MOST = 30, 120
"""Checkpoints that the standard asks for at least, and the number beyond which it needs no more."""

_KEYS = {
    "mean": "Mean (m)",
    "median": "Median (m)",
    "standard_deviation": "Std. dev. (m)",
    "nmad": "NMAD (m)",
    "le90": "LE90 (m)",
    "largest": "Largest (m)",
    "rmse_z": "RMSEz (m)",
    "survey_rmse": "RMSE of points (m)",
    "rmse_v": "RMSE_V (m)",
}
DEFINITIONS = {
    "error": "height of the map, bilinear between pixel centres, minus that of the checkpoint; metres",
    "rmse_z": "root mean square error against the checkpoints as they are",
    "survey_rmse": "root mean square of the checkpoints' own standard deviations; 0 where they are not given",
    "rmse_v": "sqrt(rmse_z^2 + survey_rmse^2): the vertical accuracy that ASPRS 2023 states",
    "NVA": "non-vegetated vertical accuracy: all checkpoints outside vegetated classes",
    "VVA": "vegetated vertical accuracy: reported, and no criterion",
    "standard_error_of_mean": "standard deviation / sqrt(n), as if the errors were independent",
}


def figures(errors: Floats, sigma: Floats | None) -> dict[str, float]:
    """All figures of some checkpoints.

    Args:
        errors: (N,) metres.
        sigma: (N,) the checkpoints' own standard deviations, or None.
    """
    if not errors.size:
        return {"count": 0, **dict.fromkeys(_KEYS, math.nan), "standard_error_of_mean": math.nan}
    survey = 0.0 if sigma is None else float(np.sqrt(np.mean(sigma**2)))
    rmse = float(np.sqrt(np.mean(errors**2)))
    median = float(np.median(errors))
    deviation = float(errors.std(ddof=1)) if errors.size > 1 else math.nan
    return {
        "count": int(errors.size),
        "mean": float(errors.mean()),
        "median": median,
        "standard_deviation": deviation,
        "nmad": 1.4826 * float(np.median(np.abs(errors - median))),
        "le90": float(np.percentile(np.abs(errors), 90.0)),
        "largest": float(errors[np.abs(errors).argmax()]),
        "rmse_z": rmse,
        "survey_rmse": survey,
        "rmse_v": math.hypot(rmse, survey),
        "standard_error_of_mean": deviation / math.sqrt(errors.size),
    }


@dataclass(frozen=True)
class PointErrors:
    """Checkpoints on a scene, and the errors of the maps there.

    Attributes:
        rows: (N,) pixels of the prediction.
        columns: the same.
        truth: (N,) metres.
        errors: by map, (N,) metres.
        sigma: (N,) their own standard deviations, or None.
        labels: (N,) their classes as written, or None.
        vegetated: (N,) whether a class is vegetated.
    """

    rows: Floats
    columns: Floats
    truth: Floats
    errors: dict[str, Floats]
    sigma: Floats | None
    labels: NDArray[np.str_] | None
    vegetated: NDArray[np.bool_]


@dataclass(frozen=True)
class CheckpointScores:
    """All that checkpoints say of height maps.

    Attributes:
        inputs: facts on the files.
        points: the checkpoints that all maps know.
        left_out: by reason, how many rows of the table did not count.
        before: the scores of the maps where they lay, if they were moved.
        shifts: by map, how it was moved; empty where none was.
    """

    inputs: dict[str, dict[str, Any]]
    points: PointErrors
    left_out: dict[str, int]
    before: CheckpointScores | None = None
    shifts: dict[str, Shift] = field(default_factory=dict)

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """By name, which checkpoints: all, NVA and VVA where there are both, and the classes."""
        points = self.points
        found = {"all": np.ones(len(points.truth), bool)}
        if points.labels is None:
            return found
        found |= {"NVA": ~points.vegetated, "VVA": points.vegetated}
        names = sorted(set(points.labels.tolist()))
        if len(names) <= 20:
            found |= {name or "(no class)": points.labels == name for name in names if name not in found}
        return found

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        """By map and group."""
        sigma = self.points.sigma
        return {
            name: {
                group: figures(errors[chosen], None if sigma is None else sigma[chosen])
                for group, chosen in self.groups().items()
            }
            for name, errors in self.points.errors.items()
        }

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers."""
        lines = [f"{name}: {shift}." for name, shift in self.shifts.items()]
        if self.shifts:
            lines.append("Each fifth of the checkpoints judges the move that the others found.")
        if self.left_out:
            why = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.left_out.items())
            lines.append(f"Left out: {why}.")
        for group, chosen in self.groups().items():
            count = int(chosen.sum())
            if group in ("all", "NVA") and count < FEWEST:
                lines.append(f"{group}: {count} checkpoints, fewer than the {FEWEST} that ASPRS 2023 asks for.")
            if group == "all" and count > MOST:
                lines.append(f"{group}: {count} checkpoints; ASPRS 2023 needs no more than {MOST}.")
        if self.points.sigma is None:
            lines.append("The checkpoints' own accuracy is not given (--points-accuracy): RMSE_V takes it as 0.")
        for name, found in self.figures().items():
            one = found["all"]
            if abs(one["mean"]) > 0.25 * one["rmse_z"]:
                lines.append(
                    f"{name}: the mean, {one['mean']:+.3f} m, is more than a quarter of the RMSE, "
                    f"{one['rmse_z']:.3f} m: look for another vertical datum, a shift, or surface against ground."
                )
        datums = {name: facts["vertical_datum"]["code"] for name, facts in self.inputs.items()}
        unknown = "; what is unknown was compared as it is" if "unknown" in datums.values() else ""
        lines.append(f"Vertical datum: {', '.join(f'{name} {code}' for name, code in datums.items())}{unknown}.")
        for name, facts in self.inputs.items():
            if "brought_to" in facts["vertical_datum"]:
                to = facts["vertical_datum"]["brought_to"]["code"]
                lines.append(f"{name}: heights brought from {facts['vertical_datum']['code']} to {to}.")
        lines.append("Errors are map minus checkpoint.")
        return lines

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows."""
        rows = []
        for name, found in self.figures().items():
            for group, one in found.items():
                numbers = ["—" if math.isnan(one[key]) else f"{one[key]:.3f}" for key in _KEYS]
                rows.append([name, group, f"{one['count']}", *numbers])
        return ["map", "checkpoints", "n", *_KEYS.values()], rows

    def text(self) -> str:
        """Notes and table; of moved maps also those before the move."""
        text = "  \n".join(self.notes()) + "\n\n" + format_table(*self.table())
        if self.before is None:
            return text
        return f"As the files lie\n\n{self.before.text()}\n\nAfter coregistration with the checkpoints\n\n{text}"

    def _moves(self) -> dict[str, Any]:
        """How maps were moved, and the scores before that."""
        if self.before is None:
            return {}
        moves = {name: shift.describe() for name, shift in self.shifts.items()}
        return {"coregistration": moves, "before_coregistration": {"scores": self.before.figures()}}

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.inputs,
            "standard": "ASPRS Positional Accuracy Standards for Digital Geospatial Data, edition 2 (2023)",
            "scores": self.figures(),
            "left_out": self.left_out,
            **self._moves(),
            "notes": self.notes(),
            "definitions": DEFINITIONS,
        }
