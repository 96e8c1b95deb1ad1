"""The models that the app offers: what lies under its folders, by names that say nothing of the server."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from Modules.common.hub import is_hub_name
from Systems.app.limits import Refusal

__all__ = ["MAKE_ONE", "NO_MODEL", "OfferedModel", "find_models", "model_named"]

logger = logging.getLogger(__name__)

NO_MODEL = "none"
"""The name that stands for no model: a coarse DEM and the shading of the image."""

MAKE_ONE = "make demo"
"""The command that trains a model."""

_DEEPEST = 4
# Classes that whole scenes take, as the JSON of their folders names them, and what they are called here.
_KINDS = {
    "D3RSMDE": "relative height (D³-RSMDE)",
    "EncDec": "relative height (depth network)",
    "DemRefiner": "detail of a coarse DEM",
    "SegmentationNetwork": "classes (land cover)",
}

_METRES = "height in metres, level unknown (depth network)"


@dataclass(frozen=True)
class OfferedModel:
    """A model of the list.

    Attributes:
        name: its name for visitors.
        kind: what it predicts, in words.
        place: folder, or name on the hub.
    """

    name: str
    kind: str
    place: str

    @property
    def draws_classes(self) -> bool:
        """Whether it draws classes in place of heights."""
        return self.kind == _KINDS["SegmentationNetwork"]


def find_models(places: Sequence[str]) -> list[OfferedModel]:
    """Find models.

    Args:
        places: folders that are models or hold some, in them or below; or names on the hub.

    Returns:
        Models by name; two of one name get numbers. Nothing is loaded, so a damaged one shows when it is chosen.
    """
    found: list[OfferedModel] = []
    for place in places:
        root = Path(place)
        if not root.is_dir():
            if is_hub_name(place):
                found.append(OfferedModel(place, "height (depth model of the hub)", place))
            else:
                logger.warning("--models '%s': no such folder, and no name on the hub; it is left out", place)
            continue
        for folder, kind in _models_below(root, 0):
            inside = folder.relative_to(root).as_posix()
            found.append(OfferedModel(inside if inside != "." else root.resolve().name, kind, str(folder)))
    names = [model.name for model in found]
    return [
        OfferedModel(f"{model.name} ({number})" if names.count(model.name) > 1 else model.name, model.kind, model.place)
        for number, model in enumerate(found, start=1)
    ]


def model_named(models: Sequence[OfferedModel], name: str) -> OfferedModel | None:
    """The model of a name; None for no model.

    Raises:
        Refusal: 404, no such model.
    """
    if name == NO_MODEL:
        return None
    for model in models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in models) or f"none is trained yet; on the server, {MAKE_ONE} trains one"
    raise Refusal(404, f"model '{name[:100]}': not one of those that are offered ({known})")


def _models_below(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    kind = _kind(folder / "model") or _kind(folder)
    if kind:
        yield folder, kind
        return
    if depth == _DEEPEST:
        return
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        logger.warning("models below '%s' are left out: %s", folder, os.strerror(error.errno or 0))
        return
    for path in below:
        yield from _models_below(path, depth + 1)


def _kind(folder: Path) -> str:
    """What a model folder predicts, by its JSON; empty where it is none."""
    index = _read(folder / "model_index.json")
    if index.get("_class_name") == "D3RSMDE":
        # A part that a model lacks is a pair of nulls. The refiner alone does not start from an image.
        return _KINDS["D3RSMDE"] if index.get("coarse") not in (None, [None, None]) else ""
    config = _read(folder / "config.json")
    if config.get("model_type") and config.get("architectures"):
        return "height (depth model of transformers)"
    if config.get("_class_name") == "EncDec" and config.get("target") != "relative":
        return _METRES
    return _KINDS.get(str(config.get("_class_name")), "")


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
