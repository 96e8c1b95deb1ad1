"""The HTTP API: what a scene comes back as, what is refused and how, and that nothing stays or leaks."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor

pytest.importorskip("fastapi", reason="fastapi is not installed (requirements-app.txt has it)")

from starlette.testclient import TestClient

from Systems.app.http_api import make_api
from Systems.app.limits import Limits
from Systems.app.offered_models import OfferedModel, find_models
from Systems.app.workshop import Workshop
from Systems.scene_model import SceneModel
from tests.scenes import brightness, landscape, write_raster
from tests.Systems.app.hostile_files import hostile_images, hostile_points
from tests.toys import toy_model
from Utils.core.predictor import Predictor
from Utils.data.land_cover.class_table import ClassTable
from Utils.scenes.classes.class_model import ClassModel

HEIGHT, WIDTH, TILE = 90, 120, 64
# What only the server knows: the folders of its disk.
SERVER = re.compile(r"/tmp|/root|/home|/usr|site-packages|Traceback")


class SlowModel:
    """Draws the brightness, once it may."""

    def __init__(self) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def __call__(self, images: Tensor) -> Tensor:
        self.entered.set()
        self.may_go_on.wait(30)
        return brightness(images)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SlowModel:
    drawn = SlowModel()
    predictor = Predictor(drawn, "relative height", "height", 1, TILE, {"name": "brightness"})
    opened = SceneModel(predictor, facts=predictor.describe())
    monkeypatch.setattr("Systems.app.workshop.open_scene_model", lambda *_: opened)
    return drawn


@pytest.fixture
def workshop(tmp_path: Path, model: SlowModel) -> Workshop:
    (tmp_path / "work").mkdir()
    return Workshop([OfferedModel("bright", "relative height", "nowhere")], Limits(), tmp_path / "work")


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


def test_a_model_of_land_cover_answers_with_classes(
    client: TestClient, workshop: Workshop, scene: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(images: Tensor, maps: Tensor | None) -> Tensor:
        bright = images.mean(dim=1, keepdim=True)
        return torch.cat([1.0 - bright, bright], dim=1)

    table = ClassTable(("water", "snow"), ((0, 0, 255), (250, 250, 250)), (1, 2))
    drawn = ClassModel(draw, table, False, TILE, None, {"name": "toy"})
    monkeypatch.setattr("Systems.models.load_class_model", lambda *_: drawn)
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


def test_a_mistake_of_ours_says_nothing_of_the_server(
    client: TestClient, scene: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("Systems.app.http_api.raster_statistics", lambda *_: 1 / 0)
    found = post(client, scene)
    assert found.status_code == 500 and found.json() == {"error": "something went wrong here; the server's log has it"}


def test_bytes_time_and_requests_at_once_are_bounded(workshop: Workshop, scene: bytes, model: SlowModel) -> None:
    workshop.limits = replace(workshop.limits, upload_bytes=len(scene) + 2_000, seconds=1.0, waiting=2)
    with TestClient(make_api(workshop), base_url="http://127.0.0.1") as client:
        assert post(client, scene + bytes(3_000)).status_code == 413

        def endless() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            for _ in range(100):
                yield bytes(1_000)

        form = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/predict", content=endless(), headers=form).status_code == 413
        model.may_go_on.clear()
        first: list = []
        threads = [threading.Thread(target=lambda: first.append(post(client, scene))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert model.entered.wait(30)
        while len(list(workshop._root.iterdir())) < 2:
            time.sleep(0.01)
        third = post(client, scene)
        assert third.status_code == 503 and third.headers["retry-after"]
        assert client.get("/health").json()["running"] == 1
        time.sleep(1.0)
        model.may_go_on.set()
        for thread in threads:
            thread.join()
        assert [found.status_code for found in first] == [504, 504]
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
