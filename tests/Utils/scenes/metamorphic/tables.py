"""Known heights at points as a table, and the forms in which people have such tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from tests.Utils.scenes.metamorphic.landscape import HOME, PIXEL, SIZE, into, terrain
from tests.Utils.scenes.metamorphic.rasters import Floats

COUNT = 100


@dataclass(frozen=True)
class Table:
    """Points, and how they are written.

    Attributes:
        columns: (N,) numbers by name, in the file's order.
        crs: what the user gives with ``--points-crs``; None where it is not given.
        delimiter: between fields.
        decimal: the point or comma in numbers.
        encoding: of the file.
        newline: between rows.
        before: lines before the heading.
        among: whole rows, as text, each by the number of points that stand before it.
        quote: a mark around every field.
        name: of the file.
    """

    columns: dict[str, Floats | list[str]]
    crs: str | None = HOME.crs
    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    newline: str = "\n"
    before: tuple[str, ...] = ()
    among: dict[int, str] = field(default_factory=dict)
    quote: str = ""
    name: str = "points.csv"

    def write(self, folder: Path) -> Path:
        """Write the table into a folder."""
        rows = [self._row(values) for values in zip(*self.columns.values(), strict=True)]
        for place in sorted(self.among, reverse=True):
            rows.insert(place, self.among[place])
        heading = self.delimiter.join(f"{self.quote}{name}{self.quote}" for name in self.columns)
        text = self.newline.join([*self.before, heading, *rows]) + self.newline
        path = folder / self.name
        path.write_bytes(text.encode(self.encoding))
        return path

    def _row(self, values: tuple[Any, ...]) -> str:
        texts = [one if isinstance(one, str) else f"{one:.9f}".replace(".", self.decimal) for one in values]
        return self.delimiter.join(f"{self.quote}{text}{self.quote}" for text in texts)


@dataclass(frozen=True)
class PointDisguise:
    """A change of a table that must not change the heights; fields as in ``Disguise``."""

    name: str
    slot: str
    change: Callable[[Table], Table]
    tolerance: float = 1e-3
    reason: str = "rounding to single precision"
    says: str = ""
    refusal: str = ""


def canonical_points() -> Table:
    """A hundred points at random, true to a centimetre."""
    rng = np.random.default_rng(5)
    places = rng.uniform(0.0, SIZE * PIXEL, (2, COUNT))
    heights = np.round(terrain(places) + rng.normal(0.0, 0.3, COUNT), 2)
    return Table({"x": np.round(HOME.east + places[0], 3), "y": np.round(HOME.north - places[1], 3), "height": heights})


def _set(**changes: Any) -> Callable[[Table], Table]:
    return lambda table: replace(table, **changes)


def _columns(table: Table, change: Callable[[Any], Any]) -> Table:
    return replace(table, columns={name: change(values) for name, values in table.columns.items()})


def _ordered(table: Table, *names: str) -> Table:
    return replace(table, columns={name: table.columns[name] for name in names})


def _named(table: Table, names: dict[str, str]) -> Table:
    return replace(table, columns={names.get(name, name): values for name, values in table.columns.items()})


def _shuffled(table: Table) -> Table:
    order = np.random.default_rng(3).permutation(COUNT)
    return _columns(table, lambda values: np.asarray(values)[order])


def _with_others(table: Table) -> Table:
    """Columns of ICESat-2's land product, texts among them."""
    numbers = np.arange(float(COUNT))
    texts = [f"gt{1 + number % 3}r" for number in range(COUNT)]
    return replace(table, columns={"beam": texts, **table.columns, "h_te_std": numbers, "remarks": [""] * COUNT})


def _in(table: Table, crs: str, said: str | None) -> Table:
    """Coordinates in another CRS, x first, named by the user in one of its names."""
    columns = table.columns
    x, y = into(HOME.crs, crs, np.asarray(columns["x"]), np.asarray(columns["y"]))
    return replace(table, columns=columns | {"x": x, "y": y}, crs=said)


def _among(table: Table, *rows: str) -> Table:
    """Rows between those of points, in the table's own form."""
    text = [row.replace(",", table.delimiter) for row in rows]
    return replace(table, among={7 * (number + 1): row for number, row in enumerate(text)})


def _beside(table: Table) -> Table:
    """As many points again beside the scene."""
    columns = {name: np.asarray(values) for name, values in table.columns.items()}
    shift = {"x": 5000.0}
    return replace(table, columns={name: np.append(v, v + shift.get(name, 0.0)) for name, v in columns.items()})


