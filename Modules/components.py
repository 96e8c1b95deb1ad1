"""Networks and schedules kept as diffusers folders: loaded offline, from safetensors, and whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin

Component = TypeVar("Component", bound=ConfigMixin)


def load_component(kind: type[Component], folder: Path) -> Component:
    """Load a component of a known class; the folder chooses neither the class nor any code.

    Raises:
        ValueError: a folder that is missing or damaged, or whose weights are not exactly the network's.
    """
    known: Any = kind
    findings: dict[str, Any] = {}
    try:
        if issubclass(kind, ModelMixin):
            loaded, findings = known.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        else:
            loaded = known.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # damaged JSON, cut-off weights and misfit sizes each raise another kind
        raise ValueError(f"'{folder}' holds no {kind.__name__} that can be loaded: {_first_line(error)}") from error
    # diffusers itself only warns about these, and goes on with random weights.
    for finding in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := findings.get(finding):
            raise ValueError(
                f"the weights in '{folder}' do not fit its config.json: {finding.replace('_', ' ')}, as '{names[0]}'"
            )
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
