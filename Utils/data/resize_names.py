"""Names that users write in configs for how maps are resized; without torch."""

from __future__ import annotations

from typing import Literal

Resize = Literal["area", "nearest"]
"""``area``: the mean of what a pixel covers; ``nearest``: the pixel at its centre."""
