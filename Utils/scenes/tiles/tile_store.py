"""The working folder of a scene: the maps that are predicted so far, so that an interrupted scene can be continued."""

from __future__ import annotations

import glob
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from Utils.core.errors import UserError, write_error
from Utils.core.files import hidden_name, replacing
from Utils.core.processes import is_main
from Utils.core.tables import write_json
from Utils.scenes.tiles.tile_grid import Tile

logger = logging.getLogger(__name__)

_KEY = "key.json"
_TILE = "tile_"


class TileStore:
    """Maps of tiles on disk, one file a tile, each whole or absent.

    Args:
        folder: made if it does not exist.
        key: all that the maps depend on, as plain JSON: scene, model and tiles.
        resume: whether to continue with the maps that are there.

    Raises:
        UserError: there are maps and ``resume`` is false; or they were made with another key, whose differences are
            listed; or the folder cannot be written.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], resume: bool) -> None:
        self.folder = folder
        if not resume:
            self.check_unused(folder)
        found = _read_key(folder / _KEY)
        if found is not None and (differences := _differences(found, json.loads(json.dumps(key)))):
            raise UserError(
                f"'{folder}' cannot be resumed, it was made otherwise: {'; '.join(differences)}; give the same again, "
                "or start anew with --overwrite"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / _KEY, dict(key))
        except OSError as error:
            with suppress(OSError):
                folder.rmdir()
            raise write_error(folder, error, "nothing was predicted") from error

    @staticmethod
    def check_unused(folder: Path) -> None:
        """Refuse a folder in which an interrupted run lies.

        Raises:
            UserError: it does.
        """
        if _read_key(folder / _KEY) is not None:
            raise UserError(
                f"an interrupted run of this output lies in '{folder}': go on with --resume, or start anew with "
                "--overwrite"
            )

    def holds(self, tile: Tile) -> bool:
        """Whether the tile's map is there."""
        return self._path(tile).is_file()

    def save(self, tile: Tile, layers: NDArray[np.floating]) -> None:
        """Keep a tile's layers (C, H, W): its map, NaN where invalid, and perhaps its spread.

        Raises:
            UserError: the file cannot be written.
        """
        path = self._path(tile)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, layers)
        except OSError as error:
            raise write_error(path, error, "finished tiles stay; go on with --resume") from error

    def load(self, tile: Tile, layer: int = 0) -> NDArray[np.float32]:
        """One layer (H, W) of a tile."""
        return self._read(tile, layer)

    def load_all(self, tile: Tile) -> NDArray[np.floating]:
        """All layers (C, H, W) of a tile."""
        return self._read(tile, slice(None))

    def _read(self, tile: Tile, layer: int | slice) -> NDArray[Any]:
        try:
            # Not numpy.load, which reads archives and, if allowed, pickles too.
            layers = np.lib.format.open_memmap(self._path(tile), mode="r")
            return np.asarray(layers[layer])
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"'{self._path(tile)}' is damaged ({error}); delete it and go on with --resume") from error

    def scratch(self, name: str) -> Path:
        """The path of a further file in the working folder."""
        return self.folder / name

    @contextmanager
    def kept_for_resuming(self) -> Iterator[None]:
        """Whatever ends the body early, keep the finished tiles and say where they are; without any, keep nothing."""
        try:
            yield
        except BaseException:
            if is_main():
                self._keep_tiles()
            raise

    def _keep_tiles(self) -> None:
        if not any(self.folder.glob(f"{_TILE}*.npy")):
            self.remove()
            return
        for path in self.folder.iterdir():
            if not (path.name.startswith(_TILE) or path.name == _KEY):
                path.unlink(missing_ok=True)
        logger.warning("finished tiles stay in '%s': go on with --resume, or start anew with --overwrite", self.folder)

    def remove(self) -> None:
        """Delete the folder and all that lies in it."""
        self.clear(self.folder)

    @staticmethod
    def clear(folder: Path) -> None:
        """Delete a working folder, if there is one; any other folder is left alone."""
        if (folder / _KEY).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                logger.warning("the work folder '%s' cannot be removed; remove it", folder)

    def _path(self, tile: Tile) -> Path:
        return self.folder / f"{_TILE}{tile.row}_{tile.column}.npy"


def working_folder(output: Path) -> Path:
    """Where an output's tiles are kept while it is being made: beside it, on the same disk."""
    return output.with_name(hidden_name(output, ".work"))


def remove_unfinished(output: Path) -> None:
    """Remove what a killed process was writing for an output; call it only where no other process writes the same."""
    for folder in output.parent.glob(glob.escape(hidden_name(output, ".")) + "*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def _read_key(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}  # a damaged file counts as another key


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines that say where two keys differ."""
    lines: list[str] = []
    for name in sorted({*found, *wanted}):
        was, now = found.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differences(was, now, f"{prefix}{name}.")
        elif was != now:
            lines.append(f"{prefix}{name} was {json.dumps(was)}, is {json.dumps(now)}")
    return lines
