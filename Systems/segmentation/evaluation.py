"""The evaluation of networks of land cover, class maps, and submissions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Systems.segmentation.config import SegmentationEvaluationConfig
from Systems.segmentation.tiles import class_table, find_land_cover, how_read
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.processes import everywhere, gather_in_turn, on_main, progress_bar, tell
from Utils.data.land_cover.class_table import ClassTable
from Utils.data.land_cover.land_cover_check import check_land_cover
from Utils.data.land_cover.listing import LandCoverFiles, has_masks
from Utils.data.splits import select

if TYPE_CHECKING:
    import torch

    from Modules.segmentation.networks import SegmentationNetwork
    from Utils.data.land_cover.land_cover_dataset import LandCoverDataset
    from Utils.scoring.land_cover.class_scorer import ClassScorer
    from Utils.scoring.scores import Row

logger = logging.getLogger(__name__)

CLASSES_FOLDER = "classes"


@dataclass
class _Part:
    """What one process found: tiles, their rows, class maps for a submission by file name, and seconds."""

    ids: list[str] = field(default_factory=list)
    rows: list[Row | None] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate_segmentation(config: SegmentationEvaluationConfig, dry_run: bool) -> None:
    """Score a network of land cover, write its class maps and, where the config asks for it, a submission.

    Raises:
        UserError: tiles, model or results that cannot be read or written, or that do not fit together.
    """
    if config.description:
        logger.info("%s", config.description)
    device = pick_device()

    from torch import nn

    from Systems.segmentation.build import load_segmentation
    from Systems.segmentation.report import write_class_report
    from Utils.data.land_cover.land_cover_dataset import LandCoverDataset
    from Utils.reports.evaluation import Evaluation
    from Utils.scoring.land_cover.class_scorer import ClassScorer

    network = everywhere(lambda: load_segmentation(Path(config.checkpoint_path)))
    table = everywhere(lambda: _table(config, network))
    how = how_read(config, table, network.uses_depth)
    masks = on_main(lambda: _have_masks(config))
    tiles = on_main(lambda: find_land_cover(config, config.part, config.domains, how, masks))
    ids = select(list(tiles), config.test_split_text, config.dataset_path)
    names = on_main(lambda: _submitted_names(config, tiles, ids))
    on_main(lambda: check_land_cover(tiles, ids, how, config.batch_size > 1, f"tiles of {config.part}"))
    if dry_run:
        tell(f"config and dataset are in order: {len(ids)} tiles, results would go to '{config.output_dir}'")
        return
    nn.Module.to(network, device)
    scorer = ClassScorer(table.names, config.absent_classes, config.boundaries)
    dataset = LandCoverDataset(tiles, ids, how, one_size=config.batch_size > 1)
    parts = gather_in_turn(everywhere(lambda: [_score(config, network, dataset, scorer, table, names, device)]))
    found = Evaluation(scorer)
    pictures: dict[str, bytes] = {}
    for part in parts:
        found.ids += part.ids
        found.rows.setdefault("classes", []).extend(part.rows)
        found.seconds += part.seconds
        pictures |= part.pictures
    facts = _facts(config, network)
    if masks:
        tell(on_main(lambda: write_class_report(found, config, facts, table)))
    if config.submission is not None:
        on_main(lambda: _submit(config, tiles, ids, names, pictures, len(table.names)))
        tell(f"submission, checked: {config.submission} ({len(names)} files)")
    tell(f"class maps, tables and pictures: {config.output_dir}")


def _table(config: SegmentationEvaluationConfig, network: SegmentationNetwork) -> ClassTable:
    """The classes, which the masks and the network must share."""
    table = class_table(config)
    learnt = tuple(network.config["classes"])
    if learnt != table.names:
        given = "LoveDA's, which is taken without class_table" if config.class_table is None else config.class_table
        raise UserError(
            f"the network '{config.checkpoint_path}' draws {', '.join(learnt)}, and the table has "
            f"{', '.join(table.names)} ({given}); set class_table to that of the training"
        )
    return table


def _have_masks(config: SegmentationEvaluationConfig) -> bool:
    """Whether the part has masks; without them there is nothing but a submission.

    Raises:
        UserError: there is neither a mask nor a submission to write.
    """
    if has_masks(Path(config.dataset_path), config.part, config.domains):
        return True
    if config.submission is None:
        raise UserError(
            f"the part {config.part} of '{config.dataset_path}' has no masks of {', '.join(config.domains)}, so "
            "nothing can be scored; name another part, or give submission to write class maps alone"
        )
    return False


def _submitted_names(
    config: SegmentationEvaluationConfig, tiles: Mapping[str, LandCoverFiles], ids: list[str]
) -> dict[str, str]:
    """The file in the submission of every tile; none without one.

    Raises:
        UserError: two images of one name: the challenges are of one domain each.
    """
    if config.submission is None:
        return {}
    names = {tile: f"{tiles[tile].image.stem}.png" for tile in ids}
    if len(set(names.values())) < len(names):
        raise UserError(
            f"submission: {', '.join(config.domains)} have images of one name, and a challenge is of one domain; name "
            "one in domains"
        )
    return names


def _score(
    config: SegmentationEvaluationConfig,
    network: SegmentationNetwork,
    dataset: LandCoverDataset,
    scorer: ClassScorer,
    table: ClassTable,
    names: Mapping[str, str],
    device: torch.device,
) -> _Part:
    """Draw and score this process's share of the tiles, writing class maps and pictures on the way."""
    import numpy as np
    import torch

    from Modules.common.number_formats import DTYPES
    from Modules.segmentation.sliding import sliding_probabilities
    from Systems.segmentation.pictures import class_panels
    from Utils.data.loaders import make_loader, on_device
    from Utils.data.sample import item
    from Utils.pictures.comparison import save_comparison
    from Utils.rasters.label_files import encode_labels, write_labels
    from Utils.rasters.tile_files import write_map_float
    from Utils.reports.evaluation import choose_pictures, map_file, writing

    folder, part = Path(config.output_dir), _Part()
    pictured = choose_pictures(dataset.ids, config.pictures, config.seed)
    half = config.precision != "fp32"
    loader = make_loader(dataset, config.batch_size, config.num_workers, shared=True)
    for batch in progress_bar(on_device(loader, device), total=len(loader), desc="evaluating", unit="batch"):
        started = time.perf_counter()
        with torch.no_grad(), torch.autocast(device.type, DTYPES[config.precision], enabled=half):
            found = sliding_probabilities(network, batch["image"], batch.get("depth"), config.window, config.stride)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        part.seconds += time.perf_counter() - started
        part.ids += batch["id"]
        part.rows += scorer.score_batch(batch, found)
        for place, tile in enumerate(batch["id"]):
            drawn = found[place].argmax(dim=0).cpu().numpy().astype(np.uint8)
            path = folder / CLASSES_FOLDER / f"{tile}.png"
            with writing(path):
                write_labels(path, drawn, table.colours)
            if config.confidence:
                sure = found[place].max(dim=0).values.cpu().numpy()
                path = map_file(folder, tile, config.map_format)
                with writing(path):
                    write_map_float(path, sure)
            if names:
                part.pictures[names[tile]] = encode_labels(drawn)
            if tile in pictured:
                path = folder / "pictures" / f"{tile}.png"
                panels = class_panels(item(batch, place), drawn, table)
                with writing(path):
                    save_comparison(path, panels, f"tile {tile}", columns=len(panels))
    return part


