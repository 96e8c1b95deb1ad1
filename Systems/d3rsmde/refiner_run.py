"""A diffusion run: first the autoencoder, if it is to be trained, then the refiner in its frozen latent space."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.d3rsmde.config import DiffusionTrainingConfig
from Systems.d3rsmde.monitor import MONITORED_SCORE
from Utils.core.errors import UserError
from Utils.core.processes import launch, on_main
from Utils.core.seeds import derive_seed
from Utils.data.published_layout import TRAINING_PART
from Utils.data.splits import select
from Utils.data.stage_plan import (
    Priors,
    RunSetup,
    StagePlan,
    Tiles,
    check_stages,
    find_tiles,
    split_stage,
    stage_datasets,
)
from Utils.data.tile_sources import part_priors
from Utils.training.run_files import MODEL_FOLDER
from Utils.training.runs.run import Run

if TYPE_CHECKING:
    from Modules.d3rsmde.autoencoders import Autoencoder
    from Modules.d3rsmde.pipeline import D3RSMDE

logger = logging.getLogger(__name__)

_VAE_STAGE, _UNET_STAGE = "vae", "unet"
_LATENTS_FOLDER = "latents"


class RefinerRun(Run):
    """The training of stage 2."""

    script = "trainDiffusion.py"
    kind = "diffusion"
    monitor = MONITORED_SCORE
    in_turn = True

    def __init__(self, config: DiffusionTrainingConfig) -> None:
        self.config: DiffusionTrainingConfig = config
        self._teacher: Autoencoder | None = None
        self._model: D3RSMDE | None = None

    def epochs_of(self, stage: str) -> int | None:
        """The number of epochs of a stage; the autoencoder's is ``vae_epochs``."""
        return self.config.vae_epochs if stage == _VAE_STAGE else super().epochs_of(stage)

    def check(self) -> RunSetup:
        """Find tiles and priors, read each of them once, and check the autoencoder that the config names."""
        config = self.config
        tiles = find_tiles(config)
        plan = plan_refiner(config, tiles)
        priors = find_all_priors(config, plan, tiles) if self._trains_unet(plan) else {}
        # Crops of the autoencoder's training are all that may be cut from tiles of several sizes.
        crops_only = bool(config.vae_crop_size) and not self._trains_unet(plan) and not plan[0].validation
        check = check_stages(plan, tiles, priors, one_size=not crops_only)
        size = check.size
        if config.vae_epochs and config.vae_lr == 0.0:
            raise UserError("vae_epochs is set but vae_lr is 0; the autoencoder would learn nothing")
        if config.vae_crop_size > min(size):
            raise UserError(f"vae_crop_size {config.vae_crop_size} is larger than the tiles, {size[1]} x {size[0]}")
        if config.vae_path is None and config.pretrained_vae_path is None and not config.vae_epochs:
            raise UserError(
                "vae_path is empty and vae_epochs is 0: the autoencoder would stay random; give one of them"
            )
        self._check_teacher()
        return RunSetup(tiles, plan, check, priors)

    def _trains_unet(self, plan: Sequence[StagePlan]) -> bool:
        """Whether this launch comes to the U-Net, which alone needs what stage 1 has made."""
        return self.chosen(plan)[-1].name == _UNET_STAGE

    def _check_teacher(self) -> None:
        """Check that the teacher fits, as far as that is known without a download, which only the run makes."""
        config = self.config
        sources = [config.vae_path, config.pretrained_vae_path, config.teacher_vae_path]
        if config.teacher_vae_path and all(Path(source).exists() for source in sources if source):
            from Systems.d3rsmde.build import build_teacher

            build_teacher(config, _build_vae(config))

    def build(self, setup: RunSetup) -> None:
        """Build all networks: the autoencoder, its teacher, and the model around the autoencoder."""
        import torch

        from Modules.d3rsmde.autoencoders import latent_stride
        from Systems.d3rsmde.build import build_model, build_teacher, load_coarse

        config = self.config
        torch.manual_seed(derive_seed(config.seed, _VAE_STAGE, "weights"))
        vae = _build_vae(config)
        if config.vae_crop_size % latent_stride(vae):
            stride = latent_stride(vae)
            raise UserError(f"vae_crop_size {config.vae_crop_size} is no multiple of the latent stride {stride}")
        self._teacher = build_teacher(config, vae)
        coarse = None
        if config.coarse_checkpoint_path and self._trains_unet(setup.plan):
            coarse = load_coarse(Path(config.coarse_checkpoint_path))
        torch.manual_seed(derive_seed(config.seed, _UNET_STAGE, "weights"))
        self._model = build_model(config, vae, coarse)

    def train(self, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the autoencoder, or the U-Net in the latent space of the finished autoencoder."""
        assert self._model is not None, "build comes before train"
        if stage.name == _VAE_STAGE:
            self._train_vae(self._model.vae, setup, stage, folder)
            self._teacher = None  # the U-Net needs the memory
        else:
            self._train_unet(self._model, setup, stage, folder)

    def _train_vae(self, vae: Autoencoder, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train or tune the autoencoder.

        With a teacher, an autoencoder that was built here gets the scale of its latents first, because the teacher's
        latents are what it learns.
        """
        from Modules.d3rsmde.autoencoders import vae_precision
        from Systems.d3rsmde.latents.latent_scale import pupil_scale
        from Systems.d3rsmde.targets import RELATIVE_HEIGHT
        from Systems.d3rsmde.tasks.autoencoder_task import AutoencoderTask
        from Systems.d3rsmde.tasks.distillation_task import DistillationTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings

        config, teacher, tiles = self.config, self._teacher, setup.tiles
        # Tiles without a valid height are not left out: images teach the autoencoder as well.
        train, validation = stage_datasets(config, tiles, stage, crop=config.vae_crop_size, target=RELATIVE_HEIGHT)
        settings = loop_settings(
            config,
            epochs=config.vae_epochs,
            max_steps=None,
            lr=config.vae_lr,
            batch_size=config.vae_batch_size or config.batch_size,
            precision=vae_precision(vae, config.precision),
        )
        task = AutoencoderTask(vae, config.vae_type, config.margin)
        if teacher is not None:
            task = DistillationTask(vae, config.vae_type, teacher, config.margin)
        task.to(launch().device)
        if teacher is not None and self._builds_vae:
            scale = on_main(lambda: pupil_scale(teacher, tiles, stage, folder / stage.name))
            vae.register_to_config(scaling_factor=scale)
        fit(task, train, validation, settings, folder / stage.name)

    @property
    def _builds_vae(self) -> bool:
        """Whether the autoencoder is built and trained by this run, and not loaded."""
        return self.config.vae_path is None and self.config.pretrained_vae_path is None

    def _train_unet(self, model: D3RSMDE, setup: RunSetup, stage: StagePlan, folder: Path) -> None:
        """Train the U-Net and save the model.

        The latents of an autoencoder that this run built, without a teacher, are first scaled to unit variance.
        """
        from Systems.d3rsmde.build import VAE_FOLDER
        from Systems.d3rsmde.latents.kept_latents import keep_latents
        from Systems.d3rsmde.latents.latent_scale import own_scale
        from Systems.d3rsmde.targets import RELATIVE_HEIGHT
        from Systems.d3rsmde.tasks.refiner_task import RefinerTask
        from Utils.training.loop import fit
        from Utils.training.runs.run_folder import loop_settings, save_folder

        config = self.config
        vae = model.vae.requires_grad_(False).eval()
        if self._builds_vae and not config.teacher_vae_path:
            vae.register_to_config(scaling_factor=1.0)
            scale = on_main(lambda: own_scale(vae, setup.tiles, stage, folder / VAE_FOLDER))
            vae.register_to_config(scaling_factor=scale)
        # Kept beside the U-Net's checkpoints, which hold only the U-Net.
        on_main(lambda: save_folder(folder / VAE_FOLDER, model.vae.save_pretrained))
        train, validation = stage_datasets(
            config, setup.tiles, stage, setup.priors, empty=setup.check.empty, target=RELATIVE_HEIGHT
        )
        task = RefinerTask(
            model, config.losses, config.own_prediction_share, config.one_step, config.better_prior_share
        )
        with ExitStack() as kept:
            if config.keep_latents:
                latents = Path(config.latent_path) if config.latent_path else folder / _LATENTS_FOLDER
                size = config.latent_gigabytes
                train = kept.enter_context(keep_latents(task, model, train, latents, size, config.num_workers))
            fit(task, train, validation, loop_settings(config), folder / stage.name)
        model.register_to_config(tile_size=min(setup.check.size))
        model.to("cpu")
        on_main(lambda: save_folder(folder / MODEL_FOLDER, model.save_pretrained))

    def finish(self, setup: RunSetup, folder: Path, whole: bool) -> None:
        """Log where the model is."""
        if (folder / MODEL_FOLDER).is_dir():
            logger.info("model: %s", folder / MODEL_FOLDER)


def plan_refiner(config: DiffusionTrainingConfig, tiles: Tiles) -> list[StagePlan]:
    """The stages of a diffusion run: the autoencoder's, if it is trained, and the U-Net's, on the same tiles.

    Raises:
        UserError: split files that do not fit the dataset.
    """
    ids = select(list(tiles.training), config.split_text, config.dataset_path)
    unet = split_stage(config, tiles, _UNET_STAGE, ids)
    return [replace(unet, name=_VAE_STAGE), unet] if config.vae_epochs else [unet]


def find_all_priors(config: DiffusionTrainingConfig, plan: Sequence[StagePlan], tiles: Tiles) -> Priors:
    """The prior files of all tiles of a plan."""
    folder = Path(config.prior_path or config.dataset_path)
    stage = plan[-1]
    wanted: dict[str, list[str]] = {TRAINING_PART: [*stage.train]}
    wanted.setdefault(stage.validation_part, []).extend(stage.validation)
    return {part: part_priors(folder, part, tiles.part(part), ids) for part, ids in wanted.items()}


def _build_vae(config: DiffusionTrainingConfig) -> Autoencoder:
    """The autoencoder that a config asks for, with its first weights."""
    from Modules.d3rsmde.autoencoders import AutoencoderShape
    from Systems.d3rsmde.build import build_vae

    section = config.vae
    shape = AutoencoderShape(
        tuple(section.block_out_channels), section.layers_per_block, section.latent_channels, section.norm_num_groups
    )
    # Without vae_path, a whole autoencoder in pretrained_vae_path needs no shape; otherwise one is built by the config.
    fallback = None if config.pretrained_vae_path and not config.vae_epochs else shape
    return build_vae(config, fallback)
