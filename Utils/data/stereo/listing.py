"""The views of a dataset's scenes: WHU-MVS, processed or raw, and WHU-TLC with pinholes or RPCs.

    whu_mvs, whu_tlc_pinhole    <part>/image/<view>/<name>.png   camera/<view>/<name>.txt   depth/<view>/<name>.pfm
    whu_tlc_rpc                 <part>/image/<view>/<name>.png   rpc/<view>/<name>.rpc      height/<view>/<name>.pfm
    whu_mvs_raw                 <part>/Images/<scene>/<view>/<tile>.png   Cams/...txt   Depths/...png   (pair.txt)

Relative depth maps lie in a folder beside, <part>/depthAnything/<view>/<name>.png.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from Utils.config.stereo_keys import Layout
from Utils.core.errors import UserError
from Utils.data.published_layout import natural
from Utils.data.stereo.pinhole_camera import Convention
from Utils.data.stereo.view_files import CameraKind, TruthFormat, ViewFiles

logger = logging.getLogger(__name__)

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")

_IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_TRUTH_SUFFIXES = (".pfm", ".tif", ".tiff", ".png", ".npy")


@dataclass(frozen=True)
class _Layout:
    """The folders of a layout, and what their files are."""

    image: str
    camera: str
    truth: str
    camera_suffixes: tuple[str, ...]
    kind: CameraKind
    convention: Convention | None
    truth_format: TruthFormat = "pfm"


_LAYOUTS: dict[Layout, _Layout] = {
    "whu_mvs": _Layout("image", "camera", "depth", (".txt",), "pinhole", "pose"),
    "whu_tlc_pinhole": _Layout("image", "camera", "depth", (".txt",), "pinhole", "world_to_camera"),
    "whu_tlc_rpc": _Layout("image", "rpc", "height", (".rpc", ".txt"), "rpc", None),
    "whu_mvs_raw": _Layout("Images", "Cams", "Depths", (".txt",), "pinhole", "pose", "whu_png"),
}


@dataclass(frozen=True)
class ListedScene:
    """All views of one name.

    Attributes:
        scene: the place that they show; of the raw release the folder, else what stands before the last ``_``.
        name: what their files are called.
        views: all of them, in the order of their folders.
        kind: what the cameras are.
        convention: what the matrices of pinhole camera files are; None to tell by each.
        truth_format: how the truths are stored.
        order: for each view the numbers of its sources, the best first, where a ``pair.txt`` says it.
    """

    scene: str
    name: str
    views: Sequence[ViewFiles]
    kind: CameraKind
    convention: Convention | None
    truth_format: TruthFormat
    order: Mapping[int, Sequence[int]] | None = None


def tell_layout(dataset: Path, part: Part = "train") -> Layout:
    """The layout of a dataset, by its files.

    WHU-MVS and WHU-TLC's pinhole version have the same folders; it is called ``whu_mvs``, and each camera file tells
    its own convention.

    Raises:
        UserError: a folder of none of the known layouts.
    """
    if dataset.suffix.lower() == ".csv" or dataset.is_file():
        return "table"
    folder = part_folder(dataset, part)
    for layout, names in _LAYOUTS.items():
        if all((folder / name).is_dir() for name in (names.image, names.camera)):
            return layout
    raise UserError(
        f"'{folder}' has the folders of no known layout: {_described()}; set dataset_path to the folder that holds "
        "train and test, or to a table (Dataset/README.md)"
    )


def _described() -> str:
    return "; ".join(f"{names.image} and {names.camera} ({layout})" for layout, names in _LAYOUTS.items())


def part_folder(dataset: Path, part: Part) -> Path:
    """The folder of a part.

    Raises:
        UserError: there is none.
    """
    folder = dataset / part
    if not folder.is_dir():
        raise UserError(
            f"dataset folder '{folder}' not found; set dataset_path to the folder that holds train and test "
            "(layouts: Dataset/README.md)"
        )
    return folder


def list_scenes(
    dataset: Path,
    part: Part,
    layout: Layout = "auto",
    convention: Convention | None = None,
    relative: str | None = None,
) -> list[ListedScene]:
    """All scenes of one part of a dataset in one of the layouts above, in natural order.

    Args:
        dataset: folder that holds the parts.
        part: which of them.
        layout: which layout; auto to tell by the folders.
        convention: what the matrices of camera files are; None for that of the layout, or to tell by each.
        relative: folder of relative depth maps within the part; None for none.

    Raises:
        UserError: missing folders, a view that is missing, an image without camera, no scene.
    """
    told = layout == "auto"
    if told:
        layout = tell_layout(dataset, part)
    names = _LAYOUTS[layout]
    folder = part_folder(dataset, part)
    # The folders do not tell whose the cameras are; each file does.
    convention = convention or (None if told and layout == "whu_mvs" else names.convention)
    if told:
        logger.info("'%s' has the layout of %s, %s cameras; layout says otherwise", folder, layout, names.kind)
    for name in (names.image, names.camera, *((relative,) if relative else ())):
        if not (folder / name).is_dir():
            remedy = f"; make it with {_MAKE_RELATIVE}, or leave relative_depth_folder out" if name == relative else ""
            raise UserError(f"dataset folder '{folder / name}' not found{remedy} (layouts: Dataset/README.md)")
    groups = [""] if layout != "whu_mvs_raw" else _folders(folder / names.image)
    order = _read_pairs(folder) if layout == "whu_mvs_raw" else None
    scenes = [
        ListedScene(
            group or name.rpartition("_")[0] or name,
            f"{group}_{name}" if group else name,
            views,
            names.kind,
            convention,
            names.truth_format,
            order,
        )
        for group in groups
        for name, views in _group_views(folder, names, group, relative)
    ]
    if not scenes:
        raise UserError(f"no images in '{folder / names.image}'; they lie in a folder a view (Dataset/README.md)")
    return scenes


_MAKE_RELATIVE = "python -m Systems.relative_depth"


def _group_views(
    folder: Path, names: _Layout, group: str, relative: str | None
) -> Iterable[tuple[str, list[ViewFiles]]]:
    """Name and views of each scene of a group: all views of the layout, or those below one scene's folder."""
    image_folder = folder / names.image / group
    views = _folders(image_folder)
    if len(views) < 2:
        raise UserError(f"'{image_folder}' holds {len(views)} folders of views, and stereo needs two or more")
    images = {view: _by_stem(image_folder / view, _IMAGE_SUFFIXES) for view in views}
    cameras = {view: _by_stem(folder / names.camera / group / view, names.camera_suffixes) for view in views}
    truths = {view: _by_stem(folder / names.truth / group / view, _TRUTH_SUFFIXES) for view in views}
    maps = {view: _by_stem(folder / relative / group / view, _IMAGE_SUFFIXES) if relative else {} for view in views}
    stems = sorted({stem for found in images.values() for stem in found}, key=natural)
    for found, what, where in (
        (images, "image", names.image),
        (cameras, "camera file", names.camera),
        *([(maps, "relative depth map", relative)] if relative else []),
    ):
        missing = [(view, stem) for stem in stems for view in views if stem not in found[view]]
        if missing:
            view, stem = missing[0]
            raise UserError(
                f"view {view} of '{stem}' has no {what} in '{folder / str(where) / group / view}' ({len(missing)} of "
                f"{len(stems) * len(views)} are missing); every name stands in every view's folder: add it, or remove "
                "the name from the others"
            )
    for stem in stems:
        yield (
            stem,
            [
                ViewFiles(view, images[view][stem], cameras[view][stem], truths[view].get(stem), maps[view].get(stem))
                for view in views
            ],
        )


