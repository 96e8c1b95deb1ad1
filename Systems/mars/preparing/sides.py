"""Which side of the split each pair is on: training, validation or test; seeded, and stable when pairs are added."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from Systems.mars.preparing.footprints import crossing
from Systems.mars.preparing.options import FOOTPRINT, PUBLISHED, PrepareOptions
from Utils.core.errors import UserError
from Utils.core.tables import read_csv

__all__ = ["SIDES", "TEST", "TRAIN", "VALIDATION", "choose_sides", "fold_of"]

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "val", "test"
SIDES = (TRAIN, VALIDATION, TEST)
# Of the published split of 477 pairs: 381, 48 and 48.
_PUBLISHED_TEST, _PUBLISHED_VALIDATION, _PUBLISHED_SEED = 0.1, 0.1, 42


def choose_sides(groups: Mapping[str, str], options: PrepareOptions) -> dict[str, str]:
    """The side of each pair.

    Args:
        groups: the group of each pair; see ``group_pairs``.
        options: the split, the shares and the seed.

    Raises:
        UserError: a table that does not name a side for every pair.
    """
    if options.split == FOOTPRINT:
        by_group = _by_hash(sorted(set(groups.values())), options)
        return {pair: by_group[group] for pair, group in groups.items()}
    sides = _published(sorted(groups)) if options.split == PUBLISHED else _from_table(Path(options.split), groups)
    across = crossing(sides, groups)
    if across:
        count = sum(group in across for group in groups.values())
        logger.warning(
            "--split %s: %d of %d groups of pairs that share ground or a source image stand on two sides (%d pairs, "
            "first group %s): scores look better than they are; --split footprint keeps them together",
            options.split,
            len(across),
            len(set(groups.values())),
            count,
            across[0],
        )
    return sides


def fold_of(group: str, folds: int, seed: int) -> int:
    """The fold of a group, from 1."""
    return int(_draw(seed, "fold", group) * folds) + 1


def _by_hash(groups: Sequence[str], options: PrepareOptions) -> dict[str, str]:
    """By a hash of the group's name and the seed: whoever else is there does not matter.

    Where no group falls to a side that should have some, those nearest to it are taken.
    """
    draws = {group: _draw(options.seed, "side", group) for group in groups}
    sides = {
        group: TEST if draw < options.test else VALIDATION if draw < options.test + options.validation else TRAIN
        for group, draw in draws.items()
    }
    for side, share in ((TEST, options.test), (VALIDATION, options.validation)):
        if share == 0.0 or side in sides.values():
            continue
        others = [group for group in groups if sides[group] == TRAIN]
        if len(others) < 2:
            logger.warning("the %d groups of pairs leave none for '%s': its split file is empty", len(groups), side)
            continue
        nearest = min(others, key=draws.__getitem__)
        sides[nearest] = side
        logger.info(
            "none of %d groups fell to '%s' by its share %g; %s is taken. With more pairs it may fall to another side",
            len(groups),
            side,
            share,
            nearest,
        )
    return sides


def _draw(seed: int, *names: str) -> float:
    """A number in [0, 1) that depends on the names alone, the same on every machine."""
    text = "/".join((str(seed), *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2.0**64


def _published(names: Sequence[str]) -> dict[str, str]:
    """The names shuffled with seed 42: 80 % training, 10 % validation, 10 % test, whatever ground they show."""
    shuffled = list(names)
    random.Random(_PUBLISHED_SEED).shuffle(shuffled)
    test, validation = (round(share * len(names)) for share in (_PUBLISHED_TEST, _PUBLISHED_VALIDATION))
    train = len(names) - test - validation
    sides = [TRAIN] * train + [VALIDATION] * validation + [TEST] * test
    return dict(zip(shuffled, sides, strict=True))


def _from_table(path: Path, groups: Mapping[str, str]) -> dict[str, str]:
    try:
        rows = read_csv(path, text_columns=("pair", "side"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--split '{path}' cannot be read ({error}); give {FOOTPRINT}, {PUBLISHED}, or a CSV with pair and side"
        ) from error
    if not rows or not {"pair", "side"} <= set(rows[0]):
        raise UserError(f"--split '{path}': give a CSV with the columns pair and side")
    sides = {str(row["pair"]): str(row["side"]) for row in rows}
    wrong = sorted({side for side in sides.values()} - set(SIDES))
    if wrong:
        raise UserError(f"--split '{path}': side '{wrong[0]}'; write {', '.join(SIDES)}")
    missing = sorted(set(groups) - set(sides))
    if missing:
        raise UserError(f"--split '{path}' names no side for {len(missing)} of {len(groups)} pairs, first {missing[0]}")
    return {pair: sides[pair] for pair in groups}
