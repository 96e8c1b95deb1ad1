"""What a run works on: its tiles, and for each stage which of them it learns from and is validated on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from Utils.config.training_keys import TrainingConfig
from Utils.core.errors import UserError
from Utils.core.seeds import derive_seed
from Utils.data.published_layout import TEST_PART, TRAINING_PART, TileFiles
from Utils.data.splits import HELD_OUT_SHARE, hold_out, select
from Utils.data.tile_check import TileCheck, check_tiles
from Utils.data.tile_sources import config_tiles

if TYPE_CHECKING:
    from Utils.data.dataset import TargetTransform
    from Utils.data.tile_dataset import TileDataset

_BYTES = 2**30

# Prior files by part and tile id; an id may occur in both parts.
Priors = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Tiles:
    """The tiles of both parts; the test part is empty unless it is asked for."""

    training: Mapping[str, TileFiles]
    test: Mapping[str, TileFiles]

    def part(self, name: str) -> Mapping[str, TileFiles]:
        """The tiles of one part."""
        return self.test if name == TEST_PART else self.training


@dataclass(frozen=True)
class StagePlan:
    """One training stage: which tiles it learns from, is validated on, and predicts afterwards.

    Attributes:
        name: folder of the stage within the run.
        train: training tile ids.
        validation: validation tile ids, of the part that ``validation_part`` names; may be empty.
        validation_part: folder of the validation tiles.
        held_out: tile ids that get their coarse prior from this stage.
    """

    name: str
    train: list[str]
    validation: list[str]
    validation_part: str
    held_out: list[str]


@dataclass(frozen=True)
class RunSetup:
    """What a run works on.

    Attributes:
        tiles: tiles of both parts.
        plan: the stages, in the order in which they are trained.
        check: the result of reading every tile once.
        priors: coarse priors, where they are read.
    """

    tiles: Tiles
    plan: list[StagePlan]
    check: TileCheck
    priors: Priors = field(default_factory=dict)


def find_tiles(config: TrainingConfig) -> Tiles:
    """List the tiles that a training config uses.

    Raises:
        UserError: a dataset that cannot be used, or whose test tiles are its training tiles.
    """
    training = config_tiles(config, TRAINING_PART)
    if config.validate_on != "test":
        return Tiles(training, {})
    test = config_tiles(config, TEST_PART)
    if test == training:
        raise UserError(
            f"validate_on is test, and '{config.dataset_path}' does not say which tiles are for the test; add the "
            "column part, or leave validate_on out"
        )
    return Tiles(training, test)


def split_stage(
    config: TrainingConfig,
    tiles: Tiles,
    name: str,
    ids: Sequence[str],
    held_out: Sequence[str] = (),
    share: float = HELD_OUT_SHARE,
    scenes: Mapping[str, str] | None = None,
) -> StagePlan:
    """Divide a stage's tiles into training and validation, as the config says.

    With ``validate_on: test`` the test tiles are the validation tiles. Otherwise they are those of ``val_split_text``
    that are not held out; or else, unless ``not_split``, a seeded share of the tiles, or of the ``scenes`` that are
    given for each id. Held-out tiles are in neither part.
    """
    if config.validate_on == "test":
        return StagePlan(name, list(ids), list(tiles.test), TEST_PART, list(held_out))
    if config.val_split_text:
        listed = select(list(tiles.training), config.val_split_text, config.dataset_path)
        validation = [tile for tile in listed if tile not in set(held_out)]
        train = [tile for tile in ids if tile not in set(listed)]
        if not train:
            raise UserError(
                f"stage {name}: every training tile stands in val_split_text too, which leaves none to train on; "
                "take some out of it"
            )
        if validation:
            return StagePlan(name, train, validation, TRAINING_PART, list(held_out))
        # If all listed validation tiles are held out by this fold, it is validated like a run without the key.
        ids = train
    if config.not_split:
        return StagePlan(name, list(ids), [], TRAINING_PART, list(held_out))
    # A fold may leave a single scene, which cannot be kept whole.
    whole = scenes if scenes is not None and len({scenes[tile] for tile in ids}) > 1 else None
    train, validation = hold_out(ids, derive_seed(config.seed, name), share, whole)
    return StagePlan(name, train, validation, TRAINING_PART, list(held_out))


def check_stages(
    plan: Sequence[StagePlan], tiles: Tiles, priors: Priors | None = None, one_size: bool = True
) -> TileCheck:
    """Read every tile of a plan once; gives their size and what is unusual.

    ``one_size`` says whether all tiles must have one size; not where the task crops or resizes them.
    """
    priors = priors or {}
    used = dict.fromkeys(tile for stage in plan for tile in [*stage.train, *stage.held_out])
    test = dict.fromkeys(tile for s in plan if s.validation_part == TEST_PART for tile in s.validation)
    used |= dict.fromkeys(tile for s in plan if s.validation_part == TRAINING_PART for tile in s.validation)
    if test:
        check_tiles(tiles.test, list(test), priors.get(TEST_PART), one_size)
    return check_tiles(tiles.training, list(used), priors.get(TRAINING_PART), one_size)


def stage_datasets(
    config: TrainingConfig,
    tiles: Tiles,
    stage: StagePlan,
    priors: Priors | None = None,
    crop: int = 0,
    empty: Collection[str] = (),
    target: TargetTransform | None = None,
) -> tuple[TileDataset, TileDataset | None]:
    """Training and validation tiles of a stage.

    Args:
        config: seed, flips, workers and memory for decoded tiles.
        tiles: the tiles.
        stage: the stage, which says which tiles are for what.
        priors: coarse priors, where they are read.
        crop: side of the training tiles' random crops, 0 for whole tiles.
        empty: tiles without a valid height, which are not trained on.
        target: what the task adds to each tile.
    """
    from Utils.data.tile_dataset import TileDataset  # it imports torch, which planning does not need

    # Every worker has a separate cache.
    cache = config.cache_gigabytes * _BYTES / max(config.num_workers, 1)
    priors = priors or {}
    own = priors.get(TRAINING_PART)
    teaching = [tile for tile in stage.train if tile not in set(empty)] or stage.train
    train = TileDataset(
        tiles.training,
        teaching,
        own,
        flips=config.flips,
        crop=crop,
        seed=config.seed,
        cache_bytes=cache * 0.9,
        target=target,
    )
    if not stage.validation:
        return train, None
    part = stage.validation_part
    validation = TileDataset(
        tiles.part(part), stage.validation, priors.get(part), cache_bytes=cache * 0.1, target=target
    )
    return train, validation
