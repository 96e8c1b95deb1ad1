"""Scenes to try the app with: synthetic ground, made when the app starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["EXAMPLES", "Example", "make_examples"]

_SIZE, _SEED = 384, 20_000

EXAMPLES = ("the image alone", "with a coarse DEM", "with heights at points")
"""What an example gives beside the image."""


@dataclass(frozen=True)
class Example:
    """Files of one example; None for what is not given."""

    image: str
    reference: str | None = None
    points: str | None = None


def make_examples(folder: Path) -> dict[str, Example]:
    """Write the scene of the examples into an empty folder; gives them by name, in the order of ``EXAMPLES``."""
    from Utils.synthetic.terrain_scene import write_scene

    files = write_scene(folder, _SIZE, _SEED)
    image = str(files.image)
    given = (Example(image), Example(image, str(files.reference)), Example(image, None, str(files.points)))
    return dict(zip(EXAMPLES, given, strict=True))
