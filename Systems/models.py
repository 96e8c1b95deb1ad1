"""Opens any trained model as what whole scenes ask for, which says what it predicts: heights, detail, or classes."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from Modules.common.hub import is_hub_name
from Modules.common.precision import Precision
from Modules.depth.names import DEPTH_TASK
from Systems.depth_models.files import holds_depth_model
from Utils.core.errors import UserError, first_line
from Utils.core.predictor import DIRECTIONS, DetailModel, Direction, Predictor, Predicts
from Utils.training.run_files import MODEL_FOLDER

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from Modules.depth.enc_dec import EncDec
    from Utils.scenes.classes.class_model import ClassModel

logger = logging.getLogger(__name__)

_USUAL_TILE = 512


def load_predictor(
    model: str | os.PathLike[str],
    device: torch.device,
    precision: Precision = "fp32",
    steps: int | None = None,
    compile: bool = False,
    polarity: Direction | None = None,
) -> Predictor:
    """Load a model folder, that of a run of trainViT, trainDiffusion or trainDepth, or a depth model of transformers.

    Args:
        model: folder of the model, or of the run that wrote it; or a name on the hub.
        device: device on which it runs.
        precision: number format of the weights, as for ``D3RSMDE.optimise``.
        steps: refinement steps of a D³ model; None takes the model's own.
        compile: whether to use torch.compile, as for ``D3RSMDE.optimise``.
        polarity: what rises in the maps of a depth model whose type or config does not tell.

    Returns:
        The predictor, with the tile size that the model was trained on and facts that identify it.

    Raises:
        UserError: no model there, a damaged one, one that cannot start from an image, or one whose polarity is unknown.
    """
    from Modules.depth.enc_dec import EncDec
    from Utils.training.checkpointed_network import holds_network

    model = from_hub(model)
    folder = Path(model)
    if holds_depth_model(folder) or is_hub_name(model):
        from Systems.depth_models.loading import load_depth_model

        if steps is not None:
            raise UserError(f"--steps {steps}: this model takes none: it is no D³ model")
        return load_depth_model(model, device, precision, compile, polarity)
    if holds_network(folder, EncDec, DEPTH_TASK):
        if steps is not None:
            raise UserError(f"--steps {steps}: this model takes none: it is no D³ model")
        return _load_depth(folder, device, precision, compile, polarity)
    if polarity is not None:
        raise UserError(f"--polarity {polarity}: '{model}' is no depth model; leave it out")
    if holds_class_model(folder):
        raise UserError(f"the model '{folder}' draws classes, and no heights: give a model that draws depth or height")
    if holds_detail_model(folder):
        raise UserError(f"--model '{folder}' refines coarse DEMs, and draws nothing without one: give --reference")
    return _load_d3rsmde(folder, device, precision, steps, compile)


def holds_class_model(model: str | os.PathLike[str]) -> bool:
    """Whether a path is a run, a model folder or a checkpoint of a network of land cover: see ``load_class_model``."""
    from Modules.segmentation.names import SEGMENTATION_TASK
    from Modules.segmentation.networks import SegmentationNetwork
    from Utils.training.checkpointed_network import holds_network

    return holds_network(Path(model), SegmentationNetwork, SEGMENTATION_TASK)


def load_class_model(
    model: str | os.PathLike[str], device: torch.device, precision: Precision = "fp32", compile: bool = False
) -> ClassModel:
    """Load a network of land cover.

    Args:
        model: folder of the model or of its run, or a checkpoint.
        device: device on which it runs.
        precision: number format that it computes in; weights stay fp32.
        compile: whether to use torch.compile.

    Raises:
        UserError: no such model there, or a damaged one.
    """
    import torch
    from torch import nn

    from Modules.common.number_formats import DTYPES, compile_networks
    from Systems.segmentation.build import load_segmentation, table_of
    from Utils.scenes.classes.class_model import ClassModel
    from Utils.training.checkpointed_network import model_folder

    network = load_segmentation(Path(model))
    folder = model_folder(Path(model))
    nn.Module.to(network, device)
    size = network.config["tile_size"] or _USUAL_TILE
    if compile:
        probe = torch.zeros(1, 3, size, size, device=device)
        compile_networks([network], lambda: network(probe, probe[:, :1]))

    @torch.no_grad()
    def draw(images: Tensor, maps: Tensor | None) -> Tensor:
        with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            scores: Tensor = network(images, maps)
        return scores.float().softmax(dim=1)

    facts = {
        "name": folder.parent.name if folder.name == MODEL_FOLDER else folder.name,
        "type": type(network).__name__,
        "trained_on": list(network.config["trained_on"]),
        "selected_on": network.config["selected_on"],
        "unlabelled_images": list(network.config["unlabelled"]),
        "weights": _digest(folder),
        "precision": precision,
    }
    return ClassModel(draw, table_of(network), network.uses_depth, size, network.config["white"], facts)


def from_hub(model: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The local copy of a model of ours that the hub has; anything else, a model of transformers included, as it is.

    Raises:
        UserError: files of such a model that are neither in the cache nor to be had.
    """
    from Modules.common.hub import hub_folder, kind_on_hub

    if not is_hub_name(model):
        return model
    name = os.fspath(model)
    try:
        whole = kind_on_hub(name)
    except OSError:
        whole = ""  # whoever looks for a model of transformers says what is missing
    try:
        return hub_folder(name, whole) if whole else model
    except OSError as error:
        raise UserError(f"--model '{name}': {first_line(error)}") from error


