"""What rises in the maps of each type of depth model that transformers knows: read from its source, version 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from Utils.core.predictor import Direction


@dataclass(frozen=True)
class DepthModelType:
    """One value of ``model_type`` in a config of transformers.

    Attributes:
        direction: what rises in ``predicted_depth``; None where the config must tell, see ``direction_of``.
        multiple: heights and widths are multiples of this many pixels, besides what config and image processor say.
        patch: side of a patch in pixels, where the config does not say it.
        fixed: whether it takes one size of image alone, that of its image processor.
    """

    direction: Direction | None
    multiple: int = 1
    patch: int | None = None
    fixed: bool = False


TYPES: dict[str, DepthModelType] = {
    # Relative ones were trained on inverse depth; metric ones are a sigmoid times max_depth.
    "depth_anything": DepthModelType(None, patch=14),
    # MiDaS's inverse depth; but DINOv2's heads for NYU and KITTI, which have a projection more, give metres.
    "dpt": DepthModelType(None, patch=16),
    # sigmoid times max_depth
    "glpn": DepthModelType("depth", multiple=32),
    # bins between min_depth and max_depth
    "zoedepth": DepthModelType("depth", multiple=32),
    "tipsv2_dpt": DepthModelType("depth"),
    # Its image processor inverts what the network draws, 1 / clamp(predicted_depth); here the network's map is used.
    "depth_pro": DepthModelType("inverse depth", fixed=True),
    # heights of trees above the ground
    "chmv2": DepthModelType("height"),
}
"""The types whose direction is known; not prompt_depth_anything, whose maps without a prompt nobody describes."""


def takes_squares_alone(config: Mapping[str, Any]) -> bool:
    """Whether a model takes the root of its number of patches for height and width: DPT with a ViT of its own."""
    own = bool(config.get("is_hybrid")) or not config.get("backbone_config")
    return config.get("model_type") == "dpt" and own


def direction_of(config: Mapping[str, Any]) -> Direction | None:
    """What rises in the maps of a model with this config; None where nobody knows."""
    match config.get("model_type"):
        case "depth_anything":
            kinds: dict[str, Direction] = {"relative": "inverse depth", "metric": "depth"}
            return kinds.get(config.get("depth_estimation_type") or "relative")
        case "dpt":
            backbone = config.get("backbone_config") or {}
            of_dinov2 = str(backbone.get("model_type", "")).startswith("dinov2")
            if of_dinov2 != bool(config.get("add_projection")):
                return None  # neither as MiDaS made them nor as DINOv2
            return "depth" if of_dinov2 else "inverse depth"
        case name:
            known = TYPES.get(str(name))
            return known.direction if known else None
