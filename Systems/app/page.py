"""The page of the app, made with Gradio: files and options in, pictures, a surface, a profile and downloads out."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from Systems.app.asked_options import asked_options
from Systems.app.examples import Example
from Systems.app.job import Job
from Systems.app.limits import Limits, Refusal
from Systems.app.offered_models import MAKE_ONE, NO_MODEL, OfferedModel, model_named
from Systems.app.page_results import PageResults, glb_file, said_facts
from Systems.app.sessions import Sessions
from Systems.app.uploads import keep_points, keep_raster
from Systems.app.views import draw_line, profile_plot
from Systems.app.work.scene_work import draw_scene
from Systems.app.work.workshop import Workshop
from Utils.core.errors import UserError
from Utils.scenes.options import DETAILS

__all__ = ["make_page"]

_LOOK = 0.3  # seconds between two looks at a job
_NOTHING_YET = "Nothing was predicted yet."

# The states of the line under the buttons; tests and styles go by them.
_READY, _WORKING, _DONE, _FAILED = "ready", "working", "done", "failed"


@dataclass
class _Outcome:
    """What a job's thread leaves."""

    results: PageResults | None = None
    problem: str = ""


def make_page(workshop: Workshop, examples: Mapping[str, Example]) -> gr.Blocks:
    """The page.

    Args:
        workshop: where scenes are predicted.
        examples: files to try it with, by name.
    """
    sessions = Sessions(workshop)
    names = [(f"{model.name}: {model.kind}", model.name) for model in workshop.models]
    names.append(("none: a coarse DEM with the shading of the image", NO_MODEL))
    # Gradio deletes its copies of files that are older than an hour, and all of them when the app ends.
    with gr.Blocks(title="D³-RSMDE", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(_introduction(workshop.models, workshop.limits))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                model = gr.Dropdown(names, value=names[0][1], label="Model", elem_id="model")
                image = gr.File(
                    label="Image: GeoTIFF, JPEG 2000, PNG or JPEG",
                    file_types=[".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"],
                    height=140,
                    elem_id="image",
                )
                reference = gr.File(
                    label="Coarse DEM in metres (optional)",
                    file_types=[".tif", ".tiff", ".jp2", ".png"],
                    height=140,
                    elem_id="reference",
                )
                points = gr.File(
                    label="Heights at points: CSV or GeoJSON (optional)",
                    file_types=[".csv", ".txt", ".geojson", ".json"],
                    height=140,
                    elem_id="points",
                )
                with gr.Accordion("Options", open=False, elem_id="options"):
                    uncertainty = gr.Slider(
                        1, 8, value=1, step=1, label="Uncertainty: ways to turn each tile (1: none)", elem_id="ways"
                    )
                    detail = gr.Dropdown(list(DETAILS), value="both", label="What adds detail to the DEM")
                    register = gr.Checkbox(label="Move a shifted DEM onto the image")
                    bands = gr.Textbox("", label="Bands, such as 4,3,2 (the file's own colours)", elem_id="bands")
                    stretch = gr.Textbox(
                        "2,98",
                        label="Percentiles that become black and white (2,98: as the model has learnt), or none",
                        elem_id="stretch",
                    )
                    nodata = gr.Textbox("", label="Value without data, or none")
                    points_crs = gr.Textbox("EPSG:4326", label="System of the points")
                    points_columns = gr.Textbox("x,y,height", label="Columns of the points")
                with gr.Row():
                    run = gr.Button("Predict", variant="primary", elem_id="run")
                    cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
                status = gr.HTML(_status(_READY, "Choose an image, or take an example."), elem_id="status")
                example = gr.Dropdown(list(examples), value=next(iter(examples)), label="Synthetic example")
                take = gr.Button("Take the example", elem_id="example")
            with gr.Column(scale=5, min_width=480), gr.Tabs():
                with gr.Tab("Relief"):
                    relief = gr.Image(
                        label="Heights", interactive=False, show_label=False, format="png", elem_id="relief"
                    )
                with gr.Tab("3-D"):
                    surface = gr.HTML(_frame(""), elem_id="surface")
                with gr.Tab("Slope"):
                    gr.Markdown("Slope needs heights in metres: from a coarse DEM or from points.")
                    slope = gr.Image(label="Slope", interactive=False, show_label=False, format="png", elem_id="slope")
                with gr.Tab("Uncertainty"):
                    gr.Markdown("The deviation between two or more ways to turn each tile: see the options.")
                    spread = gr.Image(
                        label="Uncertainty", interactive=False, show_label=False, format="png", elem_id="spread"
                    )
                with gr.Tab("Profile"):
                    gr.Markdown("Click the corners of a line on the relief.")
                    ground = gr.Image(
                        label="Line", interactive=False, show_label=False, format="png", elem_id="ground", buttons=[]
                    )
                    clear = gr.Button("New line", elem_id="newline")
                    profile = gr.Image(
                        label="Heights along it", interactive=False, show_label=False, format="png", elem_id="profile"
                    )
                with gr.Tab("Facts"):
                    facts = gr.Markdown(_NOTHING_YET, elem_id="facts")
                with gr.Tab("Files"):
                    files = gr.File(label="GeoTIFF, picture, report, facts", interactive=False, file_count="multiple")
                    exaggeration = gr.Slider(0.5, 10, value=1, step=0.5, label="Heights of the GLB file, times")
                    make_glb = gr.Button("Make the GLB file")
                    glb = gr.File(label="GLB: the image draped over the heights", interactive=False, elem_id="glb")

        line = gr.State([])
        asked = [uncertainty, detail, register, bands, stretch, nodata, points_crs, points_columns]
        shown = [status, relief, surface, slope, spread, ground, profile, facts, files, line, glb]

        # Gradio gives a request, and a click's place, to arguments of these types.
        def predict(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
            yield from _predicted(workshop, sessions, str(request.session_hash), given)

        def stop(request: gr.Request) -> None:
            sessions.cancel(str(request.session_hash))

        def forget(request: gr.Request) -> None:
            sessions.forget(str(request.session_hash))

        def take_example(name: str) -> list[str | None]:
            return [examples[name].image, examples[name].reference, examples[name].points]

        def add_corner(corners: list[Any], request: gr.Request, event: gr.SelectData) -> list[Any]:
            return workshop.draw(lambda: _with_corner(sessions, str(request.session_hash), corners, event.index))

        def begin_line(request: gr.Request) -> list[Any]:
            return _with_corner(sessions, str(request.session_hash), [], None)

        def write_glb(factor: float, request: gr.Request) -> str | None:
            return workshop.draw(lambda: glb_file(sessions.results(str(request.session_hash)), factor))

        line_and_plot = [line, ground, profile]
        run.click(predict, [model, image, reference, points, *asked], shown, concurrency_limit=None)
        cancel.click(stop, None, None, queue=False)
        take.click(take_example, [example], [image, reference, points])
        ground.select(add_corner, [line], line_and_plot)
        clear.click(begin_line, None, line_and_plot)
        make_glb.click(write_glb, [exaggeration], [glb])
        page.unload(forget)
    return page


def _introduction(models: list[OfferedModel], limits: Limits) -> str:
    lines = [
        "# Heights from an image",
        f"Files stay on the machine that runs this page. At most {limits.upload_bytes / 1e6:.0f} MB and "
        f"{limits.pixels / 1e6:.0f} million pixels; `predict.py` has no such limits.",
    ]
    if not models:
        lines.append(
            f"**No trained model was found.** `{MAKE_ONE}` trains one, in about 8 minutes on two cores. Until then a "
            "coarse DEM gets its detail from the shading of the image: the second example shows it."
        )
    return "\n\n".join(lines)


def _predicted(workshop: Workshop, sessions: Sessions, session: str, given: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Run a job in a thread of its own, and show how far it is until it ends."""
    job, outcome = sessions.open(session), _Outcome()
    thread = threading.Thread(target=_work, args=(workshop, job, given, outcome), daemon=True)
    started = time.monotonic()
    thread.start()
    while thread.is_alive():
        yield _only_status(_status(_WORKING, _progress(job, time.monotonic() - started), job.done, job.total))
        thread.join(_LOOK)
    if outcome.results is None:
        sessions.close(session, job)
        yield _only_status(_status(_FAILED, outcome.problem))
        return
    results = outcome.results
    sessions.keep(session, job, results)
    yield [
        _status(_DONE, f"Done in {time.monotonic() - started:.0f} s."),
        results.relief,
        _frame(results.surface),
        results.slope,
        results.spread,
        results.ground,
        None,
        said_facts(results.facts, job.messages),
        results.files,
        [],
        None,
    ]


def _work(workshop: Workshop, job: Job, given: tuple[Any, ...], outcome: _Outcome) -> None:
    name, image, reference, points, uncertainty, detail, register, bands, stretch, nodata, crs, columns = given
    try:
        if not image:
            raise Refusal(422, "choose an image first, or take an example")
        model = model_named(workshop.models, name)
        kept = {"image": _kept(workshop, job, "image", image)}
        for what, path in (("reference", reference), ("points", points)):
            if path:
                kept[what] = _kept(workshop, job, what, path)
        options = asked_options(
            model,
            kept.get("reference"),
            kept.get("points"),
            detail=detail,
            uncertainty=int(uncertainty),
            bands=bands,
            nodata=nodata,
            stretch=stretch,
            points_crs=crs,
            points_columns=columns,
            register=bool(register),
            report=True,
        )
        outcome.results = workshop.carry_out(job, draw_scene, job.folder, kept["image"], model, options)
    except UserError as error:
        outcome.problem = job.without_paths(str(error))
    except Exception:
        outcome.problem = "something went wrong here; the log of the app has it"
        raise


def _kept(workshop: Workshop, job: Job, what: str, uploaded: str) -> Path:
    """An uploaded file in the job's folder, checked."""
    source, path, limits = Path(uploaded), job.folder / what, workshop.limits
    if source.stat().st_size > limits.upload_bytes:
        raise Refusal(413, f"{what}: more than {limits.upload_bytes / 1e6:.0f} MB; use predict.py")
    path.write_bytes(source.read_bytes())
    if what == "points":
        return workshop.check(job, keep_points, path, limits)
    return workshop.check(job, keep_raster, path, what, limits)


def _with_corner(sessions: Sessions, session: str, corners: list[Any], place: Any) -> list[Any]:
    """The line with one more corner, its picture and its profile; an empty line for no place."""
    results = sessions.results(session)
    if results is None or results.drawn is None:
        return [[], None, None]
    corners = [*corners, [int(place[0]), int(place[1])]] if place is not None else []
    plot = profile_plot(results.drawn, corners) if len(corners) > 1 else None
    return [corners, draw_line(results.ground, corners), plot]


def _progress(job: Job, seconds: float) -> str:
    counted = f", {job.done} of {job.total}" if job.total else ""
    return f"{job.part}{counted} ({seconds:.0f} s)"


def _only_status(status: str) -> list[Any]:
    return [status, *([gr.skip()] * 10)]


def _status(state: str, words: str, done: int = 0, total: int = 0) -> str:
    bar = f'<progress value="{done}" max="{total}" style="width: 100%"></progress>' if total else ""
    return f'<div class="state" data-state="{state}" role="status">{html.escape(words)}{bar}</div>'


def _frame(page: str) -> str:
    """A frame with the viewer, which runs nothing but its own scripts and reaches nothing outside of it."""
    if not page:
        return f"<p>{_NOTHING_YET}</p>"
    source = html.escape(page, quote=True)
    style = "width: 100%; height: 70vh; border: 0"
    return f'<iframe title="surface" sandbox="allow-scripts" style="{style}" srcdoc="{source}"></iframe>'
