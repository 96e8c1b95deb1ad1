"""What a visitor asks for beside the files, in the words of predict.py, as the options of a scene."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from Systems.app.limits import Refusal
from Systems.app.offered_models import OfferedModel
from Utils.core.reading_arguments import NO_VOIDS, point_columns, reading_bands, reading_nodata, reading_stretch
from Utils.scenes.options import DETAILS, MOST_ORIENTATIONS, SceneOptions

if TYPE_CHECKING:
    from Utils.scenes.classes.class_model import ClassModel
    from Utils.scenes.classes.class_options import ClassOptions

__all__ = ["USUAL_STRETCH", "asked_options", "class_options"]

T = TypeVar("T")
_LONGEST = 200
USUAL_STRETCH = (2.0, 98.0)
"""What a visitor gets who asks for none; a model that learnt from images as they are gets the scene unstretched."""


def asked_options(
    model: OfferedModel | None,
    reference: Path | None,
    points: Path | None,
    *,
    detail: str = "both",
    uncertainty: int = 1,
    bands: str = "",
    nodata: str = "",
    stretch: str = "2,98",
    points_crs: str = "EPSG:4326",
    points_columns: str = "x,y,height",
    register: bool = False,
    report: bool = False,
) -> SceneOptions:
    """The options of a scene.

    Args:
        model: the model; None for none.
        reference: a coarse DEM that was uploaded.
        points: a table of points that was uploaded.
        detail: what adds detail to the DEM, one of ``DETAILS``.
        uncertainty: number of ways to flip and turn each tile; 1 gives no uncertainty.
        bands: numbers as for ``--bands``; empty for the usual ones.
        nodata: a value as for ``--nodata``; empty for none.
        stretch: percentiles as for ``--stretch``, or "none".
        points_crs: system of the points.
        points_columns: names of the columns of x, y and height.
        register: whether a DEM that is shifted is moved onto the image.
        report: whether a page is written too.

    Raises:
        Refusal: 422, with what is allowed.
    """
    if detail not in DETAILS:
        raise Refusal(422, f"detail '{detail[:_LONGEST]}': give one of {', '.join(DETAILS)}")
    if model is None and detail in ("both", "model"):
        if reference is None:
            raise Refusal(422, "without a model, heights come from a coarse DEM: give one, or choose a model")
        detail = "shading"
    if not 1 <= uncertainty <= MOST_ORIENTATIONS:
        raise Refusal(422, f"uncertainty {uncertainty}: give 1 (none) to {MOST_ORIENTATIONS} ways to turn each tile")
    no_data = _read("nodata", reading_nodata, nodata)
    return SceneOptions(
        bands=_read("bands", reading_bands, bands),
        nodata=None if no_data is None or no_data == NO_VOIDS else float(no_data),
        suspect_voids=no_data != NO_VOIDS,
        stretch=_read("stretch", reading_stretch, stretch or "2,98"),
        batch_size=1,
        orientations=uncertainty if detail in ("both", "model") else 1,
        reference=reference,
        detail=detail if reference is not None else "both",
        points=points,
        points_crs=points_crs[:_LONGEST],
        points_columns=_read("points_columns", point_columns, points_columns) or ("x", "y", "height"),
        register=register and reference is not None,
        report=report,
    )


def class_options(model: OfferedModel, opened: ClassModel, options: SceneOptions) -> ClassOptions:
    """The options of a model that draws classes, from those of heights; its relative depth is the DEM.

    Raises:
        Refusal: 422, the model sees relative depth and no DEM was given, or the other way round.
    """
    from Utils.scenes.classes.class_options import ClassOptions

    if opened.uses_depth and options.reference is None:
        raise Refusal(422, f"the model '{model.name}' sees heights too: give a DEM or relative heights of the place")
    if not opened.uses_depth and options.reference is not None:
        raise Refusal(422, f"the model '{model.name}' sees the image alone: leave the DEM out")
    return ClassOptions(
        tile_size=opened.tile_size,
        bands=options.bands,
        nodata=options.nodata,
        suspect_voids=options.suspect_voids,
        # The percentiles that heights take by default: such a model sees colours as in its training.
        stretch=None if options.stretch == USUAL_STRETCH else options.stretch,
        white=opened.white,
        batch_size=1,
        relative_depth=options.reference,
        preview=True,
        report=options.report,
    )


def _read(name: str, reader: Callable[[str], T], text: str) -> T | None:
    if not text.strip():
        return None
    try:
        return reader(text.strip()[:_LONGEST])
    except argparse.ArgumentTypeError as error:
        raise Refusal(422, f"{name}: {error}") from error
