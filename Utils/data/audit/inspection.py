"""One tile read and measured: the row of the audit's table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from Modules.common.normalisation import MinMaxNormalisation
from Utils.core.errors import RasterError, UserError
from Utils.data.audit.findings import ERROR, WARNING, printable
from Utils.data.audit.map_shifts import SMALLEST_SIDE, MapShift, align, align_turned, middle
from Utils.data.published_layout import TileFiles
from Utils.data.sample import Sample
from Utils.data.tile_dataset import read_tile, read_truth
from Utils.rasters.tile_files import raster_size, raster_type, read_image, read_prior

_MOST_NODATA = 0.5
# Values that stand for "no data" in common products, where the nodata tag got lost.
_LOST_NODATA = frozenset({-9999.0, -32767.0, -32768.0, -99999.0})
_ABSURD = 1e30


@dataclass
class TileRow:
    """What was found in one tile; None where it could not be found out.

    Attributes:
        part: folder of the part.
        id: the tile.
        height: height in pixels.
        width: width in pixels.
        image_bands: bands of the image file.
        image_dtype: data type of the image file.
        map_bands: bands of the map file.
        map_dtype: data type of the map file.
        image_min: darkest value of the image, where 1 is full scale.
        image_max: brightest value of the image.
        min: lowest valid height, in the file's unit.
        max: highest valid height.
        mean: mean of the valid heights.
        std: standard deviation of the valid heights.
        nodata_share: share of invalid pixels.
        flat: whether all valid heights are equal.
        image_flat: whether all pixels of the image are equal.
        duplicate_of: part and id of the first tile with the same image, unchanged, turned or mirrored.
        map_duplicate_of: the same for the map.
        shift_y: pixels by which the map lies too far down, where the shift is known.
        shift_x: pixels by which the map lies too far to the right.
        peak: the alignment's peak, in standard deviations.
        peak_ratio: the peak over the highest value at any other shift.
        orientation: how the map has to be turned to fit its image; empty where it fits unturned or nothing is known.
        status: ``ok``, ``warning`` or ``error``.
        problem: description of what is wrong.
    """

    part: str
    id: str
    height: int | None = None
    width: int | None = None
    image_bands: int | None = None
    image_dtype: str | None = None
    map_bands: int | None = None
    map_dtype: str | None = None
    image_min: float | None = None
    image_max: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    nodata_share: float | None = None
    flat: bool | None = None
    image_flat: bool | None = None
    duplicate_of: str = ""
    map_duplicate_of: str = ""
    shift_y: int | None = None
    shift_x: int | None = None
    peak: float | None = None
    peak_ratio: float | None = None
    orientation: str = ""
    status: str = "ok"
    problem: str = ""

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width), None for a tile that cannot be read."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    @property
    def empty(self) -> bool:
        """Whether no height is valid."""
        return self.nodata_share == 1.0

    @property
    def mostly_nodata(self) -> bool:
        """Whether some heights are valid, but not half of them."""
        return self.nodata_share is not None and _MOST_NODATA < self.nodata_share < 1.0

    @property
    def lost_nodata(self) -> float | None:
        """A valid height that looks like an untagged "no data"."""
        for value in (self.min, self.max):
            if value is not None and (value in _LOST_NODATA or abs(value) > _ABSURD):
                return value
        return None

    def note(self, level: str, problem: str) -> None:
        """Add a problem; the most serious one decides the status."""
        self.problem = printable("; ".join(filter(None, [self.problem, problem])))
        if level == ERROR or self.status == "ok":
            self.status = level

    def as_row(self) -> dict[str, object]:
        """The columns of the table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of decoded pixels; None for a raster that is flat or cannot be read.

    Attributes:
        image: hash of the unchanged image.
        any_image: hash of the image that is the same for its 8 orientations.
        any_map: such a hash of the map and its mask.
    """

    image: bytes | None = None
    any_image: tuple[int, int, int] | None = None
    any_map: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Inspection:
    """One tile's row, its fingerprint, and how its map lies on its image (None where that was not looked for)."""

    row: TileRow
    fingerprint: Fingerprint
    alignment: MapShift | None


def inspect(part: str, tile: str, files: TileFiles, prior: Path | None) -> Inspection:
    """Read a tile as training does, and measure it.  What is wrong with its files goes into the row."""
    row = TileRow(part, tile)
    try:
        item = read_tile(tile, files, prior)
    except UserError as error:
        row.note(ERROR, "; ".join(_all_problems(str(error), tile, files, prior)))
        return Inspection(row, Fingerprint(), None)
    row.image_bands, row.image_dtype = _header(files.image)
    row.map_bands, row.map_dtype = _header(files.height)
    image, heights, valid = item["image"].numpy(), item["target"][0].numpy(), item["valid"][0].numpy()
    _measure(row, image, heights, valid)
    alignment = None
    if not (row.flat or row.image_flat or row.empty or row.mostly_nodata) and min(valid.shape) >= SMALLEST_SIDE:
        alignment = _align(row, item)
    # 16 bits hold an 8-bit image exactly, so the same picture saved with 8 and with 16 bits has the same hash.
    pixels = np.zeros(valid.shape, np.uint64)
    for place, band in enumerate(image):
        pixels |= np.rint(band * np.float32(65535)).astype(np.uint64) << np.uint64(16 * place)
    has_map = not row.flat and not row.empty
    bits = np.ascontiguousarray(heights).view(np.uint32).astype(np.uint64) | valid.astype(np.uint64) << np.uint64(32)
    fingerprint = Fingerprint(
        None if row.image_flat else hashlib.blake2b(pixels.data, digest_size=16).digest(),
        None if row.image_flat else _hash_any_orientation(pixels),
        _hash_any_orientation(bits) if has_map else None,
    )
    return Inspection(row, fingerprint, alignment)


