"""The known heights that bring a scene to metres, a coarse DEM or points, read once."""

from __future__ import annotations

from dataclasses import dataclass

from Utils.core.errors import UserError
from Utils.rasters.coordinates import horizontal_crs
from Utils.rasters.geometry import Geometry
from Utils.rasters.source.scene_source import SceneSource
from Utils.rasters.vertical_datum import UNKNOWN, VerticalDatum, parse_datum
from Utils.scenes.fusion.anchors import Points
from Utils.scenes.fusion.held_out import split_points
from Utils.scenes.fusion.image_shift import check_registration
from Utils.scenes.fusion.points_on_scene import FEWEST_POINTS, read_points
from Utils.scenes.fusion.reference import CoarseHeights, read_reference
from Utils.scenes.options import SceneOptions


def scene_geometry(source: SceneSource) -> Geometry:
    """Where the scene's pixels lie.

    Raises:
        UserError: the scene has no CRS or no transform.
    """
    if source.crs is None or not source.georeferenced:
        lacks = "has no CRS" if source.georeferenced else "is not georeferenced"
        raise UserError(
            f"'{source.path}' {lacks}, so metres cannot be brought to it; set it (gdal_edit -a_srs, gdal_translate "
            "-a_ullr), or predict relative heights, without --reference and --points"
        )
    crs = horizontal_crs(source.crs)
    assert crs is not None, "checked above"
    return Geometry(source.height, source.width, crs, source.transform)


@dataclass(frozen=True)
class KnownHeights:
    """The known heights that bring a scene to metres, read once.

    Attributes:
        geometry: where the scene's pixels lie; None without heights.
        reference: a coarse DEM, or None.
        points: heights at points, or None.
        datum: what all of them refer to.
        held_out: points that are kept from all fits, or None.
    """

    geometry: Geometry | None = None
    reference: CoarseHeights | None = None
    points: Points | None = None
    datum: VerticalDatum = UNKNOWN
    held_out: Points | None = None


def read_heights(source: SceneSource, options: SceneOptions) -> KnownHeights:
    """Read the reference or the points that the options name.

    Raises:
        UserError: the scene has no place on the ground, or the heights cannot be read or do not lie in it.
    """
    if not options.metric:
        return KnownHeights()
    geometry = scene_geometry(source)
    reference, points, held_out, datum = None, None, None, parse_datum(options.vertical_datum)
    if options.reference is not None:
        reference = read_reference(options.reference, geometry, options.reference_nodata, options.keep_outliers, datum)
        datum = reference.datum
        if options.detail != "none" or options.register:
            reference = check_registration(source, geometry, reference, options.register)
    if options.points is not None:
        columns = (*options.points_columns, *([options.points_accuracy] if options.points_accuracy else []))
        found = read_points(options.points, options.points_crs, geometry, columns, options.keep_outliers, datum)
        datum = found.datum if found.datum.known else datum
        points, held_out = split_points(found, options.hold_out, source.height, source.width)
        if len(points.rows) < FEWEST_POINTS:
            raise UserError(
                f"--hold-out {options.hold_out:g} leaves {len(points.rows)} points for the fit, at least "
                f"{FEWEST_POINTS} are needed; give a smaller share"
            )
    return KnownHeights(geometry, reference, points, datum, held_out)
