"""A trained D³-RSMDE: a folder that ``D3RSMDE.from_pretrained`` loads, an image in, a height map out.

model = D3RSMDE.from_pretrained("output/Diffusion/J_K/model")
height = model(image)                       # (H, W, 3) uint8 in, (H, W) float32 in [0, 1] out
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from Modules.common.components import load_component
from Modules.common.hub import hub_folder, is_hub_name, push_folder
from Modules.common.number_formats import compile_networks, draw_in_fp32, set_format
from Modules.common.padding import pad_to_multiple
from Modules.common.plain_json import check_sizes, parse_json, read_text
from Modules.common.precision import Precision
from Modules.d3rsmde.autoencoders import (
    Autoencoder,
    decode,
    encode,
    family,
    latent_channels,
    latent_stride,
    vae_precision,
)
from Modules.d3rsmde.coarse import CoarseNet, StageOne, draw_coarse
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import walk
from Modules.depth.enc_dec import EncDec

_INDEX = "model_index.json"
# The classes that a model folder may name; nothing else is imported, whatever the folder says.  A class of this project
# is also known by the module it lay in before 2026-12, which older folders name.
_KNOWN_CLASSES: Mapping[str, Mapping[tuple[str, str], type[ConfigMixin]]] = {
    "coarse": {
        **{(module, "CoarseNet"): CoarseNet for module in (CoarseNet.__module__, "Modules.coarse")},
        (EncDec.__module__, "EncDec"): EncDec,
    },
    "vae": {("diffusers", kind.__name__): kind for kind in (AutoencoderKL, AutoencoderDC, AutoencoderTiny)},
    "unet": {("diffusers", "UNet2DModel"): UNet2DModel},
    "scheduler": {(module, "PLBRScheduler"): PLBRScheduler for module in (PLBRScheduler.__module__, "Modules.plbr")},
}
_SETTINGS = ("steps", "margin", "normalisation", "tile_size")


@dataclass(frozen=True)
class Refinement:
    """What ``D3RSMDE.refine`` returns.

    Attributes:
        height: the refined map (B, 1, H, W) in [0, 1].
        steps: the maps after each step, the last being ``height``; empty unless asked for.
    """

    height: Tensor
    steps: list[Tensor]


class D3RSMDE(DiffusionPipeline):
    """Both stages, or stage 1 alone (a model without U-Net draws the coarse map).

    Args:
        coarse: stage 1, this system's network or a depth network whose direction is known; None for a refiner that is
            always given its priors.
        vae: the frozen autoencoder.
        unet: the refiner.
        scheduler: its blending schedule.
        steps: blending steps at inference; None takes all T.
        margin: pixels that stage 2 sees beyond each border, repeated from it; a small autoencoder draws its outermost
            pixels badly, and these are then cut away.
        normalisation: how truth and prior were normalised in training; ``per_tile_min_max`` is the only one.
        tile_size: the shorter side, in pixels, of the tiles that the model was trained on; it works best at that size.

    Raises:
        ValueError: parts that do not fit together.
    """

    model_cpu_offload_seq = "coarse->vae->unet"  # type: ignore[assignment]  # diffusers declares it None
    _optional_components = ["coarse", "vae", "unet", "scheduler"]  # noqa: RUF012 - diffusers reads it off the class

    def __init__(
        self,
        coarse: StageOne | None = None,
        vae: AutoencoderKL | AutoencoderDC | AutoencoderTiny | None = None,
        unet: UNet2DModel | None = None,
        scheduler: PLBRScheduler | None = None,
        steps: int | None = None,
        margin: int = 0,
        normalisation: str = "per_tile_min_max",
        tile_size: int | None = None,
    ) -> None:
        super().__init__()
        if normalisation != "per_tile_min_max":
            raise ValueError(f"unknown normalisation '{normalisation}'; this version knows per_tile_min_max")
        _check_parts(coarse, vae, unet, scheduler, steps, margin)
        if tile_size is not None and not (isinstance(tile_size, int) and tile_size > 0):
            raise ValueError(f"a tile size of {tile_size}; give pixels")
        self.register_modules(coarse=coarse, vae=vae, unet=unet, scheduler=scheduler)
        self.register_to_config(steps=steps, margin=margin, normalisation=normalisation, tile_size=tile_size)
        self.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> D3RSMDE:
        """Load a model folder: weights from safetensors only, and no classes but those that make up a model.

        Args:
            pretrained_model_name_or_path: the folder that ``save_pretrained`` wrote, which needs no network; or a name
                on the hub, ``owner/repository``, whose files are taken from its cache or downloaded.
            kwargs: parts or settings, named as in ``__init__``, that replace those of the folder.

        Raises:
            FileNotFoundError: no model lies there.
            OSError: a name on the hub that is neither in its cache nor to be had.
            ValueError: the folder holds something else, or is damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        if is_hub_name(pretrained_model_name_or_path):
            folder = hub_folder(os.fspath(pretrained_model_name_or_path), _INDEX)
        given: dict[str, Any] = {}
        for name, entry in _read_index(folder).items():
            if name in _SETTINGS:
                given[name] = entry
            elif name in _KNOWN_CLASSES and name not in kwargs and entry != [None, None]:
                given[name] = load_component(_known_class(folder, name, entry), folder / name)
            elif not name.startswith("_") and name not in _KNOWN_CLASSES:
                raise ValueError(f"'{folder / _INDEX}' holds the entry '{name}', which is no part of a {cls.__name__}")
        return cls(**given | kwargs)

    def push_to_hub(  # type: ignore[override]  # that of diffusers writes a card of its own, which says nothing
        self, repo_id: str, private: bool = False, card: str = ""
    ) -> str:
        """Send the model to the hub; ``python -m Systems.push`` sends a model folder with the card that it has.

        Args:
            repo_id: name of the repository, ``owner/repository``, which is made where there is none.
            private: whether a new repository is hidden from others.
            card: content of its README.md; empty for none.

        Returns:
            The address of what was sent.

        Raises:
            OSError: the hub cannot be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if card:
                (Path(folder) / "README.md").write_text(card, encoding="utf-8")
            return push_folder(Path(folder), repo_id, private)

    def eval(self) -> D3RSMDE:
        """Put all networks into evaluation mode."""
        for network in (self.coarse, self.vae, self.unet):
            if network is not None:
                network.eval()
        return self

    def optimise(self, precision: Precision = "fp32", channels_last: bool = True, compile: bool = False) -> D3RSMDE:
        """Make the networks fast, in place, for prediction; call it once, after moving the model to its device.

        Args:
            precision: number format of the weights.  Maps and blending stay in fp32, as do the layers that draw the
                maps and, with fp16, an autoencoder that would overflow.
            channels_last: memory layout of the convolutions.
            compile: whether to use torch.compile; where it does not work, a line says so and the model runs uncompiled.
        """
        if self.coarse is not None:
            # Not the whole of it: the statistics by which it normalises images stay in fp32.
            set_format(self.coarse.encoder, precision, channels_last)
            set_format(self.coarse.decoder, precision, channels_last)
            draw_in_fp32(self.coarse.decoder)
        if self.refines:
            set_format(self.vae, vae_precision(self.vae, precision), channels_last)
            draw_in_fp32(self.vae.decoder)
            set_format(self.unet, precision, channels_last)
        if compile:
            networks = [self.coarse, self.unet, *((self.vae.encoder, self.vae.decoder) if self.refines else ())]
            side = 2 * self.size_multiple if self.refines else 64
            probe = torch.zeros(1, 3, side, side, device=self.device)
            prior = None if self.coarse is not None else probe[:, 0]
            compile_networks([part for part in networks if part is not None], lambda: self(probe, prior))
        return self

    @property
    def vae_type(self) -> VaeType | None:
        """The published family of the autoencoder, None without one."""
        return None if self.vae is None else family(self.vae)

    @property
    def size_multiple(self) -> int:
        """Heights and widths that stage 2 takes without padding are multiples of this many pixels."""
        return latent_stride(self.vae) * 2 ** (len(self.unet.config["block_out_channels"]) - 1)

    @property
    def refines(self) -> bool:
        """Whether this model has a second stage."""
        return self.unet is not None

    @torch.no_grad()
    def predict_coarse(self, images: Tensor) -> Tensor:
        """Stage 1: (B, 3, H, W) in [0, 1] to (B, 1, H, W) in [0, 1]."""
        if self.coarse is None:
            raise ValueError("this model holds no stage 1; give a prior, or train with coarse_checkpoint_path set")
        return draw_coarse(self.coarse, images)

    @torch.no_grad()
    def refine(self, images: Tensor, priors: Tensor, steps: int | None = None, keep_steps: bool = False) -> Refinement:
        """Stage 2.

        Args:
            images: (B, 3, H, W) in [0, 1].
            priors: coarse maps (B, 1, H, W) in [0, 1].
            steps: blending steps; None takes the model's own.
            keep_steps: also decode the maps after each step.

        Returns:
            The refined maps, any H and W: padding to the networks' strides happens inside.
        """
        if self.unet is None or self.vae is None or self.scheduler is None:
            raise ValueError("this model holds no stage 2; it is the folder of a ViT run")
        steps = self.config["steps"] if steps is None else steps
        both = torch.cat([to_vae(images), to_vae(priors)])  # one pass of the encoder for image and prior
        padded = pad_to_multiple(both, self.size_multiple, self.config["margin"])
        latents = encode(self.vae, padded)
        image_latent, coarse_latent = latents[: images.shape[0]], latents[images.shape[0] :]
        trail = walk(self.unet, self.scheduler, image_latent, coarse_latent, steps)
        wanted = trail if keep_steps else trail[-1:]
        maps = [_cut(from_vae(decode(self.vae, latent)), images, self.config["margin"]) for latent in wanted]
        return Refinement(maps[-1], maps if keep_steps else [])

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | NDArray[Any] | Any,
        prior: Tensor | NDArray[Any] | None = None,
        steps: int | None = None,
    ) -> Tensor | NDArray[np.float32]:
        """Height from an image.

        Args:
            image: a tensor (3, H, W) or (B, 3, H, W), or an array or PIL image (H, W, 3) or (B, H, W, 3);
                8-bit 0..255, 16-bit 0..65535, or float in [0, 1].
            prior: a coarse map in [0, 1], (H, W) or (B, H, W), to refine instead of stage 1's.
            steps: blending steps; None takes the model's own.

        Returns:
            The relative height in [0, 1], (H, W) or (B, H, W): a tensor for a tensor, else an array.

        Raises:
            ValueError: an input of another shape, type or range.
        """
        images, single, as_tensor = _images(image, self.device)
        if prior is not None and not self.refines:
            raise ValueError("this model holds no stage 2 that could refine a prior; it is the folder of a ViT run")
        height = self.predict_coarse(images) if prior is None else _priors(prior, images)
        if self.refines:
            height = self.refine(images, height, steps).height
        height = height[:, 0]
        height = height[0] if single else height
        return height if as_tensor else height.cpu().numpy()


def _check_parts(
    coarse: StageOne | None,
    vae: Autoencoder | None,
    unet: UNet2DModel | None,
    scheduler: PLBRScheduler | None,
    steps: int | None,
    margin: int,
) -> None:
    """Raise ValueError when the parts make no model."""
    if isinstance(coarse, EncDec) and coarse.draws is None:
        raise ValueError(
            "the depth network that is to be stage 1 does not say what rises in its maps; set its direction"
        )
    if unet is None:
        if coarse is None:
            raise ValueError("a model needs stage 1, stage 2 or both")
        return
    if vae is None or scheduler is None:
        raise ValueError("stage 2 needs a U-Net, an autoencoder and a blending schedule; one of them is missing")
    inputs, channels = unet.config["in_channels"], latent_channels(vae)
    if inputs != 2 * channels:
        raise ValueError(
            f"a U-Net of {inputs} input channels does not fit an autoencoder of {channels} latent channels"
        )
    table, total = unet.config["num_train_timesteps"], len(scheduler.weights)
    if table != total:
        raise ValueError(f"a U-Net that knows {table} timesteps does not fit a schedule of {total}")
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= total):
        raise ValueError(f"{steps} refinement steps do not fit a schedule of {total}")
    if not isinstance(margin, int) or margin < 0:
        raise ValueError(f"a margin of {margin} pixels; give 0 or more")


def _read_index(folder: Path) -> dict[str, Any]:
    """The entries of a model folder's index."""
    path = folder / _INDEX
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' is no model folder (it has no {_INDEX})")
    try:
        index = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"'{path}' is no valid JSON: {error}") from error
    if not isinstance(index, dict) or index.get("_class_name") != D3RSMDE.__name__:
        raise ValueError(f"'{path}' does not describe a {D3RSMDE.__name__}")
    try:
        check_sizes(index)
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be true: {error}") from error
    return index


