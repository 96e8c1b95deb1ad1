"""How a scene's classes are drawn: what the command line says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["ClassOptions"]

_LEFT_OUT = ("resume", "overwrite", "preview", "report")


@dataclass(frozen=True)
class ClassOptions:
    """How a scene's classes are drawn.

    Attributes:
        tile_size: side of a tile in pixels; the size that the model was trained on is best.
        overlap: pixels that neighbouring tiles share at least; None takes a third of the tile, as evaluations do.
        bands: 1 or 3 numbers of bands, from 1; None takes the first three.
        nodata: a value that means no data, in addition to the one that the file names.
        suspect_voids: whether values and frames that look like no data are left out though nobody declares them.
        stretch: percentiles of the scene that become black and white; None takes the full range, as the training does.
        white: the value that is white where the range is full; None for what the file's type says.
        batch_size: number of tiles that are drawn at once.
        relative_depth: a raster of relative depth or height of the same place; None where the model sees none.
        rises: what rises in it; None for what the file or the JSON beside it says, and height where neither does.
        probabilities: whether the probability of each class and the entropy are written too.
        polygons: whether polygons are written too.
        preview: whether a picture is drawn too.
        report: whether a page is written too.
        resume: whether an interrupted run is continued.
        overwrite: whether an older output, or what is left of an interrupted run, is replaced.
    """

    tile_size: int = 512
    overlap: int | None = None
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    suspect_voids: bool = True
    stretch: tuple[float, float] | None = None
    white: float | None = None
    batch_size: int = 4
    relative_depth: Path | None = None
    rises: Literal["depth", "height"] | None = None
    probabilities: bool = False
    polygons: bool = False
    preview: bool = False
    report: bool = False
    resume: bool = False
    overwrite: bool = False

    @property
    def shared(self) -> int:
        """The overlap in pixels."""
        return self.tile_size // 3 if self.overlap is None else self.overlap

    def describe(self) -> dict[str, Any]:
        """The options as JSON; files by name, because their paths mean nothing on other machines."""
        plain = {name: value.name if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {name: value for name, value in plain.items() if name not in _LEFT_OUT}
