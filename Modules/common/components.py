"""Networks and schedules in diffusers folders, which are loaded offline, from safetensors, completely or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from Modules.common.plain_json import check_sizes, parse_json, read_text
from Modules.common.untrusted_weights import check_network, safetensors_size

_WEIGHTS = "diffusion_pytorch_model.safetensors"
# Keys by which diffusers or transformers would import further libraries, or code that lies in the folder.
_FOREIGN = frozenset({"quantization_config", "auto_map"})

Component = TypeVar("Component", bound=ConfigMixin)


def load_component(kind: type[Component], folder: Path) -> Component:
    """Load a component of a known class; the folder chooses neither the class nor any code.

    Raises:
        ValueError: a folder that is missing or damaged, or whose weights are not exactly the network's.
    """
    known: Any = kind
    findings: dict[str, Any] = {}
    try:
        _check_folder(known, folder)
        if issubclass(kind, ModelMixin):
            loaded, findings = known.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        else:
            loaded = known.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # damaged JSON, cut-off weights and misfit sizes each raise another kind
        raise ValueError(f"'{folder}' holds no {kind.__name__} that can be loaded: {_first_line(error)}") from error
    # diffusers itself only warns about these and continues with random weights.
    for finding in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := findings.get(finding):
            raise ValueError(
                f"the weights in '{folder}' do not fit its config.json: {finding.replace('_', ' ')}, as '{names[0]}'"
            )
    if isinstance(loaded, nn.Module):
        _align(loaded)
    return loaded


def _align(network: nn.Module) -> None:
    """Copy weights out of the mapped file into torch's own memory, where each begins at a multiple of 64 bytes.

    With another alignment, on CPUs without AVX-512, the libraries under torch sum in another order, and the maps of a
    loaded model would differ in the last digits from those of the model that was saved.
    """
    for value in (*network.parameters(), *network.buffers()):
        value.data = value.data.clone()


def _check_folder(kind: Any, folder: Path) -> None:
    """Refuse a folder that is not a plain one, or whose config describes more than its weights, before building it.

    Raises:
        OSError: a missing file.
        ValueError: such a folder.
        SafetensorError: damaged weights.
    """
    config = parse_json(read_text(folder / kind.config_name))
    if not isinstance(config, dict):
        raise ValueError(f"{kind.config_name} is no JSON object")
    if named := sorted(_FOREIGN & config.keys()):
        raise ValueError(f"{kind.config_name} has the key '{named[0]}', which no part of this project needs; remove it")
    check_sizes(config)
    if issubclass(kind, ModelMixin):
        # An index of several files may name any file on the disk, and diffusers reads it before the weights beside it.
        if index := sorted(folder.glob("*.index.json")):
            raise ValueError(f"the weights are in several files ({index[0].name}); save them as one, {_WEIGHTS}")
        check_network(lambda: kind.from_config(dict(config)), *safetensors_size(folder / _WEIGHTS))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
