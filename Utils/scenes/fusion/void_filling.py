"""Unknown cells of a coarse map, continued smoothly from the known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.fill import fillnodata
from scipy import sparse
from scipy.sparse.linalg import cg

Cells = NDArray[np.float32]


def fill_smoothly(cells: Cells) -> Cells:
    """Fill unknown (NaN) cells (h, w) with the membrane that hangs from the known ones: the Laplacian is 0 there."""
    unknown = ~np.isfinite(cells)
    if not unknown.any() or unknown.all():
        return np.nan_to_num(cells)
    height, width = cells.shape
    start = fillnodata(np.where(unknown, 0.0, cells).astype(np.float32), ~unknown, max_search_distance=height + width)
    number = np.full(cells.shape, -1)
    number[unknown] = np.arange(unknown.sum())
    rows, columns = np.nonzero(unknown)
    diagonal, sides = np.zeros(len(rows)), np.zeros(len(rows))
    places: list[NDArray[np.intp]] = []
    others: list[NDArray[np.intp]] = []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        there_rows, there_columns = rows + down, columns + across
        inside = (there_rows >= 0) & (there_rows < height) & (there_columns >= 0) & (there_columns < width)
        diagonal += inside
        other = np.full(len(rows), -1)
        other[inside] = number[there_rows[inside], there_columns[inside]]
        fixed = inside & (other < 0)
        sides[fixed] += cells[there_rows[fixed], there_columns[fixed]]
        places.append(np.nonzero(other >= 0)[0])
        others.append(other[other >= 0])
    where, beside = np.concatenate(places), np.concatenate(others)
    beneath = sparse.csr_array((-np.ones(len(where)), (where, beside)), shape=(len(rows), len(rows)))
    laplacian = sparse.csr_array(beneath + sparse.diags_array(diagonal))
    solved, _ = cg(laplacian, sides, x0=start[unknown].astype(np.float64), rtol=1e-6, maxiter=500)
    filled = cells.copy()
    filled[unknown] = solved
    return filled
