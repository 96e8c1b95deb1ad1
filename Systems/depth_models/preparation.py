"""How a depth model wants its images, from the file of its image processor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from Systems.depth_models.directions import TYPES, DepthModelType, takes_squares_alone
from Systems.depth_models.files import PROCESSOR
from Utils.core.errors import UserError

_LEVELS = 255.0
_LARGEST_SIDE = 8192


@dataclass(frozen=True)
class Preparation:
    """From an image in [0, 1] to what the network takes: ``(gain * image - mean) / deviation``.

    Attributes:
        gain: 1 where the network wants [0, 1].
        mean: of red, green and blue.
        deviation: of red, green and blue, positive.
        multiple: heights and widths are multiples of this many pixels.
        side: shorter side in pixels at which whole images are taken; None takes them as they are.
        size: (height, width) to which other images are resized, where the network takes this size alone, or squares.
        squares: whether squares of other sizes are taken as well.
    """

    gain: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    multiple: int
    side: int | None
    size: tuple[int, int] | None
    squares: bool


def read_preparation(name: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Preparation:
    """Read it from the content of ``config.json`` and ``preprocessor_config.json``.

    Raises:
        UserError: something that is not there, or is no such number.
    """
    kind = TYPES.get(str(config.get("model_type")), DepthModelType(None))
    try:
        # GLPN's file says nothing of normalising, and it does none.
        if processor.get("do_normalize", "image_mean" in processor):
            mean, deviation = _colours(processor, "image_mean"), _colours(processor, "image_std")
            if min(deviation) <= 0:
                raise ValueError("'image_std' is not positive")
        else:
            mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        rescaled = processor.get("do_rescale", True)
        gain = _LEVELS * _number(processor.get("rescale_factor", 1 / _LEVELS)) if rescaled else _LEVELS
        size = _size(processor.get("size"))
        squares = takes_squares_alone(config)
        if (kind.fixed or squares) and size is None:
            raise ValueError("'size' is missing")
        if squares and size is not None:
            size = (min(size), min(size))
        multiple = 1 if kind.fixed else math.lcm(kind.multiple, *_multiples(config, processor, kind.patch))
    except (ValueError, TypeError) as error:
        raise UserError(f"the model '{name}' cannot be used: its {PROCESSOR} is not understood ({error})") from error
    if multiple > _LARGEST_SIDE:
        raise UserError(f"the model '{name}' cannot be used: it takes multiples of {multiple} pixels")
    side = None if size is None else min(size)
    return Preparation(gain, mean, deviation, multiple, side, size if kind.fixed or squares else None, squares)


def _multiples(config: Mapping[str, Any], processor: Mapping[str, Any], patch: int | None) -> list[int]:
    """Multiples of pixels that a config or a processor's file names."""
    backbone = config.get("backbone_config") or {}
    given = [processor.get("ensure_multiple_of"), processor.get("size_divisor")]
    # DPT's config has the patch size of a backbone that it may not have.
    patches = backbone.get("patch_size", config.get("patch_size", patch)) if isinstance(backbone, dict) else None
    given += patches if isinstance(patches, list) else [patches]
    # ZoeDepth's own default is a fraction, by mistake.
    return [value for value in given if isinstance(value, int) and value > 0]


def _size(size: Any) -> tuple[int, int] | None:
    """(height, width) of the size that a processor names."""
    if size is None:
        return None
    if isinstance(size, dict):
        sides = [size[key] for key in ("height", "width", "shortest_edge", "longest_edge") if size.get(key)][:2]
    else:
        sides = [size]
    if not sides or not all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE for side in sides):
        raise ValueError("'size' is no size in pixels")
    return sides[0], sides[-1]


def _colours(processor: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = processor.get(key)
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"'{key}' is not three numbers")
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)
