"""The HTTP API: a scene in, its heights out, as GeoTIFF, GLB, picture or statistics."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from Systems.app.api_page import api_page
from Systems.app.asked_options import asked_options
from Systems.app.gate import CLEANUP, Gate
from Systems.app.job import Job
from Systems.app.limits import Refusal
from Systems.app.offered_models import MAKE_ONE, NO_MODEL, model_named
from Systems.app.uploads import keep_points, keep_raster
from Systems.app.work.scene_work import Answer, answer_scene
from Systems.app.work.workshop import Workshop
from Utils.core.errors import UserError

__all__ = ["make_api"]

logger = logging.getLogger(__name__)

PREDICT = "/predict"

_MEDIA = {"geotiff": "image/tiff", "glb": "model/gltf-binary", "png": "image/png"}
_LOOK = 0.5  # seconds between two looks whether whoever asked is still there


class OfferedModelAnswer(BaseModel):
    """A model that ``/predict`` takes."""

    name: str = Field(description="what ``model`` of ``/predict`` takes")
    predicts: str


class ErrorAnswer(BaseModel):
    """Why a request was not carried out, in one line."""

    error: str


def make_api(workshop: Workshop, local_only: bool = True) -> FastAPI:
    """The API as an ASGI app.

    Args:
        workshop: where scenes are predicted.
        local_only: whether only requests to this machine's own names are answered, so that no page of a stranger can
            reach the app by a name that leads here.
    """
    api = FastAPI(
        title="D³-RSMDE",
        description="Heights from remote-sensing images. A scene goes to /predict; options are those of predict.py.",
        version="1",
        docs_url=None,  # FastAPI's own page fetches its script from the network
        redoc_url=None,
    )
    api.add_middleware(Gate, limits=workshop.limits, guarded=frozenset({PREDICT}))
    if local_only:
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    _answer_errors(api)

    @api.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the app works, and how much it has to do."""
        return {"status": "ok", "running": workshop.running, "models": len(workshop.models)}

    @api.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(api.openapi()))

    @api.get("/models")
    async def models() -> list[OfferedModelAnswer]:
        """The models that can be chosen; 'none' needs a coarse DEM and takes the shading of the image."""
        listed = [OfferedModelAnswer(name=model.name, predicts=model.kind) for model in workshop.models]
        return [*listed, OfferedModelAnswer(name=NO_MODEL, predicts="detail of a coarse DEM, from shading")]

    problems = {status: {"model": ErrorAnswer} for status in (404, 408, 413, 415, 422, 500, 503, 504)}

    @api.post(PREDICT, response_class=FileResponse, responses=problems)  # type: ignore[arg-type]
    async def predict(
        request: Request,
        image: Annotated[UploadFile, File(description="GeoTIFF, JPEG 2000, PNG or JPEG")],
        model: Annotated[str, Form(description="a name from /models; empty takes the first")] = "",
        reference: Annotated[UploadFile | None, File(description="a coarse DEM in metres, GeoTIFF")] = None,
        points: Annotated[UploadFile | None, File(description="heights at points, CSV or GeoJSON")] = None,
        answer: Annotated[Answer, Form(description="what comes back")] = "geotiff",
        detail: Annotated[str, Form(description="what adds detail to the DEM: both, model, shading, none")] = "both",
        uncertainty: Annotated[int, Form(description="2 to 8 ways to turn each tile: a second band")] = 1,
        bands: Annotated[str, Form(description="band numbers from 1, like 3,2,1")] = "",
        nodata: Annotated[str, Form(description="value without data, or none")] = "",
        stretch: Annotated[str, Form(description="black and white; 2,98: as the model has learnt; none")] = "2,98",
        points_crs: Annotated[str, Form(description="system of the points' x and y")] = "EPSG:4326",
        points_columns: Annotated[str, Form(description="names of the columns")] = "x,y,height",
        register_reference: Annotated[bool, Form(description="move a shifted DEM onto the image")] = False,
    ) -> Response:
        """Predict a scene. Statistics come as JSON, everything else as a file; nothing of either is kept."""
        job = workshop.open_job()
        request.scope[CLEANUP].callback(workshop.close_job, job)
        asked = {
            "detail": detail,
            "uncertainty": uncertainty,
            "bands": bands,
            "nodata": nodata,
            "stretch": stretch,
            "points_crs": points_crs,
            "points_columns": points_columns,
            "register": register_reference,
        }
        files = {"image": image, "reference": reference, "points": points}
        return await _while_there(request, job, lambda: _predict(workshop, job, files, model, answer, asked))

    return api


def _predict(
    workshop: Workshop,
    job: Job,
    files: Mapping[str, UploadFile | None],
    model: str,
    answer: Answer,
    asked: Mapping[str, Any],
) -> Response:
    """The whole work of a request, in a thread of its own."""
    try:
        chosen = model_named(workshop.models, model or _first(workshop))
        kept: dict[str, Path] = {}
        for name, upload in files.items():
            # A form of a browser sends an empty file where none was chosen.
            if upload is None or (name != "image" and not upload.filename and not upload.size):
                continue
            path = job.folder / name
            with path.open("wb") as target:
                shutil.copyfileobj(upload.file, target)
            if name == "points":
                kept[name] = workshop.check(job, keep_points, path, workshop.limits)
            else:
                kept[name] = workshop.check(job, keep_raster, path, name, workshop.limits)
        options = asked_options(chosen, kept.get("reference"), kept.get("points"), **asked)

        found = workshop.carry_out(job, answer_scene, job.folder, kept["image"], chosen, options, answer)
        if isinstance(found, dict):
            return JSONResponse(found | {"messages": job.messages})
        # Kept until it is sent: the gate then deletes the job's folder.
        return FileResponse(found, media_type=_MEDIA[answer], filename=found.name)
    except UserError as error:
        status = error.status if isinstance(error, Refusal) else 422
        return _problem(status, job.without_paths(str(error)))


def _first(workshop: Workshop) -> str:
    if workshop.models:
        return workshop.models[0].name
    return NO_MODEL


async def _while_there(request: Request, job: Job, work: Callable[[], Response]) -> Response:
    """Do the work in a thread, and stop the job when whoever asked has gone."""
    task = asyncio.create_task(run_in_threadpool(work))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK)
            if not task.done() and await request.is_disconnected():
                job.stop("whoever asked has gone")
        return task.result()
    except asyncio.CancelledError:
        job.stop("the request was ended")
        # The job's files must not be deleted under its thread.
        await asyncio.gather(task, return_exceptions=True)
        raise


def _problem(status: int, words: str) -> JSONResponse:
    headers = {"Retry-After": "30"} if status == 503 else None
    return JSONResponse({"error": words}, status, headers)


def _answer_errors(api: FastAPI) -> None:
    """Every error as one line of JSON, without anything that only the server should know."""

    @api.exception_handler(RequestValidationError)
    async def wrong_form(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()[:5]]
        return _problem(422, "; ".join(found)[:1000])

    @api.exception_handler(HTTPException)
    async def wrong_request(request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail)[:1000])

    @api.exception_handler(Exception)
    async def our_mistake(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed", exc_info=error)
        return _problem(500, "something went wrong here; the server's log has it")


def say_what_is_missing(workshop: Workshop) -> str:
    """A line for whoever starts the app without a trained model; empty where there is one."""
    if workshop.models:
        return ""
    return (
        f"no trained model was found: `{MAKE_ONE}` trains one (about 8 minutes on two cores); until then, a coarse DEM "
        "gets its detail from the shading of the image"
    )
