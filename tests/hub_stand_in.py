"""A model hub in this process: what its client asks for when it makes, fills and reads a repository, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

Repositories = dict[str, dict[str, bytes]]
"""The files of each repository, by the repository's name."""


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repositories.setdefault(name, {})
            return self._answer({"url": f"{self._home()}/{name}", "name": name})
        asked_for = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main.*", self.path)
        if asked_for is None or asked_for[1] not in self.repositories:
            return self._missing("RepoNotFound")
        if asked_for[2] == "preupload":
            named = [each["path"] for each in json.loads(body)["files"]]
            return self._answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in named]})
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.repositories[asked_for[1]][entry["value"]["path"]] = content
        commit = self._commit(asked_for[1])
        return self._answer({"commitUrl": f"{self._home()}/{asked_for[1]}/commit/{commit}", "commitOid": commit})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if asked := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?", path):
            files = self.repositories.get(asked[1])
            if files is None:
                return self._missing("RepoNotFound")
            if (asked[2] or "").startswith("/tree"):
                return self._answer(
                    [{"type": "file", "path": n, "size": len(c), "oid": _tag(c)} for n, c in files.items()]
                )
            listed = [{"rfilename": name} for name in files]
            return self._answer({"id": asked[1], "sha": self._commit(asked[1]), "siblings": listed, "tags": []})
        asked = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if asked is None or asked[1] not in self.repositories:
            return self._missing("RepoNotFound")
        content = self.repositories[asked[1]].get(asked[2])
        if content is None:
            return self._missing("EntryNotFound", self._commit(asked[1]))
        return self._send(200, content, ETag=f'"{_tag(content)}"', **{"X-Repo-Commit": self._commit(asked[1])})

    do_HEAD = do_GET

    def _home(self) -> str:
        return f"http://{self.headers['Host']}"

    def _commit(self, name: str) -> str:
        return _tag(b"".join(n.encode() + c for n, c in sorted(self.repositories[name].items())))

    def _answer(self, document: Any) -> None:
        self._send(200, json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def _missing(self, code: str, commit: str = "") -> None:
        more = {"X-Repo-Commit": commit} if commit else {}
        self._send(404, b"{}", **{"X-Error-Code": code, **more})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def hub_stand_in(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repositories]:
    """A hub that the client takes for the real one, and an empty cache; gives the repositories."""
    repositories: Repositories = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"repositories": repositories}))
    home = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", home)
    template = home + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield repositories
    finally:
        server.shutdown()
        server.server_close()