def _submit(
    config: SegmentationEvaluationConfig,
    tiles: Mapping[str, LandCoverFiles],
    ids: list[str],
    names: Mapping[str, str],
    pictures: Mapping[str, bytes],
    classes: int,
) -> None:
    from Utils.data.land_cover.submission import write_submission
    from Utils.rasters.tile_files import raster_size

    assert config.submission is not None
    expected = {names[tile]: raster_size(tiles[tile].image) for tile in ids}
    write_submission(Path(config.submission), pictures, expected, classes)


def _facts(config: SegmentationEvaluationConfig, network: SegmentationNetwork) -> dict[str, Any]:
    """What every file should say of the network, and of whether labels of the target played a part."""
    trained = list(network.config["trained_on"])
    other = [domain for domain in config.domains if domain not in trained]
    keys = ("backbone", "depth_backbone", "fusion", "head")
    known = {key: network.config[key] for key in keys}
    whole = config.window is None
    return {
        "model": config.checkpoint_path,
        **known,
        "parameters": sum(value.numel() for value in network.parameters()),
        "trained_on": trained,
        "scored_on": f"{config.part}: {', '.join(config.domains)}",
        "domain": "target" if other == config.domains else "source and target" if other else "source",
        "selected_on": network.config["selected_on"],
        "unlabelled_images": list(network.config["unlabelled"]),
        "depth_source": config.depth_source if network.uses_depth else "no map",
        "windows": "whole tiles" if whole else f"{config.window} pixels every {config.stride}, probabilities averaged",
    }
