"""The items of a page: tables, pictures, sliders, curves, surfaces and text, in sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Cell",
    "ColourScale",
    "Curve",
    "Gallery",
    "Item",
    "Number",
    "Picture",
    "Relief",
    "Section",
    "Slider",
    "Table",
    "Text",
]


@dataclass(frozen=True)
class Number:
    """A number with its own text: a table sorts by ``value`` and shows ``text``."""

    value: float
    text: str


Cell = str | float | int | Number | None


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers.

    Attributes:
        title: heading above it; may be empty.
        headings: heading of each column.
        rows: cells. Plain floats are rounded to four digits, column by column; None is a dash, NaN ``n/a``.
        sortable: whether clicking a heading sorts the rows (numbers by value, missing ones always last) and a box
            filters them by their columns of text.
        note: a line of text below the table.

    Raises:
        ValueError: no headings, or a row with more or fewer cells than headings.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse ragged tables."""
        if not self.headings:
            raise ValueError(f"table {self.title!r} has no headings")
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.headings):
                given = f"{len(row)} cells for {len(self.headings)} headings"
                raise ValueError(f"table {self.title!r}: row {number} has {given}")


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of a PNG or JPEG file."""

    title: str
    image: bytes
    caption: str = ""


@dataclass(frozen=True)
class ColourScale:
    """The key to colours that stand for numbers: hex colours, evenly spaced from ``low`` to ``high``."""

    label: str
    low: str
    high: str
    colours: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Small pictures in a grid, ``columns`` in a line whatever the screen, with the keys to their colours below."""

    title: str
    pictures: Sequence[Picture]
    columns: int = 3
    scales: Sequence[ColourScale] = ()
    caption: str = ""


@dataclass(frozen=True)
class Slider:
    """Two pictures of one size (PNG or JPEG), the first left and the second right of a line that can be moved."""

    title: str
    before: bytes
    after: bytes
    before_label: str
    after_label: str
    caption: str = ""


@dataclass(frozen=True)
class Curve:
    """Lines through points (x, y), by name; a point that is not finite breaks its line."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    title: str
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Relief:
    """A surface that can be turned and flown over.

    Attributes:
        title: heading above it; may be empty.
        glb: the bytes of a GLB file: x to the east, y up, z to the south.
        eyes: places (x, y, z) of the camera on a closed path over it.
        targets: for each of them, the place at which the camera looks.
        label: what is seen, such as its width and its relief.
        true_scale: whether heights have the unit of the ground, so that their exaggeration means something.
        caption: a line of text below it.
    """

    title: str
    glb: bytes
    eyes: Sequence[Sequence[float]]
    targets: Sequence[Sequence[float]]
    label: str
    true_scale: bool = True
    caption: str = ""


Item = Table | Picture | Gallery | Slider | Curve | Text | Relief


@dataclass(frozen=True)
class Section:
    """A part of the page, which its navigation names."""

    title: str
    items: Sequence[Item]
