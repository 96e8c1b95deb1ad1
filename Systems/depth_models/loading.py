"""A depth model of transformers as a predictor."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from Modules.common.number_formats import DTYPES, compile_networks, draw_in_fp32, set_format
from Modules.common.padding import pad_to_multiple
from Modules.common.precision import Precision
from Modules.common.untrusted_weights import check_network, safetensors_size
from Systems.depth_models.directions import TYPES, direction_of
from Systems.depth_models.files import CONFIG, DepthModelFiles, find_files
from Systems.depth_models.preparation import Preparation, read_preparation
from Utils.core.errors import UserError
from Utils.core.predictor import DIRECTIONS, Direction, Predictor

logger = logging.getLogger(__name__)

_USUAL_TILE = 512
# Their last convolution draws the map, and may do so in fp32 whatever the format of the others.
_ENDS_IN_A_CONVOLUTION = ("depth_anything", "dpt", "glpn")
# The coarsest fusion layer has nothing to fuse, so published weights of DPT lack what it never uses.
_NEVER_USED = "fusion_stage.layers.0.residual_layer1."


def load_depth_model(
    model: str | os.PathLike[str],
    device: torch.device,
    precision: Precision = "fp32",
    compile: bool = False,
    polarity: Direction | None = None,
) -> Predictor:
    """Load a depth model that transformers knows.

    Args:
        model: a folder as ``save_pretrained`` writes it, or a name on the hub.
        device: device on which it runs.
        precision: number format of the weights; maps are in fp32.
        compile: whether to use torch.compile.
        polarity: what rises in the model's maps, where its type does not tell; None takes what the type says.

    Returns:
        Its predictor: relative heights, because the metres of a depth model hold for the cameras that it was trained
        with.

    Raises:
        UserError: files that are missing, damaged, not to be had or that name code; a type that transformers does not
            know; a direction that nobody knows.
    """
    files = find_files(model)
    direction = _direction(files, polarity)
    preparation = read_preparation(files.name, files.config, files.processor)
    network = _Prepared(_load_network(files), preparation, DTYPES[precision]).eval().to(device)
    set_format(network.network, precision, channels_last=False)
    if files.config["model_type"] in _ENDS_IN_A_CONVOLUTION:
        draw_in_fp32(network.network)
    if compile:
        side = max(preparation.multiple, 64)
        compile_networks([network.network], lambda: network(torch.zeros(1, 3, side, side, device=device)))
    facts = {
        "name": files.name,
        "type": files.config["model_type"],
        "weights": _digest(files.weights),
        "precision": precision,
    }
    tile = max(preparation.side or _USUAL_TILE, preparation.multiple)
    return Predictor(
        network, "relative height", direction, preparation.multiple, tile, facts, preparation.side or _USUAL_TILE
    )


def _direction(files: DepthModelFiles, polarity: Direction | None) -> Direction:
    """What rises in the model's maps, with a line that says it; never a guess."""
    kind, known = files.config.get("model_type"), direction_of(files.config)
    if polarity is None and known is None:
        reason = "its config does not tell" if kind in TYPES else "its type is not known"
        raise UserError(
            f"--model '{files.name}' (type '{kind}'): what rises in its maps, {', '.join(DIRECTIONS[:-1])} or "
            f"{DIRECTIONS[-1]}? {reason}; say it with --polarity"
        )
    if polarity is not None and known not in (None, polarity):
        logger.warning("--polarity says %s, though a model like '%s' gives %s", polarity, files.name, known)
    direction = polarity or known
    assert direction is not None
    logger.info("%s (type '%s') gives %s", files.name, kind, direction)
    return direction


def _load_network(files: DepthModelFiles) -> nn.Module:
    """Build the network that the config describes, and load its weights, all of them."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = str(files.config.get("model_type"))
    network_class: Any
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(files.config))
        network_class = MODEL_FOR_DEPTH_ESTIMATION_MAPPING[type(config)]
    except KeyError as error:
        raise UserError(
            f"--model '{files.name}': '{kind}' is no type of depth model that transformers {transformers.__version__} "
            "knows; give another model"
        ) from error
    except Exception as error:  # a config from anyone can make anything of transformers' fail
        raise _unusable(files.name, CONFIG, error) from error
    try:
        tensors, numbers = (sum(each) for each in zip(*map(safetensors_size, files.weights), strict=True))
        check_network(lambda: network_class(config), tensors, numbers)
        weights = {name: value for path in files.weights for name, value in load_file(path).items()}
        network, report = network_class.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, SafetensorError) as error:
        raise _unusable(files.name, "the weights", error) from error
    except Exception as error:  # as above
        raise _unusable(files.name, CONFIG, error) from error
    missing = sorted(name for name in report["missing_keys"] if _NEVER_USED not in name)
    if missing:
        raise UserError(
            f"--model '{files.name}' cannot be used: its weights lack {len(missing)} tensors, such as '{missing[0]}'; "
            "give the whole model"
        )
    return network


def _unusable(name: str, part: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"--model '{name}' cannot be used: {part}: {reason}")


def _digest(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class _Prepared(nn.Module):
    """A depth network that takes images in [0, 1] of any size, and gives maps of that size."""

    _mean: Tensor
    _deviation: Tensor

    def __init__(self, network: nn.Module, preparation: Preparation, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self._preparation, self._dtype = network, preparation, dtype
        self.register_buffer("_mean", torch.tensor(preparation.mean).view(1, 3, 1, 1))
        self.register_buffer("_deviation", torch.tensor(preparation.deviation).view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to the network's own maps (B, H, W), fp32."""
        height, width = images.shape[-2:]
        prepared: Tensor = (self._preparation.gain * images - self._mean) / self._deviation
        size = self._preparation.size
        if self._preparation.squares and height == width:
            size = None
        if size is not None:
            prepared = interpolate(prepared, size, mode="bicubic", antialias=True)
        prepared = pad_to_multiple(prepared, self._preparation.multiple)
        maps = self._map(prepared.to(self._dtype))  # (B, 1, h, w)
        if maps.shape[-2:] != prepared.shape[-2:]:
            maps = interpolate(maps, prepared.shape[-2:], mode="bicubic")
        if size is not None:
            maps = maps[..., : size[0], : size[1]]
            maps = interpolate(maps, (height, width), mode="bicubic", antialias=True)
        return maps[:, 0, :height, :width]

    def _map(self, prepared: Tensor) -> Tensor:
        try:
            found: Any = self.network(pixel_values=prepared)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{len(prepared)} images of {prepared.shape[-1]} x {prepared.shape[-2]} pixels do not fit into the "
                "memory of the device; lower --batch-size or the size"
            ) from error
        except (RuntimeError, ValueError) as error:
            size = f"{prepared.shape[-1]} x {prepared.shape[-2]}"
            raise _unusable(str(type(self.network).__name__), f"images of {size} pixels", error) from error
        return found.predicted_depth[:, None].float()
