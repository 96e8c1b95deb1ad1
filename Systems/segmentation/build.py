"""The one place that maps a config's names to networks of land cover, and a user's path to one."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from pathlib import Path

from Modules.segmentation.names import SEGMENTATION_TASK
from Modules.segmentation.networks import SegmentationNetwork
from Systems.segmentation.config import SegmentationTrainingConfig
from Utils.core.errors import UserError, as_user_error
from Utils.data.land_cover.class_table import ClassTable
from Utils.training.checkpointed_network import give_first_weights, load_network

__all__ = ["build_segmentation", "load_segmentation", "table_of"]


def build_segmentation(config: SegmentationTrainingConfig, table: ClassTable) -> SegmentationNetwork:
    """The network with its first weights: random, timm's pretrained ones, or ``pretrained_model_path``'s.

    That path is a run, a model folder or a checkpoint of this project (the whole network), or a file of weights of the
    image's encoder in timm's layout.

    Raises:
        UserError: a name, option or file that does not fit, or pretrained weights that are not available.
    """
    section = config.model
    try:
        network = SegmentationNetwork(
            section.backbone,
            section.depth_backbone,
            section.fusion,
            section.head,
            table.names,
            colours=[list(colour) for colour in table.colours],
            values=table.values,
            ignored=table.ignored,
            white=config.image_full_scale,
            channels=section.channels,
            head_width=section.head_width,
            dropout=section.dropout,
            auxiliary=config.auxiliary_weight > 0,
            adapter_width=section.adapter_width,
            options=section.options,
            depth_options=section.depth_options,
            trained_on=config.source,
            selected_on="oracle" if config.oracle else "none" if config.not_split else "source",
            unlabelled=unlabelled_of(config),
        )
        give_first_weights(network, section.pretrained, config.pretrained_model_path, load_segmentation)
    except (ValueError, OSError) as error:
        raise as_user_error(error) from error
    return network


def unlabelled_of(config: SegmentationTrainingConfig) -> list[str]:
    """The parts and domains whose images are learnt from without labels, such as ``Train: Rural``."""
    section = config.self_training
    return [] if section is None else [f"{section.part}: {domain}" for domain in section.domains]


def load_segmentation(path: Path) -> SegmentationNetwork:
    """A network of land cover, ready to predict, from a run folder, a model folder or a checkpoint file.

    Raises:
        UserError: there is nothing, or no such network in it.
    """
    if not path.exists():
        raise UserError(f"no model at '{path}': the path does not exist; train first, or correct the path")
    return load_network(path, SegmentationNetwork, SEGMENTATION_TASK)


def _colour(number: int) -> list[int]:
    """A colour for a class of which nobody has said one: hues far from those before, in three brightnesses."""
    hue, bright = number * 0.618034 % 1.0, (0.9, 0.7, 0.5)[number % 3]
    return [round(255 * part) for part in hsv_to_rgb(hue, 0.7, bright)]


def table_of(network: SegmentationNetwork) -> ClassTable:
    """The classes that a network draws."""
    names = tuple(network.config["classes"])
    values = network.config["values"] or range(len(names))
    colours = network.config["colours"] or [_colour(number) for number in range(len(names))]
    return ClassTable(
        names, tuple((int(r), int(g), int(b)) for r, g, b in colours), tuple(values), tuple(network.config["ignored"])
    )
