"""Grids of rasters in one form: rotations that are rounding errors, and rows or columns stored the other way round."""

from __future__ import annotations

from affine import Affine

__all__ = ["cell_lattice", "straightened", "upright"]

# A rotation that moves no pixel by more than this many pixels is a rounding error of whoever wrote the file.
_LEAST_ROTATION = 1e-3


def straightened(transform: Affine, height: int, width: int) -> Affine:
    """Give a transform without rotation terms that move no pixel of the raster by a thousandth of a pixel.

    Args:
        transform: pixel (column, row) to map coordinates.
        height: rows of the raster.
        width: columns of the raster.
    """
    a, b, c, d, e, f = transform[:6]
    if abs(b) * height <= _LEAST_ROTATION * abs(a) and abs(d) * width <= _LEAST_ROTATION * abs(e):
        return Affine(a, 0.0, c, 0.0, e, f)
    if abs(a) * width <= _LEAST_ROTATION * abs(b) and abs(e) * height <= _LEAST_ROTATION * abs(d):
        return Affine(0.0, b, c, d, 0.0, f)  # turned by a right angle
    return transform


def cell_lattice(transform: Affine, height: int, width: int) -> tuple[Affine, int, int]:
    """Find the north-up form of a grid, for cells that are looked up by place and not by row and column.

    Args:
        transform: pixel (column, row) to map coordinates.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        The transform, rows and columns of the same cells. A grid on its side stands up; one
        that is rotated otherwise is returned as ``upright`` gives it.
    """
    straight = straightened(transform, height, width)
    if straight.a == straight.e == 0.0:
        straight, height, width = straight @ Affine(0.0, 1.0, 0.0, 1.0, 0.0, 0.0), width, height
    return upright(straight, height, width)[0], height, width


def upright(transform: Affine, height: int, width: int) -> tuple[Affine, bool, bool]:
    """Find the north-up form of a grid whose rows run to the north or whose columns run to the west.

    Args:
        transform: pixel (column, row) to map coordinates.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        The transform of the north-up form; whether its rows are the raster's in reverse; whether its columns are. A
        rotated grid is returned as it is, but for its mirror image, whose rows are reversed.
    """
    straight = straightened(transform, height, width)
    if straight.b == straight.d == 0.0:
        rows, columns = straight.e > 0.0, straight.a < 0.0
    else:
        rows, columns = straight.determinant > 0.0, False
    turned = straight
    if rows:
        turned = turned @ Affine.translation(0.0, height) @ Affine.scale(1.0, -1.0)
    if columns:
        turned = turned @ Affine.translation(width, 0.0) @ Affine.scale(-1.0, 1.0)
    return turned, rows, columns
