"""The configs of D³-RSMDE's four scripts: the published keys, and further ones of this project."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from Modules.d3rsmde.names import MAP_LOSSES, LargeVaeType, Readout, VaeType
from Utils.config.cross_fitting_keys import CrossFittingConfig, WithPriors
from Utils.config.evaluation_keys import EvaluationConfig
from Utils.config.sections import (
    OWN_OF_LAUNCH,
    Fraction,
    NotNegative,
    NotNegativeNumber,
    Positive,
    PositiveNumber,
    Section,
    ShareBelowOne,
)
from Utils.config.training_keys import TrainingConfig

Widths = Annotated[list[Positive], Field(min_length=1)]


class NetworkSection(Section):
    """``model``: stage 1's network."""

    backbone: str = "vitb_rn50_384"
    """A published name (vitb_rn50_384, vitb16_384, vitl16_384) or any ViT of timm."""
    pretrained: bool = True
    """Whether the backbone starts from timm's pretrained weights, from its cache or the hub."""
    options: dict[str, int | float | bool | str] = {}
    """Further arguments of the timm model."""
    taps: list[Positive] = []
    """Transformer blocks that are tapped, counted from 1; by default the published ones."""
    features: Positive = 256
    """Width of the decoder."""
    readout: Readout = "project"
    """What becomes of the class token: project, add or ignore."""


class VaeSection(Section):
    """``vae``: the autoencoder that is built when ``vae_path`` is empty.

    The default widths do not suit an AutoencoderTiny, whose widths are all the same: it must be given a size.
    """

    block_out_channels: Widths = [32, 64, 128, 128]
    """Channels at each resolution, finest first. An AutoencoderTiny has one width throughout (TAESD: four times 64)."""
    layers_per_block: Positive = 1
    """Residual blocks at each resolution (TAESD: 3)."""
    latent_channels: Positive = 4
    """Channels of the latent."""
    norm_num_groups: Positive = 8
    """Groups of the group norms, where the family has any."""


class UNetSection(Section):
    """``unet``: sizes of the refiner; what is left out keeps the published size of the VAE's family."""

    block_out_channels: Widths | None = None
    """Channels at each resolution, finest first."""
    layers_per_block: Positive | None = None
    """Residual blocks at each resolution."""
    attention_strides: list[Positive] | None = None
    """Strides, counted in latent cells, at which there is attention."""
    attention_head_dim: Positive | None = None
    """Channels of an attention head."""
    norm_num_groups: Positive | None = None
    """Groups of the group norms."""


class BetasSection(Section):
    """``diffusion_cfg.betas``: the blending weights, linspace(start, stop, num_timesteps)."""

    start: Fraction = 0.8
    """Share of the truth in the first blend."""
    stop: Fraction = 0.0
    """Share of the truth in the last one."""
    num_timesteps: Positive = 6
    """Number of blending steps T."""


class DiffusionSection(Section):
    """``diffusion_cfg``: the blending schedule, and how many of its steps inference takes."""

    diff_iter: Literal[False] | Positive = False
    """Steps at inference, evenly spaced; false = all."""
    betas: BetasSection = BetasSection()
    """The blending weights."""

    @model_validator(mode="after")
    def _not_more_steps_than_the_schedule(self) -> DiffusionSection:
        if self.diff_iter > self.betas.num_timesteps:
            raise ValueError(f"diff_iter {self.diff_iter} is more than betas.num_timesteps {self.betas.num_timesteps}")
        return self

    @property
    def steps(self) -> int | None:
        """Steps at inference, None for all."""
        return self.diff_iter or None


class ViTTrainingConfig(CrossFittingConfig):
    """``trainViT.py``."""

    known_losses: ClassVar[tuple[str, ...]] = MAP_LOSSES

    lr: PositiveNumber = 5e-5
    """Learning rate."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["HDNLoss"]
    """HDNLoss, L1Loss or SSIMAELoss, or a list of them, which are averaged."""
    model: NetworkSection = NetworkSection()
    """Stage 1's network."""


