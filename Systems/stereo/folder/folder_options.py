"""What the command line of predictStereo.py says of a dataset folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["FolderOptions"]


@dataclass(frozen=True)
class FolderOptions:
    """How the views of a dataset become maps and a height raster.

    Attributes:
        dataset: a folder in a published layout (the one that holds train and test, or one of them), or a table.
        output: folder of the maps.
        part: train or test; None for what the folder's name says, or test.
        views: views that are matched together, the reference among them; None for all, at most 5.
        interval: metres between two values; None for what the camera files say.
        values: lowest and highest depth or height in metres; None for what the camera files say.
        relative_depth: folder of relative depth maps within the part; None for none.
        window: pixels along the side of the sweep's windows.
        agreeing: how many other views have to find the same place.
        tolerance: pixels by which two views may disagree about a point.
        dsm: the height raster to write; None for none.
        resolution: metres of its cells; None for the images' own.
        crs: the system of pinhole cameras' worlds, or the output's system with RPCs; None for none, and the UTM zone.
        least_coverage: share of what two views see that they must agree on.
        preview: whether a picture of the raster is written.
        resume: whether to go on with the maps that are there.
        overwrite: whether older files are replaced.
    """

    dataset: Path
    output: Path
    part: str | None = None
    views: int | None = None
    interval: float | None = None
    values: tuple[float, float] | None = None
    relative_depth: str | None = None
    window: int = 9
    agreeing: int = 1
    tolerance: float = 1.0
    dsm: Path | None = None
    resolution: float | None = None
    crs: str | None = None
    least_coverage: float = 0.5
    preview: bool = False
    resume: bool = False
    overwrite: bool = False
