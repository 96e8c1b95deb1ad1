"""Rasters of classes: values with a palette and names, probabilities, and what GIS programs read beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from Utils.core.errors import write_error
from Utils.core.files import atomic_write_bytes
from Utils.data.land_cover.class_table import ClassTable
from Utils.scenes.classes.class_average import relative_entropy
from Utils.scenes.output.height_writer import HEIGHTS, Band, HeightWriter, Stored

__all__ = ["CLASSES_TAG", "NO_CLASS", "ClassCounts", "probability_file", "write_class_rasters", "written_values"]

NO_CLASS = 255
"""The value of pixels without a class."""

CLASSES_TAG = "D3RSMDE_CLASSES"
"""Tag with the table of classes, in the JSON form of ``class_table``."""


@dataclass
class ClassCounts:
    """How many pixels a raster of classes has.

    Attributes:
        by_class: pixels of each class, by number.
        unknown: pixels without a class.
    """

    by_class: NDArray[np.int64]
    unknown: int = 0
    entropy: float = field(default=0.0, repr=False)

    def add(self, numbers: NDArray[np.integer[Any]], known: NDArray[np.bool_], entropy: NDArray[np.float32]) -> None:
        """Take in class numbers (H, W)."""
        self.by_class += np.bincount(numbers[known], minlength=len(self.by_class))
        self.unknown += int(known.size - np.count_nonzero(known))
        self.entropy += float(entropy[known].sum(dtype=np.float64))

    @property
    def mean_entropy(self) -> float:
        """The mean of the relative entropy over the pixels with a class; NaN without any."""
        known = int(self.by_class.sum())
        return self.entropy / known if known else float("nan")


def written_values(table: ClassTable) -> tuple[int, ...]:
    """What stands for each class in a raster: the values of its masks where a byte holds them, else its number."""
    fit = all(0 <= value < NO_CLASS for value in table.values)
    return table.values if fit else tuple(range(len(table.names)))


def probability_file(output: Path) -> Path:
    """Where the probabilities of a class raster go."""
    return output.with_name(f"{output.stem}_probabilities.tif")


def write_class_rasters(
    output: Path,
    strips: Iterable[tuple[int, NDArray[np.float32]]],
    size: tuple[int, int],
    crs: Any,
    transform: Affine | None,
    table: ClassTable,
    tags: Mapping[str, str],
    probabilities: bool,
) -> ClassCounts:
    """Write a class raster and, on request, its probabilities and their entropy; both are whole or absent.

    Args:
        output: name ending in .tif.
        strips: first rows and probabilities (classes, rows, width), NaN where there is no class.
        size: rows and columns.
        crs: rasterio's CRS, or None.
        transform: from (column, row) to map coordinates, or None.
        table: the classes.
        tags: tags of the files.
        probabilities: whether they are written too, to ``probability_file``.

    Returns:
        How many pixels each class has.

    Raises:
        UserError: a file that cannot be written.
    """
    values = written_values(table)
    colours = dict(zip(values, table.colours, strict=True))
    kept = Stored("uint8", NO_CLASS, "NO", "MODE", colours)
    document = json.dumps(table.with_values(values).describe())
    tags = {**tags, "D3RSMDE_KIND": "classes", CLASSES_TAG: document}
    counts = ClassCounts(np.zeros(len(table.names), np.int64))
    coded = np.array(values, np.uint8)
    with ExitStack() as stack:
        band = Band("class", ", ".join(f"{v} {n}" for v, n in zip(values, table.names, strict=True)), "")
        writer = stack.enter_context(HeightWriter(output, *size, [band], crs, transform, tags, kept))
        beside = None
        if probabilities:
            bands = [Band(name, f"probability of {name}", "") for name in table.names]
            bands.append(Band("entropy", "0: one class is sure, 1: all are equally likely", ""))
            more = {**tags, "D3RSMDE_KIND": "class probabilities"}
            place = probability_file(output)
            beside = stack.enter_context(HeightWriter(place, *size, bands, crs, transform, more, HEIGHTS))
        for row, shares in strips:
            known = np.isfinite(shares[0])
            numbers = np.nan_to_num(shares, nan=0.0).argmax(axis=0)
            entropy = relative_entropy(shares)
            counts.add(numbers, known, entropy)
            writer.write(row, np.where(known, coded[numbers], np.uint8(NO_CLASS))[None])
            if beside is not None:
                beside.write(row, np.concatenate([shares, entropy[None]]))
    _write_names(output, table, values, counts)
    return counts


def _write_names(output: Path, table: ClassTable, values: tuple[int, ...], counts: ClassCounts) -> None:
    """The names as GDAL keeps them beside a GeoTIFF: categories, and a table of values, names, colours and pixels."""
    names = dict(zip(values, table.names, strict=True))
    categories = "".join(f"<Category>{escape(names.get(v, ''))}</Category>" for v in range(max(values) + 1))
    # Type and usage are GDAL's numbers: 0 is whole numbers, 2 is text; 5 is the value, 2 the name, 1 the pixels.
    fields = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Pixels", 0, 1))
    columns = "".join(
        f'<FieldDefn index="{place}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for place, (name, kind, usage) in enumerate(fields)
    )
    rows = ""
    # The type of whole numbers has 32 bits.
    pixels = [min(int(count), 2**31 - 1) for count in counts.by_class]
    for place, cells in enumerate(zip(values, table.names, table.colours, pixels, strict=True)):
        value, name, colour, count = cells
        text = "".join(f"<F>{escape(str(cell))}</F>" for cell in (value, name, *colour, count))
        rows += f'<Row index="{place}">{text}</Row>'
    document = (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        f'<GDALRasterAttributeTable tableType="thematic">{columns}{rows}</GDALRasterAttributeTable>'
        "</PAMRasterBand></PAMDataset>\n"
    )
    path = output.with_name(f"{output.name}.aux.xml")
    try:
        atomic_write_bytes(path, document.encode("utf-8"))
    except OSError as error:
        raise write_error(path, error, f"'{output}' itself is whole") from error
