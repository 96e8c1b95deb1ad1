"""What is asked of a cut, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError

from Utils.core.errors import UserError

__all__ = ["CutOptions"]


@dataclass(frozen=True)
class CutOptions:
    """What is asked of a cut.

    Attributes:
        images: the images.
        heights: the DEMs.
        coarse: coarse DEMs of which maps are written beside the tiles.
        coarsen: pixels along a cell of a coarse DEM that is made from the heights instead; 0 for none.
        output: folder of the dataset.
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share.
        distance: metres from pixel to pixel; None keeps each image's grid.
        max_nodata: largest share of a tile that may lack data.
        test: share of the tiles in the test part; 0 for no such part.
        folds: folds of the training part; 0 for none.
        block: tiles along the side of a block; 0 chooses.
        gap: pixels between blocks; None takes a quarter of a tile.
        seed: from which the draw of the blocks follows.
        bands: 1 or 3 band numbers of the images; None for the usual ones.
        nodata: a value of the images that means no data, in addition to what the files say.
        suspect_voids: whether frames and void values of images are left out though nothing declares them.
        stretch: percentiles that become black and white, once a scene; None for the full range of the type.
        height_nodata: a value of the DEMs that means no data, in addition to what the files say.
        height_unit: unit of the heights; None for what the files say, or metres.
        keep_outliers: whether undeclared void values, impossible heights and wrong single cells are taken as heights.
        crs: the system of files that name none, as text; None for none.
    """

    images: list[Path]
    heights: list[Path]
    output: Path
    coarse: list[Path] = field(default_factory=list)
    coarsen: int = 0
    size: int = 512
    overlap: int = 0
    distance: float | None = None
    max_nodata: float = 0.05
    test: float = 0.2
    folds: int = 5
    block: int = 0
    gap: int | None = None
    seed: int = 42
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    suspect_voids: bool = True
    stretch: tuple[float, float] | None = (2.0, 98.0)
    height_nodata: float | None = None
    height_unit: str | None = None
    keep_outliers: bool = False
    crs: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UserError: a value out of range, or two that exclude each other.
        """
        if self.size < 8:
            raise UserError(f"--size {self.size}: give 8 pixels or more")
        if not 0 <= self.overlap < self.size:
            raise UserError(f"--overlap {self.overlap}: give 0 to {self.size - 1} pixels, less than --size")
        if self.distance is not None and not 0.0 < self.distance < 1e6:
            raise UserError(f"--gsd {self.distance:g}: give the metres from pixel to pixel, more than 0")
        for name, value in (("max-nodata", self.max_nodata), ("test", self.test)):
            if not 0.0 <= value <= 1.0:
                raise UserError(f"--{name} {value:g}: give a share from 0 to 1, such as 0.1 for a tenth")
        if self.test > 0.9:
            raise UserError(f"--test {self.test:g}: leave a tenth of the tiles or more for training")
        for name, number in (("folds", self.folds), ("block", self.block), ("gap", self.gap or 0)):
            if number < 0:
                raise UserError(f"--{name} {number}: give 0 or more")
        if self.folds == 1:
            raise UserError("--folds 1: give 2 or more, or 0 for none")
        if self.coarse and self.coarsen:
            raise UserError("--coarse and --coarsen: the coarse DEM is given or made; choose one")
        if self.coarsen and not 2 <= self.coarsen <= self.size // 2:
            raise UserError(f"--coarsen {self.coarsen}: give 2 to {self.size // 2} pixels along a cell")
        _ = self.given_crs

    @property
    def given_crs(self) -> CRS | None:
        """The system of files that name none."""
        if self.crs is None:
            return None
        try:
            return CRS.from_user_input(self.crs)
        except CRSError as error:
            raise UserError(f"--crs {self.crs}: no known system ({error}); give for example EPSG:32632") from error

    @property
    def strip(self) -> int:
        """Pixels between blocks."""
        return self.size // 4 if self.gap is None else self.gap

    @property
    def has_coarse(self) -> bool:
        """Whether coarse maps are written."""
        return bool(self.coarse or self.coarsen)

    def describe(self) -> dict[str, Any]:
        """The options as JSON holds them, without the output."""
        found = asdict(self) | {"gap": self.strip}
        del found["output"]
        return {
            name: [path.as_posix() for path in value] if name in ("images", "heights", "coarse") else value
            for name, value in found.items()
        }
