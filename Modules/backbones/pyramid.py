"""Any timm encoder as a pyramid: one level a stride, each of exactly its fraction of the image."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional

from Modules.backbones.pretrained import check_name, check_options, load_timm_file, pretrained_file

_MOST_CELLS = 8  # of the deepest level, along either axis, in the largest image that is tried
# What was found for an encoder, by its name and options: trying sizes takes as long as building it, or much longer, and
# a run builds the same encoder for every fold.
_found_sizes: dict[str, tuple[int, int]] = {}


class TimmPyramid(nn.Module):
    """The features of a timm encoder (its ``features_only`` mode), the deepest one of each stride.

    Args:
        name: any timm model that gives features.
        options: further arguments of the timm model.
        weights: ``True`` for timm's pretrained weights (from the hub or its cache), a path for a file in timm's layout.
        levels: timm's numbers of the features to give; layers behind the last of them are not built. None for all.

    Attributes:
        strides: pixels per cell of each level, finest first; powers of two.
        channels: channels of each level.
        images_have: channels of the images that it takes: 3, or what the option ``in_chans`` says.
        mean: mean of each channel of colour images in [0, 1] for which the encoder was made.
        std: standard deviation of each channel, likewise.
        multiple: height and width are to be multiples of this many pixels: the deepest stride or, where an encoder
            divides its features into windows of one size, the size of images that it was made for.
        smallest: the least height and width that it takes.

    Raises:
        ValueError: an unknown name, a model without features or with other strides, weights that do not fit.
        OSError: pretrained weights that are neither in the cache nor reachable.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        weights: bool | Path = False,
        levels: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        options = dict(options or {})
        check_name(name, name, timm.list_models, "any timm encoder with features")
        check_options(name, options)
        self.images_have = int(options.get("in_chans", 3))
        features = _create(name, options, features_only=True, **({} if levels is None else {"out_indices": levels}))
        if weights:
            _load(features, name, options, pretrained_file(name, name) if weights is True else Path(weights))
        self.features: nn.Module = features
        self._channels_are_last = str(getattr(features, "output_fmt", "NCHW")).endswith("NHWC")
        reductions = [int(value) for value in features.feature_info.reduction()]
        if any(value < 2 or value & (value - 1) for value in reductions):
            raise ValueError(f"backbone '{name}' has strides {reductions}; the decoder needs powers of two")
        # The deepest level of each stride, as some encoders (any ViT) have several.
        self._places = sorted({stride: place for place, stride in enumerate(reductions)}.items())
        self.strides = tuple(stride for stride, _ in self._places)
        widths = features.feature_info.channels()
        self.channels = tuple(int(widths[place]) for _, place in self._places)
        settings = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = tuple(settings.mean) if settings else (0.5, 0.5, 0.5)
        self.std: tuple[float, ...] = tuple(settings.std) if settings else (0.5, 0.5, 0.5)
        encoder = json.dumps([name, options, levels], sort_keys=True, default=repr)
        if encoder not in _found_sizes:
            native = _native_size(settings, options)
            _found_sizes[encoder] = _sizes(name, features, self.strides[-1], native, self.images_have)
        self.multiple, self.smallest = _found_sizes[encoder]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Take the features.

        Args:
            image: (B, 3, H, W), with as many channels as ``images_have`` says, of a size that ``multiple`` and
                ``smallest`` allow.

        Returns:
            For each stride s a map (B, C, ceil(H/s), ceil(W/s)), finest first. What an encoder without padding gives
            too small is brought to this size with zeros all round.
        """
        found = self.features(image)
        levels = []
        for stride, place in self._places:
            level = found[place].permute(0, 3, 1, 2) if self._channels_are_last else found[place]
            levels.append(_centre(level, tuple(math.ceil(side / stride) for side in image.shape[-2:])))
        return levels


def _create(name: str, options: Mapping[str, Any], **more: Any) -> Any:
    """Build the timm model with random weights, accepting any input size where it can be told to."""
    build = partial(timm.create_model, name, pretrained=False, **more, **options)
    try:
        try:
            return build(dynamic_img_size=True)  # transformers would take one size alone
        except TypeError:
            return build()
    except TypeError as error:
        raise ValueError(f"backbone '{name}' takes no such option: {error}") from error
    # timm has no exception of its own: what an encoder without features raises differs from family to family.
    except (RuntimeError, ValueError, AssertionError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"backbone '{name}' cannot give features with options {dict(options)}: {error}") from error


def _load(features: nn.Module, name: str, options: Mapping[str, Any], path: Path) -> None:
    """Load a file into the whole model, as timm does, and take over what the features need."""
    # Files know colour images alone; what sees other images takes its first layer from theirs, as timm does.
    channels = int(options.get("in_chans", 3))
    coloured = {key: value for key, value in options.items() if key != "in_chans"}
    whole = _create(name, coloured, num_classes=0)
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    settings = cast(dict[str, Any], whole.pretrained_cfg)
    classifier = settings.get("classifier") or ()
    unused = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    load_timm_file(
        whole, name, path, dict if convert is None else partial(convert, model=whole), tuple(f"{n}." for n in unused)
    )
    # timm's wrappers flatten "stages.0" to "stages_0", or put the model into a part named "model".
    given = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    wanted = features.state_dict()
    with torch.no_grad():
        for key, value in wanted.items():
            found = given[key.removeprefix("model.").replace(".", "_")]
            value.copy_(found if found.shape == value.shape else adapt_input_conv(channels, found))


def _native_size(settings: Any, options: Mapping[str, Any]) -> int:
    """Side of the images that an encoder is made for, of the longer where they differ; 0 where that is not known."""
    size = options.get("img_size") or (settings.input_size[1:] if settings else 0)
    return int(size) if isinstance(size, int | float) else int(max(size))


def _sizes(name: str, features: nn.Module, stride: int, native: int, channels: int) -> tuple[int, int]:
    """What sides have to be multiples of, and the least side: of any multiple of the stride, if the encoder takes them.

    Encoders without padding lose some cells at each level, and need more than two. Those with windows of one size take
    whole windows alone, which images of the size that they are made for have at every level, and so have its multiples.

    Raises:
        ValueError: it takes none of the sizes that were tried.
    """
    reason = ""
    sides = [(stride, side) for side in range(2 * stride, (_MOST_CELLS + 1) * stride, stride)]
    if native > stride and native % stride == 0:
        sides.append((native, native))
    for multiple, side in sides:
        # A square is not enough, because some encoders take squares of one size alone.
        refused = _refused(features, (side, side), channels) or _refused(features, (side, side + multiple), channels)
        if not refused:
            return multiple, side
        reason = reason or refused
    raise ValueError(f"backbone '{name}' takes one size of images alone, or none that this decoder can give: {reason}")


def _refused(features: nn.Module, size: tuple[int, int], channels: int) -> str:
    """Why an encoder does not take images of a size; empty if it does. The trial has shapes but no numbers."""
    was_training = features.training
    tensors = (*features.named_parameters(), *features.named_buffers())
    shapes = {key: value.to("meta") for key, value in tensors}
    features.train()  # batch norms of one tile need more than one cell then
    try:
        torch.func.functional_call(features, shapes, (torch.zeros(1, channels, *size, device="meta"),))
    except (RuntimeError, AssertionError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    finally:
        features.train(was_training)
    return ""


def _centre(level: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring (B, C, h, w) to a size, with zeros all round, or by cutting all round."""
    down, right = size[0] - level.shape[-2], size[1] - level.shape[-1]
    if down == right == 0:
        return level
    return functional.pad(level, (right // 2, right - right // 2, down // 2, down - down // 2))
