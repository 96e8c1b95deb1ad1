"""The evaluation of stereo networks on the test samples, beside baselines that need no weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Systems.stereo.config import StereoEvaluationConfig
from Systems.stereo.run import one_kind
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.processes import everywhere, on_main, tell
from Utils.core.tables import format_table, write_csv
from Utils.data.splits import select
from Utils.data.stereo.sample_check import check_samples
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.view_files import CameraKind, StereoFiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from Modules.stereo.networks import StereoNetwork
    from Utils.data.sample import Batch
    from Utils.reports.evaluation import Evaluation

logger = logging.getLogger(__name__)

_SWEEP, _CONSTANT = "NCC sweep", "constant"
_VIEWS_FILE = "views.csv"
_SHOWN = ("mae", "rmse", "median", "nmad", "below_1m", "complete")


def evaluate_stereo(config: StereoEvaluationConfig, dry_run: bool) -> None:
    """Score a stereo network, or the sweep alone where no network is named.

    Raises:
        UserError: samples, model or results that cannot be read or written, or that do not fit together.
    """
    if config.description:
        logger.info("%s", config.description)
    samples, ids, cameras = on_main(lambda: _check_samples(config))
    device = pick_device()

    from Systems.stereo.pictures import with_pictures
    from Systems.stereo.pixel_kinds import KINDS, HardPixels
    from Systems.stereo.task import quantity_of
    from Utils.data.stereo.stereo_dataset import StereoDataset
    from Utils.reports.evaluation import Prediction, evaluate
    from Utils.reports.evaluation_report import REPORT_FILE, write_report
    from Utils.scoring.stereo.stereo_scorer import StereoScorer

    network = everywhere(lambda: _network(config, cameras, device))
    if dry_run:
        tell(f"config and dataset are in order: {len(ids)} test samples, results would go to '{config.output_dir}'")
        return
    name = "height" if cameras == "rpc" else "depth"
    predict, beside = _maps(config, network, device, name)
    kinds = KINDS if config.kinds_of_pixels else {}
    scorer = StereoScorer(config.least_confidence, kinds, HardPixels() if kinds else lambda batch: {})
    dataset = StereoDataset(samples, ids, target=with_pictures(), one_size=config.batch_size > 1)
    found = evaluate(
        lambda batch: Prediction(predict(batch)),
        dataset,
        config,
        device,
        scorer,
        references=beside,
        within_one=False,
        quantity=quantity_of(cameras),
        holes=network is None,
    )
    views = _table_of_views(found, {sample: samples[sample].reference.view for sample in ids}, Path(config.output_dir))
    tell(on_main(lambda: write_report(found, config, _facts(config, network, cameras), dataset)))
    if views:
        tell(f"\n{views}")
    tell(f"\nto look at: {Path(config.output_dir) / REPORT_FILE}\ntables, maps and pictures: {config.output_dir}")


def _check_samples(config: StereoEvaluationConfig) -> tuple[Mapping[str, StereoFiles], list[str], CameraKind]:
    """The test samples, the ids to score, and the kind of their cameras, after reading each once."""
    root = Path(config.root) if config.root else None
    samples = find_samples(Path(config.dataset_path), "test", config, root, config.image_full_scale)
    ids = select(list(samples), config.test_split_text, config.dataset_path)
    check = check_samples(samples, ids, one_size=config.batch_size > 1)
    if set(check.empty).issuperset(ids):
        raise UserError(f"nothing can be scored: no truth of the {len(ids)} test samples has a pixel within its range")
    return samples, ids, one_kind(samples)


def _network(config: StereoEvaluationConfig, cameras: CameraKind, device: torch.device) -> StereoNetwork | None:
    """The network on its device; None where none is named.

    Raises:
        UserError: a network that learnt from other cameras, or that needs maps which the config does not name.
    """
    if config.checkpoint_path is None:
        return None
    from torch import nn

    from Systems.stereo.build import load_fitting

    given = config.relative_depth_folder is not None
    network = load_fitting(Path(config.checkpoint_path), cameras, given, "name their folder in relative_depth_folder")
    nn.Module.to(network, device)
    return network


def _maps(
    config: StereoEvaluationConfig, network: StereoNetwork | None, device: torch.device, name: str
) -> tuple[Callable[[Batch], dict[str, Tensor]], Callable[[Batch], dict[str, Tensor]]]:
    """What draws the map that is the result, and those that stand beside it."""
    import torch

    from Modules.common.number_formats import DTYPES
    from Systems.stereo.baselines import constant_map, sweep_map
    from Systems.stereo.task import estimates, scored_maps
    from Utils.reports.controls import CONTROL

    def sweep(batch: Batch) -> Tensor:
        return sweep_map(batch, config.sweep_window, config.sweep_planes)

    def predict(batch: Batch) -> dict[str, Tensor]:
        if network is None:
            return {name: sweep(batch)}
        half = config.precision != "fp32"
        with torch.no_grad(), torch.autocast(device.type, DTYPES[config.precision], enabled=half):
            return {name: scored_maps(estimates(network, batch)[-1])}

    def beside(batch: Batch) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        if "constant" in config.baselines:
            made[f"{CONTROL}{_CONSTANT}"] = constant_map(batch)
        if "sweep" in config.baselines and network is not None:
            made[f"{CONTROL}{_SWEEP}"] = sweep(batch)
        return made

    return predict, beside


def _facts(config: StereoEvaluationConfig, network: StereoNetwork | None, cameras: CameraKind) -> dict[str, Any]:
    """What every file should say of what was scored."""
    shown: dict[str, Any] = {"cameras": cameras, "views": config.views}
    if network is None:
        return shown | {"model": f"{_SWEEP}, windows of {config.sweep_window} pixels, no network"}
    keys = ("network", "relative_depth", "hypotheses", "ratios", "counting", "norm")
    known = {key: network.config[key] for key in keys}
    size = {"parameters": sum(value.numel() for value in network.parameters())}
    return {"model": config.checkpoint_path} | known | size | shown


def _table_of_views(found: Evaluation, views: Mapping[str, str], folder: Path) -> str:
    """Scores by the view that was drawn, as Markdown and in a file; nothing where there is one view."""
    names = list(dict.fromkeys(views[sample] for sample in found.ids))
    if len(names) < 2:
        return ""
    from Utils.reports.evaluation import writing

    scorer = found.scorer
    keys = [f"stereo.{key}" for key in _SHOWN]
    lines, rows = [], []
    for name in names:
        chosen = [place for place, sample in enumerate(found.ids) if views[sample] == name]
        for method, scored in found.rows.items():
            summary = scorer.summarise([scored[place] for place in chosen])
            rows.append({"view": name, "map": method, "samples": len(chosen)} | {k: summary[k]["mean"] for k in keys})
            lines.append([name, method, *(scorer.metric(key).format(summary[key]["mean"]) for key in keys)])

    def write() -> None:
        with writing(folder / _VIEWS_FILE):
            write_csv(folder / _VIEWS_FILE, rows)

    on_main(write)
    return format_table(["view", "map", *(scorer.metric(key).heading for key in keys)], lines)
