"""Several scenes in one command: one that fails does not stop the others, and in the end it is said which and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from Utils.core.errors import RasterError, UserError
from Utils.core.processes import agreed, is_agreed, is_main
from Utils.rasters.tile_files import GDAL_ERRORS

__all__ = ["SceneFailures"]

logger = logging.getLogger(__name__)


class SceneFailures:
    """What went wrong with which of several scenes; a single scene's error is raised as it comes.

    Args:
        scenes: all scenes of the command, each once.
    """

    def __init__(self, scenes: list[Path]) -> None:
        self._scenes = scenes
        self._reasons: dict[Path, str] = {}

    def __contains__(self, scene: Path) -> bool:
        """Whether the scene has failed."""
        return scene in self._reasons

    @contextmanager
    def noted(self, scene: Path) -> Iterator[None]:
        """Note an error in the body as the scene's, where there are others; the processes of a launch agree on it.

        Raises:
            UserError: there is only this scene, and files, disk or memory fail.
        """
        try:
            yield
        except Exception as error:
            if len(self._scenes) == 1:
                if isinstance(error, UserError | RasterError) or not isinstance(error, (*GDAL_ERRORS, MemoryError)):
                    raise
                told = UserError(f"{scene}: {_reason(error)}")
                raise (agreed(told) if is_agreed(error) else told) from error
            # Whatever this scene meets, the others must not: also an error that is nobody's mistake but ours.
            self._reasons[scene] = _reason(error).removeprefix(f"{scene}: ")
            if is_main():
                logger.error("%s failed: %s", scene, self._reasons[scene])
                logger.debug("%s", scene, exc_info=error)

    def tell(self) -> None:
        """End with an error if a scene has failed.

        Raises:
            UserError: names the scenes that failed, and the reason of each.
        """
        if not self._reasons:
            return
        reasons = set(self._reasons.values())
        if len(reasons) == 1 and len(self._reasons) == len(self._scenes):
            raise agreed(UserError(f"all {len(self._scenes)} scenes failed: {reasons.pop()}"))
        failed = "; ".join(f"{scene.name}: {reason}" for scene, reason in self._reasons.items())
        written = len(self._scenes) - len(self._reasons)
        raise agreed(
            UserError(f"{len(self._reasons)} of {len(self._scenes)} scenes failed, {written} were written. {failed}")
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | RasterError) else f"{type(error).__name__}: {text}".rstrip(": ")
