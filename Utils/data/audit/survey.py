"""The whole audit: list the files, plan the training, read every tile once, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError
from Utils.core.processes import progress_bar
from Utils.data.audit.audited_training import AuditedTraining
from Utils.data.audit.coverage import cover, last_word
from Utils.data.audit.findings import ERROR, WARNING, Finding
from Utils.data.audit.inspection import Inspection, inspect
from Utils.data.audit.listing import PARTS, Listing, list_part, list_priors
from Utils.data.audit.rules import judge_alignment, judge_darkness, judge_duplicates, judge_rows
from Utils.data.audit.swaps import find_swaps
from Utils.data.published_layout import PRIOR_FOLDER, TEST_PART, TRAINING_PART
from Utils.data.stage_plan import Tiles
from Utils.data.tile_sources import is_table


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        inspections: one for each tile, the training part first.
        findings: all findings, errors first.
    """

    inspections: list[Inspection]
    findings: list[Finding]


def audit(training: AuditedTraining, splits: Sequence[Path], priors: Path | None, workers: int) -> Audit:
    """Audit the dataset of a training config.

    Args:
        training: the training that would start; its config's ``dataset_path`` names the dataset.
        splits: more split files to check.
        priors: folder of coarse priors to check, also if the config's training does not read them.
        workers: threads that read tiles.

    Raises:
        UserError: the dataset is neither a folder nor a table, or a table that cannot be used.
    """
    config = training.config
    dataset = Path(config.dataset_path)
    if not dataset.is_dir() and not is_table(dataset):
        raise UserError(f"dataset folder '{dataset}' not found; give the folder that holds '{TRAINING_PART}', or a CSV")
    root = Path(config.root) if config.root else None
    listed = {part: list_part(dataset, part, _is_needed(part, config), config.image_full_scale, root) for part in PARTS}
    findings = [finding for part in PARTS for finding in listed[part].findings]
    tiles = Tiles(listed[TRAINING_PART].pairs, listed[TEST_PART].pairs)
    coverage = cover(training, tiles, splits)
    findings += coverage.findings
    wanted = _find_priors(training, priors, listed, coverage.priors)
    findings += wanted.findings
    inspections = _read_all(listed, wanted.files, workers)
    rows = [item.row for item in inspections]
    for row in rows:
        if (row.part, row.id) in wanted.missing:
            row.note(wanted.missing[row.part, row.id], "no coarse prior")
    findings += judge_rows(rows, coverage.used, training.one_size)
    findings += judge_duplicates(inspections) + judge_alignment(inspections)
    for part in PARTS:
        own = [row for row in rows if row.part == part and row.size]
        if own:
            findings += judge_darkness(own, listed[part].pairs[own[0].id])
        findings += find_swaps([item for item in inspections if item.row.part == part], listed[part].pairs)
    if not any(finding.level == ERROR for finding in findings):
        findings += last_word(training)
    return Audit(inspections, sorted(_merged(findings), key=lambda finding: finding.level != ERROR))


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Merge findings of one kind, such as those of several split files."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        grouped.setdefault((finding.level, finding.code, finding.what), []).extend(finding.items)
    return [Finding(*kind, items) for kind, items in grouped.items()]


def _is_needed(part: str, config: TrainingConfig) -> bool:
    return part == TRAINING_PART or config.validate_on == "test"


@dataclass(frozen=True)
class _Priors:
    """Files by part and tile, the level of what is missing by (part, tile), and the findings about it."""

    files: dict[str, dict[str, Path]]
    missing: dict[tuple[str, str], str]
    findings: list[Finding]


def _find_priors(
    training: AuditedTraining,
    folder: Path | None,
    listed: Mapping[str, Listing],
    wanted: Mapping[str, Sequence[str]],
) -> _Priors:
    """The priors to read with their tiles; what training needs and does not find is an error."""
    folder = folder or training.prior_path
    priors = _Priors({}, {}, [])
    if folder is None:
        return priors
    for part in PARTS:
        ids = list(listed[part].pairs)
        # Without a config that reads priors, a folder of priors is checked for all tiles.
        needed = frozenset(wanted.get(part, []) if wanted else ids if part == TRAINING_PART else [])
        priors.files[part] = {}
        for level, some in (
            (ERROR, [tile for tile in ids if tile in needed]),
            (WARNING, [tile for tile in ids if tile not in needed]),
        ):
            # evaluateViT.py makes the priors of the test part, often later, so a missing folder of them is no finding.
            if level == ERROR or _has_priors(folder, part, listed[part]):
                there, findings = list_priors(folder, part, listed[part].pairs, some, level)
                priors.files[part].update(there)
                priors.missing.update({(part, tile): level for tile in some if tile not in there})
                priors.findings.extend(findings)
    return priors


def _has_priors(folder: Path, part: str, listing: Listing) -> bool:
    """Whether priors of a part were begun."""
    if is_table(folder):
        return any(files.prior is not None for files in listing.pairs.values())
    return (folder / part / PRIOR_FOLDER).is_dir()


def _read_all(
    listed: Mapping[str, Listing], priors: Mapping[str, Mapping[str, Path]], workers: int
) -> list[Inspection]:
    jobs = [(part, tile) for part in PARTS for tile in listed[part].pairs]

    def look(job: tuple[str, str]) -> Inspection:
        part, tile = job
        return inspect(part, tile, listed[part].pairs[tile], priors.get(part, {}).get(tile))

    # Threads are enough: decoding, hashing and the Fourier transform release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=workers) as pool:
        looked = pool.map(look, jobs)
        try:
            # disable=None: no bar where stderr is a file.
            return list(progress_bar(looked, total=len(jobs), desc="reading", unit="tile"))
        except BaseException:
            # Otherwise Ctrl-C would wait for the thousands of tiles that are not read yet.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
