"""Published IoUs on LoveDA across domains, in per cent: by class, with the mean as it was published.

Means that do not follow from their own columns are said to: rounding moves a mean by 0.01 at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PUBLISHED_LOVEDA", "Direction", "PublishedRow", "published_rows"]

Direction = Literal["Urban to Rural", "Rural to Urban"]
_ROUNDING = 0.015


@dataclass(frozen=True)
class PublishedRow:
    """One method's row.

    Attributes:
        method: its name; target images without labels were used but where ``source_only``.
        direction: trained on, scored on.
        ious: IoU of background, building, road, water, barren, forest, agriculture; None where only means are known.
        mean: the mean as it was published.
        source_only: whether no image of the target was used.
    """

    method: str
    direction: Direction
    ious: tuple[float, ...] | None
    mean: float
    source_only: bool = False

    @property
    def differs(self) -> float | None:
        """The mean of the columns where that is not the published one; None where it is, or there are no columns."""
        if self.ious is None:
            return None
        own = sum(self.ious) / len(self.ious)
        return own if abs(own - self.mean) > _ROUNDING else None


_U2R: Direction = "Urban to Rural"
_R2U: Direction = "Rural to Urban"
PUBLISHED_LOVEDA = (
    PublishedRow("DeeplabV3", _U2R, (26.64, 48.14, 23.37, 43.97, 11.35, 32.47, 50.61), 33.79, True),
    PublishedRow("CBST", _U2R, (25.06, 44.02, 23.79, 50.48, 8.33, 39.16, 49.65), 34.36),
    PublishedRow("IAST", _U2R, (29.97, 49.48, 28.29, 64.49, 2.13, 33.36, 61.37), 38.44),
    PublishedRow("SegFormer", _U2R, (26.60, 55.80, 35.62, 65.44, 17.13, 40.13, 39.65), 40.05, True),
    PublishedRow("DCA", _U2R, (36.38, 55.89, 40.46, 62.03, 22.01, 38.92, 60.52), 45.17),
    PublishedRow("ST-DASegNet", _U2R, (36.78, 59.83, 43.77, 73.83, 19.38, 49.96, 67.01), 50.08),
    PublishedRow("ConvNeXt-B, RGB", _U2R, (35.51, 56.14, 40.88, 70.05, 13.99, 48.42, 64.91), 47.13, True),
    PublishedRow("ConvNeXt B + S, depth", _U2R, (36.79, 59.27, 46.97, 71.31, 19.87, 41.62, 67.05), 48.98, True),
    PublishedRow("ConvNeXt XL + B, depth", _U2R, (37.23, 63.05, 42.69, 71.71, 19.91, 45.03, 68.36), 49.71, True),
    PublishedRow("DeeplabV3", _R2U, (32.81, 43.41, 27.59, 79.23, 14.84, 29.24, 20.97), 35.44, True),
    PublishedRow("SegFormer", _R2U, (44.98, 43.93, 27.46, 85.82, 16.24, 37.02, 30.48), 40.85, True),
    PublishedRow("DCA", _R2U, (45.82, 49.60, 51.65, 80.88, 16.70, 42.93, 36.92), 46.36),
    PublishedRow("DAFormer", _R2U, (50.94, 56.66, 62.83, 89.41, 11.99, 45.81, 25.26), 48.99),
    PublishedRow("ConvNeXt-B, RGB", _R2U, (46.77, 46.52, 37.27, 82.30, 17.33, 42.34, 36.27), 44.11, True),
    PublishedRow("ConvNeXt B + B, depth", _R2U, (48.23, 52.68, 42.70, 77.18, 16.62, 40.85, 48.86), 46.73, True),
    PublishedRow("ConvNeXt XL + B, depth", _R2U, (50.56, 51.81, 42.89, 85.11, 16.69, 42.67, 44.00), 47.68, True),
)
"""The rows of which every column is known, on LoveDA's test images (whose labels are not public)."""

MEANS_THAT_DIFFER = {
    ("PyCDA", _U2R): (32.14, 31.49),
    ("ST-DASegNet (DeeplabV3)", _U2R): (45.69, 46.67),
    ("AdaptSegNet", _R2U): (32.68, 32.57),
    ("ST-DASegNet (SegFormer)", _R2U): (50.28, 50.25),
}
"""Published means that are not those of their own columns: the published one, and that of the columns."""


def published_rows(trained_on: str, scored_on: str) -> list[PublishedRow]:
    """The rows of a direction, such as from Urban to Rural; none for others."""
    return [row for row in PUBLISHED_LOVEDA if row.direction == f"{trained_on} to {scored_on}"]
