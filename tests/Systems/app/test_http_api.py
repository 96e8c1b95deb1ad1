"""The HTTP API: what a scene comes back as, what is refused and how, and that nothing stays or leaks."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio

pytest.importorskip("fastapi", reason="fastapi is not installed (requirements-app.txt has it)")

from starlette.testclient import TestClient

from Systems.app.http_api import make_api
from Systems.app.limits import Limits
from Systems.app.offered_models import OfferedModel, find_models
from Systems.app.work.workshop import Workshop
from tests.launching import HANG, fork_server, until
from tests.scenes import landscape, write_raster
from tests.Systems.app.hostile_files import hostile_images, hostile_points
from tests.Systems.app.stand_in import install
from tests.toys import toy_model

HEIGHT, WIDTH = 90, 120
# What only the server knows: the folders of its disk.
SERVER = re.compile(r"/tmp|/root|/home|/usr|site-packages|Traceback")


NAMES = ("bright", "as it is", "held", "crash", "greedy", "mistake")
MODELS = [OfferedModel(name, "relative height", name) for name in NAMES]


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model "held" says that it has begun, and is told to wait."""
    return tmp_path_factory.mktemp("signs")


@pytest.fixture(scope="module")
def kept_workshop(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    fork_server()
    root = tmp_path_factory.mktemp("work")
    limits = Limits(memory_bytes=1_500_000_000)
    with closing(Workshop([], limits, root, partial(install, signs))) as workshop:
        yield workshop


@pytest.fixture
def workshop(kept_workshop: Workshop) -> Workshop:
    kept_workshop.models, kept_workshop.limits = MODELS, Limits()
    return kept_workshop


@pytest.fixture
def client(workshop: Workshop) -> Iterator[TestClient]:
    with TestClient(make_api(workshop), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
    assert not list(workshop._root.iterdir())  # whatever happened, no file stays


@pytest.fixture
def scene(tmp_path: Path) -> bytes:
    grey = np.rint(20 + 200 * landscape(HEIGHT, WIDTH, seed=3)).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", np.stack([grey] * 3)).read_bytes()


def post(client: TestClient, image: bytes, answer: str = "json", **more):
    files = {"image": ("../../etc/scene.tif", image)} | {
        name: (f"/etc/{name}", more.pop(name)) for name in ("points", "reference") if name in more
    }
    return client.post("/predict", files=files, data={"model": "bright", "answer": answer, **more})


def test_a_scene_comes_back_as_geotiff_glb_picture_and_statistics(client: TestClient, scene: bytes) -> None:
    found = post(client, scene, "geotiff", stretch="none")
    assert found.status_code == 200 and found.headers["content-type"] == "image/tiff", found.text
    with rasterio.open(io.BytesIO(found.content)) as raster, rasterio.open(io.BytesIO(scene)) as given:
        heights = raster.read(1)
        assert raster.transform == given.transform and raster.crs == given.crs
        assert np.corrcoef(heights.ravel(), given.read(1).ravel())[0, 1] > 0.999
        assert not SERVER.search(str(raster.tags()))
    assert post(client, scene, "glb").content[:4] == b"glTF"
    assert post(client, scene, "png").content[1:4] == b"PNG"
    statistics = post(client, scene, uncertainty="2").json()
    assert statistics["kind"] == "relative" and (statistics["width"], statistics["height"]) == (WIDTH, HEIGHT)
    assert statistics["bands"]["height"]["max"] == 1.0 and "std" in statistics["bands"]["uncertainty"]
    assert not SERVER.search(str(statistics))
    assert not any("not stretched" in message for message in statistics["messages"])
    assert any("not stretched" in message for message in post(client, scene, model="as it is").json()["messages"])


def test_metres_come_from_a_dem_without_a_model(
    client: TestClient, scene: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")  # as the scripts have it
    truth = 300 + 200 * landscape(HEIGHT, WIDTH, seed=3)
    cells = truth.reshape(HEIGHT // 6, 6, WIDTH // 6, 6).mean(axis=(1, 3)).astype(np.float32)
    with rasterio.open(io.BytesIO(scene)) as given:
        grid = given.transform @ given.transform.scale(6.0)
    dem = write_raster(tmp_path / "dem.tif", cells, transform=grid).read_bytes()
    found = post(client, scene, reference=dem, model="none").json()
    assert found["kind"] == "metric" and found["bands"]["height"]["unit"] == "metre"
    assert abs(found["bands"]["height"]["mean"] - truth.mean()) < 2.0
    assert any("vertical" in message or "refer" in message for message in found["messages"])


def test_a_model_of_land_cover_answers_with_classes(client: TestClient, workshop: Workshop, scene: bytes) -> None:
    workshop.models = [OfferedModel("cover", "classes (land cover)", "nowhere")]
    found = post(client, scene, model="cover").json()
    names = {one["name"]: one["pixels"] for one in found["classes"]}
    assert found["kind"] == "classes" and sum(names.values()) == HEIGHT * WIDTH and min(names.values()) > 100
    raster = post(client, scene, "geotiff", model="cover")
    with rasterio.open(io.BytesIO(raster.content)) as source:
        assert set(np.unique(source.read(1))) == {1, 2} and source.colormap(1)[1][:3] == (0, 0, 255)
    assert "classes.tif" in raster.headers["content-disposition"]
    assert post(client, scene, "glb", model="cover").status_code == 422


def test_what_is_wrong_is_refused_with_its_status_and_one_line(client: TestClient, scene: bytes) -> None:
    answers = {name: (post(client, image), status) for name, (status, image) in hostile_images().items()}
    answers |= {
        f"points: {name}": (post(client, scene, points=table), status)
        for name, (status, table) in hostile_points().items()
    }
    answers |= {
        "another model": (post(client, scene, model="/etc/passwd"), 404),
        "no model and no DEM": (post(client, scene, model="none"), 422),
        "no such band": (post(client, scene, bands="7"), 422),
        "no number": (post(client, scene, uncertainty="many"), 422),
        "no such answer": (post(client, scene, "exe"), 422),
        "no image": (client.post("/predict", data={"model": "bright"}), 422),
        "no form": (client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"}), 400),
        "another host": (client.get("/health", headers={"host": "example.org"}), 400),
        "no such page": (client.get("/etc/passwd"), 404),
    }
    for name, (found, status) in answers.items():
        assert found.status_code == status, (name, found.status_code, found.text)
        assert "\n" not in found.text.strip() and not SERVER.search(found.text), (name, found.text)
    assert client.get("/health").json()["status"] == "ok"


def test_a_mistake_of_ours_says_nothing_of_the_server(client: TestClient, scene: bytes) -> None:
    found = post(client, scene, model="mistake")
    assert found.status_code == 500 and found.json() == {"error": "something went wrong here; the server's log has it"}
    assert post(client, scene).status_code == 200


def test_a_process_that_dies_costs_its_own_request_alone(client: TestClient, scene: bytes) -> None:
    for name, status, said in (("crash", 500, "SIGSEGV"), ("greedy", 413, "more than 1.5 GB of memory")):
        found = post(client, scene, model=name)
        assert found.status_code == status and said in found.json()["error"], found.text
        assert post(client, scene).status_code == 200


def test_an_upload_that_crashes_its_reader_is_answered(
    client: TestClient, scene: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("Systems.app.http_api.keep_raster", crash)
    found = post(client, scene)
    assert found.status_code == 500 and "SIGKILL" in found.json()["error"], found.text
    monkeypatch.undo()
    assert post(client, scene).status_code == 200


def crash(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_bytes_time_and_requests_at_once_are_bounded(workshop: Workshop, scene: bytes, signs: Path) -> None:
    workshop.limits = replace(workshop.limits, upload_bytes=len(scene) + 2_000, seconds=1.0, waiting=2)
    with TestClient(make_api(workshop), base_url="http://127.0.0.1") as client:
        assert post(client, scene + bytes(3_000)).status_code == 413

        def endless() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            for _ in range(100):
                yield bytes(1_000)

        form = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/predict", content=endless(), headers=form).status_code == 413
        (signs / "hold").touch()
        first: list = []
        threads = [threading.Thread(target=lambda: first.append(post(client, scene, model="held"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: (signs / "entered").exists() and len(list(workshop._root.iterdir())) == 2)
        third = post(client, scene)
        assert third.status_code == 503 and third.headers["retry-after"]
        assert client.get("/health").json()["running"] == 1
        for thread in threads:
            thread.join()  # though the model still waits: its process is ended
        (signs / "hold").unlink()
        assert [found.status_code for found in first] == [504, 504]
        workshop.limits = replace(workshop.limits, seconds=HANG)
        assert post(client, scene).status_code == 200
    assert not list(workshop._root.iterdir())


def test_models_are_found_and_named_without_their_folders(tmp_path: Path, workshop: Workshop) -> None:
    toy_model().save_pretrained(tmp_path / "output" / "Mine" / "diffusion" / "model")
    toy_model(coarse=False).save_pretrained(tmp_path / "output" / "half" / "model")
    (tmp_path / "output" / "notes").mkdir()
    found = find_models([str(tmp_path / "output"), str(tmp_path / "missing")])
    assert [model.name for model in found] == ["Mine/diffusion"]
    workshop.models = found
    with TestClient(make_api(workshop), base_url="http://127.0.0.1") as client:
        listed = client.get("/models").json()
        assert [model["name"] for model in listed] == ["Mine/diffusion", "none"] and not SERVER.search(str(listed))
        assert "/predict" in client.get("/openapi.json").json()["paths"]
        page = client.get("/docs").text
        assert "POST /predict" in page and "a coarse DEM in metres" in page and "src=" not in page