def _folders(folder: Path) -> list[str]:
    try:
        return sorted((entry.name for entry in os.scandir(folder) if entry.is_dir()), key=natural)
    except OSError as error:
        raise UserError(f"dataset folder '{folder}' cannot be read: {error.strerror}; check its permissions") from error


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder by their names without suffix; of several, that whose suffix stands first."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(folder)):
        path = folder / name
        suffix = path.suffix.lower()
        if suffix in suffixes:
            known = found.get(path.stem)
            if known is None or suffixes.index(suffix) < suffixes.index(known.suffix.lower()):
                found[path.stem] = path
    return found


def _read_pairs(folder: Path) -> dict[int, list[int]] | None:
    """The sources of each view as the raw release's ``pair.txt`` names them; None where there is none."""
    path = next((place for place in (folder / "pair.txt", folder.parent / "pair.txt") if place.is_file()), None)
    if path is None:
        return None
    try:
        numbers = [int(float(word)) for word in path.read_text(encoding="utf-8").split()]
        place, pairs = 1, dict[int, list[int]]()
        for _ in range(numbers[0]):
            view, count = numbers[place], numbers[place + 1]
            pairs[view] = numbers[place + 2 : place + 2 + count]
            if len(pairs[view]) != count:
                raise ValueError("it ends early")
            place += 2 + count
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"'{path}' cannot be read ({error}); it holds a number of views, then for each its number, "
            "the number of its sources, and these; restore it, or remove it"
        ) from error
    return pairs
