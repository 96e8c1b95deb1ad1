"""A height raster and its image as a surface for a page, with its flight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Utils.reports.items import Relief
from Utils.scenes.relief.flight import plan_flight
from Utils.scenes.relief.glb_file import write_glb
from Utils.scenes.relief.relief_grid import ReliefGrid, read_relief_grid

__all__ = ["relief_item"]

ON_A_PAGE = 50_000
"""Most triangles of a surface on a page: some 2 MB of its file."""


def relief_item(output: Path, image: NDArray[np.floating], most_triangles: int = ON_A_PAGE, title: str = "") -> Relief:
    """A height raster as a page's item.

    Args:
        output: the raster.
        image: (3, h, w) in [0, 1], of the same ground from edge to edge.
        most_triangles: bound of the triangles.
        title: heading above it.

    Raises:
        RasterError: the raster cannot be read.
        UserError: it has no valid height, or is a single row or column.
    """
    grid = read_relief_grid(output, most_triangles)
    flight = plan_flight(grid).as_json()
    step = f"A step of the surface is {grid.pixels_a_step:.3g} pixels. " if grid.pixels_a_step > 1 else ""
    return Relief(
        title,
        write_glb(grid, image),
        flight["eyes"],
        flight["targets"],
        label_of(grid),
        grid.in_metres,
        f"{step}Drag turns it, shift and drag moves it, the wheel zooms. The arrow on the ground points north.",
    )


def label_of(grid: ReliefGrid) -> str:
    """Size and relief in words."""
    size = [float(np.ptp(values)) for values in (grid.east, grid.north)]
    if not grid.on_ground:
        ground = f"{size[0]:.0f} x {size[1]:.0f} pixels"
    elif max(size) >= 10_000:
        ground = f"{size[0] / 1000:.1f} x {size[1] / 1000:.1f} km"
    else:
        ground = f"{size[0]:.0f} x {size[1]:.0f} m"
    if grid.in_metres:
        return f"{ground}, heights from {grid.lowest:.1f} to {grid.highest:.1f} m"
    return f"{ground}, heights without a unit, drawn as a tenth of the longer side"
