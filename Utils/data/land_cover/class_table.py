"""The classes of a dataset: names, colours, and the values that stand for them in its files; LoveDA's, or one's own.

A table of one's own is JSON: ``{"classes": [{"name": "water", "colour": [0, 0, 255], "value": 4}, ...],
"ignored_values": [0]}``. The order of its classes is that of their numbers, from 0 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Modules.common.plain_json import parse_json, read_text
from Utils.core.errors import RasterError, UserError
from Utils.data.sample import IGNORED_LABEL
from Utils.rasters.label_files import Colour, LabelRaster, read_labels

__all__ = ["LOVEDA", "ClassTable", "class_table_of", "coded_labels", "read_class_table", "read_mask"]

_MOST_CLASSES = IGNORED_LABEL  # numbers 0 to 254
_HINT = 'give {"classes": [{"name": "water", "colour": [0, 0, 255], "value": 4}, ...], "ignored_values": [0]}'
_SHOWN = 6


@dataclass(frozen=True)
class ClassTable:
    """The classes, by number.

    Attributes:
        names: name of each class.
        colours: red, green and blue of each class, 0 to 255.
        values: value of each class in mask files.
        ignored: values that mean that nothing is known.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    def with_values(self, values: Sequence[int]) -> ClassTable:
        """The same classes under other values."""
        return ClassTable(self.names, self.colours, tuple(values), self.ignored)

    def describe(self) -> dict[str, Any]:
        """The table in the JSON form that :func:`class_table_of` reads."""
        rows = zip(self.names, self.colours, self.values, strict=True)
        classes = [{"name": name, "colour": list(colour), "value": value} for name, colour, value in rows]
        return {"classes": classes, "ignored_values": list(self.ignored)}

    def encode(self, values: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Values of a mask file (any shape) as class numbers; ``IGNORED_LABEL`` for ignored values.

        Raises:
            ValueError: values outside of the table, which are named with their pixels.
        """
        found, inverse = np.unique(values, return_inverse=True)
        known = {value: number for number, value in enumerate(self.values)}
        known |= dict.fromkeys(self.ignored, IGNORED_LABEL)
        strange = [int(value) for value in found if int(value) not in known]
        if strange:
            pixels = [int((values == value).sum()) for value in strange]
            listed = [f"{value} ({count} pixels)" for value, count in zip(strange, pixels, strict=True)]
            more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
            raise ValueError(f"{', '.join(listed[:_SHOWN])}{more}")
        numbers = np.array([known[int(value)] for value in found], np.uint8)
        return numbers[inverse].reshape(values.shape)

    def decode(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Class numbers as values of mask files; ``IGNORED_LABEL`` becomes the first ignored value.

        Raises:
            ValueError: a number that is no class, or an ignored pixel where no value stands for it.
        """
        table = np.full(IGNORED_LABEL + 1, -1, np.int64)
        table[: len(self.values)] = self.values
        if self.ignored:
            table[IGNORED_LABEL] = self.ignored[0]
        decoded = table[labels]
        if (decoded < 0).any():
            raise ValueError(f"{int(labels[decoded < 0].flat[0])} is no class of {len(self.names)}")
        return decoded

    def encode_colours(self, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colours (H, W, 3) as class numbers (H, W); black is ignored where no class is black.

        Raises:
            ValueError: colours outside of the table, which are named with their pixels.
        """
        packed = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        known = {(r << 16) + (g << 8) + b: number for number, (r, g, b) in enumerate(self.colours)}
        known.setdefault(0, IGNORED_LABEL)
        found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
        strange = [place for place, value in enumerate(found) if int(value) not in known]
        if strange:
            listed = [
                f"{(int(found[p]) >> 16, int(found[p]) >> 8 & 255, int(found[p]) & 255)} ({counts[p]} pixels)"
                for p in sorted(strange, key=lambda p: -counts[p])
            ]
            more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
            raise ValueError(f"{', '.join(listed[:_SHOWN])}{more}")
        numbers = np.array([known[int(value)] for value in found], np.uint8)
        return numbers[inverse].reshape(packed.shape)

    def paint(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Class numbers (H, W) as a picture (H, W, 3) in [0, 1]; what is ignored is black."""
        table = np.zeros((IGNORED_LABEL + 1, 3), np.float32)
        table[: len(self.colours)] = np.array(self.colours, np.float32) / 255.0
        return table[labels]


LOVEDA = ClassTable(
    ("background", "building", "road", "water", "barren", "forest", "agriculture"),
    (
        (255, 255, 255),
        (255, 0, 0),
        (255, 255, 0),
        (0, 0, 255),
        (159, 129, 183),
        (0, 255, 0),
        (255, 195, 128),
    ),
    (1, 2, 3, 4, 5, 6, 7),
    (0,),
)
"""LoveDA's seven classes; 0 in its masks is no data."""


def read_mask(path: Path, table: ClassTable) -> NDArray[np.uint8]:
    """Read a mask of numbers, of palette or of colours as class numbers (H, W), ``IGNORED_LABEL`` where none is known.

    Numbers are values of the table. A palette's numbers are taken as values where all of them are in the table, else
    its colours are; colours are those of the table.

    Raises:
        RasterError: a file that cannot be read, or values or colours outside of the table.
    """
    return coded_labels(path, read_labels(path), table)


def coded_labels(path: Path, raster: LabelRaster, table: ClassTable) -> NDArray[np.uint8]:
    """What a mask holds, as class numbers (H, W), ``IGNORED_LABEL`` where none is known; see :func:`read_mask`.

    Raises:
        RasterError: values or colours outside of the table.
    """
    problem, remedy = "", ""
    if raster.values is not None:
        try:
            values = np.where(raster.unknown, (table.ignored or table.values)[0], raster.values)
            return np.where(raster.unknown, np.uint8(IGNORED_LABEL), table.encode(values))
        except ValueError as error:
            allowed = ", ".join(map(str, sorted((*table.values, *table.ignored))))
            problem, remedy = f"values outside of the class table: {error}", f"the table has {allowed}"
            if raster.colours is None:
                raise RasterError(path, problem, f"{remedy}; correct the mask, or name your own class_table") from error
    assert raster.colours is not None
    try:
        labels = table.encode_colours(np.where(raster.unknown[..., None], np.uint8(0), raster.colours))
        return np.where(raster.unknown, np.uint8(IGNORED_LABEL), labels)
    except ValueError as error:
        colours = f"colours outside of the class table: {error}"
        if problem:
            raise RasterError(path, f"a palette with {problem}, and {colours}", f"{remedy}; correct it") from error
        raise RasterError(path, colours, "correct the mask, or name your own class_table") from error


def read_class_table(path: Path) -> ClassTable:
    """Read a table of one's own.

    Raises:
        UserError: a file that cannot be read, or that does not describe two classes or more, each once.
    """
    try:
        return class_table_of(parse_json(read_text(path)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"class_table '{path}': {reason}; {_HINT}") from error


def class_table_of(document: Any) -> ClassTable:
    """A table from its JSON.

    Raises:
        ValueError: it does not describe two classes or more, each once.
    """
    if not isinstance(document, dict) or not isinstance(document.get("classes"), list):
        raise ValueError("it has no list of classes")
    unknown = sorted(document.keys() - {"classes", "ignored_values"})
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'")
    classes: Sequence[Any] = document["classes"]
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise ValueError(f"it has {len(classes)} classes; 2 to {_MOST_CLASSES} are possible")
    names, colours, values = [], [], []
    for number, entry in enumerate(classes):
        name, colour, value = _entry(entry, number)
        names.append(name)
        colours.append(colour)
        values.append(value)
    ignored = document.get("ignored_values", [])
    if not isinstance(ignored, list) or not all(_is_whole(value) for value in ignored):
        raise ValueError(f"ignored_values is {ignored!r}, and no list of whole numbers")
    every: tuple[tuple[str, list[Any]], ...] = (
        ("name", names),
        ("colour", colours),
        ("value", [*values, *ignored]),
    )
    for what, found in every:
        twice = [one for one in found if found.count(one) > 1]
        if twice:
            raise ValueError(f"the {what} {twice[0]} stands twice")
    return ClassTable(tuple(names), tuple(colours), tuple(values), tuple(ignored))


def _entry(entry: Any, number: int) -> tuple[str, Colour, int]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise ValueError(f"class {number} has no name")
    unknown = sorted(entry.keys() - {"name", "colour", "value"})
    if unknown:
        raise ValueError(f"class '{entry['name']}': unknown key '{unknown[0]}'")
    colour, value = entry.get("colour"), entry.get("value", number)
    if not isinstance(colour, list) or len(colour) != 3 or not all(_is_whole(c) and 0 <= c <= 255 for c in colour):
        raise ValueError(f"class '{entry['name']}': colour is {colour!r}; give three whole numbers from 0 to 255")
    if not _is_whole(value) or value < 0:
        raise ValueError(f"class '{entry['name']}': value is {value!r}; give a whole number from 0 on")
    return entry["name"], (colour[0], colour[1], colour[2]), value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
