"""The tiles that an evaluation scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from Utils.config.evaluation_keys import EvaluationConfig
from Utils.data.published_layout import TEST_PART, TileFiles
from Utils.data.splits import select
from Utils.data.tile_check import check_tiles
from Utils.data.tile_sources import config_tiles, part_priors


def test_tiles(config: EvaluationConfig) -> tuple[Mapping[str, TileFiles], list[str]]:
    """The test part's tiles, and the ids to evaluate."""
    files = config_tiles(config, TEST_PART)
    return files, select(list(files), config.test_split_text, config.dataset_path)


def check_test_tiles(
    config: EvaluationConfig, prior_path: Path | None = None
) -> tuple[Mapping[str, TileFiles], list[str]]:
    """``test_tiles``, after reading each of them once, with its prior where ``prior_path`` says where they are.

    Raises:
        UserError: a tile or prior that is missing or damaged.
    """
    files, ids = test_tiles(config)
    check_tiles(files, ids, None if prior_path is None else part_priors(prior_path, TEST_PART, files, ids))
    return files, ids
