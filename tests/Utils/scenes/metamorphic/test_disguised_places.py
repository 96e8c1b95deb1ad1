"""The same ground, wherever it lies, and on whatever grid its DEM was made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from tests.Utils.scenes.metamorphic.disguises import Disguise, named, parameters, wear
from tests.Utils.scenes.metamorphic.landscape import (
    HOME,
    PIXEL,
    SIZE,
    Site,
    bounds_in,
    canonical_dem,
    canonical_image,
    dem_of,
    heights_on,
    image_of,
    into,
)
from tests.Utils.scenes.metamorphic.places import (
    CALLED_IN_DEGREES,
    GRIDS,
    RESAMPLED,
    TURNED_SLIGHTLY,
    shifted_longitudes,
    warped_dem,
)
from tests.Utils.scenes.metamorphic.rasters import Floats, Raster
from tests.Utils.scenes.metamorphic.running import (
    Outcome,
    assert_heights,
    error_of,
    predict_with,
    refused_rightly,
    rms,
)

# At home the error is 0.4 of that of a bicubic interpolation, and 0.6 where cells lie half a cell away. Where cells and
# pixels do not fit at all, parts of pixels are given to cells as a whole, which costs some more.
SHARE_OF_BICUBIC = 0.8


def bicubic_error(image: Raster, dem: Raster) -> float:
    """Error of the DEM itself, without voids, when it is interpolated to the image's pixels, metres."""
    found = np.full(image.valid.shape, np.nan)
    reproject(
        dem.values[0].astype(np.float64),
        found,
        src_transform=dem.transform,
        src_crs=CRS.from_user_input(dem.crs),
        dst_transform=image.transform,
        dst_crs=CRS.from_user_input(image.crs),
        dst_nodata=np.nan,
        resampling=Resampling.cubic,
        tolerance=0.001,
    )
    return error_of(np.where(image.valid, found, np.nan), image)


def check_error(outcome: Outcome, image: Raster, dem: Raster, usual: float = np.nan) -> None:
    """Heights everywhere, and clearly better than the DEM's interpolation."""
    assert outcome.status == 0 and outcome.heights is not None, outcome.said
    assert np.isfinite(outcome.heights).mean() > image.valid.mean() - 0.01
    usual = bicubic_error(image, dem) if np.isnan(usual) else usual
    error = error_of(outcome.heights, image)
    assert error < SHARE_OF_BICUBIC * usual, f"error {error:.2f} m, of bicubic interpolation {usual:.2f} m"


# DEMs on other grids


@pytest.mark.parametrize("disguise", parameters(RESAMPLED))
def test_a_reference_on_another_grid(tmp_path: Path, wanted: Floats, disguise: Disguise) -> None:
    image = canonical_image()
    dem = wear(canonical_dem(), [disguise])
    outcome = predict_with(tmp_path, image, dem)
    check_error(outcome, image, dem)
    assert outcome.heights is not None
    difference = rms(outcome.heights - wanted)
    assert difference < disguise.tolerance, f"{difference:.2f} m: {disguise.reason}"


# DEMs in degrees


