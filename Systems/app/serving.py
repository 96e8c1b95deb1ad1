"""From the command line's options to a server that runs: workshop, API and page, and one folder for all their files."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from Systems.app.limits import Limits
from Systems.app.offered_models import find_models
from Utils.core.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from Systems.app.work.workshop import Workshop

__all__ = ["prepared_server", "serve"]

logger = logging.getLogger(__name__)

_EXTRA = "pip install -r requirements-app.txt"
_PROMPT_END = 5  # seconds that requests get to end when the server is asked to


def serve(models: Sequence[str], host: str, port: int, limits: Limits, page: bool = True) -> None:
    """Serve until the process is interrupted.

    Args:
        models: folders and hub names of models.
        host: address to listen at.
        port: its port; 0 takes a free one.
        limits: of the requests.
        page: whether the page is served beside the API.

    Raises:
        UserError: the app's own requirements are not installed, or the address cannot be listened at.
    """
    with prepared_server(models, host, port, limits, page) as (server, listener):
        server.run(sockets=[listener])


@contextmanager
def prepared_server(
    models: Sequence[str], host: str, port: int, limits: Limits, page: bool = True
) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    """A server that is ready to run, and the socket that it listens at; its files are deleted at the end."""
    try:
        import uvicorn

        from Systems.app.http_api import make_api, say_what_is_missing
        from Systems.app.work.crew import refuse_networks
        from Systems.app.work.workshop import Workshop
    except ModuleNotFoundError as error:
        raise UserError(f"the app needs {error.name}, which is not installed: {_EXTRA}") from error
    refuse_networks()
    listener = _listen(host, port)
    with (
        listener,
        tempfile.TemporaryDirectory(prefix="d3-app-") as root,
        closing(Workshop(find_models(models), limits, Path(root))) as workshop,
    ):
        missing = say_what_is_missing(workshop)
        if missing:
            logger.warning(missing)
        app = make_api(workshop, local_only=host in ("127.0.0.1", "localhost", "::1"))
        if page:
            app = _with_page(app, workshop, Path(root), limits)
        address = f"http://{host}:{listener.getsockname()[1]}"
        logger.info("page: %s  API: %s/docs  models: %d  Ctrl-C ends it", address, address, len(workshop.models))
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=_PROMPT_END, server_header=False, access_log=False
        )
        yield uvicorn.Server(config), listener


def _with_page(app: FastAPI, workshop: Workshop, root: Path, limits: Limits) -> FastAPI:
    """The API with the page at its root."""
    # Read when Gradio is imported, and when it keeps an upload.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(root / "page")
    try:
        import gradio

        from Systems.app.examples import make_examples
        from Systems.app.page import make_page
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs {error.name}, which is not installed: {_EXTRA}; or --no-page") from error
    page = make_page(workshop, make_examples(root / "examples"))
    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=limits.upload_bytes,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        show_error=False,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"--host {host} --port {port}: cannot be listened at ({error}); give another") from error
    return listener
