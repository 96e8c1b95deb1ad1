"""The evaluation of depth networks on the test tiles, in the protocols that their target allows."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Modules.depth.names import Target
from Systems.depth.config import DepthEvaluationConfig, Scores
from Systems.depth.depth_tiles import read_as_depth
from Systems.depth.known_depth import refuse_unknown, tiles_without_depth
from Systems.depth.run import seen_size
from Utils.core.device import pick_device
from Utils.core.errors import UserError
from Utils.core.processes import everywhere, on_main, tell
from Utils.data.published_layout import TEST_PART, TileFiles, prior_file
from Utils.data.test_tiles import test_tiles
from Utils.data.tile_check import TileCheck, check_tiles
from Utils.training.priors import PRIORS_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from Modules.depth.enc_dec import EncDec
    from Utils.data.sample import Batch
    from Utils.rasters.relief_tags import ReliefTags
    from Utils.reports.evaluation import Prediction
    from Utils.scoring.scores import Scorer

logger = logging.getLogger(__name__)

# Height and width at which the published protocol predicts.
_PUBLISHED_SIZE = (240, 320)
_NYU_SIZE = (480, 640)
# Frames of NYU's official test set, on which tables are made (Eigen et al., NeurIPS 2014).
EIGEN_NYU_FRAMES = 654


def evaluate_depth(config: DepthEvaluationConfig, dry_run: bool) -> None:
    """Score a depth network, and write its priors of the test tiles where they are heights.

    Raises:
        UserError: tiles, model or results that cannot be read or written; scores that the network's target rules out.
    """
    if config.description:
        logger.info("%s", config.description)
    files, ids, check = on_main(lambda: _check_tiles(config))
    device = pick_device()

    from torch import nn

    from Systems.depth.build import load_depth
    from Systems.depth.targets import depth_target
    from Systems.depth.task import quantity_of, upwards
    from Utils.data.resizing import resize_image
    from Utils.data.tile_dataset import TileDataset
    from Utils.reports.evaluation import Prediction, evaluate
    from Utils.reports.evaluation_report import REPORT_FILE, write_report
    from Utils.scoring.depth.depth_published import doubled
    from Utils.scoring.depth.depth_scorer import resized

    network = everywhere(lambda: load_depth(Path(config.checkpoint_path)))
    nn.Module.to(network, device)
    network.optimise(config.precision, config.channels_last, config.compile)
    target: Target = network.config["target"]
    scores = _scores(config, target)
    if scores == "published":
        ids = _published_frames(ids)
    elif scores == "depth" and config.crop == "eigen_nyu" and len(ids) != EIGEN_NYU_FRAMES:
        logger.warning(
            "%d test frames are scored; tables of NYU are made on Eigen's %d, which nyu2_test.csv lists, or "
            "the split file in test_split_text",
            len(ids),
            EIGEN_NYU_FRAMES,
        )
    in_metres = scores in ("depth", "published")
    unknown = on_main(lambda: tiles_without_depth(config, files, check, in_metres))
    refuse_unknown(config, files, ids, unknown, "test")
    one_size = on_main(lambda: _check_frames(config, scores, [files[tile].height for tile in ids]))
    tags = on_main(lambda: _relief_tags(files, ids)) if scores == "relief" else {}
    scorer = _scorer(config, scores, target, tags)
    priors = _priors_folder(config, network, scores)
    if dry_run:
        tell(f"config and dataset are in order: {len(ids)} test tiles, results would go to '{config.output_dir}'")
        return

    size = _PUBLISHED_SIZE if scores == "published" else seen_size(network.config["image_size"])

    def predict(batch: Batch) -> Prediction:
        image = batch["image"] if size is None else resize_image(batch["image"], size)
        if scores == "published":
            return Prediction({"depth": doubled(network.draw(image))})
        name = "height" if target == "summit" else "depth"
        return Prediction({name: resized(upwards(network(image), target), batch["target"].shape[-2:])})

    # Truths beyond what the network can draw count here, unlike in training.
    truth = "metres" if in_metres else target
    transform = depth_target(truth, None, config.metres_per_unit, config.hole)
    dataset = TileDataset(files, ids, target=transform, one_size=one_size)
    # Frames of several sizes, as KITTI has them, make no batch.
    batches = config if one_size else config.model_copy(update={"batch_size": 1})
    keep = _prior_writer(priors) if priors is not None else lambda tile, maps: None
    found = evaluate(
        predict,
        dataset,
        batches,
        device,
        scorer,
        on_maps=keep,
        within_one=target == "relative",
        quantity=quantity_of(target, network.config["direction"]),
    )
    facts = {"model": config.checkpoint_path} | _facts(network, scores, size)
    facts |= {} if priors is None else {"prior_path": str(priors)}
    facts |= {"height_reference": _references(tags)} if tags else {}
    tell(on_main(lambda: write_report(found, config, facts, dataset)))
    if tags:
        from Systems.depth.pair_table import write_pair_tables

        tell("\n" + on_main(lambda: write_pair_tables(found, files, tags, Path(config.output_dir))))
    tell(f"\nto look at: {Path(config.output_dir) / REPORT_FILE}\ntables, maps and pictures: {config.output_dir}")
    if priors is not None:
        tell(f"priors of the test tiles: {priors}")


def _priors_folder(config: DepthEvaluationConfig, network: EncDec, scores: Scores) -> Path | None:
    """Where priors of the test tiles go; None where the network's maps do not rise with the ground, as priors do.

    Raises:
        UserError: the config names a folder, and there will be no priors.
    """
    learnt_from = "height" if network.config["target"] == "summit" else network.config["direction"]
    if learnt_from == "height" and scores != "published":
        return Path(config.prior_path or Path(config.output_dir) / PRIORS_FOLDER)
    if config.prior_path is not None:
        what = f"direction {learnt_from}" if learnt_from else "no direction"
        what = "scores published" if learnt_from == "height" else f"a network that was trained with {what}"
        raise UserError(f"prior_path is given, and {what} gives no priors, which are heights; leave it out")
    return None


def _prior_writer(folder: Path) -> Callable[[str, Mapping[str, NDArray[Any]]], None]:
    """What writes a tile's one map, which rises with the ground, as a prior: stretched to [0, 1]."""
    import torch

    from Modules.common.normalisation import MinMaxNormalisation
    from Utils.training.priors import save_prior

    def write(tile: str, maps: Mapping[str, NDArray[Any]]) -> None:
        (values,) = maps.values()
        stretched, _ = MinMaxNormalisation().forward(torch.from_numpy(values)[None, None])
        save_prior(prior_file(folder, TEST_PART, tile), stretched[0, 0].numpy())

    return write


