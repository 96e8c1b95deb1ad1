"""What may rise in a map of relative depth or height; without torch."""

from __future__ import annotations

from typing import Literal, get_args

Direction = Literal["height", "depth", "inverse depth"]
"""What rises in a map: the height of the ground, the distance from the camera, or the inverse of that distance."""
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
