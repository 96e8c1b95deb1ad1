"""The files of a stereo sample: a reference and its sources, each with image, camera, truth and relative depth map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from Utils.data.stereo.pinhole_camera import Convention, PinholeCamera, read_camera

CameraKind = Literal["pinhole", "rpc"]
"""Cameras with one centre and depths, or rational polynomials and heights."""
TruthFormat = Literal["pfm", "whu_png", "raster"]
"""How a truth is stored: PFM; WHU-MVS's 16-bit PNG in 1/64 m with 0 for none; any raster with one band."""


@dataclass(frozen=True)
class ViewFiles:
    """One view.

    Attributes:
        view: its name: that of its folder, or what a table calls it.
        image: file of the image.
        camera: its camera file, or file with an RPC; a camera itself where a table holds its numbers.
        truth: file of its depth or height map; None where it is unknown.
        relative: file of its relative depth map; None where none is read.
    """

    view: str
    image: Path
    camera: Path | PinholeCamera
    truth: Path | None = None
    relative: Path | None = None


@dataclass(frozen=True)
class StereoFiles:
    """A sample: the reference, whose depth or height is drawn, and its sources.

    Attributes:
        scene: the place that the views show.
        name: what the files of the views are called.
        views: the reference first.
        kind: what the cameras are.
        convention: what the matrices of pinhole camera files are; None to tell by each.
        truth_format: how the truths are stored.
        value_range: smallest and largest value that is looked for, in metres; None for what the camera says.
        interval: metres between values; None for what the camera says.
        full_scale: the value that counts as 1 in images of 16 bits; None for what the files say.
        relative_rises: what rises in relative depth maps; None for what a JSON beside them says, or depth.
    """

    scene: str
    name: str
    views: Sequence[ViewFiles]
    kind: CameraKind
    convention: Convention | None = None
    truth_format: TruthFormat = "pfm"
    value_range: tuple[float, float] | None = None
    interval: float | None = None
    full_scale: float | None = None
    relative_rises: Literal["depth", "height"] | None = None

    @property
    def reference(self) -> ViewFiles:
        """The view that is drawn."""
        return self.views[0]


def pinhole_of(files: StereoFiles, view: ViewFiles) -> PinholeCamera:
    """The camera of a view of pinhole cameras.

    Raises:
        UserError: a camera file that cannot be used.
    """
    return view.camera if isinstance(view.camera, PinholeCamera) else read_camera(view.camera, files.convention)
