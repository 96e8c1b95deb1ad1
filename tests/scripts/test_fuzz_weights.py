"""Checkpoints, model folders and weights of any content: loaded, or refused in one line of the project's own."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from Modules.d3rsmde.ldm_checkpoint import load_ldm_autoencoder
from Systems.d3rsmde.build import VAE_FOLDER, build_coarse, load_coarse, load_model, load_refiner
from Systems.d3rsmde.tasks.coarse_task import CoarseTask
from Systems.d3rsmde.tasks.refiner_task import RefinerTask
from tests.fuzzing import JSON, ODD_TEXT, damaged, fuzz, is_clean, nearly
from tests.Modules.d3rsmde.test_ldm_checkpoint import small_state_dict
from tests.Systems.d3rsmde.test_factory import evaluation, vit, write_checkpoint
from tests.toys import toy_coarse, toy_model
from Utils.core.errors import UserError
from Utils.scoring.perceptual import LpipsScore
from Utils.training.checkpoint import FORMAT, HEADER_KEY, load_checkpoint

T = TypeVar("T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def coarse_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = CoarseTask(toy_coarse(), ["L1Loss"])
    return write_checkpoint(tmp_path_factory.mktemp("coarse") / "c.safetensors", task)


@pytest.fixture(scope="module")
def refiner_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net checkpoint that lies in its run, beside its autoencoder."""
    run, model = tmp_path_factory.mktemp("refiner"), toy_model(coarse=False)
    model.vae.save_pretrained(run / VAE_FOLDER)
    return write_checkpoint(run / "unet" / "checkpoints" / "best.safetensors", RefinerTask(model, ["L1Loss"]))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model"
    toy_model().save_pretrained(path)
    return path


def check_message(error: Exception) -> None:
    """One line; a library's error may quote a file's bytes, which the scripts make printable."""
    assert str(error) and "\n" not in str(error)
    assert is_clean(error) or not isinstance(error, UserError)


def loaded(load: Callable[[], T], *kinds: type[Exception]) -> T | None:
    """What was loaded; None if that was refused by an error of the project's own kinds."""
    try:
        return load()
    except kinds as error:
        check_message(error)
        return None


def refused(load: Callable[[], Any], *kinds: type[Exception]) -> None:
    """What cannot be loaded is refused by an error of the project's own kinds."""
    with pytest.raises(kinds) as caught:
        load()
    check_message(caught.value)


def split_safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(path: Path, header: Any, body: bytes) -> None:
    text = json.dumps(header).encode("utf-8", "backslashreplace")
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "BOOL": "?"}
DTYPES |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}


