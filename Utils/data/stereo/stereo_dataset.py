"""The dataset of stereo samples, as networks see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from Utils.config.stereo_keys import Jitter
from Utils.data.dataset import SampleDataset
from Utils.data.sample import Kind, Kinds, Sample
from Utils.data.stereo.colour_jitter import jitter_colours
from Utils.data.stereo.reading import read_stereo
from Utils.data.stereo.view_files import StereoFiles

__all__ = ["MULTIPLE", "StereoDataset", "standardised"]

MULTIPLE = 32
"""Height and width are padded up to a multiple of this many pixels, at the right and the bottom."""

_FLAT = 1e-4  # standard deviation of an image or map of one grey, up to rounding


class StereoDataset(SampleDataset):
    """Stereo samples as tensors.

    A sample holds ``images`` (V, 3, H, W), standardised each by itself, the reference first; ``cameras`` (V, 4, 4) or
    (V, 170) float64; ``target`` (1, H, W) depth or height of the reference in metres, 0 where it is unknown; ``mask``
    (1, H, W), where it is known and within the range; ``value_range`` (2,) and ``interval`` (1,) in metres; ``sizes``
    (V, 2), height and width of each image without padding; ``id``, ``name`` and ``view``; with relative depth,
    ``relative_depth`` (V, 3, H, W), standardised too. Padded pixels are 0 in images, and not in the mask.

    Args:
        files: the files of the part's samples.
        ids: ids of the samples to serve, in order.
        jitter: how colours change at random, in each view by itself.
        options: ``seed``, ``cache_bytes``, ``target`` and ``one_size`` of ``SampleDataset``. There are neither flips
            nor crops: a camera sees the image that it took.
    """

    def __init__(
        self, files: Mapping[str, StereoFiles], ids: Sequence[str], jitter: Jitter = "none", **options: Any
    ) -> None:
        assert not options.get("flips") and not options.get("crop"), "a camera cannot be mirrored"
        super().__init__(ids, **options)
        self.files = files
        self.jitter: Jitter = jitter

    @property
    def read_kinds(self) -> Kinds:
        """The kinds of a sample's entries."""
        kinds = {
            "images": Kind.IMAGE,
            "cameras": Kind.VECTOR,
            "target": Kind.MAP,
            "mask": Kind.MASK,
            "value_range": Kind.VECTOR,
            "interval": Kind.VECTOR,
            "sizes": Kind.VECTOR,
            "id": Kind.TEXT,
            "name": Kind.TEXT,
            "view": Kind.TEXT,
        }
        with_relative = bool(self.ids) and self.files[self.ids[0]].reference.relative is not None
        return kinds | ({"relative_depth": Kind.IMAGE} if with_relative else {})

    def read(self, sample_id: str) -> Sample:
        """One sample from its files; images and relative depth are still in [0, 1].

        Raises:
            UserError: a file that cannot be read, or files that do not fit one another.
        """
        files = self.files[sample_id]
        arrays = read_stereo(files)
        sizes = [image.shape[-2:] for image in arrays.images]
        height, width = (-(-max(size[axis] for size in sizes) // MULTIPLE) * MULTIPLE for axis in (0, 1))
        low, high = arrays.value_range
        mask = arrays.known & (arrays.target >= low) & (arrays.target <= high)

        def widened(values: Any) -> Tensor:
            found = torch.from_numpy(values)
            return functional.pad(found, (0, width - found.shape[-1], 0, height - found.shape[-2]))

        sample: Sample = {
            "images": torch.stack([widened(image) for image in arrays.images]),
            "cameras": torch.from_numpy(arrays.cameras),
            "target": widened(arrays.target)[None],
            "mask": widened(mask)[None],
            "value_range": torch.tensor([low, high], dtype=torch.float32),
            "interval": torch.tensor([arrays.interval], dtype=torch.float32),
            "sizes": torch.tensor(sizes),
            "id": sample_id,
            "name": files.name,
            "view": files.reference.view,
        }
        if arrays.relative:
            sample["relative_depth"] = torch.stack([widened(relative) for relative in arrays.relative])
        return sample

    def place(self, sample_id: str) -> object:
        """The reference's image."""
        return self.files[sample_id].reference.image

    def _augment(self, sample: Sample, sample_id: str) -> Sample:
        """Change the colours of each view, then standardise each view and each relative depth map by itself."""
        generator = self._generator(sample_id)
        images = torch.zeros_like(sample["images"])
        for number, (height, width) in enumerate(sample["sizes"].tolist()):
            own = sample["images"][number, :, :height, :width]
            images[number, :, :height, :width] = standardised(jitter_colours(own, self.jitter, generator))
        changed = sample | {"images": images}
        if "relative_depth" in sample:
            maps = torch.zeros_like(sample["relative_depth"])
            for number, (height, width) in enumerate(sample["sizes"].tolist()):
                own = sample["relative_depth"][number, :, :height, :width]
                maps[number, :, :height, :width] = standardised(own)
            changed["relative_depth"] = maps
        return changed


def standardised(values: Tensor) -> Tensor:
    """Each channel of (C, H, W) less its mean, divided by its standard deviation; 0 where it is flat."""
    deviation, mean = torch.std_mean(values.double(), dim=(-2, -1), correction=0, keepdim=True)
    scaled = (values - mean) / (deviation + 1e-8)
    return torch.where(deviation > _FLAT, scaled, 0.0).float()
