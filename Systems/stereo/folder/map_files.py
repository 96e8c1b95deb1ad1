"""The published tree of maps: a folder a view, with depth or height, confidence, and both in colours.

    <output>/<view>/init/<name>.pfm         init/color/<name>.png
    <output>/<view>/prob/<name>.pfm         prob/color/<name>_prob.png

Depth is 0 where it is unknown, as in the published depth maps; height, which may be 0, is NaN there. Confidence is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.core.errors import write_error
from Utils.core.files import replacing
from Utils.data.stereo.view_files import CameraKind
from Utils.rasters.pfm import read_pfm, write_pfm

__all__ = ["MapFiles"]

Map = NDArray[np.float32]

_UNKNOWN = (140, 140, 140)
# Percentiles at the ends of the colours: single wrong pixels must not take all of them.
_ENDS = (1.0, 99.0)


@dataclass(frozen=True)
class MapFiles:
    """The files of one view's map.

    Attributes:
        folder: of the view.
        name: of the scene's files.
        kind: of the cameras: depth with pinholes, height with RPCs.
    """

    folder: Path
    name: str
    kind: CameraKind

    @property
    def values(self) -> Path:
        """The depth or height map."""
        return self.folder / "init" / f"{self.name}.pfm"

    @property
    def confidence(self) -> Path:
        """The map of confidence."""
        return self.folder / "prob" / f"{self.name}.pfm"

    @property
    def pictures(self) -> tuple[Path, Path]:
        """Both in colours."""
        return (
            self.folder / "init" / "color" / f"{self.name}.png",
            self.folder / "prob" / "color" / f"{self.name}_prob.png",
        )

    def exist(self) -> bool:
        """Whether all files are there."""
        return all(path.is_file() for path in (self.values, self.confidence, *self.pictures))

    def write(self, values: Map, confidence: Map) -> None:
        """Write values (h, w) in metres, NaN where unknown, and confidence (h, w) in [0, 1].

        Raises:
            UserError: a file that cannot be written.
        """
        known = np.isfinite(values)
        unknown = np.float32(0.0 if self.kind == "pinhole" else np.nan)
        # Ground that is high is bright in both kinds of maps.
        shown = -values if self.kind == "pinhole" else values
        try:
            for picture in self.pictures:
                picture.parent.mkdir(parents=True, exist_ok=True)
            write_pfm(self.values, np.where(known, values, unknown))
            write_pfm(self.confidence, np.where(known, confidence, np.float32(0.0)))
            _write_picture(self.pictures[0], shown, known, None)
            _write_picture(self.pictures[1], confidence, known, (0.0, 1.0))
        except OSError as error:
            raise write_error(self.folder, error, "maps written so far stay; --resume goes on") from error

    def read(self) -> tuple[Map, Map]:
        """Values (h, w), NaN where unknown, and confidence (h, w), as they were written.

        Raises:
            RasterError: a file that cannot be read.
        """
        values = read_pfm(self.values)
        if self.kind == "pinhole":
            values = np.where(values > 0, values, np.float32(np.nan))
        return values, read_pfm(self.confidence)


def _write_picture(path: Path, values: Map, known: NDArray[np.bool_], ends: tuple[float, float] | None) -> None:
    """Values (h, w) in viridis, unknown ones in grey."""
    low, high = ends or (np.percentile(values[known], _ENDS) if known.any() else (0.0, 1.0))
    scaled = (np.where(known, values, low) - low) / max(float(high - low), 1e-9)
    colours = matplotlib.colormaps["viridis"](np.clip(scaled, 0, 1), bytes=True)[..., :3]
    colours[~known] = _UNKNOWN
    with replacing(path) as unfinished:
        Image.fromarray(colours).save(unfinished, format="PNG")
