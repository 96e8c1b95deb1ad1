"""The archive's listings and downloads, against a server of this machine that misbehaves as real ones do."""

from __future__ import annotations

import csv
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from Systems.mars.products.command import main
from Systems.mars.products.listing import Entry, parse_listing
from Utils.synthetic.mars_products import plan_pairs, write_products

PRE = """<html><head><title>Index of /PDS/DTM/ESP</title></head><body><h1>Index of /PDS/DTM/ESP</h1>
<pre>      <a href="?C=N;O=D">Name</a>           <a href="?C=M;O=A">Last modified</a>      <a href="?C=S;O=A">Size</a>
<hr>      <a href="/PDS/DTM/">Parent Directory</a>                             -
      <a href="ORB_042300_042399/">ORB_042300_042399/</a>      2023-05-01 12:00    -
      <a href="DTEED_042328_1985_033150_1985_A01.IMG">DTEED_042328_1985_0331..&gt;</a> 2016-02-08 10:11  113M
      <a href="readme.txt">readme.txt</a>              08-Feb-2016 10:11  4.0K
<hr></pre><a href="https://elsewhere.example/ORB_1/">other</a><a href="../x/">up</a></body></html>"""
TABLE = """<table><tr><th><a href="?C=N;O=D">Name</a></th></tr>
<tr><td><a href="/PDS/DTM/">Parent Directory</a></td><td>&nbsp;</td><td align="right">  - </td></tr>
<tr><td><a href="ORB_000800_000899/">ORB_000800_000899/</a></td><td>2017-03-01 09:00  </td><td>  - </td></tr>
<tr><td><a href="a%2Fb.IMG">bad</a></td></tr>
<tr><td><a href="x.JP2">x.JP2</a></td><td>2017-03-01 09:00</td><td>1.5G</td></tr>
</table>"""


def test_listings_of_both_forms_are_read_and_links_elsewhere_are_not() -> None:
    url = "http://host/PDS/DTM/ESP/"
    assert parse_listing(PRE, url) == [
        Entry("ORB_042300_042399", True, None),
        Entry("DTEED_042328_1985_033150_1985_A01.IMG", False, 113 * 1024**2),
        Entry("readme.txt", False, 4096),
    ]
    assert parse_listing(TABLE, url) == [
        Entry("ORB_000800_000899", True, None),
        Entry("x.JP2", False, round(1.5 * 1024**3)),
    ]


