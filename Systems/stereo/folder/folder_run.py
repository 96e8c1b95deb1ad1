"""A dataset folder in, maps of every view out, and one height raster on request: the order of the work."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rasterio.crs import CRS
from tqdm import tqdm

from Systems.stereo.dsm.ground import projected_crs, round_number, utm_crs
from Systems.stereo.dsm.views import datum_words
from Systems.stereo.folder.folder_dsm import write_folder_dsm
from Systems.stereo.folder.folder_options import FolderOptions
from Systems.stereo.folder.folder_samples import folder_samples
from Systems.stereo.folder.map_drawers import MapDrawer
from Systems.stereo.folder.map_files import MapFiles
from Systems.stereo.folder.scene_points import LOCAL, KeptScene, ScenePoints, pixel_of
from Systems.stereo.folder.view_points import Checked, ViewMap, checked
from Utils.core.errors import UserError, write_error
from Utils.core.tables import write_json
from Utils.data.stereo.reading import geometry_of_view
from Utils.data.stereo.stereo_dataset import StereoDataset
from Utils.data.stereo.view_choice import PinholeView
from Utils.data.stereo.view_files import CameraKind, StereoFiles
from Utils.rasters.rational import height_datum
from Utils.rasters.vertical_datum import TAG

__all__ = ["check_folder_coverage", "folder_summary", "predict_folder"]

logger = logging.getLogger(__name__)

FACTS = "predictions.json"
"""Written into the output folder: settings first, so that --resume knows them, and the facts of all maps at the end."""

# Share of values at the ends of a range from which it is suspected, and what counts as an end, as a share of the range.
_MANY_AT_ENDS, _END = 0.1, 0.01


@dataclass
class _Made:
    """What a run has gathered: facts about each map, and scenes whose points are kept."""

    maps: list[dict[str, Any]]
    scenes: list[KeptScene]


def predict_folder(options: FolderOptions, drawer_for: Callable[[CameraKind], MapDrawer]) -> dict[str, Any]:
    """Draw the maps and the files beside them; gives the content of the JSON.

    Args:
        options: what is made.
        drawer_for: what draws the maps of samples with such cameras.

    Raises:
        UserError: a mistake in options or files, or views of which nothing matches.
    """
    started = time.monotonic()
    _check_options(options)
    samples = folder_samples(options)
    kind = next(iter(samples.values())).kind
    drawer = drawer_for(kind)
    settings = _settings(options, kind, drawer)
    _claim(options, settings)
    scratch = options.output / ".points"
    try:
        made = _drawn(options, samples, drawer, scratch)
        document = settings | {"cameras": kind, "maps": made.maps, "agreement": _agreement(made.maps)}
        _check_matched(document)
        if options.dsm is not None:
            document["dsm"] = _dsm(options, made.scenes, drawer)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document["seconds"] = round(time.monotonic() - started, 1)
    _write_facts(options, document)
    return document


def check_folder_coverage(options: FolderOptions, document: Mapping[str, Any]) -> None:
    """Refuse to call holed maps, or a holed raster, done.

    Raises:
        UserError: two views agree on less of what they see than ``least_coverage``.
    """
    shares = {"of the pixels that another view sees too agree with it": document["agreement"]}
    if "dsm" in document:
        shares = {"of the ground that two views see has a height": document["dsm"]["coverage"]["share"]}
    for what, share in shares.items():
        if share < options.least_coverage:
            raise UserError(
                f"'{options.output}' was written, but only {100 * share:.1f} % {what}, and --min-coverage asks for "
                f"{100 * options.least_coverage:.0f} %. Water, occlusions, cameras that do not fit, or a range that "
                "misses the ground (--values) leave such holes"
            )


def folder_summary(document: Mapping[str, Any]) -> list[str]:
    """What was done, in a few lines."""
    maps = document["maps"]
    what = "depth" if document["cameras"] == "pinhole" else "height"
    lines = [
        f"{len(maps)} {what} maps of {len({row['name'] for row in maps})} scenes by {document['drawer']['name']}; "
        f"{100 * document['agreement']:.1f} % of the pixels that another view sees too agree with it"
    ]
    if "dsm" in document:
        grid, cover = document["dsm"]["grid"], document["dsm"]["coverage"]
        lines.append(
            f"height raster: {grid['width']} x {grid['height']} cells of {grid['resolution']:g} m, "
            f"{grid['crs'] or 'no named system'}, heights above {document['dsm']['datum']}; "
            f"{100 * cover['share']:.1f} % of the {cover['cells']:,} cells that two views see have a height"
        )
    return lines


def _check_options(options: FolderOptions) -> None:
    if options.window < 3 or options.window % 2 == 0:
        raise UserError(f"--window {options.window}: give an odd number of pixels, 3 or more")
    if options.agreeing < 1:
        raise UserError(f"--agreeing {options.agreeing}: give 1 or more")
    if not options.tolerance > 0:
        raise UserError(f"--tolerance {options.tolerance:g}: give pixels above 0")
    if not 0 <= options.least_coverage <= 1:
        raise UserError(f"--min-coverage {options.least_coverage:g}: give a share from 0 to 1")
    if options.resolution is not None and not options.resolution > 0:
        raise UserError(f"--resolution {options.resolution:g}: give metres above 0")
    if options.dsm is None:
        return
    if options.dsm.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"--dsm '{options.dsm}': give a name that ends in .tif")
    if options.dsm.exists() and not (options.overwrite or options.resume):
        raise UserError(f"'{options.dsm}' exists; give another name, or --overwrite to replace it")
    if options.crs is not None:
        projected_crs(options.crs)


def _settings(options: FolderOptions, kind: CameraKind, drawer: MapDrawer) -> dict[str, Any]:
    """All that the maps depend on, as plain JSON."""
    names = ("part", "views", "interval", "values", "relative_depth")
    plain = {name: list(v) if isinstance(v := asdict(options)[name], tuple) else v for name in names}
    return {
        "kind": "stereo_maps",
        "dataset": str(options.dataset),
        "drawer": json.loads(json.dumps(dict(drawer.describe()))),
    } | plain


def _claim(options: FolderOptions, settings: Mapping[str, Any]) -> None:
    """Take an output folder that is empty, ours to go on with, or may be replaced."""
    facts = options.output / FACTS
    if options.output.is_dir() and any(options.output.iterdir()):
        if not facts.is_file():
            raise UserError(f"--output '{options.output}' holds other files; give a new folder")
        if not (options.resume or options.overwrite):
            raise UserError(f"'{facts}' exists; --resume goes on with its maps, --overwrite replaces them")
        if options.resume and not options.overwrite:
            try:
                found = json.loads(facts.read_text(encoding="utf-8"))
                differing = [key for key, value in settings.items() if found.get(key) != value]
            except (OSError, ValueError, AttributeError):
                differing = ["all, because it cannot be read"]
            if differing:
                raise UserError(
                    f"--resume: the maps in '{options.output}' were made with other settings ({', '.join(differing)}); "
                    "give another folder, or --overwrite"
                )
    _write_facts(options, settings)


def _write_facts(options: FolderOptions, document: Mapping[str, Any]) -> None:
    path = options.output / FACTS
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(document))
    except OSError as error:
        raise write_error(path, error, "choose another folder with --output") from error


def _drawn(options: FolderOptions, samples: Mapping[str, StereoFiles], drawer: MapDrawer, scratch: Path) -> _Made:
    """Draw the maps that are missing, scene by scene, and check the views of each against one another."""
    made = _Made([], [])
    if options.dsm is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    todo = tqdm(total=len(samples), desc="maps", unit="map", mininterval=1.0)
    for name, group in groupby(samples.items(), key=lambda item: item[1].name):
        views = dict(group)
        maps = []
        for row, found in _maps_of(options, views, drawer):
            made.maps.append({"name": name} | row)
            maps.append(found)
            todo.update()
        results = [checked(maps, place, options.tolerance, options.agreeing) for place in range(len(maps))]
        for row, result in zip(made.maps[-len(maps) :], results, strict=True):
            row |= {"seen": result.seen, "agreed": result.agreed}
        if options.dsm is not None:
            kept = _kept(options, scratch / f"{len(made.scenes)}.npz", next(iter(views.values())), maps, results)
            made.scenes.extend([] if kept is None else [kept])
    todo.close()
    return made


def _maps_of(
    options: FolderOptions, views: Mapping[str, StereoFiles], drawer: MapDrawer
) -> Iterator[tuple[dict[str, Any], ViewMap]]:
    """The maps of one scene, and facts about each; those that are there already are read."""
    dataset = StereoDataset(views, list(views), one_size=False)
    for place, files in enumerate(views.values()):
        geometry = geometry_of_view(files, files.reference)
        target = MapFiles(options.output / files.reference.view, files.name, files.kind)
        started = time.monotonic()
        there = options.resume and not options.overwrite and target.exist()
        if not there:
            batch = torch.utils.data.default_collate([dataset[place]])
            drawn = [part.cpu().numpy() for part in drawer.draw(batch)]
            height, width = geometry.size
            values, confidence = (part[:height, :width].astype(np.float32) for part in drawn)
            target.write(values, confidence)
        values, confidence = target.read()
        low, high = geometry.values if options.values is None else options.values
        known = values[np.isfinite(values)]
        margin = _END * (high - low)
        at_ends = float(((known < low + margin) | (known > high - margin)).mean()) if len(known) else 0.0
        row = {
            "view": files.reference.view,
            "sources": [view.view for view in files.views[1:]],
            "range": [round(float(low), 3), round(float(high), 3)],
            "known": round(len(known) / values.size, 4),
            "at_ends": round(at_ends, 4),
            "confidence": round(float(np.median(confidence)), 3),
            "seconds": None if there else round(time.monotonic() - started, 1),
        }
        yield row, ViewMap(geometry, values, confidence)


def _agreement(maps: Sequence[Mapping[str, Any]]) -> float:
    seen = sum(row["seen"] for row in maps)
    return round(sum(row["agreed"] for row in maps) / max(seen, 1), 4)


def _check_matched(document: Mapping[str, Any]) -> None:
    """Say where ranges miss the ground, and refuse views of which nothing matches."""
    maps = document["maps"]
    ends = float(np.mean([row["at_ends"] for row in maps]))
    if ends > _MANY_AT_ENDS:
        logger.warning(
            "%.0f %% of the values lie at the ends of their range: it seems to miss ground; give other --values",
            100 * ends,
        )
    if not any(row["agreed"] for row in maps):
        raise UserError(
            f"nothing matched: no two of the {len(maps)} views agree about any pixel. Do cameras and images belong "
            "together, and does the range hold the ground (--values)?"
        )


def _kept(
    options: FolderOptions, path: Path, files: StereoFiles, maps: Sequence[ViewMap], results: Sequence[Checked]
) -> KeptScene | None:
    """The points of a scene in a scratch file; None where its views agree on nothing."""
    if not any(len(result.points) for result in results):
        return None
    geometries = [found.geometry for found in maps]
    crs = _system(options, geometries[0])
    found = ScenePoints.of(results, geometries, crs)
    level = float(np.nanmedian(maps[0].values)) if np.isfinite(maps[0].values).any() else sum(geometries[0].values) / 2
    camera = files.reference.camera
    # Pinhole cameras have a world of their own; RPCs are above the ellipsoid where they do not say otherwise.
    datum = height_datum(camera) if files.kind == "rpc" and isinstance(camera, Path) else ""
    return KeptScene.keep(path, found, geometries, pixel_of(geometries[0], level, crs), datum)


def _system(options: FolderOptions, view: Any) -> CRS:
    if options.crs is not None:
        return projected_crs(options.crs)
    if isinstance(view, PinholeView):
        return LOCAL
    rows, columns = (np.array([side / 2]) for side in view.size)
    middle = view.ground(columns, rows, np.array([sum(view.values) / 2]))
    return utm_crs(float(middle[0, 0]), float(middle[0, 1]))


def _dsm(options: FolderOptions, scenes: Sequence[KeptScene], drawer: MapDrawer) -> dict[str, Any]:
    """The height raster and its picture."""
    assert options.dsm is not None
    systems = {system.to_string(): system for system in (_system(options, scene.geometries[0]) for scene in scenes)}
    if len(systems) > 1:
        raise UserError(
            f"--dsm: the {len(scenes)} scenes lie in several UTM zones ({', '.join(sorted(systems))}), and a raster "
            "has one system: name it with --crs. The maps themselves are written, and --resume goes on from them"
        )
    (crs,) = systems.values()
    pixel = float(np.median([scene.pixel for scene in scenes]))
    resolution = options.resolution or round_number(pixel)
    codes = {scene.datum for scene in scenes}
    code = codes.pop() if len(codes) == 1 else ""
    datum = datum_words(code)
    tags = {"D3RSMDE_KIND": "metric", "D3RSMDE_MODEL": drawer.name} | ({TAG: code} if code else {})
    found = write_folder_dsm(options.dsm, scenes, resolution, crs, tags, datum) | {
        "path": str(options.dsm),
        "datum": datum,
    }
    if options.preview:
        from Utils.scenes.output.preview import write_preview

        write_preview(options.dsm.with_suffix(".png"), options.dsm, title=f"{options.dsm.stem}: height above {datum}")
    return found
