"""Pretrained weights of timm models: from the hub's cache, from the hub, or from a file in timm's layout."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import load_state_dict
from torch import nn

from Modules.common.hub import hub_file
from Modules.common.untrusted_weights import check_archive, check_tensors

# Arguments of timm's factory by which it would read files, wherever they lie; a model's config may come from anyone.
_READ_FILES = frozenset({"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse arguments of a timm model by which it would read files.

    Raises:
        ValueError: there is one.
    """
    for option in sorted(_READ_FILES & options.keys()):
        raise ValueError(f"backbone '{name}' takes no such option: {option}; give pretrained_model_path")


def check_name(name: str, timm_name: str, known: Callable[[], Sequence[str]], allowed: str) -> None:
    """Refuse a name that timm does not know.

    Args:
        name: the name as it was given.
        timm_name: the name of its timm model.
        known: gives the names that may be meant; asked only where the name is unknown, because it takes a while.
        allowed: what is allowed, in words.

    Raises:
        ValueError: an unknown name; the nearest ones are named.
    """
    if not timm.is_model(timm_name):
        near = difflib.get_close_matches(timm_name, known(), n=3)
        raise ValueError(f"unknown backbone '{name}'; nearest: {', '.join(near) or 'none'} ({allowed} is allowed)")


def pretrained_file(name: str, timm_name: str) -> Path:
    """The pretrained weights that timm names for a model, downloaded if need be.

    Raises:
        ValueError: timm names none.
        OSError: they are neither in the cache nor reachable.
    """
    settings = timm.get_pretrained_cfg(timm_name)
    if settings is None or not settings.hf_hub_id:
        raise ValueError(f"timm has no pretrained weights of backbone '{name}'; set model.pretrained to false")
    try:
        return hub_file(settings.hf_hub_id, settings.hf_hub_filename or "model.safetensors")
    except OSError as error:
        raise OSError(
            f"no pretrained weights of backbone '{name}': {error}; "
            "give pretrained_model_path, or set model.pretrained to false"
        ) from error


def load_timm_file(
    model: nn.Module,
    name: str,
    path: Path,
    convert: Callable[[Any], Mapping[str, Any]],
    unused: tuple[str, ...],
) -> None:
    """Load a file in timm's layout: it must hold every weight of the model, and nothing else but what is unused.

    Args:
        model: the timm model, or a part of one under the same names.
        name: name of the backbone in errors.
        path: the file.
        convert: makes the model's names and shapes of the file's, as timm does where it loads.
        unused: beginnings of names, such as those of a classifier, that the file may hold beyond the model's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or the weights of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"backbone weights '{path}' not found")
    try:
        check_archive(path)
        content = load_state_dict(str(path), weights_only=True)
        check_tensors(content, path.stat().st_size)
        missing, unexpected = model.load_state_dict(convert(content), strict=False)
    except Exception as error:  # a foreign or damaged file can make anything of timm's fail
        if isinstance(error.__cause__, pickle.UnpicklingError):  # timm's own message advises running the code
            raise ValueError(
                f"'{path}' is damaged, or holds pickled code, which is never run; "
                "save its state_dict alone, best as .safetensors"
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ValueError(
            f"'{path}' cannot be loaded into backbone '{name}': {reason}; give undamaged weights in timm's layout"
        ) from error
    foreign = [key for key in unexpected if not key.startswith(unused)]
    if missing or foreign:
        complaint = f"it lacks '{missing[0]}'" if missing else f"it holds '{foreign[0]}'"
        raise ValueError(f"'{path}' holds the weights of another network than backbone '{name}': {complaint}")
