"""The map of footprints: where the pairs of each side lie on Mars, and, from near, the groups of several pairs.

Only matplotlib's objects are used, never pyplot: no state is shared, nothing needs a display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from Systems.mars.preparing.footprints import RADIUS, Footprint
from Systems.mars.preparing.records import Prepared
from Systems.mars.preparing.sides import SIDES, TEST, TRAIN, VALIDATION
from Utils.core.files import atomic_write_bytes

__all__ = ["draw_footprints"]

# Colours that the colour-blind can tell apart (Okabe and Ito), as in the map of a cut; a sign as well.
_LOOKS = {TRAIN: ("#0072b2", "o"), VALIDATION: ("#009e73", "^"), TEST: ("#d55e00", "s")}
_MOST_GROUPS = 6


def draw_footprints(path: Path, prepared: Sequence[Prepared]) -> None:
    """Draw the map as a .png, which is whole or absent.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups: dict[str, list[Prepared]] = {}
    for one in prepared:
        groups.setdefault(one.group, []).append(one)
    shown = sorted((name for name in groups if len(groups[name]) > 1), key=lambda name: (-len(groups[name]), name))
    near = shown[:_MOST_GROUPS]
    rows = -(-len(near) // 3)
    figure = Figure((10.0, 5.4 + 3.6 * rows), dpi=100, facecolor="white")
    figure.set_layout_engine("constrained")
    canvas: Any = FigureCanvasAgg(figure)
    places = figure.add_gridspec(1 + rows, 3, height_ratios=[1.5] + [1.0] * rows)
    _draw_globe(figure.add_subplot(places[0, :]), prepared)
    for number, name in enumerate(near):
        _draw_group(figure.add_subplot(places[1 + number // 3, number % 3]), name, groups[name])
    if len(shown) > len(near):
        figure.supxlabel(f"{len(shown) - len(near)} more groups of several pairs are not shown", fontsize=8)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    atomic_write_bytes(path, buffer.getvalue())


def _draw_globe(axes: Any, prepared: Sequence[Prepared]) -> None:
    for side in SIDES:
        own = [one for one in prepared if one.side == side]
        centres = np.array([one.footprint.centre for one in own]).reshape(-1, 2)
        colour, sign = _LOOKS[side]
        label = f"{side} (pairs: {len(own)}, groups: {len({one.group for one in own})})"
        axes.scatter(centres[:, 0], centres[:, 1], s=22, marker=sign, facecolor="none", edgecolor=colour, label=label)
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude (degrees east)", ylabel="latitude (degrees)")
    axes.set_xticks(range(-180, 181, 45))
    axes.set_yticks(range(-90, 91, 30))
    axes.grid(color="0.9")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False)


def _draw_group(axes: Any, name: str, own: Sequence[Prepared]) -> None:
    """The outlines of a group's pairs on a plane around the first one, in kilometres."""
    longitude, latitude = own[0].footprint.centre
    plane = pyproj.Proj(proj="laea", lon_0=longitude, lat_0=latitude, R=RADIUS)
    for one in own:
        xs, ys = _outline(plane, one.footprint)
        axes.fill(xs, ys, facecolor=_LOOKS[one.side][0], alpha=0.25, edgecolor=_LOOKS[one.side][0])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(f"{name[:24]}: {len(own)} pairs", fontsize=8)
    axes.set_xlabel("km", fontsize=8)
    axes.tick_params(labelsize=7)


def _outline(plane: pyproj.Proj, footprint: Footprint) -> tuple[Any, Any]:
    xs, ys = plane(footprint.longitudes, footprint.latitudes)
    return np.asarray(xs) / 1000.0, np.asarray(ys) / 1000.0
