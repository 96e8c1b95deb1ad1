"""Whether relative depth helps: the network with it, without it and beside controls that know nothing, over seeds.

python -m Systems.segmentation.ablation --train Config/Segmentation/LoveDA_U2R_convnext_b_s_train.json
    --evaluate Config/Segmentation/LoveDA_U2R_convnext_b_s_evaluate.json --seeds 0 1 2 --output results/ablation

A training config with self_training gets two rows more, which use it; the other rows leave it out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from Systems.segmentation.ablation_plan import SELF_TRAINED, VARIANTS, Ablation, Variant
from Utils.core.errors import UserError
from Utils.core.side_by_side import Job
from Utils.core.step_progress import Step
from Utils.training.demo_steps import DemoSteps, can_train_together

__all__ = ["ablation_steps", "run_ablation"]

ROOT = Path(__file__).resolve().parents[2]


def ablation_steps(ablation: Ablation, seconds: float = 60.0, scoring: float = 5.0) -> list[Step]:
    """The steps of an ablation, with rough seconds of a training on one core, and of an evaluation."""
    return [
        *(Step(_step(*one), seconds / 2) for one in ablation.each),
        *(Step(_step(*one, "evaluate "), scoring) for one in ablation.each),
    ]


def run_ablation(steps: DemoSteps, ablation: Ablation) -> str:
    """Train and score all variants over all seeds; what is there from an earlier call is kept.

    Returns:
        The table, which is also written to ``ablation.md`` with ``ablation.csv``, ``ablation.json`` and pictures.

    Raises:
        UserError: a script failed; it has said why.
    """
    todo = [one for one in ablation.each if not (ablation.run(*one) / "model").is_dir()]
    _train(steps, ablation, todo)
    for variant, seed in ablation.each:
        steps.begin(_step(variant, seed, "evaluate "), f"the target: {variant.title}, seed {seed}")
        results = ablation.scores(variant, seed)
        if not (results / "metrics.json").is_file():
            changes = {"depth_source": variant.depth_source, "output_dir": results}
            arguments = {"checkpoint_path": ablation.run(variant, seed), "seed": seed, **changes}
            steps.call("evaluateSegmentation", _arguments(ablation.evaluate, arguments))

    from Systems.segmentation.ablation_table import write_ablation

    return write_ablation(ablation)


def _train(steps: DemoSteps, ablation: Ablation, todo: Sequence[tuple[Variant, int]]) -> None:
    """As many trainings side by side as there are cores."""
    script = ROOT / "trainSegmentation.py"
    if todo and can_train_together():
        steps.begin(_step(*todo[0]), f"{len(todo)} trainings, side by side")
        jobs = [Job([script, *_training(ablation, *one)], step=_step(*one)) for one in todo]
        steps.run_together(jobs)
        return
    for variant, seed in todo:
        steps.begin(_step(variant, seed), f"training: {variant.title}, seed {seed}")
        with steps.following_epochs(_step(variant, seed)):
            steps.call("trainSegmentation", _training(ablation, variant, seed))


def _step(variant: Variant, seed: int, before: str = "") -> str:
    return f"{before}{variant.name}_{seed}"


def _training(ablation: Ablation, variant: Variant, seed: int) -> list[object]:
    changes = {**variant.changes, "output_dir": ablation.run(variant, seed), "seed": seed}
    return _arguments(ablation.train, changes)


def _arguments(config: Path, changes: Mapping[str, object]) -> list[object]:
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value, default=str)}")]
    return ["--config", config, *settings]


def _chosen(train: Path, names: Sequence[str] | None) -> list[Variant]:
    """The rows with some names, or all that a training config has.

    Raises:
        UserError: a config that cannot be read, or that has no self_training where such a row is asked for.
    """
    from Utils.config.config_files import read_merged

    teaches = bool(read_merged(train)[0].get("self_training"))
    rows = [*VARIANTS, *(SELF_TRAINED if teaches else ())]
    missing = sorted(set(names or ()) - {variant.name for variant in rows})
    if missing:
        raise UserError(f"--variants {missing[0]}: '{train}' has no self_training; add it, or leave the row out")
    return [variant for variant in rows if names is None or variant.name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m Systems.segmentation.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", type=Path, required=True, metavar="JSON", help="training with relative depth")
    parser.add_argument("--evaluate", type=Path, required=True, metavar="JSON", help="evaluation on the target")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training a variant and seed")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for runs, scores and the table")
    names = [variant.name for variant in (*VARIANTS, *SELF_TRAINED)]
    parser.add_argument("--variants", nargs="+", choices=names, help="rows of the table (all)")
    parser.add_argument("--resume", action="store_true", help="keep the trainings and scores that are there")
    given = parser.parse_args(arguments)

    from Utils.core.command_line import run_script
    from Utils.core.stopping import stopping_on_signals

    def work() -> None:
        if given.output.exists() and any(given.output.iterdir()) and not given.resume:
            raise UserError(
                f"--output '{given.output}' holds something: --resume keeps and completes it, or name another"
            )
        if len(set(given.seeds)) < len(given.seeds):
            raise UserError(f"--seeds {given.seeds}: give each once")
        chosen = _chosen(given.train, given.variants)
        ablation = Ablation(given.train, given.evaluate, given.output, given.seeds, variants=chosen)
        with stopping_on_signals():
            steps = DemoSteps(ablation_steps(ablation))
            print(f"\n{run_ablation(steps, ablation)}\n\ntable, numbers and pictures: {given.output}")

    return run_script(work)


if __name__ == "__main__":
    raise SystemExit(main())
