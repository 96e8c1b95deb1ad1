"""Made-up HiRISE stereo products with labels of the real form: DTMs as .IMG, orthoimages as .JP2 with .LBL.

``python -m Utils.synthetic.mars_products --output DIR --pairs 12`` writes them in the folders of the public archive.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from Utils.core.command_line import run_script
from Utils.core.errors import UserError
from Utils.rasters.planetary.product_label import Sun
from Utils.rasters.planetary.special_values import NULL
from Utils.synthetic.dataset_folder import claim, make_scenes
from Utils.synthetic.mars_ground import KINDS, make_ground
from Utils.synthetic.mars_image import SHADINGS, render_image
from Utils.synthetic.mars_labels import MarsGrid, dtm_label, ortho_label

__all__ = ["MarsPair", "plan_pairs", "write_pair", "write_products"]

Floats = NDArray[np.float64]

# The image reaches so many pixels beyond the DTM: above, left, below, right. No shape is the same as the DTM's.
_BEYOND = (6, 10, 4, 8)
_ORBIT = 30_000


@dataclass(frozen=True)
class MarsPair:
    """One pair of products that is to be written.

    Attributes:
        number: of the ground, from 0; pairs of one number share ground.
        second: whether this is a later pair, half a scene further south, under another sun.
        kind: of the ground, one of ``mars_ground.KINDS``.
        shading: one of ``mars_image.SHADINGS``.
        size: rows and columns of the DTM.
        finer: image pixels along a side of a DTM pixel: 1 or 2.
        polar: whether the projection is polar stereographic.
        radius: whether the DTM holds radii, not heights.
        tells_sun: whether the orthoimage's label says where the sun stood.
        seed: not negative.
    """

    number: int
    second: bool
    kind: str
    shading: str
    size: tuple[int, int]
    finer: int
    polar: bool
    radius: bool
    tells_sun: bool
    seed: int

    @property
    def sources(self) -> tuple[str, str]:
        """Orbit and target of the two observations."""
        orbit = _ORBIT + 20 * self.number + (10 if self.second else 0)
        target = f"{1800 + 5 * self.number:04d}"
        return f"{orbit:06d}_{target}", f"{orbit + 1:06d}_{target}"

    @property
    def dtm(self) -> str:
        """Name of the DTM, without suffix."""
        kinds = ("R" if self.radius else "E") + ("P" if self.polar else "E") + "C"
        return f"DT{kinds}_{'_'.join(self.sources)}_Z01"

    @property
    def ortho(self) -> str:
        """Name of the orthoimage of the first observation, without suffix."""
        return f"ESP_{self.sources[0]}_RED_{'B' if self.finer == 2 else 'C'}_01_ORTHO"

    @property
    def folder(self) -> Path:
        """Where the archive would have it."""
        first, second = (f"ESP_{source}" for source in self.sources)
        hundred = int(self.sources[0][:6]) // 100 * 100
        return Path("ESP") / f"ORB_{hundred:06d}_{hundred + 99:06d}" / f"{first}_{second}"


def plan_pairs(
    pairs: int,
    size: tuple[int, int],
    seed: int,
    repeats: int = 1,
    finer: int = 1,
    polar: int = 0,
    radius: int = 0,
    tells_sun: bool = True,
) -> list[MarsPair]:
    """Plan pairs of products: kinds of ground and shadings take turns.

    Args:
        pairs: number of grounds.
        size: rows and columns of each DTM.
        seed: not negative.
        repeats: of how many grounds there is a second pair that shares half of it.
        finer: image pixels along a side of a DTM pixel: 1 or 2.
        polar: how many of the first grounds lie at the north pole.
        radius: how many of the last DTMs hold radii.
        tells_sun: whether labels say where the sun stood.

    Raises:
        ValueError: a number is out of range.
    """
    if pairs < 1 or not 0 <= repeats <= pairs or finer not in (1, 2) or min(size) < 48 or seed < 0:
        raise ValueError(f"{pairs} pairs of {size}, {repeats} repeats, finer {finer}, seed {seed}: out of range")
    planned = []
    for number in range(pairs):
        kind, shading = KINDS[number % len(KINDS)], SHADINGS[number // len(KINDS) % len(SHADINGS)]
        for second in (False, True) if number >= pairs - repeats else (False,):
            is_radius = number >= pairs - radius
            planned.append(
                MarsPair(number, second, kind, shading, size, finer, number < polar, is_radius, tells_sun, seed)
            )
    return planned


def write_products(folder: Path, planned: Sequence[MarsPair], workers: int | None = None) -> None:
    """Write pairs and a README.txt; the files depend on the plans alone, not on ``workers``.

    Raises:
        FileExistsError: ``folder`` holds other products.
    """
    described = "Made-up HiRISE products (Utils/synthetic/mars_products.py):\n" + "".join(f"{one}\n" for one in planned)
    claim(folder, described, ("ESP",))
    make_scenes(partial(write_pair, folder), planned, workers)


def write_pair(folder: Path, pair: MarsPair) -> None:
    """Write the DTM, the orthoimage and its label of one pair below ``folder``."""
    place = folder / pair.folder
    place.mkdir(parents=True, exist_ok=True)
    ground = np.random.default_rng([pair.seed, pair.number])
    grid, fine = _grids(pair, ground)
    metres = fine.metres
    top, left, bottom, right = (pair.finer * pixels for pixels in _BEYOND)
    # Half as long again, so that a second pair finds its ground here.
    long = (pair.size[0] * 3 // 2) * pair.finer
    heights = make_ground((top + long + bottom, left + pair.size[1] * pair.finer + right), pair.kind, ground) * metres
    heights += ground.uniform(-4000.0, 2000.0)
    start = (pair.size[0] // 2) * pair.finer if pair.second else 0
    seen = heights[start : start + fine.rows]
    own = np.random.default_rng([pair.seed, pair.number, 1 + pair.second])
    sun = Sun(own.uniform(255.0, 285.0), own.uniform(30.0, 50.0))
    image = render_image(seen, metres, sun.azimuth, sun.elevation, pair.shading, own)
    image[_outside(image.shape, own)] = 0
    _write_ortho(place, pair, fine, image, sun)
    _write_dtm(place, pair, grid, _measured(seen[top : fine.rows - bottom, left : fine.columns - right], pair, own))


def _grids(pair: MarsPair, generator: np.random.Generator) -> tuple[MarsGrid, MarsGrid]:
    """The grids of the DTM and of the image."""
    metres = generator.uniform(0.99, 1.02)
    rows, columns = pair.size
    # Grounds lie 3 degrees of longitude apart, so that none meets another.
    longitude, latitude = (3.0 * pair.number) % 360.0, generator.uniform(-50.0, 50.0)
    centre = 90.0 if pair.polar else math.copysign(math.floor(abs(latitude) / 5.0) * 5.0, latitude)
    grid = MarsGrid(rows, columns, metres, 0.0, 0.0, centre, 0.0 if pair.polar else longitude)
    if pair.polar:
        across, up = 2000.0 + 5000.0 * pair.number, -90_000.0
    else:
        across, up = generator.uniform(-500.0, 500.0), math.radians(latitude) * grid.radius
    left, top = round(across / metres) * metres, round(up / metres) * metres
    top -= (rows // 2) * metres if pair.second else 0.0
    grid = MarsGrid(rows, columns, metres, left, top, grid.latitude, grid.longitude)
    above, before, below, behind = (pair.finer * pixels for pixels in _BEYOND)
    step = metres / pair.finer
    fine = MarsGrid(
        above + rows * pair.finer + below,
        before + columns * pair.finer + behind,
        step,
        left - before * step,
        top + above * step,
        grid.latitude,
        grid.longitude,
    )
    return grid, fine


def _measured(heights: Floats, pair: MarsPair, generator: np.random.Generator) -> NDArray[np.float32]:
    """What stereo makes of ground: means over DTM pixels, smooth errors of 0.1 m, nulls beyond the swath."""
    rows, columns = pair.size
    means = heights.reshape(rows, pair.finer, columns, pair.finer).mean(axis=(1, 3))
    noise = ndimage.gaussian_filter(generator.standard_normal(means.shape), 1.5)
    measured = (means + 0.1 * noise / noise.std()).astype(np.float32)
    if pair.radius:
        measured = (measured.astype(np.float64) + 3_396_190.0).astype(np.float32)
    measured[_outside(measured.shape, generator)] = NULL
    return measured


def _outside(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.bool_]:
    """(H, W) beyond the slanted borders of the swath."""
    rows, columns = np.indices(shape)
    slant = generator.uniform(0.02, 0.05)
    edge = slant * rows
    return (columns < slant * shape[0] - edge) | (columns >= shape[1] - edge)


def _write_dtm(place: Path, pair: MarsPair, grid: MarsGrid, heights: NDArray[np.float32]) -> None:
    known = heights[heights > -1e30]
    sources = f"ESP_{pair.sources[0]}", f"ESP_{pair.sources[1]}"
    label = dtm_label(grid, pair.dtm, sources, float(known.min()), float(known.max()))
    (place / f"{pair.dtm}.IMG").write_bytes(label + heights.astype("<f4").tobytes())


def _write_ortho(place: Path, pair: MarsPair, grid: MarsGrid, image: NDArray[np.uint8], sun: Sun) -> None:
    profile = {"driver": "JP2OpenJPEG", "dtype": "uint8", "count": 1, "QUALITY": "100", "REVERSIBLE": "YES"}
    where = {"height": grid.rows, "width": grid.columns, "crs": grid.crs, "transform": grid.transform}
    with rasterio.open(place / f"{pair.ortho}.JP2", "w", **profile, **where) as target:
        target.write(image, 1)
    sources = f"ESP_{pair.sources[0]}", pair.dtm
    label = ortho_label(grid, pair.ortho, sources, sun if pair.tells_sun else None)
    (place / f"{pair.ortho}.LBL").write_bytes(label)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m Utils.synthetic.mars_products", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the products")
    parser.add_argument("--pairs", type=int, default=12, metavar="N", help="number of grounds (12)")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), metavar=("ROWS", "COLUMNS"), help="of a DTM")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="grounds that a second pair shares (1)")
    parser.add_argument("--finer", type=int, default=1, choices=(1, 2), help="image pixels a DTM pixel (1)")
    parser.add_argument("--polar", type=int, default=0, metavar="N", help="grounds at the north pole (0)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (0)")
    given = parser.parse_args(arguments)

    def work() -> None:
        size = given.size[0], given.size[1]
        try:
            planned = plan_pairs(given.pairs, size, given.seed, given.repeats, given.finer, given.polar)
            write_products(given.output, planned)
        except (ValueError, FileExistsError) as error:
            raise UserError(str(error)) from error
        print(f"{len(planned)} pairs of products in '{given.output}'")

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
