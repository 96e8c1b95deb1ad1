"""What the command line of predictStereo.py says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DsmOptions"]


@dataclass(frozen=True)
class DsmOptions:
    """How images become a height raster.

    Attributes:
        images: the images, in the order in which they are numbered.
        rpcs: files with their cameras, in the same order; None reads those of the images.
        output: the GeoTIFF to write.
        resolution: metres of a cell; None for the images' own.
        aoi: west, south, east and north of the wanted ground, in ``aoi_crs``; None for all that two views share.
        aoi_crs: the coordinate system of ``aoi``.
        crs: the output's projected coordinate system; None for the UTM zone.
        heights: lowest and highest height that is searched, in metres above the ellipsoid.
        reference: a DEM whose heights say where to search.
        reference_geoid: the geoid that the reference's heights refer to, as ``geoid``; "" for the ellipsoid.
        references: numbers (from 0) of the views whose pixels become points; None for all.
        sources: most views that a reference is matched with.
        agreeing: how many other views have to find the same height.
        window: pixels along the side of the sweep's windows.
        tolerance: pixels by which two views may disagree about a point.
        correct_pointing: whether the views are moved onto one another first.
        fill: whether holes are filled from around them.
        geoid: a vertical CRS such as EPSG:5773, or a raster of undulations, to which heights are converted; "" leaves
            them above the ellipsoid.
        bands: as for ``open_scene``.
        nodata: as for ``open_scene``.
        suspect_voids: as for ``open_scene``.
        tile_size: cells along the side of a tile.
        least_coverage: share of the ground seen twice that must get a height.
        preview: whether a picture is written.
        report: whether a page is written.
        points: a point cloud to write, .ply or .laz.
        resume: whether to go on with the tiles that are there.
        overwrite: whether older files are replaced.
    """

    images: tuple[Path, ...]
    output: Path
    rpcs: tuple[Path, ...] | None = None
    resolution: float | None = None
    aoi: tuple[float, float, float, float] | None = None
    aoi_crs: str = "EPSG:4326"
    crs: str | None = None
    heights: tuple[float, float] | None = None
    reference: Path | None = None
    reference_geoid: str = ""
    references: tuple[int, ...] | None = None
    sources: int = 4
    agreeing: int = 1
    window: int = 9
    tolerance: float = 1.0
    correct_pointing: bool = True
    fill: bool = False
    geoid: str = ""
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    suspect_voids: bool = True
    tile_size: int = 512
    least_coverage: float = 0.5
    preview: bool = False
    report: bool = False
    points: Path | None = None
    resume: bool = False
    overwrite: bool = False