ORDER = [
    PointDisguise("rows shuffled", "rows", _shuffled, 0.01, "sums in another order; smoothing is chosen by folds"),
    PointDisguise("points beside the scene", "rows", _beside),
    PointDisguise(
        "every row twice",
        "rows",
        lambda table: _columns(table, lambda values: np.append(values, values)),
        0.1,
        "twice the weight of all",
    ),
]
COLUMNS = [
    PointDisguise("height first", "columns", lambda table: _ordered(table, "height", "x", "y")),
    PointDisguise("y first", "columns", lambda table: _ordered(table, "y", "x", "height")),
    PointDisguise("further columns", "columns", _with_others),
]
NAMES = [
    PointDisguise("capitals", "names", partial(_named, names={"x": "X", "y": "Y", "height": "HEIGHT"})),
    PointDisguise("names with spaces", "names", partial(_named, names={"x": " x", "y": "y ", "height": " Height "})),
]
FORMS = [
    PointDisguise("semicolons", "form", _set(delimiter=";")),
    PointDisguise("semicolons and decimal commas", "form", _set(delimiter=";", decimal=",")),
    PointDisguise("tabs", "form", _set(delimiter="\t", name="points.tsv")),
    PointDisguise("tabs and decimal commas", "form", _set(delimiter="\t", decimal=",", name="points.txt")),
    PointDisguise("commas and spaces", "form", _set(delimiter=", ")),
    PointDisguise("quoted", "form", _set(quote='"')),
    PointDisguise("quoted, decimal commas", "form", _set(quote='"', decimal=",")),
]
ENDS = [
    PointDisguise("byte order mark", "text", _set(encoding="utf-8-sig")),
    PointDisguise("lines of Windows", "text", _set(newline="\r\n")),
    PointDisguise("lines of old Macs", "text", _set(newline="\r"), refusal="points"),
    PointDisguise("UTF-16", "text", _set(encoding="utf-16"), refusal="cannot be read|encoding|UTF"),
    PointDisguise(
        "a Latin letter in a name",
        "text",
        lambda table: replace(table, columns=table.columns | {"Höhe": ["ü"] * COUNT}, encoding="latin-1"),
        refusal="cannot be read|encoding|UTF",
    ),
    PointDisguise(
        "sep= of spreadsheets",
        "text",
        lambda table: replace(table, before=(f"sep={table.delimiter}",)),
        refusal="no column",
    ),
    PointDisguise("capital suffix", "text", _set(name="POINTS.CSV")),
    PointDisguise("empty lines at the end", "text", lambda table: replace(table, among={COUNT: "", COUNT + 1: ""})),
]
_UTM = CRS.from_epsg(32643)
SYSTEMS = [
    PointDisguise(name, "crs", partial(_in, crs=crs, said=said), 0.02, "nine decimals of a degree are 0.1 mm")
    for name, crs, said in (
        ("degrees", "EPSG:4326", "EPSG:4326"),
        ("degrees, not said", "EPSG:4326", None),
        ("CRS84", "EPSG:4326", "OGC:CRS84"),
        ("degrees in 3-D", "EPSG:4326", "EPSG:4979"),
        ("degrees with EGM96", "EPSG:4326", "EPSG:4326+5773"),
        ("degrees by URN", "EPSG:4326", "urn:ogc:def:crs:EPSG::4326"),
        ("degrees by PROJ", "EPSG:4326", "+proj=longlat +datum=WGS84"),
        ("next UTM zone", "EPSG:32644", "EPSG:32644"),
        ("Web Mercator", "EPSG:3857", "EPSG:3857"),
        ("small letters", HOME.crs, "epsg:32643"),
        ("WKT2", HOME.crs, _UTM.to_wkt(version="WKT2_2019")),
        ("ESRI WKT", HOME.crs, _UTM.to_wkt(version="WKT1_ESRI")),
    )
]


def _from_0_to_360(table: Table) -> Table:
    found = _in(table, "EPSG:4326", "EPSG:4326")
    return replace(found, columns=found.columns | {"x": np.asarray(found.columns["x"]) - 360.0})


SYSTEMS += [PointDisguise("longitudes less 360", "crs", _from_0_to_360, 0.02, "rounding")]

INSIDE = f"{HOME.east + 300},{HOME.north - 300}"
FILLS = [
    PointDisguise("fill 3.4e38", "fill", lambda table: _among(table, f"{INSIDE},3.4028235e+38"), says=r"3\.4"),
    PointDisguise("fill 1.8e308", "fill", lambda table: _among(table, f"{INSIDE},1.79769e+308"), says=r"1\.79"),
    PointDisguise(
        "fill -9999",
        "fill",
        lambda table: _among(table, *(f"{INSIDE},-9999" for _ in range(4))),
        says=r"-9999(?s:.*)\b4\b|\b4\b(?s:.*)-9999",
    ),
    PointDisguise("fill -32768", "fill", lambda table: _among(table, f"{INSIDE},-32768"), says="-32768"),
    PointDisguise("heights NaN", "fill", lambda table: _among(table, f"{INSIDE},NaN", f"{INSIDE},nan")),
    PointDisguise("heights empty", "fill", lambda table: _among(table, f"{INSIDE},", f"{INSIDE},")),
    PointDisguise("heights infinite", "fill", lambda table: _among(table, f"{INSIDE},inf", f"{INSIDE},-inf")),
    PointDisguise("a row of -9999", "fill", lambda table: _among(table, "-9999,-9999,-9999")),
    PointDisguise("places infinite", "fill", lambda table: _among(table, "inf,inf,600", "nan,nan,600")),
    PointDisguise("places at 1e20", "fill", lambda table: _among(table, "1e20,1e20,600")),
    PointDisguise(
        "x and y swapped in a row", "fill", lambda table: _among(table, f"{HOME.north - 300},{HOME.east + 300},600")
    ),
    PointDisguise("degrees in a row", "fill", lambda table: _among(table, "76.1,34.3,600")),
]