def _known_class(folder: Path, name: str, entry: Any) -> type[ConfigMixin]:
    """The class of a part, where the index names one that belongs to a model."""
    pair = tuple(entry) if isinstance(entry, list) else entry
    for known, kind in _KNOWN_CLASSES[name].items():
        if pair == known:
            return kind
    allowed = " or ".join(".".join(known) for known in _KNOWN_CLASSES[name])
    raise ValueError(f"'{folder / _INDEX}' names {entry!r} as its '{name}', where only {allowed} may stand")


def to_vae(values: Tensor) -> Tensor:
    """Images (B, 3, H, W) or maps (B, 1, H, W) in [0, 1] to (B, 3, H, W) in [-1, 1]; maps are repeated."""
    return values.expand(-1, 3, -1, -1) * 2.0 - 1.0


def from_vae(decoded: Tensor) -> Tensor:
    """Decoded (B, 3, H, W) in [-1, 1] to maps (B, 1, H, W) in [0, 1]: the mean over channels."""
    return (decoded.mean(dim=1, keepdim=True) * 0.5 + 0.5).clamp(0.0, 1.0)


def reconstruct_maps(vae: Autoencoder, maps: Tensor, margin: int = 0) -> Tensor:
    """Maps (B, 1, H, W) in [0, 1] through the autoencoder and back: the ceiling of what stage 2 can reach."""
    padded = pad_to_multiple(to_vae(maps), latent_stride(vae), margin)
    return _cut(from_vae(decode(vae, encode(vae, padded))), maps, margin)


