"""Samples for a refiner of DEMs: a coarse DEM that is made of true heights, and what the DEM alone shows of them.

A sample takes a second to make and is made once: it is kept on disk.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from Systems.d3rsmde.dem_prior.config import DrawsSection
from Systems.d3rsmde.dem_prior.ground import Ground, Grounds
from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.core.seeds import derive_seed
from Utils.data.dataset import SampleDataset
from Utils.data.sample import Kind, Kinds, Sample
from Utils.scenes.fusion.detail_fusion import TRUST_AN_OCTAVE
from Utils.scenes.fusion.least_error.joined_windows import SAMPLES_A_CELL
from Utils.scenes.fusion.octave import Octave

_KINDS = {
    "surface": Kind.MAP,
    "error": Kind.MAP,
    "relief": Kind.MAP,
    "truth": Kind.MAP,
    "valid": Kind.MASK,
    "image": Kind.IMAGE,
    "id": Kind.TEXT,
}
_MARK = "#"
# With fewer cells along a side a DEM tells little of its ground.
_FEWEST_CELLS = 8
_HIGHEST_SHARE_IN_VOIDS = 0.05
_FARTHEST = 0.25  # cells by which a DEM is displaced or blurred


class DrawnDems(SampleDataset):
    """Coarse DEMs of pieces of ground, at ``SAMPLES_A_CELL`` samples along a cell.

    A sample holds, each (1, H, W) float32, ``surface``, ``error`` and ``relief`` in the heights' unit as ``DemRefiner``
    takes them, and ``truth``; ``valid`` (1, H, W) bool; ``image`` (3, H, W), all 0 where there is none; and ``id``.

    Args:
        grounds: the ground.
        names: which pieces of it.
        settings: how DEMs are made.
        folder: where samples are kept.
        smallest: side in samples below which no sample may be.
        options: see ``SampleDataset``.

    Raises:
        UserError: no piece is large enough.
    """

    def __init__(
        self,
        grounds: Grounds,
        names: Sequence[str],
        settings: DrawsSection,
        folder: Path,
        smallest: int,
        **options: Any,
    ) -> None:
        super().__init__(
            [f"{name}{_MARK}{number}" for name in names for number in range(settings.draws)], one_size=False, **options
        )
        self._grounds, self._settings, self._folder, self._smallest = grounds, settings, folder, smallest

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of a sample's entries."""
        return _KINDS

    def read(self, sample_id: str) -> Sample:
        """A sample from disk, or made now and kept."""
        path = self._folder / f"{derive_seed(self.seed, sample_id):016x}.npz"
        try:
            with np.load(path) as kept:
                arrays = dict(kept)
        except (OSError, ValueError, EOFError, BadZipFile):
            arrays = self._made(sample_id)
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                atomic_write_bytes(path, buffer.getbuffer())
            except OSError as error:
                raise write_error(path, error, "continue with --resume") from error
        sample: Sample = {name: torch.from_numpy(values) for name, values in arrays.items()}
        sample["valid"] = torch.isfinite(sample["truth"])
        sample["truth"] = torch.nan_to_num(sample["truth"])
        return sample | {"id": sample_id}

    def _made(self, sample_id: str) -> dict[str, NDArray[np.float32]]:
        name, _, _ = sample_id.rpartition(_MARK)
        random = np.random.default_rng(derive_seed(self.seed, "dem", sample_id))
        return draw(self._grounds.read(name), self._settings, self._smallest, random, name)


def fitting_factors(settings: DrawsSection, smallest: int, size: tuple[int, ...], name: str) -> list[int]:
    """The factors that leave ground of a size (rows, columns) ``smallest`` samples along each side.

    Raises:
        UserError: it is too small for each of them.
    """
    cells = max(_FEWEST_CELLS, math.ceil(smallest / SAMPLES_A_CELL))
    fitting = [factor for factor in settings.factors if min(size) >= factor * cells]
    if not fitting:
        raise UserError(
            f"'{name}' has {min(size)} pixels along a side, and {cells} cells of {min(settings.factors)} pixels are "
            "needed; set a smaller crop_size or dem.factors, or take it out"
        )
    return fitting


def draw(
    ground: Ground, settings: DrawsSection, smallest: int, random: np.random.Generator, name: str
) -> dict[str, NDArray[np.float32]]:
    """Make a coarse DEM at random, and what ``DrawnDems`` serves of it but for ``valid`` and ``id``.

    Args:
        ground: the true ground.
        settings: what is drawn.
        smallest: side in samples that the result has at least.
        random: decides all.
        name: of the ground, for errors.

    Raises:
        UserError: the ground is too small for each factor, or all of it is unknown.
    """
    from Utils.synthetic.coarse_dem import CoarseDem

    fitting = fitting_factors(settings, smallest, ground.heights.shape, name)
    known = ground.heights[np.isfinite(ground.heights)]
    if not len(known):
        raise UserError(f"'{name}' has no known height; take it out")
    factor = int(random.choice(fitting))
    low, high = np.log(settings.least_noise), np.log(settings.most_noise)
    made = CoarseDem(
        factor,
        noise=float(known.std() * np.exp(random.uniform(low, high))),
        correlated=float(random.random() < settings.correlated),
        voids=float(random.random() < settings.voids) * float(random.uniform(0, _HIGHEST_SHARE_IN_VOIDS)),
        seed=int(random.integers(2**31)),
        blur=float(random.random() < settings.displaced) * float(random.uniform(0, _FARTHEST)),
        shifted=_shift(random) if random.random() < settings.displaced else (0.0, 0.0),
    )
    height, width = (length // factor * factor for length in ground.heights.shape)
    heights = ground.heights[:height, :width]
    octave = Octave(made.of(heights).astype(np.float32), aspect=1.0)
    step = factor // SAMPLES_A_CELL
    shape = octave.surface.shape
    image, relief = np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
    if ground.image is not None:
        image = _averaged(ground.image[:, :height, :width], step)
        relief = octave.shading(image, TRUST_AN_OCTAVE)
    error = np.kron(octave.error, np.ones((SAMPLES_A_CELL,) * 2, np.float32))
    maps = {"surface": octave.surface, "error": error, "relief": relief, "truth": _averaged(heights, step)}
    # Near zero float32 is finer; a network sees differences alone.
    level = np.float32(np.nanmean(octave.surface))
    maps["surface"], maps["truth"] = maps["surface"] - level, maps["truth"] - level
    return {name: values[None].astype(np.float32) for name, values in maps.items()} | {"image": image}


def _shift(random: np.random.Generator) -> tuple[float, float]:
    down, across = random.uniform(-_FARTHEST, _FARTHEST, 2)
    return float(down), float(across)


def _averaged(values: NDArray, step: int) -> NDArray[np.float32]:
    """Means (..., H / step, W / step) over step x step pixels; NaN where one of them is."""
    height, width = (side // step for side in values.shape[-2:])
    parts = values.reshape(*values.shape[:-2], height, step, width, step)
    return np.asarray(parts.mean(axis=(-3, -1)), np.float32)
