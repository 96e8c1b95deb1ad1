"""The app under load: 50 requests at once, most of them hostile; what was answered, and what grew.

python -m benchmarks.app_load --output results/app_load
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from Utils.core.command_line import run_script
from Utils.core.tables import write_json

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]
_LIMIT = 2_000_000  # bytes of a request
_SIZE = 128


@dataclass
class _Kind:
    """One kind of request.

    Attributes:
        name: what it is.
        expected: the statuses that are right for it.
        send: sends one to an address, and gives the status and the text of the answer; 0 where it hung up itself.
        found: how often each status came.
        slowest: seconds of the slowest answer.
    """

    name: str
    expected: tuple[int, ...]
    send: Callable[[str], tuple[int, str]]
    found: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test; returns its exit status, 1 where an answer was wrong or something stayed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for table.md and results.json")
    parser.add_argument("--requests", type=int, default=50, help="at once (50)")
    parser.add_argument("--rounds", type=int, default=4, help="one after another (4); the first warms up")
    parser.add_argument("--waiting", type=int, default=60, help="requests that the app takes in at once (60)")
    given = parser.parse_args(arguments)
    status = 0

    def work() -> None:
        nonlocal status
        given.output.mkdir(parents=True, exist_ok=True)
        results = measure(given.requests, given.rounds, given.waiting)
        write_json(given.output / "results.json", results)
        table = write_table(results)
        (given.output / "table.md").write_text(table, encoding="utf-8")
        print(table)
        status = int(bool(results["wrong"]))

    return run_script(work) or status


def measure(requests: int, rounds: int, waiting: int) -> dict[str, Any]:
    """Start the app as a process of its own, send it rounds of requests, and look at it after each."""
    with tempfile.TemporaryDirectory() as temporary:
        environment = {**os.environ, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "app.py", "--models", temporary, "--port", "0", "--no-page"]
        command += ["--upload-megabytes", str(_LIMIT / 1e6), "--megapixels", "4", "--seconds", "300"]
        command += ["--waiting", str(waiting)]
        with subprocess.Popen(command, cwd=_ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                address, log = _address(process)
                kinds = _kinds(Path(temporary) / "made")
                process_seen = psutil.Process(process.pid)
                seen = []
                for number in range(rounds):
                    began = time.perf_counter()
                    _round(address, kinds, requests)
                    seen.append(_look(process_seen, Path(temporary)) | {"seconds": time.perf_counter() - began})
                    logger.info("round %d: %s", number + 1, seen[-1])
                alive = process.poll() is None and _get(f"{address}/health")[0] == 200
            finally:
                process.terminate()
                process.wait(60)
        wrong = [f"{kind.name}: {status}" for kind in kinds for status in kind.found if status not in kind.expected]
        leaked = sorted({line for kind in kinds for line in _LEAKS.get(kind.name, [])})
        left = [path.name for path in Path(temporary).iterdir() if path.name != "made"]
    if not alive:
        wrong.append("the app did not answer any more")
    if any(look["files"] for look in seen):
        wrong.append("files stayed")
    return {
        "requests": requests,
        "rounds": seen,
        "kinds": [
            {"name": kind.name, "expected": kind.expected, "found": dict(kind.found), "slowest": kind.slowest}
            for kind in kinds
        ],
        "wrong": wrong + leaked,
        "left_after_the_end": left,
        "log_lines": len(log),
    }


def write_table(results: dict[str, Any]) -> str:
    """Markdown: a line a kind of request, and a line a round."""
    lines = ["| request | answers | slowest (s) |", "| --- | --- | ---: |"]
    for kind in results["kinds"]:
        answers = ", ".join(
            f"{'hung up' if status == '0' else status} x {count}" for status, count in sorted(_as_text(kind["found"]))
        )
        lines.append(f"| {kind['name']} | {answers} | {kind['slowest']:.1f} |")
    lines += ["", "| after round | processes | memory (MB) | open files | threads | temporary files | seconds |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for number, look in enumerate(results["rounds"], start=1):
        names = ("processes", "megabytes", "open_files", "threads", "files", "seconds")
        lines.append(f"| {number} | " + " | ".join(f"{look[name]:.0f}" for name in names) + " |")
    lines += ["", f"Wrong: {'; '.join(results['wrong']) or 'nothing'}."]
    return "\n".join(lines) + "\n"


def _as_text(found: dict[Any, int]) -> list[tuple[str, int]]:
    return [(str(status), count) for status, count in found.items()]


def _address(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Where the app listens, by its own line; what it says further is collected."""
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if line.startswith("page: "):
            threading.Thread(target=lambda: lines.extend(process.stderr or []), daemon=True).start()
            return line.split()[1], lines
    raise RuntimeError(f"the app did not start: {''.join(lines)}")


