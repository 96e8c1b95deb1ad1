"""Autoencoders published as one file in the layout of latent-diffusion, as diffusers' `AutoencoderKL`.

diffusers 0.42 has a converter (`convert_ldm_vae_checkpoint`, behind `from_single_file`), but it leaves the attention of
a level (`encoder.down.4.attn.0`, as VA-VAE f16d32 has it) under its old name, and takes the architecture from a config
on the hub instead of the file. The network itself is diffusers': its encoder blocks already do what the
layout asks for (one head, group norm eps 1e-6, padding (0, 1, 0, 1) before a strided convolution).
"""

import logging
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from Modules.common.untrusted_weights import check_tensors, load_pickled

logger = logging.getLogger(__name__)

_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
_SUFFIXES = (*_PICKLE_SUFFIXES, ".safetensors")
# Averaged weights first: where a training checkpoint holds both, they are the ones meant for inference.
_NESTS = ("ema", "state_dict", "model")
_MAX_NESTING = 3
_ANCHOR = "encoder.conv_in.weight"
_ANCHOR_PATTERN = re.compile(
    r"(?P<prefix>(?:(?:module|_orig_mod|model|vae|autoencoder|first_stage_model)\.)*)" + re.escape(_ANCHOR)
)
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")

# diffusers' spelling -> the layout's spelling; up_blocks, which count the other way round, are handled apart.
_RENAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\.mid_block\.resnets\.(\d+)\.", lambda match: f".mid.block_{int(match[1]) + 1}."),
    (r"\.mid_block\.attentions\.(\d+)\.", lambda match: f".mid.attn_{int(match[1]) + 1}."),
    (r"\.down_blocks\.", ".down."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.downsamplers\.0\.", ".downsample."),
    (r"\.upsamplers\.0\.", ".upsample."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
)


def load_ldm_autoencoder(path: Path, scaling_factor: float = 1.0, norm_num_groups: int = 32) -> AutoencoderKL:
    """Read an autoencoder file in latent-diffusion's layout; the architecture is inferred from the weights' shapes.

    Args:
        path: a .pt, .pth, .ckpt or .bin file (read without running pickled code) or a .safetensors file.
        scaling_factor: what latents are multiplied by before a denoiser sees them; no file of this layout holds it.
            VA-VAE: 1, Stable Diffusion 1.5: 0.18215.
        norm_num_groups: groups of every group norm, which no shape tells; 32 in all published files.

    Returns:
        The autoencoder on the CPU, in float32 and eval mode, independent of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, holds pickled code, or is not in this layout (a missing key is named).
    """
    path = Path(path)
    content = _read(path)
    try:
        state_dict = select_ldm_state_dict(content)
        config = infer_ldm_config(state_dict, norm_num_groups)
        weights = convert_ldm_state_dict(state_dict, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    autoencoder = _skeleton({**config, "scaling_factor": scaling_factor})
    autoencoder.load_state_dict(weights, strict=True, assign=True)
    return autoencoder.eval()


def select_ldm_state_dict(content: object) -> dict[str, Tensor]:
    """Pick the autoencoder's tensors out of a file's content, without the nesting around them and their prefix.

    Everything else (losses, a frozen foundation model, a whole diffusion model) is left out, with a log line.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"holds a {type(content).__name__}, not a dictionary of weights")
    seen: set[str] = set()
    for where, candidate in _nested(content):
        names = [name for name in candidate if isinstance(name, str)]
        prefixes = {match["prefix"] for name in names if (match := _ANCHOR_PATTERN.fullmatch(name))}
        if len(prefixes) > 1:
            raise ValueError(f"holds several autoencoders, under the prefixes {sorted(prefixes)}; keep one of them")
        if prefixes:
            return _strip(candidate, prefixes.pop(), where)
        seen.update(name.split(".")[0] for name in names)
    raise ValueError(
        f"not an autoencoder in latent-diffusion's layout: no key '{_ANCHOR}'; found keys of {_listing(seen)}"
    )


def infer_ldm_config(state_dict: Mapping[str, Tensor], norm_num_groups: int = 32) -> dict[str, Any]:
    """Tell the arguments of `AutoencoderKL` from the shapes of the layout's tensors (meta tensors will do).

    Args:
        state_dict: bare names (`encoder.conv_in.weight`); convolutions are (out, in, height, width).
        norm_num_groups: groups of every group norm.
    """
    if any(name.startswith("encoder.down_blocks.") for name in state_dict):
        raise ValueError(
            "missing key 'encoder.down.0.block.0.conv1.weight': this file is in diffusers' own layout; "
            "give the folder that holds it and its config.json instead"
        )
    levels = _count(state_dict, r"encoder\.down\.(\d+)\.", "encoder.down.{}.block.0.conv1.weight")
    blocks = _count(state_dict, r"encoder\.down\.0\.block\.(\d+)\.", "encoder.down.0.block.{}.conv1.weight")
    widths = [_channels(state_dict, f"encoder.down.{level}.block.0.conv1.weight")[0] for level in range(levels)]
    if norm_num_groups < 1 or any(width % norm_num_groups for width in widths):
        raise ValueError(f"norm_num_groups is {norm_num_groups}, which must divide the widths {widths}")
    moments = _channels(state_dict, "encoder.conv_out.weight")[0]
    latent_channels = _channels(state_dict, "decoder.conv_in.weight")[1]
    if moments != 2 * latent_channels:
        raise ValueError(
            f"'encoder.conv_out.weight' gives {moments} channels and 'decoder.conv_in.weight' takes {latent_channels}:"
            " a KL autoencoder has a mean and a log variance for each latent channel"
        )

    def has(part: str) -> bool:
        return any(name.startswith(part) for name in state_dict)

    return {
        "in_channels": _channels(state_dict, _ANCHOR)[1],
        "out_channels": _channels(state_dict, "decoder.conv_out.weight")[0],
        "down_block_types": tuple(
            "AttnDownEncoderBlock2D" if has(f"encoder.down.{level}.attn.") else "DownEncoderBlock2D"
            for level in range(levels)
        ),
        "up_block_types": tuple(
            "AttnUpDecoderBlock2D" if has(f"decoder.up.{level}.attn.") else "UpDecoderBlock2D"
            for level in reversed(range(levels))
        ),
        "block_out_channels": tuple(widths),
        "layers_per_block": blocks,
        "latent_channels": latent_channels,
        "norm_num_groups": norm_num_groups,
        # Only the tiling that a caller may switch on reads it; 256 is what such autoencoders are trained at.
        "sample_size": 256,
        "use_quant_conv": has("quant_conv."),
        "use_post_quant_conv": has("post_quant_conv."),
        "mid_block_add_attention": has("encoder.mid.attn_1.") or has("decoder.mid.attn_1."),
    }


def convert_ldm_state_dict(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the layout's tensors to those of `AutoencoderKL(**config)`, each exactly once; float32 copies.

    Attention projections are 1x1 convolutions (out, in, 1, 1) in the layout and matrices (out, in) in diffusers.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; the message uses the layout's names.
    """
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, expected in _skeleton(config).state_dict().items():
        source = ldm_name(name, len(config["block_out_channels"]))
        tensor = _tensor(state_dict, source)
        shape = tuple(tensor.shape)
        if shape[: expected.ndim] != tuple(expected.shape) or any(size != 1 for size in shape[expected.ndim :]):
            raise ValueError(
                f"'{source}' is of shape {shape}, where the rest of the file asks for {tuple(expected.shape)}"
            )
        # A copy in float32: the model must not depend on a memory-mapped file, and some files are in half precision.
        converted[name] = tensor.reshape(expected.shape).to(torch.float32, copy=True)
        used.add(source)
    if unexpected := sorted(state_dict.keys() - used):
        raise ValueError(
            f"{len(unexpected)} key(s) that the layout has no place for, as {unexpected[0]!r}; "
            f"inferred widths {list(config['block_out_channels'])}, {config['layers_per_block']} blocks a level"
        )
    return converted


def ldm_name(diffusers_name: str, levels: int) -> str:
    """Tell the layout's name for a tensor of an `AutoencoderKL` with that many levels.

    The layout numbers the decoder's levels by resolution (0 is the finest), diffusers in the order they run.
    """
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda match: f".up.{levels - 1 - int(match[1])}.", diffusers_name, count=1)
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _skeleton(config: Mapping[str, Any]) -> AutoencoderKL:
    # On the meta device nothing is allocated and no random initial weights are drawn.
    with torch.device("meta"):
        autoencoder: AutoencoderKL = AutoencoderKL(**config)
    return autoencoder


def _read(path: Path) -> object:
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give one file ({', '.join(_SUFFIXES)})")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such autoencoder file")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"{path}: damaged or not a safetensors file ({_first_line(error)}); give an undamaged one"
            ) from error
    if suffix not in _PICKLE_SUFFIXES:
        raise ValueError(
            f"{path}: unknown suffix '{path.suffix}'; an autoencoder file is one of {', '.join(_SUFFIXES)}"
        )
    try:
        content = load_pickled(path)
        check_tensors(content, path.stat().st_size)
        return content
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        if not isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path}: damaged, cut short or not a checkpoint ({_first_line(error)}); give an undamaged one"
            ) from error
        # torch words every refusal alike and advises running the code; only where there is code it names a global.
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds pickled code ({code[1]})" if code else "damaged, no checkpoint, or holds pickled code"
        raise ValueError(
            f"{path}: {what}; code in a file is never run: save its state_dict alone, best as .safetensors"
        ) from error