def _scores(config: DepthEvaluationConfig, target: Target) -> Scores:
    """The scores that are asked for, or those that suit a target.

    Raises:
        UserError: scores that say nothing about that target.
    """
    chosen: Scores = config.scores or ("depth" if target == "metres" else "height")
    if chosen in ("published", "agreement") and target != "relative":
        raise UserError(
            f"scores '{chosen}' are of relative depth, and this network draws {target}; set height or depth"
        )
    if chosen == "depth" and target == "summit":
        raise UserError("scores 'depth' need depth, and this network draws metres below a summit; set height or relief")
    if chosen == "relief" and target != "summit":
        raise UserError(f"scores 'relief' are of metres below a summit, and this network draws {target}; set height")
    return chosen


def _check_tiles(config: DepthEvaluationConfig) -> tuple[Mapping[str, TileFiles], list[str], TileCheck]:
    """The test tiles, the ids to score, and what was found in reading each once; frames may have several sizes."""
    files, ids = test_tiles(config)
    files = read_as_depth(config, files)
    return files, ids, check_tiles(files, ids, one_size=False)


def _check_frames(config: DepthEvaluationConfig, scores: Scores, maps: Sequence[Path]) -> bool:
    """Whether all frames have one size; refuse scores that are for frames of one size, where a frame has another.

    Raises:
        UserError: one has.
    """
    from Utils.rasters.tile_files import raster_size

    sizes = list(dict.fromkeys(raster_size(path) for path in maps))
    wants = "scores 'published'" if scores == "published" else "crop 'eigen_nyu'" if config.crop == "eigen_nyu" else ""
    others = [size for size in sizes if size != _NYU_SIZE]
    if wants and scores in ("published", "depth") and others:
        height, width = others[0]
        raise UserError(f"{wants}: it is for frames of 640 x 480 pixels, and these are {width} x {height}")
    if len(sizes) > 1:
        logger.info("frames have %d sizes, and are drawn one by one, whatever batch_size says", len(sizes))
    return len(sizes) == 1


