"""The samples of a dataset: for each scene and reference, the reference and the sources that stand beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from Utils.config.stereo_keys import WithViews
from Utils.core.errors import UserError
from Utils.data.stereo.listing import ListedScene, Part, list_scenes, tell_layout
from Utils.data.stereo.reading import geometry_of_view
from Utils.data.stereo.view_choice import Relation, best_sources, relate
from Utils.data.stereo.view_files import StereoFiles
from Utils.data.stereo.views_table import TableScene, read_views_table

__all__ = ["find_samples", "relations"]

logger = logging.getLogger(__name__)


def find_samples(
    dataset: Path, part: Part, options: WithViews, root: Path | None = None, full_scale: float | None = None
) -> dict[str, StereoFiles]:
    """The samples of one part of a dataset, by id, in natural order of scenes and views.

    An id is the name of the scene's files, a hyphen, and the name of the reference: ``town0001_0000-1``.

    Args:
        dataset: folder that holds train and test, or a table.
        part: which of them.
        options: the layout, and which views are wanted.
        root: where a table's paths start; None for its own folder.
        full_scale: the value that counts as 1 in images of 16 bits; None for what the files say.

    Raises:
        UserError: a dataset that cannot be used, fewer views than are asked for, views that do not overlap.
    """
    layout = tell_layout(dataset, part) if options.layout == "auto" else options.layout
    convention = None if options.cameras == "auto" else options.cameras
    relative = options.relative_depth_folder
    if layout == "table":
        scenes = read_views_table(dataset, part, root, relative is not None)
    else:
        if root is not None:
            raise UserError(f"root belongs to a table, and dataset_path '{dataset}' is a folder; remove root")
        listed = list_scenes(dataset, part, options.layout, convention, relative)
        scenes = [TableScene(scene, None, None) for scene in listed]
    rises = None if options.relative_depth_rises == "auto" else options.relative_depth_rises
    given = None if options.value_range is None else (options.value_range[0], options.value_range[1])
    samples: dict[str, StereoFiles] = {}
    lonely: list[str] = []
    for scene in scenes:
        found = scene.listed
        _check_count(found, options)
        for reference in range(len(found.views)) if options.reference is None else [options.reference]:
            # All views, the reference first and the others in cyclic order, as published.
            turned = [*found.views[reference:], *found.views[:reference]]
            files = StereoFiles(
                scene=found.scene,
                name=found.name,
                views=turned,
                kind=found.kind,
                convention=convention or found.convention,
                truth_format=found.truth_format,
                value_range=given or scene.value_range,
                interval=options.interval or scene.interval,
                full_scale=full_scale,
                relative_rises=rises,
            )
            name = f"{found.name}-{found.views[reference].view}"
            chosen = _chosen(files, found, reference, options)
            if len(chosen) < options.views:
                lonely.append(name)
                continue
            samples[name] = replace(files, views=[files.views[place] for place in chosen])
    _tell_of_lonely(dataset, lonely, samples, options)
    return samples


def _check_count(scene: ListedScene, options: WithViews) -> None:
    count = len(scene.views)
    if count < options.views:
        raise UserError(
            f"scene '{scene.name}' has {count} views, and views asks for {options.views}; set views to {count} or fewer"
        )
    if options.reference is not None and options.reference >= count:
        raise UserError(
            f"reference {options.reference} of scene '{scene.name}', whose {count} views are numbered from 0 to "
            f"{count - 1}; set reference to one of them, or to null for all"
        )


def _chosen(files: StereoFiles, scene: ListedScene, reference: int, options: WithViews) -> list[int]:
    """Places in ``files.views`` of the reference and its sources; fewer than asked for where too few overlap."""
    count = len(files.views)
    if scene.order is not None and reference in scene.order and options.choose_views == "best":
        # The dataset's authors have said which go together.
        turned = [(view - reference) % count for view in scene.order[reference] if view < count]
        return [0, *turned][: options.views]
    if options.choose_views == "cyclic" or count == options.views:
        return list(range(options.views))
    best = best_sources(relations(files), options.views - 1)
    return [0, *(place + 1 for place in best)]


def relations(files: StereoFiles) -> list[Relation]:
    """How the sources of a sample stand to its reference.

    Raises:
        UserError: a camera or image that cannot be read.
    """
    reference, *others = (geometry_of_view(files, view) for view in files.views)
    return [relate(reference, other) for other in others]


def _tell_of_lonely(dataset: Path, lonely: Sequence[str], samples: dict[str, StereoFiles], options: WithViews) -> None:
    if not lonely:
        return
    what = f"have fewer than {options.views - 1} views that see a fifth of them or more, such as '{lonely[0]}'"
    remedy = "set views lower, or choose_views to cyclic to take them whatever they show"
    if not samples:
        raise UserError(f"all {len(lonely)} references of '{dataset}' {what}; {remedy}")
    logger.warning(
        "%d of %d references %s, and are left out; %s", len(lonely), len(lonely) + len(samples), what, remedy
    )
