"""The card of a model folder: its README.md, with the front matter of the model hub, filled from the run's own files.

python -m Utils.training.runs.model_card --run output/Demo/diffusion --results results/Demo/diffusion

A run writes the card at its end, with what it knows: data, split, settings, validation score. The command writes it
again with scores of evaluations. What nobody has stated the card calls "not stated".
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from Modules.common.plain_json import parse_json, read_text
from Utils.core.command_line import run_script
from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes
from Utils.training.run_files import MODEL_FOLDER, PLAN_FILE
from Utils.training.runs.run_history import DAMAGED, Run, read_run, visible

__all__ = ["ABOUT_FILE", "CARD_FILE", "compose_card", "main", "write_card"]

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
ABOUT_FILE = "about.json"
"""In a dataset's folder: what ``ABOUT_KEYS`` names, as text; see Dataset/README.md."""
ABOUT_KEYS: Mapping[str, str] = {
    "name": "name",
    "source": "source",
    "sensor": "sensor",
    "ground_resolution": "ground resolution",
    "licence": "licence of the data",
}
_LARGEST = 2**28
_SCORES_SHOWN = ("mae", "rmse", "abs_rel", "ssim", "delta1", "miou", "iou", "accuracy", "f1", "epe", "bad")
_HEIGHTS = (
    "metres of heights that anybody should build, fly or dig by: it guesses heights from one image",
    "images of another sensor, resolution, season or kind of land than it was trained on, unless it is scored there",
)
_NOT_FOR: Mapping[str, Sequence[str]] = {
    "ViT": _HEIGHTS,
    "diffusion": _HEIGHTS,
    "Depth": _HEIGHTS,
    "Stereo": ("images without cameras, or with cameras that were not adjusted",),
    "Segmentation": (
        "decisions on single buildings or parcels",
        "images of another sensor, resolution or region than it was trained on, unless it is scored there",
    ),
}
_DRAWS = {
    "ViT": "relative height, 0 to 1 within each tile, without unit",
    "diffusion": "relative height, 0 to 1 within each tile, without unit",
    "Depth": "depth or height; unit: see target below",
    "Stereo": "depth or height of the reference view, in the unit of the cameras (metres for RPCs)",
    "Segmentation": "classes of land cover",
}
# What stands beside a model's scores in an evaluation without being drawn by it.
_NOT_ITS_OWN = ("VAE ceiling",)
_SETTINGS = (
    *("target", "direction", "vae_type", "prior", "loss_types", "optimiser", "lr", "batch_size", "epochs", "max_steps"),
    *("seed", "flips", "precision", "model.backbone", "model.fusion"),
)


def write_card(run: Path, results: Sequence[Path] = (), licence: str = "") -> Path:
    """Write the card of a run's model folder.

    Args:
        run: folder of the run.
        results: folders of evaluations of this model.
        licence: identifier of the weights' licence, as the hub knows it; empty where nobody has stated it.

    Raises:
        UserError: there is no finished model, or files that cannot be read or written.
    """
    if not (run / MODEL_FOLDER).is_dir():
        raise UserError(f"'{run}' holds no finished model; a run writes '{MODEL_FOLDER}/' at its end (see --resume)")
    path = run / MODEL_FOLDER / CARD_FILE
    try:
        atomic_write_bytes(path, compose_card(run, results, licence).encode())
    except OSError as error:
        raise write_error(path, error, "the model itself is whole") from error
    return path


def compose_card(folder: Path, results: Sequence[Path] = (), licence: str = "") -> str:
    """The text of a card; see ``write_card``."""
    run = read_run(folder)
    if run.state == DAMAGED:
        raise UserError(f"the run '{folder}' cannot be read: {run.reason}")
    scored = [(each, _read(each / "metrics.json")) for each in results]
    about = _about(Path(str(run.settings.get("dataset_path") or "")))
    lines = [
        *_front_matter(run, about, scored, licence),
        f"# {_cell(_title(folder))}",
        "",
        f"A model of D³-RSMDE, kind {_cell(run.kind)}. From images it draws {_draws(run)}.",
        *_section("Data", [*_data(run, about), *_splits(folder)]),
        *_section("Training", _training(run)),
        "",
        "## Scores",
        "",
        *_scores(run, scored),
        "",
        "## What it is not for",
        "",
        *(f"- {each}" for each in _NOT_FOR.get(run.kind, ("anything that it was not scored on",))),
    ]
    return "\n".join(lines) + "\n"


def _draws(run: Run) -> str:
    if run.settings.get("prior") == "dem":
        return "heights in metres about the surface of a coarse DEM, which it is given"
    return _DRAWS.get(run.kind, "maps")


def _title(folder: Path) -> str:
    """The last two names of a path: a card that is published tells no more of the machine."""
    return "/".join(part for part in folder.parts[-2:] if part not in ("/", "output", "BASE_DATA_DIR"))


