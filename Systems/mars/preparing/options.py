"""What prepareMars.py is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from Utils.core.errors import UserError

__all__ = ["FOOTPRINT", "PUBLISHED", "PrepareOptions"]

FOOTPRINT, PUBLISHED = "footprint", "published"


@dataclass(frozen=True)
class PrepareOptions:
    """The options; values out of range are refused when the object is made.

    Attributes:
        output: folder of the dataset.
        products: folders that are searched for products, with all folders below them.
        dtms: DTMs that are named one by one.
        orthos: the image of each of them.
        size: side of a tile in pixels of the DTM.
        step: from tile to tile, in pixels; the last tile of a row and of a column touches the edge.
        most_void: the largest share of a tile that may be without image or height.
        test: share of the groups for the test.
        validation: share of the groups for validation.
        split: FOOTPRINT, PUBLISHED, or the path of a table with the columns pair and side.
        margin: metres around a footprint within which another counts as the same ground.
        folds: number of folds of the training tiles, by group; 0 for none.
        seed: from which the sides follow.
        band: the band of a colour image that is used; None refuses such images.
        reference: "areoid" or "radius", for DTMs that do not say it.
        plain_rdr: whether images are taken that are map-projected and not orthorectified.
        workers: threads, one pair each.
    """

    output: Path
    products: Sequence[Path] = ()
    dtms: Sequence[Path] = ()
    orthos: Sequence[Path] = ()
    size: int = 512
    step: int = 384
    most_void: float = 0.2
    test: float = 0.1
    validation: float = 0.1
    split: str = FOOTPRINT
    margin: float = 0.0
    folds: int = 0
    seed: int = 42
    band: int | None = None
    reference: str | None = None
    plain_rdr: bool = False
    workers: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.products and not self.dtms:
            raise UserError("nothing to prepare: give --products FOLDER, or --dtm FILE and --ortho FILE")
        if len(self.dtms) != len(self.orthos):
            raise UserError(f"{len(self.dtms)} --dtm and {len(self.orthos)} --ortho: give one image for each DTM")
        for name, value, right in (
            ("--size", self.size, self.size >= 32),
            ("--step", self.step, 1 <= self.step <= self.size),
            ("--max-nodata", self.most_void, 0.0 <= self.most_void < 1.0),
            ("--test", self.test, 0.0 <= self.test < 1.0),
            ("--validation", self.validation, 0.0 <= self.validation and self.test + self.validation < 1.0),
            ("--margin", self.margin, self.margin >= 0.0),
            ("--folds", self.folds, self.folds == 0 or self.folds >= 2),
            ("--workers", self.workers, self.workers >= 1),
        ):
            if not right:
                raise UserError(
                    f"{name} {value:g}: --size is 32 or more, --step from 1 to --size, shares from 0 to below 1 "
                    "together, --folds 0 or at least 2, --workers 1 or more, the others 0 or more"
                )

    def of_tiles(self) -> dict[str, Any]:
        """What the tiles of a pair depend on, as JSON; the sides of a split change no tile."""
        names = ("size", "step", "most_void", "band", "reference")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> dict[str, Any]:
        """All options, as JSON."""
        given = {
            "products": [path.as_posix() for path in self.products],
            "dtms": [path.as_posix() for path in self.dtms],
            "orthos": [path.as_posix() for path in self.orthos],
        }
        names = ("test", "validation", "split", "margin", "folds", "seed", "plain_rdr")
        return given | self.of_tiles() | {name: getattr(self, name) for name in names}