class DiffusionTrainingConfig(TrainingConfig, WithPriors):
    """``trainDiffusion.py``."""

    known_losses: ClassVar[tuple[str, ...]] = MAP_LOSSES

    lr: PositiveNumber = 1e-4
    """Learning rate of the U-Net."""
    weight_decay: NotNegativeNumber = 0.01
    """Weight decay."""
    loss_types: str | Annotated[list[str], Field(min_length=1)] = ["L1Loss"]
    """L1Loss compares latents; HDNLoss and SSIMAELoss compare decoded maps; several are averaged."""
    vae_type: VaeType
    """Family of the autoencoder: AutoencoderKL, VA_VAE, DC_AE or, light, AutoencoderTiny."""
    vae_path: str | None = None
    """The autoencoder: a diffusers folder, a hub name, or an LDM checkpoint file; empty = built from `vae`."""
    pretrained_vae_path: str | None = None
    """Weights that are put into that autoencoder."""
    teacher_vae_type: LargeVaeType | None = None
    """Family of a large autoencoder whose latent space an AutoencoderTiny learns in its `vae_epochs`."""
    teacher_vae_path: str | None = None
    """That teacher, named like `vae_path`; it has the pupil's latent channels and stride."""
    vae_lr: NotNegativeNumber = 1e-5
    """Learning rate of the autoencoder."""
    vae_epochs: NotNegative = 0
    """Epochs in which the autoencoder is trained first, on images and maps; then it is frozen."""
    vae_batch_size: Positive | None = None
    """Tiles at once in these epochs; by default `batch_size`."""
    vae_crop_size: NotNegative = 0
    """Side of the random crops in these epochs; 0 = whole tiles. AutoencoderTiny wants whole tiles."""
    vae: VaeSection = VaeSection()
    """The autoencoder that is built when `vae_path` is empty."""
    unet: UNetSection = UNetSection()
    """Sizes of the refiner."""
    dropout: ShareBelowOne | None = None
    """Dropout of the U-Net; by default 0, and 0.1 for VA_VAE and DC_AE."""
    diffusion_cfg: DiffusionSection = DiffusionSection()
    """The blending schedule."""
    margin: NotNegative = 0
    """Pixels that stage 2 sees beyond each border and cuts away: small autoencoders draw border pixels badly."""
    keep_latents: bool = True
    """Encode each training tile once for every flip in use, keep the latents on disk, and train from them."""
    latent_path: Annotated[str | None, OWN_OF_LAUNCH] = None
    """Folder of these latents, by default in the run; runs with the same autoencoder and tiles can share one."""
    latent_gigabytes: Annotated[NotNegativeNumber, OWN_OF_LAUNCH] = 20.0
    """The most that folder may take, in units of 2^30 bytes; unused latents give way, oldest use first."""
    own_prediction_share: Fraction = 0.0
    """Share of the training draws that blend with the U-Net's own first guess in place of the truth; 0 = published."""
    better_prior_share: Fraction = 0.0
    """Share of the training draws whose prior gets a random part of the large shapes that it misses; 0 = published."""
    one_step: bool = False
    """Train for one step, from the coarse latent straight to the truth's, judged by the decoded map as well."""
    coarse_checkpoint_path: str | None = None
    """Run of trainViT.py or trainDepth.py whose network goes into the model folder as stage 1."""

    @model_validator(mode="after")
    def _one_step_is_one_step(self) -> DiffusionTrainingConfig:
        if self.one_step and self.own_prediction_share:
            raise ValueError("one_step trains the first step alone, which blends nothing: set own_prediction_share 0")
        if self.one_step and self.diffusion_cfg.diff_iter not in (False, 1):
            raise ValueError(f"one_step takes one step, not diff_iter {self.diffusion_cfg.diff_iter}: set that false")
        return self

    @property
    def steps(self) -> int | None:
        """Blending steps at inference, None for all."""
        return 1 if self.one_step else self.diffusion_cfg.steps

    @model_validator(mode="after")
    def _a_teacher_has_a_light_pupil(self) -> DiffusionTrainingConfig:
        kind, path = self.teacher_vae_type, self.teacher_vae_path
        if (kind is None) != (path is None):
            given, absent = ("type", "path") if path is None else ("path", "type")
            raise ValueError(f"teacher_vae_{given} is given without teacher_vae_{absent}; a teacher needs both")
        if path is not None and self.vae_type != "AutoencoderTiny":
            raise ValueError(f"a teacher is for vae_type AutoencoderTiny, not {self.vae_type}; remove teacher_vae_path")
        if path is not None and not self.vae_epochs:
            raise ValueError("teacher_vae_path is given but vae_epochs is 0: nothing would be learnt; set vae_epochs")
        return self


class ViTEvaluationConfig(EvaluationConfig, WithPriors):
    """``evaluateViT.py``."""


class DiffusionEvaluationConfig(EvaluationConfig, WithPriors):
    """``evaluateDiffusion.py``.

    A run or a model folder knows its autoencoder and its schedule. The keys about them are for lone checkpoints; for
    folders they are only compared with what the folder says.
    """

    vae_type: VaeType | None = None
    """Family of the autoencoder; needed only for a lone checkpoint, else checked against the model's."""
    vae_path: str | None = None
    """Autoencoder of a lone checkpoint."""
    pretrained_vae_path: str | None = None
    """Weights of a lone checkpoint's autoencoder."""
    diffusion_cfg: DiffusionSection = DiffusionSection()
    """Steps at inference; the blending weights, where they are given, must be the model's own."""
    save_steps: bool = False
    """Whether pictures of the intermediate steps are written."""
