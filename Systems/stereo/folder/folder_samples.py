"""The samples of a dataset folder: each view of each scene in turn, with those that stand beside it."""

from __future__ import annotations

from Systems.stereo.folder.folder_options import FolderOptions
from Utils.config.stereo_keys import WithViews
from Utils.core.errors import UserError
from Utils.data.stereo.listing import PARTS, Part, list_scenes, tell_layout
from Utils.data.stereo.sets import find_samples
from Utils.data.stereo.view_files import StereoFiles
from Utils.data.stereo.views_table import read_views_table

__all__ = ["folder_samples"]

_MOST_VIEWS = 5  # as published for WHU-MVS; more cost time and add little
_INTERVAL = 2.5  # metres, as published for WHU-TLC; RPCs do not say one


def folder_samples(options: FolderOptions) -> dict[str, StereoFiles]:
    """The samples by id, scene after scene.

    Raises:
        UserError: a folder that cannot be used, fewer views than are asked for, or cameras of two kinds.
    """
    dataset, part = options.dataset, options.part
    if not dataset.exists():
        raise UserError(f"--dataset '{dataset}': does not exist")
    if dataset.is_dir() and part is None and dataset.resolve().name in PARTS and not (dataset / "test").is_dir():
        dataset, part = dataset.resolve().parent, dataset.resolve().name  # the part itself, as the published script
    if part is not None and part not in PARTS:
        raise UserError(f"--part '{part}': give train or test")
    chosen: Part = part or "test"
    layout = tell_layout(dataset, chosen)
    if layout == "table":
        scenes = [scene.listed for scene in read_views_table(dataset, chosen)]
    else:
        scenes = list(list_scenes(dataset, chosen, layout))
    fewest = min(len(scene.views) for scene in scenes)
    if options.views is not None and not 2 <= options.views <= fewest:
        raise UserError(f"--views {options.views}: give 2 to {fewest}, which all scenes have")
    kinds = {scene.kind for scene in scenes}
    if len(kinds) > 1:
        raise UserError(f"--dataset '{dataset}': scenes with pinhole cameras and with RPCs; divide the table")
    interval = options.interval if kinds == {"pinhole"} else options.interval or _INTERVAL
    wanted = WithViews(
        views=options.views or min(fewest, _MOST_VIEWS),
        reference=None,
        interval=interval,
        value_range=None if options.values is None else list(options.values),
        relative_depth_folder=options.relative_depth,
    )
    return find_samples(dataset, chosen, wanted)