def _look(process: psutil.Process, folder: Path) -> dict[str, float]:
    """What the app and its processes hold now; requests that have ended may take a moment to be tidied up.

    Memory that processes share counts once: it is divided among them (Linux's PSS).
    """
    for _ in range(50):
        files = [path for path in folder.rglob("*") if path.is_file() and "made" not in path.relative_to(folder).parts]
        if not files:
            break
        time.sleep(0.2)
    family = [process, *process.children(recursive=True)]
    return {
        "processes": len(family),
        "megabytes": sum(one.memory_full_info().pss for one in family) / 1e6,
        "open_files": sum(one.num_fds() for one in family),
        "threads": sum(one.num_threads() for one in family),
        "files": len(files),
    }


def _round(address: str, kinds: Sequence[_Kind], requests: int) -> None:
    """As many requests as are asked for, at once, of all kinds in turn."""
    start = threading.Barrier(requests)

    def one(kind: _Kind) -> None:
        start.wait()
        began = time.perf_counter()
        status, text = kind.send(address)
        kind.slowest = max(kind.slowest, time.perf_counter() - began)
        kind.found[status] += 1
        if any(mark in text for mark in ("/tmp", "/root", "/home", "root:x:", "Traceback")):
            _LEAKS.setdefault(kind.name, []).append(f"{kind.name} told of the server: {text[:200]}")

    threads = [threading.Thread(target=one, args=(kinds[number % len(kinds)],)) for number in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


_LEAKS: dict[str, list[str]] = {}


def _get(address: str) -> tuple[int, str]:
    import httpx

    found = httpx.get(address, timeout=60)
    return found.status_code, found.text


def _kinds(folder: Path) -> list[_Kind]:
    """The kinds of requests: one that is whole, and those that are not."""
    import socket

    import httpx

    from tests.Systems.app.hostile_files import hostile_images, hostile_points
    from Utils.synthetic.terrain_scene import write_scene

    files = write_scene(folder, _SIZE, 3)
    image, reference = files.image.read_bytes(), files.reference.read_bytes()

    def post(**parts: bytes) -> Callable[[str], tuple[int, str]]:
        def send(address: str) -> tuple[int, str]:
            named = {name: (f"../../{name}", content) for name, content in parts.items()}
            form = {"model": "none", "answer": "json"}
            try:
                found = httpx.post(f"{address}/predict", files=named, data=form, timeout=300)
            except httpx.TransportError:  # refused before all of it was sent
                return 0, ""
            return found.status_code, found.text

        return send

    def cut(address: str) -> tuple[int, str]:
        """Say that much is coming, send little, hang up."""
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 500000\r\n"
            connection.sendall((head + "Content-Type: multipart/form-data; boundary=x\r\n\r\n").encode())
            connection.sendall(
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image[:9000]
            )
            time.sleep(0.2)
        return 0, ""

    busy = 503  # the right answer to any request while all places are taken
    kinds = [
        _Kind("a scene with a DEM", (200, busy), post(image=image, reference=reference)),
        _Kind(
            "a scene, and a DEM cut short", (422, busy), post(image=image, reference=reference[: len(reference) // 2])
        ),
        _Kind("more bytes than allowed", (413, 0, busy), post(image=image + bytes(_LIMIT))),
        _Kind("an upload that hangs up", (0,), cut),
        _Kind("/health", (200,), lambda address: _get(f"{address}/health")),
    ]
    kinds += [_Kind(name, (status, busy), post(image=content)) for name, (status, content) in hostile_images().items()]
    return kinds + [
        _Kind(f"points: {name}", (status, busy), post(image=image, reference=reference, points=content))
        for name, (status, content) in hostile_points().items()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
