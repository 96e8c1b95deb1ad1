"""What maps show: its name, its unit, and how it is drawn. Pictures and reports take their words from here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEPTH", "DEPTH_IN_METRES", "HEIGHT", "Quantity"]

_GREY_LEVELS = (0.0, 255.0)


@dataclass(frozen=True)
class Quantity:
    """What maps show.

    Attributes:
        name: one value of it, such as ``height``.
        plural: a map of it, such as ``heights``.
        unit: unit in which it is drawn; empty where each map is stretched to 0..255.
        truth: the entry of a sample that holds its true map.
        has_relief: whether maps are drawn as shaded hills too, which suits surfaces that are seen from above.
    """

    name: str
    plural: str
    unit: str = ""
    truth: str = "target"
    has_relief: bool = True

    @property
    def label(self) -> str:
        """Label of a colour scale."""
        return f"{self.name} ({self.unit})" if self.unit else f"{self.name} (0 to 255)"

    @property
    def error_label(self) -> str:
        """Label of the colour scale of errors."""
        return f"error (prediction minus truth{f', {self.unit}' if self.unit else ''})"

    @property
    def fixed_range(self) -> tuple[float, float] | None:
        """The ends of the colour scale; None where they are those of the values that are drawn."""
        return None if self.unit else _GREY_LEVELS


HEIGHT = Quantity("height", "heights")
"""Heights, of any unit and level: each map is stretched."""
DEPTH = Quantity("depth", "depth", truth="depth", has_relief=False)
"""Depth without a unit."""
DEPTH_IN_METRES = Quantity("depth", "depth", "m", truth="depth", has_relief=False)
"""Depth, or distance, in metres."""
