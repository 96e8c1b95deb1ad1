"""The files of a depth model in transformers' layout, from a folder or the hub, checked before anything is built.

A folder may come from anyone. Its JSON is plain and names no code and no other files; its weights are safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Modules.common.hub import hub_file
from Modules.common.plain_json import check_sizes, parse_json, read_text
from Utils.core.errors import UserError

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Keys by which transformers would run code, fetch it, or load another model. A pretrained backbone is one that the
# weights replace anyway.
_NAME_CODE = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "backbone",
    "use_timm_backbone",
    "use_pretrained_backbone",
)
_FOREIGN_BACKBONE = "timm_backbone"


@dataclass(frozen=True)
class DepthModelFiles:
    """Where a model's parts are, and what its JSON says.

    Attributes:
        name: the hub name, or the folder's.
        config: content of ``config.json``.
        processor: content of ``preprocessor_config.json``.
        weights: the safetensors files.
    """

    name: str
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    weights: tuple[Path, ...]


def holds_depth_model(folder: Path) -> bool:
    """Whether a folder is one that transformers wrote, and not a run, whose config has the same name."""
    try:
        return "model_type" in parse_json(read_text(folder / CONFIG))
    except (OSError, ValueError, TypeError):
        return False


def find_files(model: str | os.PathLike[str]) -> DepthModelFiles:
    """Find and read a model's files, in a folder or under a hub name.

    Raises:
        UserError: a file that is missing, damaged, not to be had, or that names code.
    """
    name = os.fspath(model)
    if Path(name).is_dir():
        return _checked(Path(name).resolve().name, name, lambda file: _local(Path(name), file))
    return _checked(name, name, lambda file: hub_file(name, file))


def _local(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        raise FileNotFoundError(f"there is no '{file}'")
    return folder / file


def _checked(name: str, source: str, find: Callable[[str], Path]) -> DepthModelFiles:
    try:
        config = _read(find(CONFIG))
        _check_plain(config)
        return DepthModelFiles(name, config, _read(find(PROCESSOR)), tuple(_weights(find)))
    except OSError as error:
        raise UserError(f"--model '{source}': {_reason(error)}; {_remedy(source)}") from error
    except ValueError as error:
        raise UserError(f"--model '{source}' cannot be used: {error}") from error


def _remedy(source: str) -> str:
    if Path(source).is_dir():
        return f"a depth model is a folder with {CONFIG}, {PROCESSOR} and {WEIGHTS}, as save_pretrained writes them"
    return (
        f"correct the name, or where there is a network: hf download {source} {CONFIG} {PROCESSOR} {WEIGHTS}; "
        "or give a folder that holds them"
    )


def _reason(error: OSError) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path))
    except (ValueError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path.name}' is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path.name}' is damaged: it holds no object")
    return content


def _check_plain(config: Mapping[str, Any]) -> None:
    """Refuse a config that names code or another model, at any depth, or sizes that no network has."""
    check_sizes(config)
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in _NAME_CODE:
                if value.get(key):
                    raise ValueError(f"its {CONFIG} names code or another model ('{key}'), which is not taken")
            if value.get("model_type") == _FOREIGN_BACKBONE:
                raise ValueError(f"its {CONFIG} names a backbone of timm's, which is not taken")
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _weights(find: Callable[[str], Path]) -> Iterator[Path]:
    """The one file of weights, or those that an index names, which lie beside it."""
    try:
        yield find(WEIGHTS)
        return
    except OSError as error:
        missing = error
    try:
        index = find(INDEX)
    except OSError:
        raise missing from None
    shards = _read(index).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"'{INDEX}' is damaged: it holds no weight_map")
    for shard in sorted({str(value) for value in shards.values()}):
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ValueError(f"'{INDEX}' names '{shard}', and weights are safetensors files beside it")
        yield find(shard)
