"""How a scene is predicted: what the command line says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DETAILS = ("both", "model", "shading", "none")
"""What may add detail to a reference: the model's map, the image's shading, both, or nothing."""

MOST_ORIENTATIONS = 8
"""Number of ways to lay a square tile: four quarter turns, mirrored or not."""


@dataclass(frozen=True)
class SceneOptions:
    """How a scene is predicted.

    Attributes:
        tile_size: side of a tile in pixels; the size that the model was trained on is best.
        overlap: pixels that neighbouring tiles share at least; None takes a quarter of the tile.
        bands: 1 or 3 numbers of bands, from 1; None takes the first three.
        nodata: a value that means no data, in addition to the one that the file names.
        suspect_voids: whether values and frames that look like no data are left out though nobody declares them.
        stretch: percentiles of the scene that become black and white; None takes the data type's full range.
        batch_size: number of tiles that are predicted at once.
        orientations: number of ways in which each tile is laid, 1 to 8; more than 1 give the uncertainty band.
        model_in_metres: whether the model's maps are in metres whose level is unknown: tiles then get a shift each and
            no scale.
        refines_dem: whether the model refines the reference itself, and so draws no tiles.
        tilt: whether each tile also gets a slope when tiles are aligned.
        reference: a coarse DEM.
        detail: what adds detail to the reference where the reference itself supports it: one of ``DETAILS``. Without a
            model's part in it no model is needed.
        reference_nodata: a value that means no data in it, in addition to what the file names.
        points: a table of heights, in place of a reference or beside it.
        points_crs: CRS of the x and y in that table.
        points_columns: names of its columns with x, y and height.
        points_accuracy: name of its column with each height's standard deviation in metres; empty for none.
        hold_out: share of the points, 0 to 0.5, that are kept from all fits and judge the result.
        keep_outliers: whether known heights that cannot be, such as undeclared void values, are used all the same.
        register: whether a reference that is shifted against the image is moved onto it.
        vertical_datum: code of the datum that heights refer to; known heights of another datum are brought to it.
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
    stretch: tuple[float, float] | None = (2.0, 98.0)
    batch_size: int = 4
    orientations: int = 1
    model_in_metres: bool = False
    refines_dem: bool = False
    tilt: bool = False
    reference: Path | None = None
    detail: str = "both"
    reference_nodata: float | None = None
    points: Path | None = None
    points_crs: str = "EPSG:4326"
    points_columns: tuple[str, str, str] = ("x", "y", "height")
    points_accuracy: str = ""
    hold_out: float = 0.0
    keep_outliers: bool = False
    register: bool = False
    vertical_datum: str = ""
    preview: bool = False
    report: bool = False
    resume: bool = False
    overwrite: bool = False

    @property
    def metric(self) -> bool:
        """Whether the result is in metres."""
        return self.reference is not None or self.points is not None

    @property
    def uses_model(self) -> bool:
        """Whether the model is needed at all."""
        return self.detail in ("both", "model")

    @property
    def draws_tiles(self) -> bool:
        """Whether the model draws tiles, which are joined to a map of the scene."""
        return self.uses_model and not self.refines_dem

    @property
    def shared(self) -> int:
        """The overlap in pixels."""
        return self.tile_size // 4 if self.overlap is None else self.overlap

    def describe(self) -> dict[str, Any]:
        """The options as JSON; files by name, because their paths mean nothing on other machines."""
        plain = {name: value.name if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return {
            name: value for name, value in plain.items() if name not in ("resume", "overwrite", "preview", "report")
        }