def _cut(padded: Tensor, original: Tensor, margin: int) -> Tensor:
    """Undo ``pad_to_multiple``: back to the height and width of ``original``."""
    height, width = original.shape[-2:]
    return padded[..., margin : margin + height, margin : margin + width]


def _images(image: Tensor | NDArray[Any] | Any, device: torch.device) -> tuple[Tensor, bool, bool]:
    """To (B, 3, H, W) float32 in [0, 1], with whether it was single and whether it was a tensor."""
    as_tensor = isinstance(image, Tensor)
    values = _to_tensor(image)
    if values.ndim not in (3, 4) or values.shape[-3 if as_tensor else -1] != 3 or values.numel() == 0:
        wanted = "(3, H, W) or (B, 3, H, W)" if as_tensor else "(H, W, 3) or (B, H, W, 3)"
        raise ValueError(f"an image of shape {tuple(values.shape)} is not {wanted}")
    single = values.ndim == 3
    values = values[None] if single else values
    values = values if as_tensor else values.permute(0, 3, 1, 2)
    full_scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(values.dtype)
    # Checked on the device where the values are now: checking them on a GPU would wait for it.
    if full_scale is None and not _within_unit(values):
        raise ValueError("an image must be finite, and uint8, uint16 or float in [0, 1]")
    # Contiguous, whatever layout the caller has: kernels for other layouts round differently.
    return values.to(device).float().contiguous() / (full_scale or 1.0), single, as_tensor


def _priors(prior: Tensor | NDArray[Any], images: Tensor) -> Tensor:
    """To (B, 1, H, W) float32 in [0, 1], of the images' size and on their device."""
    values = _to_tensor(prior)
    if values.shape[-2:] != images.shape[-2:] or values.numel() != images[:, 0].numel():
        raise ValueError(f"a prior of shape {tuple(values.shape)} does not fit images {tuple(images.shape)}")
    if not _within_unit(values):
        raise ValueError("a prior must be finite and in [0, 1]")
    return values.to(images.device).float().contiguous().reshape(len(images), 1, *images.shape[-2:])


def _to_tensor(values: Tensor | NDArray[Any] | Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    array = np.array(values)  # a copy: PIL's memory is read-only, and rasters may be big-endian
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise ValueError(f"values of type {array.dtype} are no image or map") from error


def _within_unit(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all()) and float(values.min()) >= 0.0 and float(values.max()) <= 1.0
