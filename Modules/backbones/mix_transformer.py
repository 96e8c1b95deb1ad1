"""The Mix Transformer encoders of SegFormer (Xie et al., NeurIPS 2021), MiT-b0 to MiT-b5, as pyramids of four levels.

timm has none of them. The encoder itself is transformers' (its GLPN model, which has the same one), so that weights in
the layout of transformers fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from Modules.common.hub import hub_file
from Modules.common.untrusted_weights import check_tensors

# Layers a level, and channels of the levels.
_SIZES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mit_b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit_b1": ((2, 2, 2, 2), (64, 128, 320, 512)),
    "mit_b2": ((3, 4, 6, 3), (64, 128, 320, 512)),
    "mit_b3": ((3, 4, 18, 3), (64, 128, 320, 512)),
    "mit_b4": ((3, 8, 27, 3), (64, 128, 320, 512)),
    "mit_b5": ((3, 6, 40, 3), (64, 128, 320, 512)),
}
MIX_TRANSFORMERS = tuple(_SIZES)
_FIRST = "encoder.patch_embeddings.0.proj.weight"
# What files of SegFormer and GLPN write in front of the encoder's names.
_FRONTS = ("", "segformer.", "glpn.")
_OPTIONS = ("in_chans", "drop_path_rate")


class MixTransformerPyramid(nn.Module):
    """A Mix Transformer: overlapping patches, attention over shrunk keys, layer norms of 1e-6, stochastic depth 0.1.

    Args:
        name: one of ``MIX_TRANSFORMERS``.
        options: ``in_chans``, channels of the images (3), and ``drop_path_rate`` (0.1).
        weights: ``True`` for weights learnt on ImageNet-1k (nvidia's, from the hub or its cache; their licence allows
            research alone), a path for a file of safetensors in transformers' layout. Where images have one channel,
            the kernels of red, green and blue are added up: what a grey image in three channels would have given.

    Attributes:
        strides: pixels per cell of each level, finest first.
        channels: channels of each level.
        images_have: channels of the images.
        mean: mean of each channel of colour images in [0, 1] for which the weights were made.
        std: standard deviation of each channel, likewise.
        multiple: height and width are to be multiples of this many pixels.
        smallest: the least height and width that it takes.

    Raises:
        ValueError: an unknown name or option, weights that do not fit.
        OSError: weights that are neither in the cache nor reachable.
    """

    strides = (4, 8, 16, 32)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    multiple = 32
    smallest = 32

    def __init__(self, name: str, options: Mapping[str, Any] | None = None, weights: bool | Path = False) -> None:
        super().__init__()
        from transformers import GLPNConfig, GLPNModel

        options = dict(options or {})
        if name not in _SIZES:
            raise ValueError(f"unknown Mix Transformer '{name}'; known: {', '.join(_SIZES)}")
        if unknown := sorted(options.keys() - set(_OPTIONS)):
            raise ValueError(f"backbone '{name}' takes no such option: {unknown[0]}; it takes {', '.join(_OPTIONS)}")
        layers, self.channels = _SIZES[name]
        self.images_have = int(options.get("in_chans", 3))
        if self.images_have not in (1, 3):
            raise ValueError(f"backbone '{name}': in_chans {self.images_have}; images have 1 or 3 channels")
        self.model = GLPNModel(
            GLPNConfig(
                num_channels=self.images_have,
                depths=list(layers),
                hidden_sizes=list(self.channels),
                drop_path_rate=float(options.get("drop_path_rate", 0.1)),
            )
        )
        if weights:
            self._load(name, _hub_weights(name) if weights is True else Path(weights))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, ``images_have``, H, W), sides being multiples of 32, to four levels (B, C, H/s, W/s), finest first."""
        return list(self.model(image, output_hidden_states=True, return_dict=True).hidden_states)

    def _load(self, name: str, path: Path) -> None:
        """Take over the encoder's weights from a file, which may hold a decoder or a classifier too."""
        if not path.is_file():
            raise FileNotFoundError(f"backbone weights '{path}' not found")
        try:
            content = load_file(path)
            check_tensors(content, path.stat().st_size)
        except Exception as error:  # safetensors has its own exceptions, and a damaged header raises others
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"'{path}' cannot be loaded into backbone '{name}': {reason}") from error
        front = next((front for front in _FRONTS if f"{front}{_FIRST}" in content), None)
        if front is None:
            raise ValueError(
                f"'{path}' holds no Mix Transformer in transformers' layout: it lacks '{_FIRST}'; convert it, or set "
                "model.pretrained to false"
            )
        given = {key.removeprefix(front): value for key, value in content.items() if key.startswith(f"{front}encoder.")}
        if self.images_have == 1 and given[_FIRST].shape[1] == 3:
            given[_FIRST] = given[_FIRST].sum(dim=1, keepdim=True)
        wanted = self.model.state_dict()
        wrong = [key for key, value in wanted.items() if key not in given or given[key].shape != value.shape]
        foreign = sorted(given.keys() - wanted.keys())
        if wrong or foreign:
            complaint = f"it holds '{foreign[0]}'" if foreign else f"'{wrong[0]}' is missing or of another size"
            raise ValueError(f"'{path}' holds the weights of another network than backbone '{name}': {complaint}")
        with torch.no_grad():
            self.model.load_state_dict(given)


def _hub_weights(name: str) -> Path:
    """Raises OSError: they are neither in the cache nor reachable."""
    try:
        return hub_file(f"nvidia/{name.replace('_', '-')}", "model.safetensors")
    except OSError as error:
        raise OSError(
            f"no pretrained weights of backbone '{name}': {error}; "
            "give pretrained_model_path, or set model.pretrained to false"
        ) from error