def _header(path: Path) -> tuple[int | None, str | None]:
    try:
        return raster_type(path)
    except (RasterError, OSError):
        return None, None  # the error of reading the tile says why


def _all_problems(first: str, tile: str, files: TileFiles, prior: Path | None) -> list[str]:
    """All problems of a tile's files, first the one that training would report."""
    attempts: list[Callable[[], object]] = [
        lambda: read_image(files.image, files.full_scale),
        lambda: read_truth(files.height, files.coding),
        lambda: read_tile(tile, files),
    ]
    if prior is not None:
        attempts += [lambda: read_prior(prior), lambda: _prior_fits(files.image, prior)]
    problems = [first]
    for attempt in attempts:
        try:
            attempt()
        except (UserError, RasterError, OSError) as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _prior_fits(image: Path, prior: Path) -> None:
    size, other = raster_size(image), raster_size(prior)
    if size != other:
        raise RasterError(prior, f"{other[1]} x {other[0]} pixels, the image {size[1]} x {size[0]}", "resample it")


def _measure(row: TileRow, image: NDArray[np.float32], heights: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    row.height, row.width = valid.shape
    row.image_min, row.image_max = float(image.min()), float(image.max())
    # An image counts as flat if every band is flat: a plain colour shows nothing either.
    row.image_flat = bool((image.min(axis=(1, 2)) == image.max(axis=(1, 2))).all())
    row.nodata_share = 1.0 - float(valid.mean())
    known = heights[valid].astype(np.float64)
    row.flat = bool(known.size and known.min() == known.max())
    if known.size:
        row.min, row.max = float(known.min()), float(known.max())
        row.mean, row.std = float(known.mean()), float(known.std())
    if row.empty:
        row.note(WARNING, "no valid height")
    if row.flat:
        row.note(WARNING, "flat heights")
    if row.image_flat:
        row.note(WARNING, "an image of one colour")
    if row.mostly_nodata:
        row.note(WARNING, "more than half of the heights are invalid")
    if row.lost_nodata is not None:
        row.note(WARNING, f"valid heights of {row.lost_nodata:g}, which looks like nodata without its tag")


def _align(row: TileRow, item: Sample) -> MapShift:
    # Heights are stretched to 0..1: they may be in any unit, and numbers near the limit of float32 would overflow.
    image, height, valid = (middle(values.numpy()) for values in (item["image"], stretched(item), item["valid"]))
    height, valid = height[0], valid[0]
    found = align(image, height, valid)
    row.peak, row.peak_ratio = round(found.peak, 3), round(found.ratio, 3)
    if found.trusted:
        row.shift_y, row.shift_x = found.shift
    else:
        row.orientation = align_turned(image, height, valid)
    if found.shifted:
        row.note(WARNING, f"the map lies off its image: {describe_shift(*found.shift)}")
    if row.orientation:
        row.note(WARNING, f"the map fits its image only when it is {row.orientation}")
    return found


def describe_shift(down: float, right: float) -> str:
    """A shift in words: ``12 px to the right, 3 px down``."""
    words = [
        f"{abs(value):g} px {positive if value > 0 else negative}"
        for value, positive, negative in ((right, "to the right", "to the left"), (down, "down", "up"))
        if value
    ]
    return ", ".join(words) or "0 px"


def _hash_any_orientation(pixels: NDArray[np.uint64]) -> tuple[int, int, int]:
    """A hash of a field (H, W) that does not change when the field is mirrored or turned by quarters.

    Each pixel is hashed with its distance from the middle, and the hashes are summed, modulo 2^64.
    """
    height, width = pixels.shape
    rows = (2 * np.arange(height) - height + 1) ** 2
    columns = (2 * np.arange(width) - width + 1) ** 2
    distances = (rows[:, None] + columns[None]).astype(np.uint64)
    total = _mix(pixels ^ _mix(distances)).sum(dtype=np.uint64)
    return min(height, width), max(height, width), int(total)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit of a value reaches all bits of the result."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def stretched(sample: Sample) -> Tensor:
    """A tile's heights (1, H, W) in [0, 1] over its valid pixels."""
    height, _ = MinMaxNormalisation().forward(sample["target"][None], sample["valid"][None])
    return height[0]
