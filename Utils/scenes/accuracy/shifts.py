"""How a map was moved before it was scored again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Shift"]


@dataclass(frozen=True)
class Shift:
    """What a map is moved by so that it lies on the truth, as Nuth and Kaab find it.

    Attributes:
        columns: pixels of the grid to the right.
        rows: pixels down.
        metres: metres up.
        east: metres to the east; NaN where a pixel's size is unknown.
        north: metres to the north.
        nmad_before: of the errors on stable ground, metres.
        nmad_after: the same after the move.
        pixels: of stable ground, without outliers, that the shift was found on.
        offered: pixels before outliers were left out.
        vectors: by block of the scene: middle column and row, and its own shift in columns and rows.
        error: standard error of the horizontal shift in pixels, where it does not follow from the blocks.
        where: what the shift was found on.
    """

    columns: float
    rows: float
    metres: float
    east: float
    north: float
    nmad_before: float
    nmad_after: float
    pixels: int
    offered: int
    vectors: list[tuple[float, float, float, float]] = field(default_factory=list)
    error: float = math.nan
    where: str = "pixels of stable ground"

    @property
    def standard_error(self) -> float:
        """Of the horizontal shift in pixels, from how its blocks differ if there are three; NaN if it is unknown."""
        if len(self.vectors) < 3:
            return self.error
        apart = np.array(self.vectors)[:, 2:]
        return float(np.sqrt(apart.var(axis=0, ddof=1).sum() / len(apart)))

    def __str__(self) -> str:
        """One phrase for tables."""
        metres = f"{self.east:+.3f} m east, {self.north:+.3f} m north, " if math.isfinite(self.east) else ""
        error = f" ± {self.standard_error:.2f}" if math.isfinite(self.standard_error) else ""
        return (
            f"moved by {metres}{self.metres:+.3f} m up ({self.columns:+.3f} columns, {self.rows:+.3f} rows{error}); "
            f"NMAD on {self.pixels:,} of {self.offered:,} {self.where}: {self.nmad_before:.3f} -> "
            f"{self.nmad_after:.3f} m"
        )

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "standard_error_pixels": self.standard_error, "how": str(self)}
