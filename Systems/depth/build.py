"""The one place that maps a config's names to depth networks, and a user's path to one."""

from __future__ import annotations

from pathlib import Path

from Modules.common.plain_json import parse_json, read_text
from Modules.depth.enc_dec import EncDec, EncDecIRv2
from Modules.depth.names import DEPTH_TASK, PUBLISHED_NETWORK
from Systems.depth.config import DepthTrainingConfig
from Utils.core.errors import UserError, as_user_error
from Utils.training.checkpointed_network import give_first_weights, load_network, model_folder


def build_depth(config: DepthTrainingConfig) -> EncDec:
    """The network with its first weights: random, timm's pretrained ones, or ``pretrained_model_path``'s.

    That path is a run, a model folder or a checkpoint of this project (the whole network), or a file of encoder weights
    in timm's layout, of mit_b0 to mit_b5 in transformers' (the encoder alone).

    Raises:
        UserError: a name, option or file that does not fit, or pretrained weights that are not available.
    """
    section = config.model
    try:
        if section.backbone == PUBLISHED_NETWORK:
            network = EncDecIRv2(config.target, config.max_depth, config.direction, config.image_size)
        else:
            network = EncDec(
                section.backbone,
                options=section.options,
                widths=section.widths,
                target=config.target,
                max_depth=config.max_depth,
                channel_order=section.channel_order,
                scaling=section.scaling,
                norm_momentum=section.norm_momentum,
                direction=config.direction,
                image_size=config.image_size,
                decoder_name=section.decoder,
            )
        give_first_weights(network, section.pretrained, config.pretrained_model_path, load_depth)
    except (ValueError, OSError) as error:
        raise as_user_error(error) from error
    return network


def load_depth(path: Path) -> EncDec:
    """A depth network, ready to predict, from a run folder, a model folder or a checkpoint file.

    Raises:
        UserError: there is nothing, or no depth network in it.
    """
    if not path.exists():
        raise UserError(f"no model at '{path}': the path does not exist; train first, or correct the path")
    if (model_folder(path) / "model_index.json").is_file():
        raise UserError(f"'{path}' holds a model of D³-RSMDE, and a depth network is needed here")
    if not _is_ours(model_folder(path)):
        raise UserError(
            f"'{path}' holds another model, and a depth network of trainDepth.py is needed here; those of transformers "
            "draw maps with python -m Systems.relative_depth"
        )
    return load_network(path, EncDec, DEPTH_TASK)


def _is_ours(folder: Path) -> bool:
    """Whether a folder's config is one of diffusers, as ours are, and not one of transformers; a damaged one is."""
    try:
        document = parse_json(read_text(folder / EncDec.config_name))
    except (OSError, ValueError):
        return True
    return not isinstance(document, dict) or "model_type" not in document