@pytest.fixture(scope="session")
def wanted_in_degrees(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Heights with the DEM in degrees."""
    outcome = predict_with(tmp_path_factory.mktemp("degrees"), canonical_image(), warped_dem("EPSG:4326"))
    check_error(outcome, canonical_image(), warped_dem("EPSG:4326"))
    assert outcome.heights is not None
    return outcome.heights


LONGITUDES = [
    Disguise(f"longitudes {shift:+g}", "crs", partial(shifted_longitudes, degrees=shift), 0.02, "rounding of degrees")
    for shift in (360.0, -360.0)
]


@pytest.mark.parametrize(
    "disguise",
    parameters([*[one for one in GRIDS if "point" not in one.name], *TURNED_SLIGHTLY, *CALLED_IN_DEGREES, *LONGITUDES]),
)
def test_a_disguised_reference_in_degrees(tmp_path: Path, wanted_in_degrees: Floats, disguise: Disguise) -> None:
    image = canonical_image()
    outcome = predict_with(tmp_path, image, wear(warped_dem("EPSG:4326"), [disguise]))
    assert_heights(outcome, image, wanted_in_degrees, [disguise])


# The image on other grids


def turned_image(angle: float) -> Raster:
    """The image with rows that run at an angle; where it reaches beyond the canonical one, there is terrain too."""
    middle = Affine.translation(SIZE * PIXEL / 2, SIZE * PIXEL / 2)
    pixels = middle @ Affine.rotation(angle) @ Affine.scale(PIXEL) @ Affine.translation(-SIZE / 2, -SIZE / 2)
    transform = HOME.corner @ pixels
    return image_of(heights_on(HOME, transform, SIZE, SIZE)[1], transform, HOME.crs)


def warped_image(crs: str, site: Site = HOME) -> Raster:
    """The image in another CRS, on a grid inside of the canonical one."""
    west, south, east, north = bounds_in(site, crs)
    cell = ((east - west) / (2 * SIZE), (north - south) / (2 * SIZE))
    transform = Affine(
        cell[0], 0.0, (west + east - SIZE * cell[0]) / 2, 0.0, -cell[1], (south + north + SIZE * cell[1]) / 2
    )
    return image_of(heights_on(site, transform, SIZE, SIZE, crs)[1], transform, crs)


IMAGES: dict[str, Callable[[], Raster]] = {
    "turned by 20 degrees": partial(turned_image, 20.0),
    "turned by 45 degrees": partial(turned_image, 45.0),
    "in degrees": partial(warped_image, "EPSG:4326"),
    "in Web Mercator": partial(warped_image, "EPSG:3857"),
    "in the next UTM zone": partial(warped_image, "EPSG:32644"),
}


@pytest.mark.parametrize("name", [named(name) for name in IMAGES])
def test_an_image_on_another_grid(tmp_path: Path, name: str) -> None:
    image = IMAGES[name]()
    check_error(predict_with(tmp_path, image, canonical_dem()), image, canonical_dem())


# The whole scene elsewhere


SYSTEMS = {
    "axes north, east (Poland)": "EPSG:2180",
    "axes north, east (New Zealand)": "EPSG:2193",
    "axes south, west (South Africa)": "EPSG:2053",
    "British grid": "EPSG:27700",
    "southern zone": "EPSG:32760",
    "Web Mercator": "EPSG:3857",
    "north pole": "EPSG:3413",
    "compound": "EPSG:32643+5773",
    "local grid": 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]',
    "engineering": 'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
}


@pytest.mark.parametrize("name", [named(name) for name in SYSTEMS])
def test_image_and_reference_in_any_system_of_their_own(tmp_path: Path, wanted: Floats, name: str) -> None:
    """Both on one grid: whatever the system is called, nothing needs to be transformed."""
    image, dem = (replace(one, crs=SYSTEMS[name]) for one in (canonical_image(), canonical_dem()))
    same = [Disguise(name, "crs", lambda one: one, 0.05, "coordinates are rounded")]
    assert_heights(predict_with(tmp_path, image, dem), image, wanted, same)


def corner(crs: str, longitude: float, latitude: float) -> Site:
    """The scene with its middle at a place."""
    x, y = into("EPSG:4326", crs, np.array([longitude]), np.array([latitude]))
    return Site(crs, round(float(x[0])) - SIZE * PIXEL / 2, round(float(y[0])) + SIZE * PIXEL / 2)


DATELINE = corner("EPSG:32660", 180.0, 52.0)
WEST = corner("EPSG:32613", -105.0, 40.0)
FAR_NORTH = corner("EPSG:3413", -45.0, 85.0)
POLE = Site("EPSG:3413", -SIZE * PIXEL / 2, SIZE * PIXEL / 2)


def dem_in_degrees(site: Site, shift: float = 0.0) -> Raster:
    return shifted_longitudes(warped_dem("EPSG:4326", site), shift)


_WORLD = """<VRTDataset rasterXSize="{count}" rasterYSize="{height}"><SRS>EPSG:4326</SRS>
<GeoTransform>-180.0, {cell!r}, 0.0, {north!r}, 0.0, {down!r}</GeoTransform>
<VRTRasterBand dataType="Float32" band="1"><NoDataValue>-9999</NoDataValue>
{sources}</VRTRasterBand></VRTDataset>"""
_SOURCE = """<ComplexSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="{start}" yOff="0" xSize="{side}" ySize="{height}"/>
<DstRect xOff="{place}" yOff="0" xSize="{side}" ySize="{height}"/><NODATA>-9999</NODATA></ComplexSource>"""


def around_the_world(site: Site) -> Raster:
    """Longitudes from -180 to 180: the scene's halves lie at both ends of the rows, and between them is nothing."""
    dem = warped_dem("EPSG:4326", site)
    count, side, height = int(np.ceil(360.0 / dem.transform.a)), 40, dem.valid.shape[0]
    world = Affine(360.0 / count, 0.0, -180.0, 0.0, dem.transform.e, dem.transform.f)
    # The file that the virtual one is made of holds the western end, and right of it the eastern one.
    ends = [
        heights_on(site, world @ Affine.translation(first, 0), height, side, "EPSG:4326") for first in (0, count - side)
    ]
    values, places = (np.concatenate(parts, axis=-1) for parts in zip(*ends, strict=True))

    def spread(path: Path) -> str:
        sources = "".join(
            _SOURCE.format(name=path.name, start=start, place=place, side=side, height=height)
            for start, place in ((0, 0), (side, count - side))
        )
        target = path.with_suffix(".vrt")
        target.write_text(
            _WORLD.format(count=count, height=height, cell=world.a, north=world.f, down=world.e, sources=sources)
        )
        return str(target)

    return replace(dem_of(values, places, world, "EPSG:4326"), steps=(spread,))


ELSEWHERE: dict[str, tuple[Site, Callable[[Site], Raster], str]] = {
    "in the west, -105 degrees": (WEST, dem_in_degrees, ""),
    "in the west, 255 degrees": (WEST, partial(dem_in_degrees, shift=360.0), ""),
    "across 180, up to 181": (DATELINE, dem_in_degrees, ""),
    "across 180, from -181": (DATELINE, partial(dem_in_degrees, shift=-360.0), ""),
    "across 180, around the world": (DATELINE, around_the_world, "(?i)antimeridian|date line|180"),
    "across 180, in the zone beyond": (DATELINE, partial(warped_dem, "EPSG:32601"), ""),
    "across 180, in Mercator of the Pacific": (DATELINE, partial(warped_dem, "EPSG:3832"), ""),
    "far north, in degrees": (FAR_NORTH, dem_in_degrees, ""),
    "far north, in another polar system": (FAR_NORTH, partial(warped_dem, "EPSG:3995"), ""),
    "at the pole, in another polar system": (POLE, partial(warped_dem, "EPSG:3995"), ""),
    "at the pole, azimuthal equal area": (POLE, partial(warped_dem, "EPSG:3571"), ""),
}


def _make(site: Site, make: Callable[..., Raster]) -> Raster:
    if isinstance(make, partial) and make.func is warped_dem:
        return warped_dem(*make.args, site)
    return make(site)


@pytest.mark.parametrize("name", [named(name) for name in ELSEWHERE])
def test_a_scene_elsewhere(tmp_path: Path, name: str) -> None:
    """As good as at home, or refused for the true reason."""
    site, make, refusal = ELSEWHERE[name]
    image, dem = canonical_image(site), _make(site, make)
    outcome = predict_with(tmp_path, image, dem)
    if not (refusal and refused_rightly(outcome, refusal)):
        check_error(outcome, image, dem_in_degrees(site) if make is around_the_world else dem)


@pytest.mark.parametrize("latitude", [80.0, 85.0])
def test_cells_a_tenth_as_wide_as_long(tmp_path: Path, latitude: float) -> None:
    """They are joined along their short side alone: no detail along the long side is averaged away."""
    site = corner("EPSG:3413", 179.999, latitude)
    cell = (0.000036 / math.cos(math.radians(latitude)), 0.00036)
    image, dem = canonical_image(site), warped_dem("EPSG:4326", site, cell)
    check_error(predict_with(tmp_path, image, dem), image, dem)


# DEMs in degrees around a pole: width and height of their cells in degrees, and the first longitude


SOUTH_POLE = replace(POLE, crs="EPSG:3031")
CAPS: dict[str, tuple[Site, float, float, float]] = {
    "wedges as wide as high at the scene's border": (POLE, 3.0, 0.0004, -180.0),
    "wedges, longitudes from 0": (POLE, 3.0, 0.0004, 0.0),
    "wedges, at the south pole": (SOUTH_POLE, 3.0, 0.0004, -180.0),
    "wedges that do not go into 360 degrees": (POLE, 3.5, 0.0004, -180.0),
    "slivers": (POLE, 1.0, 0.0004, -180.0),
    "narrow slivers": (POLE, 0.3, 0.0004, -180.0),
    "broad wedges": (POLE, 10.0, 0.0004, -180.0),
}


def polar_cap(site: Site, width: float, height: float, first: float) -> Raster:
    """All cells within 20 rows of the pole; the last one of a row may overlap the first."""
    rows, columns, south = 20, int(np.ceil(360.0 / width)), site is SOUTH_POLE
    transform = Affine(width, 0.0, first, 0.0, -height, rows * height - 90.0 if south else 90.0)
    heights, places = heights_on(site, transform, rows, columns, "EPSG:4326")
    return Raster(heights[None], np.ones((rows, columns), bool), places, transform, "EPSG:4326")


@pytest.mark.parametrize("name", [named(name) for name in CAPS])
def test_a_pole_inside_the_scene(tmp_path: Path, name: str) -> None:
    """The DEM's cells meet there in a point, and no grid is even on both sides of it."""
    site, *cells = CAPS[name]
    image, dem = canonical_image(site), polar_cap(site, *cells)
    check_error(predict_with(tmp_path, image, dem), image, dem)
