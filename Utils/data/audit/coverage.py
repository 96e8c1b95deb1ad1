"""Which tiles training would use, and which ids its split files leave out, repeat or name without a tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from Utils.core.errors import UserError
from Utils.data.audit.audited_training import AuditedTraining
from Utils.data.audit.findings import ERROR, WARNING, Finding
from Utils.data.published_layout import TEST_PART, TRAINING_PART
from Utils.data.splits import read_split
from Utils.data.stage_plan import StagePlan, Tiles

Paths = str | Sequence[str] | None


@dataclass(frozen=True)
class Coverage:
    """The tiles that training would use.

    Attributes:
        used: ids, by part, of the tiles that training reads before it starts.
        priors: ids, by part, of the tiles whose coarse prior training reads.
        findings: what is wrong with the split files.
    """

    used: Mapping[str, Sequence[str]]
    priors: Mapping[str, Sequence[str]]
    findings: list[Finding]


def cover(training: AuditedTraining, tiles: Tiles, extra: Sequence[Path]) -> Coverage:
    """Plan the training and check its split files, and ``extra`` ones.

    Args:
        training: the training that the dataset is for.
        tiles: the pairs that were found, of both parts.
        extra: split files that the config does not name; those that fit the test part better are checked against it.
    """
    config = training.config
    findings = _check_config_splits(training, tiles) + _check_extra_splits(extra, tiles)
    on_test = config.validate_on == "test"
    used: dict[str, list[str]] = {TRAINING_PART: list(tiles.training), TEST_PART: list(tiles.test) if on_test else []}
    priors = used
    if tiles.training:
        try:
            plan = training.plan(tiles)
        except UserError as error:
            # A split file that cannot be followed was already reported above.
            if not any(finding.level == ERROR for finding in findings):
                findings.append(_refused(error))
        else:
            used = _used(plan)
            priors = _used(plan[-1:])
    return Coverage(used, priors if training.prior_path is not None else {}, findings)


def last_word(training: AuditedTraining) -> list[Finding]:
    """Where the audit found no error, let the checks of the training decide."""
    try:
        training.check()
    except UserError as error:
        return [_refused(error)]
    return []


def _refused(error: UserError) -> Finding:
    return Finding(ERROR, "refused", "what training says to this dataset and config", [str(error)])


def _used(plan: Sequence[StagePlan]) -> dict[str, list[str]]:
    used: dict[str, dict[str, None]] = {TRAINING_PART: {}, TEST_PART: {}}
    for stage in plan:
        used[TRAINING_PART] |= dict.fromkeys([*stage.train, *stage.held_out])
        used[stage.validation_part] |= dict.fromkeys(stage.validation)
    return {part: list(ids) for part, ids in used.items()}


def _check_config_splits(training: AuditedTraining, tiles: Tiles) -> list[Finding]:
    config = training.config
    available = list(tiles.training)
    findings: list[Finding] = []
    named = {
        role: _read(_listed(given), available, ERROR, findings)
        for role, given in (
            ("folds", training.folds),
            ("split", config.split_text),
            ("validation", config.val_split_text),
        )
    }
    findings += _in_several(named["folds"], ERROR, "tiles in two folds; keep each in one")
    findings += _in_several(named["split"], WARNING, "tiles in several files of split_text; each counts once")
    learnt = {tile for ids in (*named["folds"].values(), *named["split"].values()) for tile in ids}
    validation = {tile for ids in named["validation"].values() for tile in ids}
    both = [tile for tile in available if tile in learnt and tile in validation]
    if both:
        what = "training and validation tiles at once; they are validated on and not trained on"
        findings.append(Finding(WARNING, "training_and_validation", what, both))
    if learnt:
        left = [tile for tile in available if tile not in learnt and tile not in validation]
        findings += _uncovered(left, TRAINING_PART)
    return findings


def _check_extra_splits(paths: Sequence[Path], tiles: Tiles) -> list[Finding]:
    findings: list[Finding] = []
    for part, ids, level in ((TRAINING_PART, tiles.training, ERROR), (TEST_PART, tiles.test, WARNING)):
        own = [str(path) for path in paths if _fits_test_part(path, tiles) == (part == TEST_PART)]
        named = _read(own, list(ids), level, findings)
        findings += _in_several(named, WARNING, "tiles in several split files")
        covered = {tile for listed in named.values() for tile in listed}
        if covered:
            findings += _uncovered([tile for tile in ids if tile not in covered], part)
    return findings


def _fits_test_part(path: Path, tiles: Tiles) -> bool:
    try:
        ids = read_split(path)
    except UserError:
        return False
    return sum(tile in tiles.test for tile in ids) > sum(tile in tiles.training for tile in ids)


def _listed(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or [])


def _read(paths: Sequence[str], available: Sequence[str], level: str, findings: list[Finding]) -> dict[str, list[str]]:
    """The ids of each split file; what is wrong with the files is added to ``findings``."""
    on_disk = set(available)
    named: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        try:
            named[path] = read_split(Path(path))
        except UserError as error:
            findings.append(Finding(ERROR, "bad_split_file", "split files that cannot be used", [str(error)]))
            continue
        missing = [f"{tile} ({path})" for tile in named[path] if tile not in on_disk]
        if missing:
            what = "ids in split files that have no pair of image and map; correct the file, or add the tiles"
            findings.append(Finding(level, "unknown_id", what, missing))
    return named


def _in_several(named: Mapping[str, Sequence[str]], level: str, what: str) -> list[Finding]:
    homes: dict[str, list[str]] = {}
    for path, ids in named.items():
        for tile in ids:
            homes.setdefault(tile, []).append(path)
    items = [f"{tile} ({', '.join(paths)})" for tile, paths in homes.items() if len(paths) > 1]
    return [Finding(level, "several_splits", what, items)] if items else []


def _uncovered(ids: Sequence[str], part: str) -> list[Finding]:
    return [Finding(WARNING, "in_no_split", f"tiles of '{part}' that stand in no split file", ids)] if ids else []
