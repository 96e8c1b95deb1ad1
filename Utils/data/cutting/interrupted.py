"""What an interrupted cut leaves behind, so that it can go on: what was asked, and what the looking has found."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from Utils.core.errors import UserError, write_error
from Utils.core.files import atomic_write_bytes, remove_leftovers
from Utils.core.tables import write_json
from Utils.data.cutting.survey import Look

__all__ = ["RESULT", "Interrupted"]

RESULT = "cut.json"
"""Written last: what was asked and what came out."""
_FOLDER = ".cutting"
_REQUEST = "request.json"


class Interrupted:
    """The hidden folder of a cut that is not finished.

    Args:
        output: folder of the dataset.
        request: all that the tiles depend on, as JSON.
        resume: whether to go on where an interrupted cut was left.
        writes: whether anything is written; a dry run only reads.

    Raises:
        UserError: a folder that holds something else, or a cut of other files or options.
    """

    def __init__(self, output: Path, request: dict[str, Any], resume: bool, writes: bool) -> None:
        self.output = output
        self.folder = output / _FOLDER
        self.request = json.loads(json.dumps(request))
        self.writes = writes
        if output.exists() and not output.is_dir():
            raise UserError(f"--output '{output}' is a file; give a folder")
        there = any(output.iterdir()) if output.is_dir() else False
        if resume and there:
            self._check_request()
        elif there and writes:
            raise UserError(
                f"--output '{output}' is not empty; --resume goes on with an interrupted cut, else give another folder"
            )
        if not writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(output)
            write_json(self.folder / _REQUEST, self.request)
        except OSError as error:
            raise write_error(output, error, "choose another folder with --output") from error

    @classmethod
    def is_finished(cls, output: Path, request: dict[str, Any]) -> bool:
        """Whether a folder holds the finished cut of this request."""
        before = _read(output / RESULT)
        return before is not None and before.get("request") == json.loads(json.dumps(request))

    def looks(self, scene: int, count: int) -> list[Look] | None:
        """What was found in a scene of so many places; None where it was not looked at to the end."""
        found = _read(self.folder / f"looks-{scene}.json")
        if found is None or len(found.get("looks", [])) != count:
            return None
        return [Look(**one) for one in found["looks"]]

    def keep_looks(self, scene: int, looks: Sequence[Look]) -> None:
        """Keep what was found in a scene."""
        if self.writes:
            write_json(self.folder / f"looks-{scene}.json", {"looks": [one.as_json() for one in looks]})

    def keep_thumbnail(self, scene: int, image: NDArray[np.float32]) -> None:
        """Keep a small picture (3, h, w) in [0, 1] of a scene."""
        if self.writes:
            buffer = io.BytesIO()
            Image.fromarray(np.rint(np.moveaxis(image, 0, -1) * 255).astype(np.uint8)).save(buffer, format="PNG")
            atomic_write_bytes(self.folder / f"thumbnail-{scene}.png", buffer.getbuffer())

    def thumbnail(self, scene: int) -> NDArray[np.uint8] | None:
        """The small picture (h, w, 3) of a scene; None for none."""
        path = self.folder / f"thumbnail-{scene}.png"
        return np.asarray(Image.open(path).convert("RGB")) if path.is_file() else None

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result and remove the hidden folder."""
        write_json(self.output / RESULT, {"request": self.request, **result})
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_request(self) -> None:
        before = _read(self.folder / _REQUEST)
        if before is None:
            finished = (_read(self.output / RESULT) or {}).get("request")
            what = "holds the finished cut of other files or options" if finished else "holds no interrupted cut"
            raise UserError(f"--resume: '{self.output}' {what}; give another folder")
        changed = [name for name in self.request if before.get(name) != self.request[name]]
        if changed:
            raise UserError(
                f"--resume: '{self.output}' was begun with other {', '.join(changed)}; give the same, or another folder"
            )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