def holds_detail_model(model: str | os.PathLike[str]) -> bool:
    """Whether a path is a run, a model folder or a checkpoint of a refiner of DEMs: see ``load_detail_model``."""
    from Systems.d3rsmde.dem_prior.build import holds_dem_refiner

    return holds_dem_refiner(Path(model))


def load_detail_model(
    model: str | os.PathLike[str], device: torch.device, precision: Precision = "fp32", compile: bool = False
) -> DetailModel:
    """Load a refiner of DEMs.

    Args:
        model: folder of the model or of its run, or a checkpoint.
        device: device on which it runs.
        precision: number format of the weights.
        compile: whether to use torch.compile.

    Raises:
        UserError: no such model there, or a damaged one.
    """
    import numpy as np
    import torch
    from torch import nn

    from Systems.d3rsmde.dem_prior.build import load_dem_refiner

    folder = Path(model)
    network = load_dem_refiner(folder)
    nn.Module.to(network, device)
    network.optimise(precision, compile=compile)

    @torch.no_grad()
    def draw(*maps: NDArray[np.float32]) -> NDArray[np.float32]:
        given = [torch.from_numpy(np.ascontiguousarray(values)).to(device) for values in maps]
        surface, error, relief = (values[None, None] for values in given[:3])
        return np.asarray(network(surface, error, relief, given[3][None])[0, 0].float().cpu().numpy())

    folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER).is_dir() else folder
    name = folder.parent.name if folder.name == MODEL_FOLDER else folder.name
    return DetailModel(draw, {"name": name, "weights": _digest(folder), "precision": precision})


def _load_d3rsmde(
    folder: Path, device: torch.device, precision: Precision, steps: int | None, compile: bool
) -> Predictor:
    from Systems.d3rsmde.build import load_model

    model = load_model(folder)
    folder = folder / MODEL_FOLDER if (folder / MODEL_FOLDER).is_dir() else folder
    if model.coarse is None:
        raise UserError(f"--model '{folder}' holds no stage 1; train stage 2 with coarse_checkpoint_path set")
    if steps is not None and not (model.refines and 1 <= steps <= len(model.scheduler.weights)):
        most = f"1 to {len(model.scheduler.weights)}" if model.refines else "none: this model has no stage 2"
        raise UserError(f"--steps {steps}: this model takes {most}")
    model.to(device).optimise(precision, compile=compile)

    def draw(images: Tensor) -> Tensor:
        height = model.predict_coarse(images)
        return (model.refine(images, height, steps).height if model.refines else height)[:, 0]

    facts = {
        "name": folder.parent.name if folder.name == MODEL_FOLDER else folder.name,
        "weights": _digest(folder),
        "stages": 2 if model.refines else 1,
        "steps": steps or model.config["steps"],
        "precision": precision,
    }
    multiple = model.size_multiple if model.refines else 1
    tile_size = model.config["tile_size"] or _USUAL_TILE
    return Predictor(draw, "relative height", "height", multiple, tile_size, facts)


def _load_depth(
    path: Path, device: torch.device, precision: Precision, compile: bool, polarity: Direction | None
) -> Predictor:
    """A depth network of trainDepth: relative height, or height in metres whose level is unknown."""
    import torch
    from torch import nn

    from Systems.depth.build import load_depth
    from Utils.training.checkpointed_network import model_folder

    network = load_depth(path)
    folder, target = model_folder(path), network.config["target"]
    direction = depth_direction(network, path, polarity)
    metres = target != "relative"
    unit = f"metres of {direction}" if metres else f"relative {direction}"
    logger.info(
        "%s (depth network, target %s) draws %s: taken as %s",
        path,
        target,
        "metres below each tile's highest ground" if target == "summit" else unit,
        "heights in metres whose level is unknown" if metres else "heights of unknown scale and level",
    )
    nn.Module.to(network, device)
    network.optimise(precision, compile=compile)

    def draw(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network(images)[:, 0]

    facts = {
        "name": folder.parent.name if folder.name == MODEL_FOLDER else folder.name,
        "type": type(network).__name__,
        "target": target,
        "weights": _digest(folder),
        "precision": precision,
    }
    size, seen = network.config["tile_size"] or _USUAL_TILE, network.config["image_size"]
    predicts: Predicts = "height" if metres else "relative height"
    side = min(seen) if seen else None
    full = network.config["scaling"] == "none"
    return Predictor(draw, predicts, direction, network.encoder.strides[-1], size, facts, side, full)


def depth_direction(network: EncDec, path: Path, polarity: Direction | None) -> Direction:
    """What rises in a depth network's maps; never a guess.

    Raises:
        UserError: nobody has said it, or the command says another than the training.
    """
    known = network.draws
    if known is None and polarity is None:
        raise UserError(
            f"--model '{path}': what rises in its maps, {', '.join(DIRECTIONS[:-1])} or {DIRECTIONS[-1]}? its training "
            "did not say; give --polarity, or resume the training with --set direction=..."
        )
    if known is not None and polarity not in (None, known):
        raise UserError(f"--polarity {polarity}: the model '{path}' was trained to draw {known}; leave it out")
    if network.config["target"] == "metres" and polarity == "inverse depth":
        raise UserError(f"--polarity {polarity}: the model '{path}' draws metres, and inverse depth has none")
    direction = known or polarity
    assert direction is not None
    return direction


def _digest(folder: Path) -> str:
    """A digest of all weights: a scene is resumed only with the same model."""
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
