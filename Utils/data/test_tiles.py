"""The tiles that an evaluation scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from Utils.config.evaluation_keys import EvaluationConfig
from Utils.data.published_layout import TEST_PART, TileFiles, find_priors, list_tiles
from Utils.data.splits import select
from Utils.data.tile_check import check_tiles


def test_tiles(config: EvaluationConfig) -> tuple[Mapping[str, TileFiles], list[str]]:
    """The test part's tiles, and the ids to evaluate."""
    files = list_tiles(Path(config.dataset_path), TEST_PART, config.image_full_scale)
    return files, select(list(files), config.test_split_text, config.dataset_path)


def check_test_tiles(
    config: EvaluationConfig, prior_path: Path | None = None
) -> tuple[Mapping[str, TileFiles], list[str]]:
    """``test_tiles``, after reading each of them once, with its prior where there is a folder of priors.

    Raises:
        UserError: a tile or prior that is missing or damaged.
    """
    files, ids = test_tiles(config)
    check_tiles(files, ids, None if prior_path is None else find_priors(prior_path, TEST_PART, ids))
    return files, ids
