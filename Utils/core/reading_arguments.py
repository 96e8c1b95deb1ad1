"""The arguments that say how rasters are read as images: the same for every command that reads them."""

from __future__ import annotations

import argparse

NO_VOIDS = "none"
"""The word that ``--nodata`` takes in place of a number: nothing is invalid but what the file says."""


def add_reading_arguments(group: argparse._ArgumentGroup, stretched: str) -> None:
    """Add ``--bands``, ``--nodata`` and ``--stretch``.

    Args:
        group: the group that gets them.
        stretched: of what the percentiles are taken, such as "the whole scene".
    """
    group.add_argument("--bands", type=reading_bands, metavar="R,G,B", help="band numbers, from 1 (the first three)")
    group.add_argument(
        "--nodata",
        type=reading_nodata,
        metavar="VALUE",
        help="value without data, if the file does not say; 'none' takes frames and voids that are only suspected as "
        "ground",
    )
    group.add_argument(
        "--stretch",
        type=reading_stretch,
        default=(2.0, 98.0),
        metavar="LOW,HIGH",
        help=f"percentiles of {stretched} that become black and white (2,98); 'none' takes the type's full range",
    )


def reading_bands(text: str) -> tuple[int, ...]:
    """Band numbers as ``--bands`` takes them."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': give numbers like 4,3,2") from None


def reading_nodata(text: str) -> float | str:
    """A value without data, or ``NO_VOIDS``, as ``--nodata`` takes it."""
    if text.lower() == NO_VOIDS:
        return NO_VOIDS
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': give a number, or none") from None


def reading_stretch(text: str) -> tuple[float, float] | None:
    """Percentiles as ``--stretch`` takes them; None for the full range of the type."""
    if text.lower() == "none":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}': give two percentiles like 2,98, or none") from None
    if not 0 <= low < high <= 100:
        raise argparse.ArgumentTypeError(f"'{text}': percentiles rise, between 0 and 100")
    return low, high


def point_columns(text: str) -> tuple[str, str, str]:
    """Names of the columns x, y and height, as an argument gives them.

    Raises:
        argparse.ArgumentTypeError: not three names.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 3 or not all(names):
        raise argparse.ArgumentTypeError(f"'{text}': give three names like lon,lat,h_te_best_fit")
    return names[0], names[1], names[2]
