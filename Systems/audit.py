"""Audit a dataset before training on it.

    python -m Systems.audit --dataset Dataset/BASE_DATA_DIR/ImageToDEM-J_K [--config Config/ViT/J_K_train.json]

The exit status is 0 where training would start and 2 where it would not; with ``--strict``, warnings count too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Systems.d3rsmde.config import DiffusionTrainingConfig, ViTTrainingConfig
from Systems.d3rsmde.dem_prior.config import DemTrainingConfig
from Systems.depth.config import DepthTrainingConfig
from Systems.kinds import kind_of
from Systems.segmentation.config import SegmentationTrainingConfig
from Systems.stereo.config import StereoTrainingConfig
from Utils.config.config_files import load_config, read_merged
from Utils.config.training_keys import TrainingConfig
from Utils.core.command_line import EXIT_USER_ERROR, run_script
from Utils.core.errors import UserError

if TYPE_CHECKING:
    from Utils.data.audit.audited_training import AuditedTraining


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit; returns its exit status."""
    given = _parser().parse_args(arguments)
    refused = False

    def work() -> None:
        nonlocal refused
        if given.workers < 1:
            raise UserError(f"--workers {given.workers}: give 1 or more")
        name = given.dataset.resolve().name.removesuffix(".csv")
        output = given.output or Path("results") / "audit" / (name or "dataset")
        config = None if given.config is None else read_training_config(given.config)
        if isinstance(config, StereoTrainingConfig):
            summary = _audit_stereo(given, config, output)
            refused = not summary["training_would_start"] or (given.strict and summary["warnings"] > 0)
            return
        from Utils.data.audit.audit_report import describe, summarise, write_audit
        from Utils.data.audit.findings import printable
        from Utils.data.audit.survey import audit

        found = audit(_training(given, config), given.splits, given.priors, given.workers)
        summary = summarise(given.dataset, found.inspections, found.findings)
        write_audit(output, summary, [item.row for item in found.inspections])
        print(describe(summary))
        print(printable(f"{output / 'audit.json'}, {output / 'tiles.csv'}"))
        refused = not summary["training_would_start"] or (given.strict and summary["warnings"] > 0)

    status = run_script(work)
    return EXIT_USER_ERROR if refused else status


def _audit_stereo(given: argparse.Namespace, config: StereoTrainingConfig, output: Path) -> dict[str, Any]:
    """Audit a dataset of views, and print what was found; gives the summary."""
    from Systems.stereo.run import StereoRun
    from Utils.data.audit.findings import printable
    from Utils.data.audit.stereo_audit import audit_stereo, describe_stereo, summarise_stereo, write_stereo_audit

    for option, value in (("--splits", given.splits), ("--priors", given.priors)):
        if value:
            raise UserError(f"{option} is for single images, and '{given.config}' trains on views; leave it out")
    root = None if given.root is None else str(given.root)
    changed = config.model_copy(update={"dataset_path": str(given.dataset)} | ({} if root is None else {"root": root}))
    start = Path(changed.root) if changed.root else None
    check = StereoRun(changed).check
    found = audit_stereo(given.dataset, changed, check, start, changed.image_full_scale, given.workers)
    summary = summarise_stereo(given.dataset, found)
    write_stereo_audit(output, summary, found.rows)
    print(describe_stereo(summary))
    print(printable(f"{output / 'audit.json'}, {output / 'samples.csv'}"))
    return summary


def _training(given: argparse.Namespace, config: TrainingConfig | None) -> AuditedTraining:
    """The training that the audit is about: that of the config, on the given dataset, or stage 1 on all tiles."""
    from Systems.d3rsmde.audited import audited_coarse, audited_dem_refiner, audited_refiner
    from Systems.depth.audited import audited_depth

    dataset, root = str(given.dataset), None if given.root is None else str(given.root)
    if config is None:
        return audited_coarse(ViTTrainingConfig(dataset_path=dataset, root=root))
    changes = {"dataset_path": dataset} | ({} if root is None else {"root": root})
    if isinstance(config, DiffusionTrainingConfig):
        if given.priors is not None:
            changes["prior_path"] = str(given.priors)
        return audited_refiner(config.model_copy(update=changes))
    if isinstance(config, DepthTrainingConfig):
        return audited_depth(config.model_copy(update=changes))
    if isinstance(config, DemTrainingConfig):
        return audited_dem_refiner(config.model_copy(update=changes))
    if isinstance(config, SegmentationTrainingConfig):
        raise UserError(
            f"'{given.config}' trains on land cover, which is checked by: python trainSegmentation.py --config "
            f"{given.config} --dry-run"
        )
    assert isinstance(config, ViTTrainingConfig)
    return audited_coarse(config.model_copy(update=changes))


def read_training_config(path: Path) -> TrainingConfig:
    """Read a training config of any kind; its keys tell the kind.

    Raises:
        UserError: a bad config, or one for evaluation.
    """
    kind = kind_of(read_merged(path)[0])
    if not issubclass(kind.config, TrainingConfig):
        raise UserError(f"config '{path}' is for evaluation, with {kind.script}; give one of a training script")
    return load_config(path, kind.config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Systems.audit", description="check a dataset before training on it"
    )
    parser.add_argument("--dataset", type=Path, required=True, help="folder in the published layout, or a CSV table")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the paths in a table start (its own folder)")
    parser.add_argument("--config", type=Path, help="training config whose split files and priors are checked too")
    parser.add_argument("--splits", type=Path, nargs="+", default=[], metavar="FILE", help="split files to check")
    parser.add_argument("--priors", type=Path, metavar="DIR", help="folder of coarse priors to check")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default results/audit/<dataset>")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads, default %(default)s")
    parser.add_argument("--strict", action="store_true", help="exit with 2 for warnings too")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
