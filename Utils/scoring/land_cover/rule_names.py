"""Names that users write in configs for scores of land cover; without torch."""

from __future__ import annotations

from typing import Literal

AbsentClasses = Literal["count as 0", "left out"]
"""What a class that neither truth nor prediction has anywhere does in means over classes."""