def _facts(network: EncDec, scores: Scores, size: tuple[int, int] | None) -> dict[str, Any]:
    """What every file should say of the network and of what it was shown."""
    known = {key: network.config[key] for key in ("target", "max_depth", "channel_order", "scaling")}
    shown = "images as they are" if size is None else f"images resized to {size[1]} x {size[0]} pixels"
    if scores != "published":
        return known | {"input": shown}
    from Utils.scoring.depth.depth_published import PUBLISHED_NYU

    return known | {
        "input": f"{shown}, RGB from 0 to 1 as the paper's evaluation gives them, whatever the network learnt from",
        "published_numbers": PUBLISHED_NYU,
    }


def _relief_tags(files: Mapping[str, TileFiles], ids: Sequence[str]) -> dict[str, ReliefTags]:
    """What the tiles to score say of their ground; what their heights refer to is said in one line."""
    from Utils.rasters.relief_tags import read_relief_tags

    tags = {tile: read_relief_tags(files[tile].height) for tile in ids}
    unknown = [tile for tile, found in tags.items() if found.pixel_size is None]
    if unknown:
        logger.warning(
            "%d of %d test tiles tell no pixel size, such as %s, and have no slope error; ground_sample_distance "
            "gives one for all of them",
            len(unknown),
            len(tags),
            unknown[0],
        )
    logger.info("true heights refer to: %s", _references(tags))
    return tags


def _references(tags: Mapping[str, ReliefTags]) -> str:
    """Such as ``areoid (12 tiles)``."""
    counts = Counter(found.reference for found in tags.values())
    return ", ".join(f"{name} ({count} tiles)" for name, count in counts.most_common())


def _scorer(config: DepthEvaluationConfig, scores: Scores, target: Target, tags: Mapping[str, ReliefTags]) -> Scorer:
    from Utils.reports.evaluation import make_height_scorer
    from Utils.scoring.depth.depth_limits import DepthLimits
    from Utils.scoring.depth.depth_published import AgreementScorer, PublishedNyuScorer
    from Utils.scoring.depth.depth_scorer import DepthScorer

    if scores == "height":
        return make_height_scorer(config, metres=target == "summit")
    if scores == "relief":
        from Utils.scoring.relief import ReliefScorer

        given = config.ground_sample_distance
        return ReliefScorer({tile: given or found.pixel_size for tile, found in tags.items()})
    if scores == "published":
        return PublishedNyuScorer(truth="depth")
    if scores == "agreement":
        return AgreementScorer()
    limits = DepthLimits(config.nearest, config.farthest or math.inf, config.crop)
    return DepthScorer(limits, metric=target == "metres", truth="depth")


def _published_frames(ids: list[str]) -> list[str]:
    """The tiles whose ids are the indices that the paper scores.

    Raises:
        UserError: there is none.
    """
    from Utils.scoring.depth.depth_published import PUBLISHED_NYU_FRAMES as FRAMES

    # As frames of the labelled file, or as nyu2_test.csv names them.
    numbers = {tile: tile.removesuffix("_colors") for tile in ids}
    chosen = [tile for tile, number in numbers.items() if number.isdecimal() and int(number) in FRAMES]
    if not chosen:
        raise UserError(f"the published protocol scores NYU's frames 0 to 653, and none of the {len(ids)} ids is one")
    if len(chosen) < len(FRAMES):
        logger.warning("%d of the %d frames of the published protocol are there", len(chosen), len(FRAMES))
    return chosen
