"""app.py by its command line: what is wrong is said in one line, before a model is opened."""

from __future__ import annotations

import socket

import pytest

import app

pytest.importorskip("uvicorn", reason="uvicorn is not installed (requirements-app.txt has it)")


def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (["--waiting", "0"], "--waiting 0: give more than 0"),
            (["--waiting", "2", "--at-once", "3"], "--waiting 2: give at least as many as --at-once, 3"),
            (["--no-page", "--port", port], f"--port {port}: cannot be listened at"),
            (["--no-page", "--host", "no.such.host.invalid"], "cannot be listened at"),
        ):
            assert app.main(arguments) == 2
            lines = capsys.readouterr().err.strip().splitlines()
            assert said in lines[-1] and lines[-1].startswith("error: "), lines
