"""Names that users write in configs for the scores of depth; without numpy."""

from __future__ import annotations

from typing import Literal, get_args

Crop = Literal["none", "eigen_nyu", "garg"]
CROPS: tuple[Crop, ...] = get_args(Crop)