class Server(ThreadingHTTPServer):
    """Serves a folder with listings; what it does wrong is asked for by the end of a file's name, a number of times."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.agents: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/DTM/"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.removeprefix("/moved")
        self.server.asked.append((path, self.headers.get("Range", "")))
        self.server.agents.add(self.headers.get("User-Agent", ""))
        file = self.server.root / path.removeprefix("/DTM/")
        waiting = next((faults for end, faults in self.server.faults.items() if path.endswith(end) and faults), [])
        fault = waiting.pop(0) if waiting else ""
        if path.endswith("/") and file.is_dir():
            names = sorted(file.iterdir())
            lines = [f'<a href="{one.name}{"/" * one.is_dir()}">{one.name}</a>  2020-01-01 10:00  12K' for one in names]
            self.reply(200, ('<pre><a href="../">Parent</a>\n' + "\n".join(lines) + "</pre>").encode())
        elif fault == "503":
            self.reply(503, b"later", {"Retry-After": "0"})
        elif fault == "redirect":
            self.reply(302, b"", {"Location": f"/moved{path}"})
        elif not file.is_file() or fault == "404":
            self.reply(404, b"none")
        else:
            self.send(file.read_bytes(), fault)

    def send(self, data: bytes, fault: str) -> None:
        start = 0
        asked = self.headers.get("Range", "")
        headers = {"ETag": '"one"'}
        if asked and fault != "no ranges" and self.headers.get("If-Range") == '"one"':
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return self.reply(416, b"")
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        self.send_response(206 if start else 200)
        length = len(body) + (7 if fault == "too long said" else 0)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "cut":
            body = body[: len(body) // 2]
        elif fault == "slow":
            self.wfile.write(body[:100])
            time.sleep(1.5)
            body = b""
        elif fault == "damaged":
            body = body[:-2] + b"\0\0"
        try:
            self.wfile.write(body)
        except OSError:
            pass
        self.close_connection = True

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs, one with an older version, one of the primary phase; read only."""
    folder = tmp_path_factory.mktemp("archive") / "DTM"
    write_products(folder, plan_pairs(3, (64, 48), seed=1, repeats=0), workers=1)
    dtm = sorted(folder.rglob("*.IMG"))[0]
    dtm.with_name(dtm.name.replace("_Z01", "_Z02")).write_bytes(dtm.read_bytes())
    early = folder / "PSP" / "ORB_002100_002199" / "PSP_002118_1510_PSP_003608_1510"
    early.mkdir(parents=True)
    for name, source in (
        ("DTEEC_002118_1510_003608_1510_A01.IMG", dtm),
        ("PSP_002118_1510_RED_C_01_ORTHO.JP2", next(dtm.parent.glob("*.JP2"))),
    ):
        (early / name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture
def server(archive_folder: Path) -> Iterator[Server]:
    server = Server(archive_folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def run(server: Server, what: str, output: Path, *more: object) -> int:
    manners = ("--pause", 0, "--first-wait", 0, "--timeout", 0.5, "--attempts", 4)
    return main([what, "--output", str(output), "--archive", server.url, *map(str, (*manners, *more))])


def same(output: Path, archive: Path) -> int:
    """How many files there are below ESP and PSP, all of which must be those of the archive."""
    files = [
        path for path in output.rglob("*") if path.is_file() and path.relative_to(output).parts[0] in ("ESP", "PSP")
    ]
    for path in files:
        assert path.read_bytes() == (archive / path.relative_to(output)).read_bytes()
    return len(files)


def test_list_and_dry_run_take_nothing_and_filters_choose(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, "list", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "DTEEC_030000_1800_030001_1800_Z02" in told and "Z01" not in told.split("Z02")[0].splitlines()[-1]
    assert "PSP" not in told.splitlines()[-1] and "4 pairs, 11 files, about 135 kB" in told
    asked = Counter(path for path, _ in server.asked)
    assert max(asked.values()) == 1
    # Listings are there now, and are not asked for again.
    assert run(server, "download", tmp_path / "out", "--dry-run", "--limit", 2) == 0
    assert "2 pairs, 6 files" in capsys.readouterr().out and len(server.asked) == sum(asked.values())
    assert same(tmp_path / "out", server.root) == 0
    for options, count in (
        (("--mission", "PSP"), 1),
        (("--producer", "A", "U"), 1),
        (("--all-versions",), 5),
        (("--name", "030020_1805"), 1),
    ):
        assert run(server, "list", tmp_path / "out", *options) == 0
        assert f"{count} pairs" in capsys.readouterr().out
    assert run(server, "list", tmp_path / "out", "--grid", "D") == 2
    assert run(server, "list", tmp_path / "out", "--reference", "radius") == 2
    assert "is what was asked for" in capsys.readouterr().err
    assert run(server, "list", tmp_path / "out", "--image-grid", "A") == 2


def test_downloads_survive_cuts_slowness_wrong_lengths_and_redirections(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted(path.name for path in server.root.rglob("ESP*.JP2"))
    server.faults = {
        "Z02.IMG": ["cut", "cut"],
        images[0]: ["slow", "503"],
        images[1]: ["redirect", "too long said"],
        images[2]: ["damaged"],
        "030020_1805_030021_1805_Z01.IMG": ["cut", "no ranges"],
    }
    assert run(server, "download", tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "4 pairs: 0 were there, 11 downloaded, 0 failed" in told.out
    assert same(tmp_path / "out", server.root) == 11 and not list((tmp_path / "out").rglob("*.part*"))
    ranges = [(path, asked) for path, asked in server.asked if asked]
    whole = next(server.root.rglob("*Z02.IMG")).stat().st_size
    starts = [int(asked[6:-1]) for path, asked in ranges if path.endswith("Z02.IMG")]
    assert starts == [whole // 2, whole // 2 + (whole - whole // 2) // 2]
    assert any(path.endswith(images[0]) and asked == "bytes=100-" for path, asked in ranges)
    assert "does not end with the mark" in told.err and server.agents == {next(iter(server.agents))}
    # A second run asks for nothing, and the check finds all in order.
    asked_before = len(server.asked)
    assert run(server, "download", tmp_path / "out") == 0
    assert "11 were there, 0 downloaded" in capsys.readouterr().out and len(server.asked) == asked_before
    assert run(server, "check", tmp_path / "out") == 0
    dtm = next((tmp_path / "out").rglob("*Z02.IMG"))
    dtm.write_bytes(dtm.read_bytes()[:-10])
    next((tmp_path / "out").rglob("PSP*.JP2")).unlink()
    assert run(server, "check", tmp_path / "out") == 2
    assert "11 files: 9 in order, 2 missing" in capsys.readouterr().out
    assert run(server, "download", tmp_path / "out") == 0
    assert same(tmp_path / "out", server.root) == 11


def test_attempts_are_bounded_and_one_failure_does_not_stop_the_others(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted(path.name for path in server.root.rglob("ESP*.JP2"))[0]
    server.faults = {"Z02.IMG": ["503"] * 10, image: ["404"], "030020_1805_030021_1805_Z01.IMG": ["cut"] * 4}
    output = tmp_path / "out"
    assert run(server, "download", output, "--mission", "ESP") == 2
    told = capsys.readouterr()
    assert "6 downloaded, 3 failed" in told.out and "503 Service Unavailable, 4 times" in told.err
    assert "404 Not Found" in told.err and "the same command tries them again" in told.err
    asked = Counter(path.rpartition("/")[2] for path, _ in server.asked)
    assert asked[image] == 1 and sum(count for name, count in asked.items() if name.endswith("Z02.IMG")) == 4
    part = next(output.rglob("*.IMG.part"))
    kept = part.stat().st_size
    assert 0 < kept < next(server.root.rglob(part.name.removesuffix(".part"))).stat().st_size
    server.faults = {}
    server.asked.clear()
    # A file that came by another way is asked about once, and kept where its length is right.
    by_hand = next(server.root.rglob(image))
    (output / by_hand.relative_to(server.root)).write_bytes(by_hand.read_bytes())
    assert run(server, "download", output, "--mission", "ESP") == 0
    assert (f"bytes={kept}-") in [asked for _, asked in server.asked]
    assert same(output, server.root) == 9
    with (output / "downloaded.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 9


def test_wrong_addresses_and_options_are_told_in_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, words in (
        (("--archive", server.url + "ESP/"), "lists no folder such as ORB_042300_042399"),
        (("--archive", "ftp://host/DTM/"), "is no address"),
        (("--archive", "http://127.0.0.1:9/DTM/", "--attempts", 2), "2 times; try again later"),
        (("--limit", 0), "--limit 0: give 1 or more"),
        (("--attempts", 0), "--attempts 0: give 1 or more"),
    ):
        assert run(server, "list", tmp_path / "out", *more) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert run(server, "check", tmp_path / "empty") == 2
