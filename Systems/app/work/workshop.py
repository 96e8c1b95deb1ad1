"""Where scenes are predicted: one at a time or few, each watched, each in a folder of its own that goes with it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from Systems.app.asked_options import class_options
from Systems.app.limits import Limits, Refusal
from Systems.app.offered_models import OfferedModel
from Systems.scene_model import SceneModel, open_scene_model
from Utils.core.errors import one_line
from Utils.core.stopping import Stopped
from Utils.core.watching import Watcher, watched_by

if TYPE_CHECKING:
    from Utils.scenes.classes.class_run import ClassResult
    from Utils.scenes.options import SceneOptions
    from Utils.scenes.scene_run import SceneResult

__all__ = ["Job", "Workshop"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_HEIGHTS, _CLASSES = "height.tif", "classes.tif"
_TURN = 0.2  # seconds between two looks whether it is a job's turn, or whether it shall stop
# A path from the root of the server, of which the last part is kept.
_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\",;:()]+/)+(?=[^\s/'\",;:()]|$)")


@dataclass
class Job:
    """One scene, from the upload to the result.

    Attributes:
        folder: all of its files; it is deleted at the end.
        deadline: when it is stopped, by ``time.monotonic``.
        part: what is being done, for users.
        done: number of its steps that are done.
        total: number of its steps; 0 while nothing is counted.
        messages: what was noticed on the way, in one line each.
    """

    folder: Path
    deadline: float
    part: str = "waiting for its turn"
    done: int = 0
    total: int = 0
    messages: list[str] = field(default_factory=list)
    _reason: str = ""
    _status: int = 503

    def stop(self, reason: str = "cancelled", status: int = 503) -> None:
        """Ask the job to stop at its next step."""
        if not self._reason:
            self._reason, self._status = reason, status

    def stop_reason(self) -> str:
        """Why the job is to stop; empty while it may go on."""
        if not self._reason and time.monotonic() > self.deadline:
            self.stop("it took longer than the limit on time; cut the scene up, or use predict.py", 504)
        return self._reason

    def note(self, part: str, done: int = 0, total: int = 0) -> None:
        """Take down what is being done."""
        self.part, self.done, self.total = part, done, total

    @property
    def status(self) -> int:
        """The status by which HTTP says why the job was stopped."""
        return self._status

    def without_paths(self, text: str) -> str:
        """A message as visitors see it: files by name, without the folders of the server."""
        return _PATH.sub("", one_line(text).replace(f"{self.folder}{os.sep}", ""))


class Workshop:
    """Predicts scenes within limits; one for the page and the API together.

    Args:
        models: what may be chosen.
        limits: bounds of each job, and of all.
        root: folder in which the jobs' folders are made; it must be there as long as the workshop.
    """

    def __init__(self, models: list[OfferedModel], limits: Limits, root: Path) -> None:
        self.models, self.limits, self._root = models, limits, root
        self._threads = futures.ThreadPoolExecutor(limits.at_once, "scene")
        self._drawing = futures.ThreadPoolExecutor(1, "drawing")
        self._loading = threading.Lock()
        self._loaded: tuple[str, Any] | None = None
        self._running = 0

    @property
    def running(self) -> int:
        """Number of scenes that are being predicted."""
        return self._running

    def open_job(self) -> Job:
        """A job with an empty folder; whoever opens it calls ``close_job`` whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._root))
        return Job(folder, time.monotonic() + self.limits.seconds)

    def close_job(self, job: Job) -> None:
        """Stop the job and delete its files."""
        job.stop()
        shutil.rmtree(job.folder, ignore_errors=True)

    def carry_out(self, job: Job, work: Callable[[], T]) -> T:
        """Do the work of a job when it is its turn: in one of few threads, which stay.

        OpenMP keeps threads, and matplotlib keeps fonts, for each thread that ever computed or drew: with a new thread
        for every request, memory and open files would grow.

        Raises:
            Refusal: the job was stopped.
        """
        future = self._threads.submit(self._watched, job, work)
        while not (futures.wait([future], _TURN).done):
            if job.stop_reason() and future.cancel():
                raise Refusal(job.status, f"stopped while it waited for its turn: {job.stop_reason()}")
        return future.result()

    def draw(self, work: Callable[[], T]) -> T:
        """Draw something small of a result, in a thread that stays, without waiting for scenes."""
        return self._drawing.submit(work).result()

    def _watched(self, job: Job, work: Callable[[], T]) -> T:
        from Utils.rasters.environment import gdal_environment

        self._running += 1
        try:
            with watched_by(Watcher(job.note, job.stop_reason)), _noted(job), gdal_environment():
                return work()
        except Stopped as stopped:
            raise Refusal(job.status, f"stopped: {stopped}") from stopped
        finally:
            self._running -= 1

    def predict(
        self, job: Job, image: Path, model: OfferedModel | None, options: SceneOptions
    ) -> SceneResult | ClassResult:
        """Predict a scene, within ``carry_out``: heights, or classes with a model that draws these.

        Raises:
            UserError: options or files that do not fit.
            RasterError: a raster that cannot be read.
            Stopped: the job is to stop.
        """
        job.note("opening the model")
        if model is not None and model.draws_classes:
            return self._classes(job, image, model, options)
        return self._heights(job, image, model, options)

    def _heights(self, job: Job, image: Path, model: OfferedModel | None, options: SceneOptions) -> SceneResult:
        from Systems.models import from_hub
        from Utils.core.device import pick_device
        from Utils.scenes.scene_run import check_scene, predict_scene

        device = pick_device()
        opened = SceneModel()
        if options.uses_model and model is not None:
            opened = self._open(model.place, lambda: open_scene_model(str(from_hub(model.place)), device))
        options = opened.fitted(options)
        job.note("reading")
        output = job.folder / _HEIGHTS
        known = check_scene(image, output, options)
        refine = opened.refiner.draw if opened.refiner else None
        return predict_scene(image, output, opened.predictor, options, opened.facts, device, known, refine)

    def _classes(self, job: Job, image: Path, model: OfferedModel, options: SceneOptions) -> ClassResult:
        from Systems.models import load_class_model
        from Utils.core.device import pick_device
        from Utils.scenes.classes.class_run import predict_class_scene

        device = pick_device()
        opened = self._open(model.place, lambda: load_class_model(model.place, device))
        job.note("reading")
        asked = class_options(model, opened, options)
        return predict_class_scene(image, job.folder / _CLASSES, opened, asked, device)

    def _open(self, place: str, opened: Callable[[], T]) -> T:
        """A model, which stays open until another one is wanted."""
        with self._loading:
            if self._loaded is None or self._loaded[0] != place:
                self._loaded = None  # two at once may be too many for the memory
                self._loaded = (place, opened())
            kept: T = self._loaded[1]
            return kept


@contextmanager
def _noted(job: Job) -> Iterator[None]:
    """Collect what this thread says for the visitor; the server's log gets it as well."""
    thread = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.levelno >= logging.INFO:
                message = job.without_paths(record.getMessage())
                if message not in job.messages and len(job.messages) < 50:
                    job.messages.append(message)

    collector = Collector()
    logging.getLogger().addHandler(collector)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(collector)