def _nested(content: Mapping[Any, Any], where: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    yield where, content
    for nest in _NESTS if depth < _MAX_NESTING else ():
        if isinstance(inner := content.get(nest), Mapping):
            yield from _nested(inner, f"{where}{nest}/", depth + 1)


def _strip(candidate: Mapping[Any, Any], prefix: str, where: str) -> dict[str, Tensor]:
    selected: dict[str, Tensor] = {}
    ignored: set[str] = set()
    for name, value in candidate.items():
        bare = name.removeprefix(prefix) if isinstance(name, str) and name.startswith(prefix) else None
        if bare is not None and bare.startswith(_PARTS) and isinstance(value, Tensor):
            selected[bare] = value
        else:
            ignored.add(str(name if bare is None else bare).split(".")[0])
    logger.info("autoencoder weights: %d tensors at '%s%s'", len(selected), where, prefix)
    if ignored:
        logger.info("autoencoder weights: ignored keys of %s", _listing(ignored))
    return selected


def _count(state_dict: Mapping[str, Tensor], pattern: str, example: str) -> int:
    found = {int(match[1]) for name in state_dict if (match := re.match(pattern, name))}
    missing = min(set(range(len(found) + 1)) - found)
    if not found or missing != len(found):
        raise ValueError(f"missing key '{example.format(missing)}'")
    return len(found)


def _tensor(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise ValueError(f"missing key '{name}'")
    return state_dict[name]


def _channels(state_dict: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Tell the channels (out, in) of a convolution."""
    shape = tuple(_tensor(state_dict, name).shape)
    if len(shape) != 4:
        raise ValueError(f"'{name}' is of shape {shape}; a convolution's is (out, in, height, width)")
    return shape[0], shape[1]


def _listing(names: set[str], limit: int = 8) -> str:
    shown = sorted(names)[:limit]
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(repr(name) for name in shown) or "nothing") + rest


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
