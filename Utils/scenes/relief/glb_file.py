"""A surface as a GLB file (glTF 2.0): the image draped over it, an arrow to the north and a scale bar beside it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.scenes.relief.relief_grid import ReliefGrid

if TYPE_CHECKING:
    from trimesh import Trimesh

__all__ = ["Surface", "surface_of", "write_glb"]

_JPEG_QUALITY = 88
_ARROW = (200, 30, 30, 255)
_BAR = (30, 30, 30, 255)


@dataclass(frozen=True)
class Surface:
    """Triangles of a surface in glTF's axes: x to the east, y up, z to the south.

    Attributes:
        places: (N, 3) in metres, or in pixels where the raster has no georeference.
        texture: (N, 2) share of the image from the left and from the bottom.
        triangles: (M, 3) numbers of places, counter-clockwise as seen from above.
    """

    places: NDArray[np.float64]
    texture: NDArray[np.float64]
    triangles: NDArray[np.int64]


def surface_of(grid: ReliefGrid, exaggeration: float = 1.0) -> Surface:
    """Join the known places of a grid; a cell with a hole at a corner loses the triangles that touch it."""
    rows, columns = grid.heights.shape
    numbers = np.arange(rows * columns).reshape(rows, columns)
    north_west, north_east = numbers[:-1, :-1].ravel(), numbers[:-1, 1:].ravel()
    south_west, south_east = numbers[1:, :-1].ravel(), numbers[1:, 1:].ravel()
    triangles = np.concatenate(
        [np.stack([north_west, south_west, north_east], 1), np.stack([north_east, south_west, south_east], 1)]
    )
    if _is_mirrored(grid):
        triangles = triangles[:, ::-1]
    known = np.isfinite(grid.heights).ravel()
    triangles = triangles[known[triangles].all(axis=1)]
    used = np.unique(triangles)
    renumbered = np.full(rows * columns, -1)
    renumbered[used] = np.arange(used.size)
    places = np.stack([grid.east.ravel(), grid.heights.ravel() * exaggeration, -grid.north.ravel()], axis=1)
    right, up = np.meshgrid((np.arange(columns) + 0.5) / columns, 1.0 - (np.arange(rows) + 0.5) / rows)
    texture = np.stack([right.ravel(), up.ravel()], axis=1)
    return Surface(places[used], texture[used], renumbered[triangles])


def write_glb(grid: ReliefGrid, image: NDArray[np.floating], exaggeration: float = 1.0) -> bytes:
    """A surface with its image as the bytes of a GLB file.

    Args:
        grid: the places.
        image: (3, h, w) in [0, 1], of the same ground as the raster from edge to edge.
        exaggeration: heights are multiplied by it; 1 is true to scale where the grid is in metres.

    Returns:
        The file. Its nodes are ``relief``, ``north`` (an arrow) and ``scale bar ...``, whose name gives its length;
        the scene's extras say unit, system, exaggeration, and the height of y = 0.
    """
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    surface = surface_of(grid, exaggeration)
    material = PBRMaterial(
        name="image",
        baseColorTexture=_as_jpeg(image),
        metallicFactor=0.0,
        roughnessFactor=1.0,
        doubleSided=True,
    )
    relief = trimesh.Trimesh(
        surface.places,
        surface.triangles,
        visual=TextureVisuals(surface.texture, material=material),
        process=False,
    )
    scene = trimesh.Scene(metadata=_extras(grid, exaggeration))
    scene.add_geometry(relief, node_name="relief", geom_name="relief")
    length, words = scale_bar(grid)
    scene.add_geometry(_arrow(grid), node_name="north", geom_name="north")
    scene.add_geometry(_bar(grid, length), node_name=f"scale bar {words}", geom_name="scale bar")
    return bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True))


def scale_bar(grid: ReliefGrid) -> tuple[float, str]:
    """A round length of about a quarter of the side: in the grid's unit, and in words."""
    room = grid.side / 4
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step * power for step in (1.0, 2.0, 5.0) if step * power <= room * (1 + 1e-9))
    if not grid.on_ground:
        return length, f"{length:g} pixels"
    return length, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


def _extras(grid: ReliefGrid, exaggeration: float) -> dict[str, Any]:
    heights = "metres" if grid.in_metres else "no unit, drawn as a tenth of the longer side"
    return {
        "unit": "metre" if grid.on_ground else "pixel",
        "heights": heights,
        "height of y = 0": grid.lowest,
        "vertical exaggeration": exaggeration,
        "north": "-z",
        "crs": grid.crs,
        "made by": "D3-RSMDE",
    }


def _is_mirrored(grid: ReliefGrid) -> bool:
    """Whether rows and columns of the raster turn the other way round on the ground."""
    right = (grid.east[0, 1] - grid.east[0, 0], grid.north[0, 1] - grid.north[0, 0])
    down = (grid.east[1, 0] - grid.east[0, 0], grid.north[1, 0] - grid.north[0, 0])
    return bool(right[0] * down[1] - right[1] * down[0] > 0)


def _as_jpeg(image: NDArray[np.floating]) -> Image.Image:
    """The image as an open JPEG, which is how a GLB file then holds it."""
    pixels = np.rint(np.moveaxis(np.clip(image, 0.0, 1.0), 0, -1) * 255.0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=_JPEG_QUALITY)
    return Image.open(file)


def _arrow(grid: ReliefGrid) -> Trimesh:
    """A flat arrow to the north, west of the surface and level with its lowest place."""
    length = grid.side / 6
    x, z = float(grid.east.min()) - length / 2, -float(grid.north.max()) + length
    wide, neck = length / 3, length / 10
    outline = [
        (0.0, -length),
        (-wide, -length / 2),
        (-neck, -length / 2),
        (-neck, 0.0),
        (neck, 0.0),
        (neck, -length / 2),
        (wide, -length / 2),
    ]
    triangles = [(0, 1, 6), (2, 3, 4), (2, 4, 5)]
    return _flat([(x + east, z + south) for east, south in outline], triangles, _ARROW)


def _bar(grid: ReliefGrid, length: float) -> Trimesh:
    """A flat bar from the west to the east, south of the surface."""
    x, z = float(grid.east.min()), -float(grid.north.min()) + grid.side / 30
    thick = grid.side / 100
    corners = [(x, z), (x, z + thick), (x + length, z + thick), (x + length, z)]
    return _flat(corners, [(0, 1, 2), (0, 2, 3)], _BAR)


def _flat(
    corners: list[tuple[float, float]], triangles: list[tuple[int, int, int]], colour: tuple[int, ...]
) -> Trimesh:
    """A flat figure of one colour at y = 0, from places (x, z)."""
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    places = [(x, 0.0, z) for x, z in corners]
    return trimesh.Trimesh(places, triangles, visual=TextureVisuals(material=material), process=False)
