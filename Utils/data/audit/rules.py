"""Findings from all rows of an audit: unreadable tiles, sizes, unusual tiles, duplicates, misaligned maps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import median

from Utils.data.audit.findings import ERROR, WARNING, Finding
from Utils.data.audit.inspection import Fingerprint, Inspection, TileRow, describe_shift
from Utils.data.audit.map_shifts import TOLERATED_SHIFT
from Utils.data.published_layout import TEST_PART, TileFiles
from Utils.data.tile_check import dark_images

# A shift that so many tiles share is reported even if it is within the tolerance for a single tile.
_LEAST_SHARED_SHIFT = 2.0
_LEAST_TILES = 3
# In tiles of this side, at least 95 % of the pairs that belong together were recognised, and no others.
_TELLING_SIDE = 256
_TELLING_TILES = 10
_TELLING_SHARE = 0.2


def name_of(row: TileRow) -> str:
    """A tile in words: ``training 12``, ``test 7``."""
    return f"{'test' if row.part == TEST_PART else 'training'} {row.id}"


def judge_rows(rows: Sequence[TileRow], used: Mapping[str, Sequence[str]], one_size: bool = True) -> list[Finding]:
    """Findings about single tiles and their sizes; those that would stop training are errors.

    ``one_size`` says whether training needs tiles of one size; if not, sizes are no finding.
    """
    used_ids = {part: frozenset(ids) for part, ids in used.items()}

    def is_used(row: TileRow) -> bool:
        return row.id in used_ids.get(row.part, frozenset())

    findings = []
    for level, wanted in ((ERROR, True), (WARNING, False)):
        damaged = [row for row in rows if row.size is None and is_used(row) == wanted]
        if damaged:
            aside = "" if wanted else ", which training would not read"
            items = [f"{name_of(row)}: {row.problem}" for row in damaged]
            findings.append(Finding(level, "damaged", f"tiles that cannot be read{aside}", items))
    findings += _judge_sizes(rows, is_used) if one_size else []
    odd: tuple[tuple[str, str, Callable[[TileRow], bool]], ...] = (
        ("empty", "maps without a valid height: they teach nothing and score nothing", lambda row: row.empty),
        ("flat", "flat maps: normalised, they are 0 everywhere", lambda row: bool(row.flat)),
        ("flat_image", "images of one colour", lambda row: bool(row.image_flat)),
        ("mostly_nodata", "maps with more than half of the heights invalid", lambda row: row.mostly_nodata),
        (
            "lost_nodata",
            "maps with a valid height that looks like nodata (-9999 and the like); set the file's nodata value",
            lambda row: row.lost_nodata is not None,
        ),
    )
    for code, what, applies in odd:
        items = [name_of(row) for row in rows if applies(row)]
        if items:
            findings.append(Finding(WARNING, code, what, items))
    return findings + _judge_types(rows)


def _judge_sizes(rows: Sequence[TileRow], is_used: Callable[[TileRow], bool]) -> list[Finding]:
    """Tiles that differ from the commonest size; an error where training would have to mix them."""
    findings = []
    for level, part in [(ERROR, part) for part in dict.fromkeys(row.part for row in rows)] + [(WARNING, "")]:
        mixed = [row for row in rows if row.size and (not part or (row.part == part and is_used(row)))]
        if len({row.size for row in mixed}) < 2:
            continue
        common = Counter(row.size for row in mixed).most_common(1)[0][0]
        assert common is not None
        others = [row for row in mixed if row.size != common]
        if level == WARNING:  # tiles that are reported as errors are not reported again
            others = [row for row in others if row.status != ERROR]
        for row in others:
            row.note(level, f"{row.width} x {row.height} pixels, most tiles have {common[1]} x {common[0]}")
        if others:
            what = f"tiles of another size than the {common[1]} x {common[0]} pixels of most; resample or remove them"
            items = [f"{name_of(row)}: {row.width} x {row.height}" for row in others]
            findings.append(Finding(level, "sizes", what, items))
    return findings


def _judge_types(rows: Sequence[TileRow]) -> list[Finding]:
    findings = []
    for side, type_of in (
        ("image", lambda row: f"{'grey' if row.image_bands == 1 else 'colour'} {row.image_dtype}"),
        ("map", lambda row: f"{row.map_dtype}"),
    ):
        types = Counter(type_of(row) for row in rows if row.size)
        if len(types) > 1:
            common = types.most_common(1)[0][0]
            others = [row for row in rows if row.size and type_of(row) != common]
            for row in others:
                row.note(WARNING, f"{'an' if side == 'image' else 'a'} {side} of {type_of(row)}")
            what = f"{side}s of another kind than the {common} of most"
            findings.append(
                Finding(WARNING, "mixed_types", what, [f"{name_of(row)}: {type_of(row)}" for row in others])
            )
    return findings


def judge_darkness(rows: Sequence[TileRow], files: TileFiles) -> list[Finding]:
    """Images that use only the lowest part of their range, for the rows of one part and one of its tiles."""
    known = [row.image_max for row in rows if row.image_max is not None]
    said = dark_images(max(known), files, len(known)) if known else ""
    what = "images that are nearly black, as 11 or 12 bits in a file of 16 are"
    return [Finding(WARNING, "dark_images", what, [f"{rows[0].part}: {said}"])] if said else []


def judge_duplicates(inspections: Sequence[Inspection]) -> list[Finding]:
    """Images or maps that occur twice, unchanged, turned or mirrored; between training and test that is a leak."""
    leaks, copies, maps = [], [], []
    for first, again in _repeated(inspections, lambda print_: print_.any_image):
        row, original = again.row, first.row
        row.duplicate_of = name_of(original)
        turned = "" if again.fingerprint.image == first.fingerprint.image else ", turned or mirrored"
        other_map = "" if again.fingerprint.any_map == first.fingerprint.any_map else ", with another height map"
        text = f"{name_of(row)} is {name_of(original)}{turned}{other_map}"
        if row.part != original.part:
            leaks.append(text)
            row.note(WARNING, f"{text}: scores on it mean nothing")
        else:
            copies.append(text)
            row.note(WARNING, text)
    for first, again in _repeated(inspections, lambda print_: print_.any_map):
        row, original = again.row, first.row
        row.map_duplicate_of = name_of(original)
        # If the image is a copy too, that was already reported.
        if again.fingerprint.any_image is None or again.fingerprint.any_image != first.fingerprint.any_image:
            maps.append(f"{name_of(row)} has the map of {name_of(original)}")
            row.note(WARNING, maps[-1])
    findings = []
    for code, what, items in (
        ("leak", "test tiles that are training tiles: scores on them mean nothing", leaks),
        ("duplicate", "tiles that are there twice; a random split may train on one and validate on the other", copies),
        ("duplicate_map", "different images with the same height map", maps),
    ):
        if items:
            findings.append(Finding(WARNING, code, what, items))
    return findings


def _repeated(
    inspections: Sequence[Inspection], key: Callable[[Fingerprint], Hashable | None]
) -> Iterator[tuple[Inspection, Inspection]]:
    """Each inspection whose key was seen before, after the first one that had it."""
    seen: dict[Hashable, Inspection] = {}
    for inspection in inspections:
        value = key(inspection.fingerprint)
        if value is not None and seen.setdefault(value, inspection) is not inspection:
            yield seen[value], inspection


def judge_alignment(inspections: Sequence[Inspection]) -> list[Finding]:
    """Maps that lie beside their images: every certain case, and a shift that most tiles share."""
    findings = []
    judged = [(item.row, item.alignment) for item in inspections if item.alignment is not None]
    trusted = [(row, found) for row, found in judged if found.trusted]
    if trusted:
        down, right = (median(found.shift[axis] for _, found in trusted) for axis in (0, 1))
        alike = sum(math.hypot(f.shift[0] - down, f.shift[1] - right) <= TOLERATED_SHIFT for _, f in trusted)
        if math.hypot(down, right) >= _LEAST_SHARED_SHIFT and alike >= max(_LEAST_TILES, len(trusted) / 2):
            what = "a shift that most maps share: shift all of them back"
            item = f"({down:g}, {right:g}): {describe_shift(down, right)}, {alike} of {len(trusted)} tiles agree"
            findings.append(Finding(WARNING, "common_shift", what, [item]))
    shifted = [f"{name_of(row)}: {describe_shift(*found.shift)}" for row, found in judged if found.shifted]
    if shifted:
        findings.append(Finding(WARNING, "misaligned", "maps that do not lie on their images", shifted))
    turned = [f"{name_of(row)}: {row.orientation}" for row, _ in judged if row.orientation]
    if turned:
        findings.append(Finding(WARNING, "turned", "maps that fit their images only when they are turned", turned))
    large = [found.trusted or bool(row.orientation) for row, found in judged if min(row.size or (0,)) >= _TELLING_SIDE]
    known = sum(large)
    if len(large) >= _TELLING_TILES and known < _TELLING_SHARE * len(large):
        what = "hardly any map shows what its image shows: do the ids of images and maps belong together?"
        findings.append(Finding(WARNING, "unrelated", what, [f"{len(large) - known} of {len(large)} tiles"]))
    return findings
