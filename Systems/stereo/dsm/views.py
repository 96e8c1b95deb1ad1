"""The images with their cameras: opened, checked, and read piece by piece."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Systems.stereo.dsm.options import DsmOptions
from Utils.core.errors import UserError
from Utils.rasters.rational import ELLIPSOID, RationalModel, height_datum, read_rational
from Utils.rasters.source.scene_source import SceneSource, open_scene

__all__ = ["Crop", "View", "datum_words", "opened_views"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crop:
    """A piece of a view.

    Attributes:
        pixels: grey values, float32 (h, w); NaN without data.
        model: the camera of the piece.
    """

    pixels: NDArray[np.float32]
    model: RationalModel


@dataclass(frozen=True)
class View:
    """An image and its camera.

    Attributes:
        number: its place among the images, from 0.
        source: the open image.
        model: the camera of the whole image.
        datum: the code of what its heights refer to; "" where it is unknown.
    """

    number: int
    source: SceneSource
    model: RationalModel
    datum: str = ELLIPSOID

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.source.path.name

    def moved(self, columns: float, rows: float) -> View:
        """The view, all of whose points are seen so many pixels further right and down."""
        return replace(self, model=self.model.shifted(-columns, -rows))

    def crop(self, row: int, column: int, height: int, width: int, reduction: int = 1) -> Crop:
        """A piece, its sides cut down to multiples of ``reduction``, each of whose pixels is the mean of so many."""
        image, valid = self.source.read(row, column, height - height % reduction, width - width % reduction)
        grey = np.where(valid, image.mean(axis=0), np.float32(np.nan))
        model = self.model.shifted(column, row)
        if reduction > 1:
            parts = grey.reshape(grey.shape[0] // reduction, reduction, grey.shape[1] // reduction, reduction)
            grey = parts.mean(axis=(1, 3))
            middle = (reduction - 1) / 2
            model = model.shifted(middle, middle).reduced(reduction)
        return Crop(grey.astype(np.float32), model)

    def centre(self, height: float) -> tuple[float, float]:
        """Longitude and latitude seen in the middle of the image, at a height in metres."""
        longitude, latitude = self.model.locate(self.source.width / 2, self.source.height / 2, height)
        return float(longitude), float(latitude)


@contextmanager
def opened_views(options: DsmOptions) -> Iterator[list[View]]:
    """The images, open.

    Raises:
        UserError: fewer than two images, one given twice, or an RPC file too few or too many.
        RasterError: an image without a camera, or one that cannot be read.
    """
    images = [Path(image) for image in options.images]
    if len(images) < 2:
        raise UserError(f"--images: {len(images)} given; heights need two images or more of the same ground")
    if options.rpcs is not None and len(options.rpcs) != len(images):
        raise UserError(
            f"--rpcs: {len(options.rpcs)} files for {len(images)} images; give one for each, in their order"
        )
    _check_twice(images)
    with ExitStack() as opened:
        views = []
        for number, image in enumerate(images):
            camera = image if options.rpcs is None else options.rpcs[number]
            model = read_rational(camera)
            source = opened.enter_context(
                open_scene(
                    image,
                    options.bands,
                    options.nodata,
                    stretch=(0.0, 100.0),
                    suspect_voids=options.suspect_voids,
                    frames_are_void=options.suspect_voids,
                    placed_by_rpc=True,
                )
            )
            _check_size(source, model)
            views.append(View(number, source, model.fitted_to(source.height, source.width), height_datum(camera)))
        _check_cameras(views)
        _check_datums(views, options)
        yield views


def _check_datums(views: Sequence[View], options: DsmOptions) -> None:
    """Heights of several views are compared, and converted: both needs to know what they refer to."""
    odd = next((view for view in views if view.datum != views[0].datum), None)
    if odd is not None:
        names = [datum_words(view.datum) for view in (views[0], odd)]
        raise UserError(
            f"heights of '{views[0].name}' are above {names[0]}, those of '{odd.name}' above {names[1]}; give cameras "
            "of one kind"
        )
    if views[0].datum != ELLIPSOID and (options.geoid or options.reference_geoid):
        raise UserError(
            f"--geoid: the cameras' heights are above {datum_words(views[0].datum)}, and only those above the "
            "ellipsoid can be converted; leave it out"
        )


def datum_words(code: str) -> str:
    """What heights refer to, in words: a zero that nobody has named where the code is empty."""
    return {ELLIPSOID: "the WGS 84 ellipsoid", "": "a zero that is not known"}.get(code, code)


def _check_cameras(views: Sequence[View]) -> None:
    for view in views:
        for other in views[: view.number]:
            if np.array_equal(view.model.direct, other.model.direct):
                raise UserError(
                    f"'{other.name}' and '{view.name}' have the same RPC, so seen from one place; give each its own"
                )


def _check_twice(images: Sequence[Path]) -> None:
    for number, image in enumerate(images):
        for other in images[:number]:
            if image == other or (image.exists() and other.exists() and image.samefile(other)):
                raise UserError(f"--images: '{image}' is given twice; heights need two views of the same ground")


def _check_size(source: SceneSource, model: RationalModel) -> None:
    """Say where an image is larger than what its camera was made for."""
    sides = (("lines", source.height, model.direct[5]), ("samples", source.width, model.direct[6]))
    for name, length, scale in sides:
        if length > 2.5 * scale:
            logger.warning(
                "%s: has %d %s, and its RPC was made for %.0f; does it belong to this image?",
                source.path,
                length,
                name,
                2 * scale,
            )