def _front_matter(
    run: Run, about: Mapping[str, str], scored: Sequence[tuple[Path, Any]], licence: str
) -> Iterator[str]:
    """What the hub reads, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-segmentation" if run.kind == "Segmentation" else "depth-estimation"
    found = [
        EvalResult(
            task_type=task,
            dataset_type="custom",
            dataset_name=about.get("name") or _title(Path(str(run.settings.get("dataset_path") or "unknown"))),
            metric_type=name,
            metric_name=f"{method} {name}".strip(),
            metric_value=round(mean, 6),
        )
        for _, metrics in scored
        for method, name, mean, _, _ in _rows(metrics)
        if method not in _NOT_ITS_OWN
    ]
    data = ModelCardData(
        library_name="d3-rsmde",
        license=licence or None,
        pipeline_tag=task,
        tags=["remote-sensing", "earth-observation", run.kind.lower()],
        model_name=_title(run.folder),
        eval_results=found or None,
    )
    yield from ("---", *data.to_yaml().strip().splitlines(), "---", "")


def _section(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| what | value |", "| --- | --- |")
    yield from (f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)


def _about(dataset: Path) -> Mapping[str, str]:
    """What the dataset says of itself; empty where it says nothing."""
    path = dataset / ABOUT_FILE
    if not path.is_file():
        return {}
    document = _read(path)
    unknown = sorted(document.keys() - ABOUT_KEYS.keys()) if isinstance(document, dict) else ["no JSON object"]
    if unknown:
        raise UserError(f"'{path}': {unknown[0]!r} is no key of it; its keys are {', '.join(ABOUT_KEYS)}")
    return {key: str(value) for key, value in document.items()}


def _data(run: Run, about: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "dataset", _title(Path(str(run.settings.get("dataset_path") or "not stated")))
    for key, name in ABOUT_KEYS.items():
        yield name, about.get(key) or f"not stated ({ABOUT_FILE} of the dataset says it)"


def _splits(folder: Path) -> Iterator[tuple[str, str]]:
    """The numbers of tiles of each stage."""
    try:
        plan = parse_json(read_text(folder / PLAN_FILE, _LARGEST))
        for stage in plan:
            counts = f"{len(stage['train'])} trained on, {len(stage['validation'])} validated on"
            held = len(stage.get("held_out") or ())
            yield f"tiles of stage {stage['name']}", counts + (f", {held} held out" if held else "")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"'{folder / PLAN_FILE}' cannot be read: {error}") from error


def _training(run: Run) -> Iterator[tuple[str, str]]:
    for name in _SETTINGS:
        value = run.settings.get(name)
        if value not in (None, "", [], {}):
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    unlabelled = run.settings.get("self_training.domains")
    if isinstance(unlabelled, list):
        part = run.settings.get("self_training.part", "")
        yield "images without labels", f"self-training on {', '.join(map(str, unlabelled))} ({part})"
    yield "hours", f"{run.hours:.2f}"


def _scores(run: Run, scored: Sequence[tuple[Path, Any]]) -> Iterator[str]:
    """A table of each evaluation, or what the validation gave."""
    best = run.best
    if best is not None and best.validated:
        way = "lower" if best.lower_is_better else "higher"
        name = best.name.removeprefix("validation/")
        yield f"Validation, which chose the weights: {name} {best.value:.4g} in epoch {best.epoch} ({way} is better)."
    else:
        yield "There was no validation."
    if not scored:
        yield ""
        yield "No evaluation on test tiles is stated here."
    for folder, metrics in scored:
        tiles = metrics.get("tiles", "?")
        yield from ("", f"On {tiles} test tiles ({_cell(_title(folder))}), mean ± standard error over tiles:", "")
        yield from ("| map | score | mean | standard error | tiles |", "| --- | --- | --- | --- | --- |")
        for method, name, mean, error, count in _rows(metrics):
            stated = "not stated" if error is None else f"{error:.2g}"
            yield f"| {_cell(method)} | {_cell(name)} | {mean:.4g} | {stated} | {count} |"
        protocols = metrics.get("protocols")
        if isinstance(protocols, dict):
            yield ""
            yield from (f"- {_cell(str(name))}: {_cell(str(text))}" for name, text in protocols.items())


def _rows(metrics: Any) -> Iterator[tuple[str, str, float, float | None, Any]]:
    """Map, score, mean, standard error and count of the scores that a card shows."""
    summary = metrics.get("summary") if isinstance(metrics, dict) else None
    for method, scores in (summary or {}).items():
        for name, found in scores.items():
            mean = found.get("mean") if isinstance(found, dict) else found
            if isinstance(mean, int | float) and name.rsplit(".", 1)[-1].lower().startswith(_SCORES_SHOWN):
                error = found.get("standard_error") if isinstance(found, dict) else None
                yield method, name, float(mean), error, found.get("count", "") if isinstance(found, dict) else ""


def _read(path: Path) -> Any:
    try:
        return parse_json(read_text(path, _LARGEST))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error


def _cell(text: str) -> str:
    """A text for a cell of a table: on one line, and no table of its own."""
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a card; returns the exit status."""
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m Utils.training.runs.model_card", description=__doc__, formatter_class=text
    )
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="folder of a finished run")
    parser.add_argument(
        "--results", type=Path, nargs="*", default=[], metavar="FOLDER", help="evaluations of its model"
    )
    parser.add_argument("--licence", default="", help="of the weights, as the hub names it, such as apache-2.0")
    given = parser.parse_args(arguments)
    return run_script(lambda: logger.info("%s", write_card(given.run, given.results, given.licence)))


if __name__ == "__main__":
    raise SystemExit(main())
