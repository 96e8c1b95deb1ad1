"""The keys of configs that read land-cover tiles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from Utils.config.sections import MAY_CHANGE, Fraction, Positive, PositiveNumber, Section, Share, ShareBelowOne

__all__ = ["AugmentationSection", "ColourChange", "DepthSource", "SelfTrainingSection", "Trust", "WithLandCover"]

ColourChange = Literal["none", "mild", "strong"]
DepthSource = Literal["true", "constant", "shuffled", "grey"]
Trust = Literal["image", "pixel"]


class AugmentationSection(Section):
    """``augmentation``: how training samples change at random. Image, map and mask move together."""

    crop: Positive | None = 512
    """Side in pixels of a random square; null for whole tiles, which then have one size."""
    scales: Annotated[list[PositiveNumber], Field(min_length=2, max_length=2)] = [0.5, 2.0]
    """crop: the smallest and the largest factor by which tiles are enlarged before."""
    largest_share: Share = 0.75
    """crop: the share of its labelled pixels that one class may have; up to ten squares are drawn."""
    turns: bool = True
    """crop: whether squares are turned by quarters of a circle; `flips` mirrors them."""
    colours: ColourChange = "strong"
    """How brightness, contrast, saturation and hue of the image change: none, mild or strong."""
    grey: Fraction = 0.0
    """Chance of a grey image."""
    blur: Fraction = 0.0
    """Chance of a blurred image."""
    depth_jitter: bool = True
    """Whether gain, offset and gamma of the relative depth map change."""
    depth_drop: ShareBelowOne = 0.1
    """Chance of a map without relief, 0 everywhere, so that the network can do without."""


class SelfTrainingSection(Section):
    """``self_training``: learning from images without labels as well; a mean teacher draws their classes."""

    domains: Annotated[list[str], Field(min_length=1)]
    """Domains whose images are learnt from without their labels, such as ["Rural"]; none of the source."""
    part: str = "Train"
    """Part of the dataset that holds these images; masks are not read."""
    weight: PositiveNumber = 1.0
    """Weight of the loss on these images; the loss on labels has 1."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.968
    """Probability from which the teacher counts as sure of a pixel."""
    trust: Trust = "pixel"
    """Which pixels count: pixel, those of which the teacher is sure, in full; or image, all of them, weighted by the
    share of the image of which it is sure, as DACS and DAFormer do."""
    class_mix: bool = True
    """Whether half of a labelled square's classes are pasted, with their labels, onto each square without labels."""
    colours: ColourChange = "strong"
    """How the student's image changes; the teacher sees it as it is."""
    grey: Fraction = 0.2
    """Chance that the student's image is grey."""
    blur: Fraction = 0.5
    """Chance that the student's image is blurred."""


class WithLandCover(Section):
    """How tiles, their classes and their relative depth maps are found and read."""

    description: Annotated[str, MAY_CHANGE] = ""
    """A line that says what the config is for; the log begins with it."""
    class_table: str | None = None
    """JSON with one's own classes (names, colours, values); by default those of LoveDA."""
    relative_depth_folder: str = "depth_png"
    """Folder of the relative depth maps beside that of the images; networks that see none read none."""
    relative_depth_rises: Literal["auto", "depth", "height"] = "auto"
    """What rises in these maps: depth (near is dark) or height (near is bright). By default what the JSON beside a map
    says, as python -m Systems.relative_depth writes it, and height where there is none."""
    depth_source: DepthSource = "true"
    """What stands for the map: true, the maps themselves; or a control: constant, shuffled (maps of other tiles) or
    grey (a grey copy of the image)."""
