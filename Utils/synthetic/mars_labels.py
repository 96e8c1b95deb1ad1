"""Labels of made-up HiRISE products in the form of real ones (PDS3): attached for DTMs, detached for orthoimages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS

from Utils.rasters.planetary.product_label import Sun

__all__ = ["MarsGrid", "dtm_label", "local_radius", "ortho_label"]

# Semi-axes of Mars in metres (IAU 2000).
_EQUATOR, _POLE = 3_396_190.0, 3_376_200.0


@dataclass(frozen=True)
class MarsGrid:
    """A map grid on Mars.

    Attributes:
        rows: number of rows.
        columns: number of columns.
        metres: side of a pixel.
        left: x of the left border in metres.
        top: y of the upper border in metres.
        latitude: centre of the projection in degrees: the standard parallel, or 90 or -90 for polar stereographic.
        longitude: central meridian in degrees east.
    """

    rows: int
    columns: int
    metres: float
    left: float
    top: float
    latitude: float
    longitude: float

    @property
    def is_polar(self) -> bool:
        """Whether the projection is polar stereographic."""
        return abs(self.latitude) == 90.0

    @property
    def radius(self) -> float:
        """Radius of the sphere in metres."""
        return local_radius(self.latitude)

    @property
    def crs(self) -> CRS:
        """The coordinate reference system."""
        kind = (
            f"+proj=stere +lat_0={self.latitude} +lon_0={self.longitude}"
            if self.is_polar
            else f"+proj=eqc +lat_ts={self.latitude} +lon_0={self.longitude}"
        )
        return CRS.from_proj4(f"{kind} +x_0=0 +y_0=0 +R={self.radius:.4f} +units=m +no_defs")

    @property
    def transform(self) -> Affine:
        """From (column, row) to metres."""
        return Affine(self.metres, 0.0, self.left, 0.0, -self.metres, self.top)


def local_radius(latitude: float) -> float:
    """Distance in metres from the centre of Mars to its ellipsoid, as HiRISE's equirectangular products take it."""
    along, up = math.cos(math.radians(latitude)), math.sin(math.radians(latitude))
    return _EQUATOR * _POLE / math.hypot(_POLE * along, _EQUATOR * up)


def dtm_label(grid: MarsGrid, name: str, sources: tuple[str, str], lowest: float, highest: float) -> bytes:
    """The label of a DTM, padded to whole records: the rows of 32-bit floats follow it."""
    record = 4 * grid.columns
    records = 1
    while True:  # the label names its own length
        head = [
            "RECORD_TYPE = FIXED_LENGTH",
            f"RECORD_BYTES = {record}",
            f"FILE_RECORDS = {records + grid.rows}",
            f"^IMAGE = {records + 1}",
        ]
        note = (
            "Radii in meters from the center of Mars."
            if name.startswith("DTR")
            else "Elevations in meters above the martian\r\n          equipotential surface (Mars 2000 datum)."
        )
        image = [
            "OBJECT = IMAGE",
            *_size(grid),
            "  BANDS = 1",
            "  OFFSET = 0.0",
            "  SCALING_FACTOR = 1.0",
            f'  NOTE = "{note} Made-up ground."',
            "  SAMPLE_BITS = 32",
            "  SAMPLE_BIT_MASK = 2#11111111111111111111111111111111#",
            "  SAMPLE_TYPE = PC_REAL",
            "  MISSING_CONSTANT = 16#FF7FFFFB#",
            f"  VALID_MINIMUM = {lowest:.2f}",
            f"  VALID_MAXIMUM = {highest:.2f}",
            "END_OBJECT = IMAGE",
        ]
        identity = _identity(name, f"({', '.join(sources)})")
        lines = ["PDS_VERSION_ID = PDS3", *head, *identity, *image, *_projection(grid), *_viewing(None), "END", ""]
        text = "\r\n".join(lines).encode()
        if len(text) <= records * record:
            return text.ljust(records * record, b" ")
        records = math.ceil(len(text) / record)