def tensors_in(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """What a safetensors file says, read by hand: the tensors whose names begin with ``prefix``, without it."""
    header, body = split_safetensors(path)
    found = {}
    for name, entry in header.items():
        if name.startswith(prefix) and name != "__metadata__":
            start, stop = entry["data_offsets"]
            values = np.frombuffer(body[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            found[name.removeprefix(prefix)] = torch.from_numpy(values.copy())
    return found


def assert_holds(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """What was loaded is what the file says, to the last bit: nothing else, nothing less."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, check_dtype=False, msg=name)


def check_checkpoint(path: Path) -> None:
    """A checkpoint is refused, or read as it is written."""
    checkpoint = loaded(lambda: load_checkpoint(path), UserError)
    if checkpoint is not None:
        assert_holds(checkpoint.network, tensors_in(path, "network/"))
        assert_holds(checkpoint.average, tensors_in(path, "average/"))
        state = json.loads(split_safetensors(path)[0]["__metadata__"][HEADER_KEY])
        assert (checkpoint.task, checkpoint.architecture) == (str(state["task"]), dict(state["architecture"]))


def check_network(load: Callable[[], nn.Module], path: Path) -> None:
    """The network of a checkpoint is refused, or has the weights of the file."""
    network = loaded(load, UserError)
    if network is not None:
        assert_holds(network.state_dict(), tensors_in(path, "network/"))


def check_model(path: Path) -> None:
    """A model folder is refused, or each part has the weights of its file."""
    model = loaded(lambda: load_model(path), UserError)
    if model is not None:
        parts: dict[str, nn.Module | None] = {"coarse": model.coarse, "vae": model.vae, "unet": model.unet}
        for name, part in parts.items():
            if part is not None:
                assert_holds(part.state_dict(), tensors_in(path / name / "diffusion_pytorch_model.safetensors"))


def with_state(header: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A safetensors header with this project's JSON in it changed."""
    state = change(json.loads(header["__metadata__"][HEADER_KEY]))
    return header | {"__metadata__": {HEADER_KEY: json.dumps(state)}}


# Checkpoints


@fuzz(100)
@given(data=st.data())
def test_damaged_checkpoints(folder: Path, coarse_file: Path, data: st.DataObject) -> None:
    path = folder / "damaged.safetensors"
    path.write_bytes(
        data.draw(st.binary(max_size=100) | damaged(coarse_file.read_bytes(), data.draw(st.sampled_from([0, 8]))))
    )
    check_checkpoint(path)


@fuzz(100)
@given(data=st.data())
def test_checkpoints_with_another_header(folder: Path, coarse_file: Path, data: st.DataObject) -> None:
    header, body = split_safetensors(coarse_file)
    kept = {name: header[name] for name in [*list(header)[:4], "__metadata__"]}
    path = folder / "header.safetensors"
    join_safetensors(path, data.draw(nearly(data.draw(st.sampled_from([header, kept])))), body)
    check_checkpoint(path)


@fuzz(30)
@given(data=st.data())
def test_checkpoints_with_another_state(folder: Path, coarse_file: Path, data: st.DataObject) -> None:
    header, body = split_safetensors(coarse_file)
    path = folder / "state.safetensors"
    join_safetensors(path, with_state(header, lambda state: data.draw(nearly(state))), body)
    check_checkpoint(path)
    check_network(lambda: load_coarse(path), path)


@fuzz(25)
@given(data=st.data())
def test_coarse_checkpoints_of_another_architecture(folder: Path, coarse_file: Path, data: st.DataObject) -> None:
    header, body = split_safetensors(coarse_file)
    path = folder / "architecture.safetensors"
    change = lambda state: state | {"architecture": data.draw(nearly(state["architecture"]))}  # noqa: E731
    join_safetensors(path, with_state(header, change), body)
    check_network(lambda: load_coarse(path), path)
    check_network(lambda: build_coarse(vit(pretrained_model_path=str(path))), path)


@fuzz(20)
@given(data=st.data())
def test_refiner_checkpoints_of_another_architecture(refiner_file: Path, data: st.DataObject) -> None:
    header, body = split_safetensors(refiner_file)
    path = refiner_file.with_name("other.safetensors")
    change = lambda state: state | {"architecture": data.draw(nearly(state["architecture"]))}  # noqa: E731
    join_safetensors(path, with_state(header, change), body)
    model = loaded(lambda: load_refiner(evaluation(path)), UserError)
    if model is not None:
        assert_holds(model.unet.state_dict(), tensors_in(path, "network/"))
        vae = refiner_file.parents[2] / VAE_FOLDER / "diffusion_pytorch_model.safetensors"
        assert_holds(model.vae.state_dict(), tensors_in(vae))


@pytest.mark.parametrize(
    "state",
    [
        "[" * 100_000,
        '{"architecture": ' * 5000 + "1" + "}" * 5000,
        {"epoch": "x"},
        {"step": -1},
        {"groups": 5},
        {"best": float("nan")},
        {"epoch": True},
        {"strange": 1},
    ],
    ids=[
        "deep list",
        "deep object",
        "text for a number",
        "negative",
        "number for a list",
        "not a number",
        "truth",
        "unknown",
    ],
)
def test_states_found_by_fuzzing(folder: Path, state: str | dict[str, Any]) -> None:
    path = folder / "state.safetensors"
    if not isinstance(state, str):
        state = json.dumps({"format": FORMAT, "task": "coarse", "architecture": {}, "progress": state})
    save_file({"network/x": torch.zeros(1)}, path, {HEADER_KEY: state})
    with pytest.raises(UserError, match="is no checkpoint of this project, or is damaged") as caught:
        load_checkpoint(path)
    assert is_clean(caught.value)


# Model folders


PARTS = ("coarse/config.json", "vae/config.json", "unet/config.json", "scheduler/scheduler_config.json")


@pytest.mark.parametrize("name", ["model_index.json", *PARTS])
@fuzz(15)
@given(data=st.data())
def test_model_folders_with_other_json(folder: Path, model_folder: Path, name: str, data: st.DataObject) -> None:
    path = folder / "json" / name.replace("/", "-")
    if not path.exists():
        shutil.copytree(model_folder, path)
    whole = (model_folder / name).read_bytes()
    changed = nearly(json.loads(whole)).map(lambda value: json.dumps(value).encode())
    (path / name).write_bytes(data.draw(changed | damaged(whole)))
    check_model(path)


@fuzz(20)
@given(data=st.data())
def test_model_folders_with_damaged_weights(folder: Path, model_folder: Path, data: st.DataObject) -> None:
    path = folder / "weights"
    if not path.exists():
        shutil.copytree(model_folder, path)
    name = data.draw(st.sampled_from(["coarse", "vae", "unet"])) + "/diffusion_pytorch_model.safetensors"
    whole = (model_folder / name).read_bytes()
    (path / name).write_bytes(data.draw(damaged(whole, data.draw(st.sampled_from([0, 8])))))
    check_model(path)
    (path / name).write_bytes(whole)


# Pickles


def numbers(value: Tensor) -> bytes:
    """A tensor's numbers as bytes, whatever its shape."""
    return value.float().flatten().contiguous().numpy().tobytes()


def saved(content: Any, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


WEIGHTS = {zipped: saved(small_state_dict(), zipped) for zipped in (True, False)}
TINY = {
    zipped: saved({"state_dict": {"encoder.conv_in.weight": torch.ones(2, 3, 3, 3)}}, zipped)
    for zipped in (True, False)
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@fuzz(50)
@given(data=st.data())
def test_damaged_pickles(folder: Path, zipped: bool, data: st.DataObject) -> None:
    path = folder / f"{zipped}.pt"
    path.write_bytes(data.draw(damaged(data.draw(st.sampled_from([WEIGHTS[zipped], TINY[zipped]])))))
    vae = loaded(lambda: load_ldm_autoencoder(path, norm_num_groups=4), ValueError)
    if vae is not None:
        # The same numbers, under whatever names: those of layers are tested elsewhere.
        written = torch.load(path, weights_only=True).values()
        assert sorted(map(numbers, vae.state_dict().values())) == sorted(map(numbers, written))
    refused(lambda: LpipsScore(path), ValueError)
    refused(lambda: build_coarse(vit(pretrained_model_path=str(path))), UserError)


@pytest.mark.filterwarnings("ignore")
@fuzz(40)
@given(
    content=st.recursive(
        st.builds(
            lambda shape, stride: torch.ones(1).as_strided(shape, [stride] * len(shape)),
            st.lists(st.integers(0, 9), max_size=4),
            st.just(0),
        )
        | JSON,
        lambda inner: st.dictionaries(
            st.sampled_from([*list(small_state_dict())[:5], "state_dict", "ema", "model", "features.0.weight"])
            | ODD_TEXT
            | st.integers(),
            inner,
            max_size=5,
        ),
        max_leaves=8,
    )
)
@example(content={"encoder.conv_in.weight": torch.ones(1).as_strided((60_000, 60_000, 3, 3), (0, 0, 0, 0))})
@example(content=small_state_dict() | {"encoder.conv_in.weight": torch.eye(8).to_sparse()})
def test_pickles_of_other_content(folder: Path, content: Any) -> None:
    path = folder / "content.pt"
    torch.save(content, path)
    refused(lambda: load_ldm_autoencoder(path, norm_num_groups=4), ValueError)
    refused(lambda: LpipsScore(path), ValueError)
    refused(lambda: build_coarse(vit(pretrained_model_path=str(path))), UserError)
