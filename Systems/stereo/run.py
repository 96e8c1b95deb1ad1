"""The training of a stereo network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from Systems.stereo.config import StereoTrainingConfig
from Systems.stereo.monitor import MONITORED
from Utils.core.errors import UserError
from Utils.core.processes import on_main
from Utils.core.seeds import derive_seed
from Utils.data.fold_plan import FINAL_STAGE
from Utils.data.splits import select
from Utils.data.stage_plan import RunSetup, StagePlan, Tiles, split_stage
from Utils.data.stereo.sample_check import check_samples
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.view_files import CameraKind, StereoFiles
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.stereo.networks import StereoNetwork
    from Utils.data.stereo.stereo_dataset import StereoDataset

logger = logging.getLogger(__name__)

_BYTES = 2**30


@dataclass(frozen=True)
class StereoSetup(RunSetup):
    """What the training works on.

    Attributes:
        training: the training samples by id.
        validation: the samples that a stage may be validated on, by id: the same, or the test samples.
        cameras: what the cameras are.
    """

    training: Mapping[str, StereoFiles] = field(default_factory=dict)
    validation: Mapping[str, StereoFiles] = field(default_factory=dict)
    cameras: CameraKind = "pinhole"


class StereoRun(Run):
    """The training of a stereo network, in one stage."""

    script = "trainStereo.py"
    kind = "Stereo"
    monitor = MONITORED
    config: StereoTrainingConfig

    def __init__(self, config: StereoTrainingConfig) -> None:
        self.config = config
        self._network: StereoNetwork | None = None

    def check(self) -> StereoSetup:
        """Find the samples, divide them, and read each of them once."""
        config = self.config
        if config.description:
            logger.info("%s", config.description)
        training = self._samples("train")
        test = self._samples("test") if config.validate_on == "test" else {}
        stage = self._plan(training, test)
        cameras = one_kind(training)
        check = check_samples(training, [*stage.train, *(() if test else stage.validation)], config.batch_size > 1)
        if test:
            check_samples(test, stage.validation, config.batch_size > 1)
        useless = set(check.empty)
        if useless.issuperset(stage.train):
            first = training[stage.train[0]].reference.truth
            raise UserError(
                f"nothing can be learnt: no truth of the {len(stage.train)} training samples, such as '{first}', has a "
                "pixel within the range that is looked for; check value_range"
            )
        return StereoSetup(Tiles({}, {}), [stage], check, {}, training, test or training, cameras)

    def _samples(self, part: str) -> dict[str, StereoFiles]:
        config = self.config
        root = Path(config.root) if config.root else None
        return find_samples(Path(config.dataset_path), cast(Any, part), config, root, config.image_full_scale)

    def _plan(self, training: Mapping[str, StereoFiles], test: Mapping[str, StereoFiles]) -> StagePlan:
        """Validation holds out whole scenes: views of one scene show the same ground."""
        config = self.config
        ids = select(list(training), config.split_text, config.dataset_path)
        scenes = {sample: training[sample].scene for sample in ids}
        # Only their names are asked for, which samples have as tiles have.
        tiles = Tiles(cast(Any, training), cast(Any, test))
        return split_stage(config, tiles, FINAL_STAGE, ids, (), config.validation_share, scenes)

    def build(self, setup: RunSetup) -> None:
        """Build the network."""
        import torch

        from Systems.stereo.build import build_stereo
        from Systems.stereo.parallax import interval_parallax

        assert isinstance(setup, StereoSetup)
        torch.manual_seed(derive_seed(self.config.seed, FINAL_STAGE, "weights"))
        pixels = interval_parallax(list(setup.training.values()))
        logger.info("an interval moves points by %.2f pixels between the views (median of samples)", pixels)
        self._network = build_stereo(self.config, setup.cameras, round(pixels, 4))
        self._network.recompute = self.config.recompute

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the network and save it."""
        from Systems.stereo.task import StereoTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        assert isinstance(setup, StereoSetup) and self._network is not None
        network = self._network
        fit(
            StereoTask(network, self.config.losses, self.config.stage_weights),
            *self._datasets(setup, stage),
            loop_settings(self.config),
            folder / stage.name,
        )
        on_main(lambda: save_folder(folder / MODEL_FOLDER, network.save_pretrained))

    def _datasets(self, setup: StereoSetup, stage: StagePlan) -> tuple[StereoDataset, StereoDataset | None]:
        from Utils.data.stereo.stereo_dataset import StereoDataset

        config = self.config
        # Every worker has a separate cache.
        cache = config.cache_gigabytes * _BYTES / max(config.num_workers, 1)
        one_size = config.batch_size > 1
        empty = set(setup.check.empty)
        teaching = [sample for sample in stage.train if sample not in empty]
        train = StereoDataset(
            setup.training,
            teaching,
            config.jitter,
            flips=config.flips,
            seed=config.seed,
            cache_bytes=0.9 * cache,
            one_size=one_size,
        )
        if not stage.validation:
            return train, None
        return train, StereoDataset(setup.validation, stage.validation, cache_bytes=0.1 * cache, one_size=one_size)

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where the model is."""
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)


def one_kind(samples: Mapping[str, StereoFiles]) -> CameraKind:
    """The kind of the cameras of all samples.

    Raises:
        UserError: samples of both kinds, whose values are depth here and height there.
    """
    found: dict[CameraKind, str] = {}
    for name, files in samples.items():
        found.setdefault(files.kind, name)
    if len(found) > 1:
        raise UserError(
            f"samples have cameras of two kinds, pinhole ('{found['pinhole']}') and rpc ('{found['rpc']}'): one "
            "network draws depth or height, not both; divide the dataset"
        )
    (kind,) = found
    return kind