def ortho_label(grid: MarsGrid, name: str, sources: tuple[str, str], sun: Sun | None) -> bytes:
    """The detached label of an orthoimage in JPEG 2000.

    Args:
        grid: its grid.
        name: without suffix; the file is ``name.JP2``.
        sources: the observation and the DTM.
        sun: where the sun stood, if the label is to tell; those of real orthoimages often do not.
    """
    image = [
        "OBJECT = COMPRESSED_FILE",
        f'  FILE_NAME = "{name}.JP2"',
        "  RECORD_TYPE = UNDEFINED",
        '  ENCODING_TYPE = "JP2"',
        '  ENCODING_TYPE_VERSION_NAME = "ISO/IEC15444-1:2004"',
        "  INTERCHANGE_FORMAT = BINARY",
        f'  UNCOMPRESSED_FILE_NAME = "{name}.IMG"',
        f"  REQUIRED_STORAGE_BYTES = {grid.rows * grid.columns} <BYTES>",
        "END_OBJECT = COMPRESSED_FILE",
        "OBJECT = UNCOMPRESSED_FILE",
        f'  FILE_NAME = "{name}.IMG"',
        "  RECORD_TYPE = FIXED_LENGTH",
        f"  RECORD_BYTES = {grid.columns} <BYTES>",
        f"  FILE_RECORDS = {grid.rows}",
        f'  ^IMAGE = "{name}.IMG"',
        "  OBJECT = IMAGE",
        *_size(grid),
        "    BANDS = 1",
        "    OFFSET = 0.0",
        "    SCALING_FACTOR = 0.001",
        "    SAMPLE_BITS = 8",
        "    SAMPLE_BIT_MASK = 2#11111111#",
        "    SAMPLE_TYPE = MSB_UNSIGNED_INTEGER",
        "    BAND_STORAGE_TYPE = BAND_SEQUENTIAL",
        "    CORE_NULL = 0",
        "    CORE_LOW_REPR_SATURATION = 1",
        "    CORE_LOW_INSTR_SATURATION = 1",
        "    CORE_HIGH_REPR_SATURATION = 255",
        "    CORE_HIGH_INSTR_SATURATION = 255",
        '    FILTER_NAME = "RED"',
        "  END_OBJECT = IMAGE",
        "END_OBJECT = UNCOMPRESSED_FILE",
    ]
    identity = _identity(name, f"({', '.join(sources)})")
    lines = ["PDS_VERSION_ID = PDS3", *identity, *_projection(grid), *_viewing(sun), *image, "END", ""]
    return "\r\n".join(lines).encode()


def _size(grid: MarsGrid) -> list[str]:
    return [f"  LINES = {grid.rows}", f"  LINE_SAMPLES = {grid.columns}"]


def _identity(name: str, sources: str) -> list[str]:
    return [
        'DATA_SET_ID = "MRO-M-HIRISE-5-DTM-V1.0"',
        'PRODUCER_INSTITUTION_NAME = "SYNTHETIC"',
        'PRODUCER_ID = "SYN"',
        f'PRODUCT_ID = "{name}"',
        'PRODUCT_VERSION_ID = "1"',
        'INSTRUMENT_HOST_NAME = "MARS RECONNAISSANCE ORBITER"',
        'INSTRUMENT_ID = "HIRISE"',
        'TARGET_NAME = "MARS"',
        f"SOURCE_PRODUCT_ID = {sources}",
        'RATIONALE_DESC = "Made-up ground for demonstrations and tests"',
        'SOFTWARE_NAME = "D3-RSMDE"',
    ]


def _projection(grid: MarsGrid) -> list[str]:
    kilometres = grid.radius / 1000.0
    axes = [f"  {axis}_AXIS_RADIUS = {kilometres:.10f} <KM>" for axis in "ABC"]
    kind = "POLAR STEREOGRAPHIC" if grid.is_polar else "EQUIRECTANGULAR"
    return [
        "OBJECT = IMAGE_MAP_PROJECTION",
        '  ^DATA_SET_MAP_PROJECTION = "DSMAP.CAT"',
        f'  MAP_PROJECTION_TYPE = "{kind}"',
        "  PROJECTION_LATITUDE_TYPE = PLANETOCENTRIC",
        *axes,
        "  COORDINATE_SYSTEM_NAME = PLANETOCENTRIC",
        "  POSITIVE_LONGITUDE_DIRECTION = EAST",
        "  KEYWORD_LATITUDE_TYPE = PLANETOCENTRIC",
        f"  CENTER_LATITUDE = {grid.latitude} <DEG>",
        f"  CENTER_LONGITUDE = {grid.longitude} <DEG>",
        "  LINE_FIRST_PIXEL = 1",
        f"  LINE_LAST_PIXEL = {grid.rows}",
        "  SAMPLE_FIRST_PIXEL = 1",
        f"  SAMPLE_LAST_PIXEL = {grid.columns}",
        "  MAP_PROJECTION_ROTATION = 0.0 <DEG>",
        f"  MAP_RESOLUTION = {grid.radius * math.pi / 180.0 / grid.metres:.10f} <PIX/DEG>",
        f"  MAP_SCALE = {grid.metres:.13f} <METERS/PIXEL>",
        # Counted from the centre of the first pixel.
        f"  LINE_PROJECTION_OFFSET = {grid.top / grid.metres - 0.5:.8f} <PIXEL>",
        f"  SAMPLE_PROJECTION_OFFSET = {-grid.left / grid.metres - 0.5:.8f} <PIXEL>",
        "END_OBJECT = IMAGE_MAP_PROJECTION",
    ]


def _viewing(sun: Sun | None) -> list[str]:
    told = []
    if sun is not None:
        # Clockwise from three o'clock, as azimuths of PDS3 are.
        told = [
            f"  INCIDENCE_ANGLE = {90.0 - sun.elevation:.4f} <DEG>",
            f"  SUB_SOLAR_AZIMUTH = {(sun.azimuth + 270.0) % 360.0:.4f} <DEG>",
        ]
    return ["OBJECT = VIEWING_PARAMETERS", "  NORTH_AZIMUTH = 270.0 <DEG>", *told, "END_OBJECT = VIEWING_PARAMETERS"]
