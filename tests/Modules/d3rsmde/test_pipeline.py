"""The trained model: folders, what may be in them, one call from image to height map."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from PIL import Image

from Modules.d3rsmde.autoencoders import decode, encode
from Modules.d3rsmde.names import VaeType
from Modules.d3rsmde.pipeline import D3RSMDE, from_vae, reconstruct_maps, to_vae
from Modules.d3rsmde.plbr import PLBRScheduler
from Modules.d3rsmde.refiner import walk
from tests.toys import VAE_TYPES, toy_coarse, toy_model, toy_unet, toy_vae


@pytest.fixture(scope="module")
def model() -> D3RSMDE:
    return toy_model()


@pytest.fixture(scope="module")
def folder(model: D3RSMDE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def rgb(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Folders


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_a_saved_model_draws_the_same(vae_type: VaeType, tmp_path: Path) -> None:
    model = toy_model(vae_type, steps=3)
    model.vae.register_to_config(scaling_factor=0.7)
    model.save_pretrained(tmp_path)
    loaded = D3RSMDE.from_pretrained(tmp_path)
    image = rgb(20, 28)
    assert np.array_equal(loaded(image), model(image))
    assert loaded.config["steps"] == 3 and loaded.vae_type == vae_type
    assert not np.array_equal(loaded(image, steps=6), model(image))
    assert not any(part.training for part in (loaded.coarse, loaded.vae, loaded.unet))
    assert not list(tmp_path.rglob("*.bin"))
    # saved again, it is the same model again
    loaded.save_pretrained(tmp_path / "again")
    assert np.array_equal(D3RSMDE.from_pretrained(tmp_path / "again")(image), model(image))


def test_loading_and_drawing_need_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert D3RSMDE.from_pretrained(folder)(rgb(16, 16)).shape == (16, 16)


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    D3RSMDE.from_pretrained(folder)
    assert capfd.readouterr() == ("", "")
    assert diffusers_logging.is_progress_bar_enabled()  # others' bars are left alone


def test_stage_1_alone(tmp_path: Path) -> None:
    model = D3RSMDE(coarse=toy_coarse())
    model.save_pretrained(tmp_path)
    loaded = D3RSMDE.from_pretrained(tmp_path)
    image = rgb(37, 53)
    assert not loaded.refines
    assert np.array_equal(loaded(image), model(image))
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255.0
    with torch.no_grad():
        assert np.array_equal(loaded(image), toy_coarse()(tensor)[0, 0].numpy())
    with pytest.raises(ValueError, match="no stage 2"):
        loaded(image, prior=np.zeros((37, 53), dtype=np.float32))
    with pytest.raises(ValueError, match="no stage 2"):
        loaded.refine(tensor, tensor[:, :1])


def test_stage_2_alone(tmp_path: Path, model: D3RSMDE) -> None:
    toy_model(coarse=False).save_pretrained(tmp_path)
    loaded = D3RSMDE.from_pretrained(tmp_path)
    image = rgb(20, 28)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255.0
    prior = model.predict_coarse(tensor)[0, 0].numpy()
    assert np.array_equal(loaded(image, prior=prior), model(image))
    with pytest.raises(ValueError, match="give a prior"):
        loaded(image)


def test_a_part_may_be_given(folder: Path, model: D3RSMDE) -> None:
    other = toy_coarse(seed=5)
    loaded = D3RSMDE.from_pretrained(folder, coarse=other, steps=2)
    assert loaded.coarse is other and loaded.config["steps"] == 2


def test_no_foreign_code_is_run(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "evil_library.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    (copied / "pipeline.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(str(copied))
    for entry in (["evil_library", "CoarseNet"], ["diffusers", "UNet2DModel"], ["Modules.pipeline", "D3RSMDE"], "x", 3):
        edit_index(copied, coarse=entry)
        with pytest.raises(ValueError, match="coarse") as raised:
            D3RSMDE.from_pretrained(copied)
        assert str(entry) in str(raised.value) or repr(entry) in str(raised.value)
    edit_index(copied, coarse=["Modules.d3rsmde.coarse", "CoarseNet"], extra=["evil_library", "Thing"])
    with pytest.raises(ValueError, match="'extra'"):
        D3RSMDE.from_pretrained(copied)
    assert "evil_library" not in sys.modules
    assert not (copied / "ran").exists()


def test_pickled_weights_are_refused(copied: Path) -> None:
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(toy_unet(toy_vae()).state_dict(), copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="unet"):
        D3RSMDE.from_pretrained(copied)


def _cut(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def _other_size(folder: Path) -> None:
    path = folder / "coarse" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"features": 24}))


DAMAGE: list[tuple[str, Callable[[Path], Any]]] = [
    ("JSON", lambda folder: (folder / "model_index.json").write_text("{")),
    ("does not describe", lambda folder: (folder / "model_index.json").write_text("[]")),
    ("does not describe", lambda folder: edit_index(folder, _class_name="StableDiffusionPipeline")),
    ("normalisation", lambda folder: edit_index(folder, normalisation="metres")),
    ("99 refinement steps", lambda folder: edit_index(folder, steps=99)),
    ("many refinement steps", lambda folder: edit_index(folder, steps="many")),
    ("unet", lambda folder: shutil.rmtree(folder / "unet")),
    ("unet", lambda folder: (folder / "unet" / "config.json").write_text("{")),
    ("scheduler", lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink()),
    ("vae", _cut),
    ("coarse", _other_size),
    ("missing", lambda folder: edit_index(folder, vae=[None, None])),
]


@pytest.mark.parametrize(("words", "damage"), DAMAGE, ids=[f"{i}-{words}" for i, (words, _) in enumerate(DAMAGE)])
def test_damaged_folders(words: str, damage: Callable[[Path], Any], copied: Path) -> None:
    damage(copied)
    with pytest.raises(ValueError, match=words):
        D3RSMDE.from_pretrained(copied)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model_index\.json"):
        D3RSMDE.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model folder"):
        D3RSMDE.from_pretrained("./stabilityai/nothing")
    with pytest.raises(OSError, match=r"'model_index\.json' of 'stabilityai/nothing' is not in the hub's cache"):
        D3RSMDE.from_pretrained("stabilityai/nothing")


def test_parts_that_do_not_fit() -> None:
    vae, schedule = toy_vae(), PLBRScheduler()
    with pytest.raises(ValueError, match="stage 1, stage 2 or both"):
        D3RSMDE()
    with pytest.raises(ValueError, match="one of them is missing"):
        D3RSMDE(None, None, toy_unet(vae), schedule)
    with pytest.raises(ValueError, match="4 timesteps does not fit a schedule of 6"):
        D3RSMDE(None, vae, toy_unet(vae, timesteps=4), schedule)
    unet = toy_unet(vae)
    vae.register_to_config(latent_channels=16)
    with pytest.raises(ValueError, match="8 input channels does not fit an autoencoder of 16"):
        D3RSMDE(None, vae, unet, schedule)


# From image to height map


@pytest.mark.parametrize("size", [(32, 32), (37, 53), (1, 1), (3, 70), (64, 16)])
def test_any_size(model: D3RSMDE, size: tuple[int, int]) -> None:
    height = model(rgb(*size))
    assert height.shape == size and height.dtype == np.float32
    assert np.isfinite(height).all() and height.min() >= 0.0 and height.max() <= 1.0


def test_kinds_of_image_agree(model: D3RSMDE) -> None:
    image = rgb(21, 30)
    expected = model(image)
    as_float = image.astype(np.float64) / 255.0
    # 65535 = 255 * 257
    for same in (as_float, image.astype(np.uint16) * 257, (image.astype(np.uint16) * 257).astype(">u2")):
        # float64 and 16-bit values round to float32 by the last digit; the stretch of the coarse map enlarges that
        np.testing.assert_allclose(model(same), expected, atol=1e-4)
    assert np.array_equal(model(Image.fromarray(image)), expected)
    assert np.array_equal(model(np.asfortranarray(image)), expected)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    drawn = model(tensor)
    assert isinstance(drawn, torch.Tensor) and drawn.shape == (21, 30)
    assert np.array_equal(drawn.numpy(), expected)
    before = image.copy()
    model(image)
    assert np.array_equal(image, before)


def test_batch_and_single_agree(model: D3RSMDE) -> None:
    images = np.stack([rgb(21, 30, seed) for seed in range(3)])
    images[1] //= 8  # a dark neighbour, and a constant one
    images[2] = 90
    batch = model(images)
    assert batch.shape == (3, 21, 30)
    for i in range(3):
        # Other batch sizes sum in another order (1e-6); the stretch divides by the span of a random network's coarse
        # map, and the walk passes it on. On a constant image the span is smallest.
        np.testing.assert_allclose(batch[i], model(images[i]), atol=1e-3 if i == 2 else 1e-4)
    assert model(torch.from_numpy(images).permute(0, 3, 1, 2)).shape == (3, 21, 30)
    assert model(images[:1]).shape == (1, 21, 30)


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_refinement_does_not_depend_on_neighbours(vae_type: VaeType) -> None:
    model = toy_model(vae_type, coarse=False)
    images, priors = torch.rand(3, 3, 21, 30), torch.rand(3, 1, 21, 30)
    priors[1] = 0.0
    batch = model.refine(images, priors, keep_steps=True)
    for i in range(3):
        single = model.refine(images[i : i + 1], priors[i : i + 1], keep_steps=True)
        # convolutions of another batch size sum in another order, through six steps
        torch.testing.assert_close(batch.height[i : i + 1], single.height, rtol=0, atol=1e-5)
        for ours, other in zip(batch.steps, single.steps, strict=True):
            torch.testing.assert_close(ours[i : i + 1], other, rtol=0, atol=1e-5)


def test_priors_take_the_place_of_stage_1(model: D3RSMDE) -> None:
    images = np.stack([rgb(16, 20, seed) for seed in range(2)])
    priors = np.random.default_rng(3).random((2, 16, 20), dtype=np.float32)
    drawn = model(images, prior=priors)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    expected = model.refine(tensors, torch.from_numpy(priors)[:, None]).height[:, 0]
    assert np.array_equal(drawn, expected.numpy())
    assert np.array_equal(model(images, prior=torch.from_numpy(priors)[:, None]), drawn)
    np.testing.assert_allclose(model(images[0], prior=priors[0]), drawn[0], atol=1e-5)  # another batch size
    for wrong, words in (
        (priors[0], "does not fit"),
        (priors[:, :8], "does not fit"),
        (priors.transpose(0, 2, 1), "does not fit"),
        ((priors * 255).astype(np.uint8), r"in \[0, 1\]"),
        (np.full_like(priors, np.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            model(images, prior=wrong)


@torch.no_grad()
def test_refinement_by_hand(model: D3RSMDE) -> None:
    images, priors = torch.rand(2, 3, 16, 20), torch.rand(2, 1, 16, 20)
    image, coarse = (encode(model.vae, to_vae(values)) for values in (images, priors))
    refined = walk(model.unet, PLBRScheduler(), image, coarse)[-1]
    # the encoder sees image and prior in one batch of four, and sums in another order
    expected = from_vae(decode(model.vae, refined))
    torch.testing.assert_close(model.refine(images, priors).height, expected, rtol=0, atol=1e-5)


def test_steps(model: D3RSMDE) -> None:
    images, priors = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    whole = model.refine(images, priors, keep_steps=True)
    assert len(whole.steps) == 6 and torch.equal(whole.steps[-1], whole.height)
    assert model.refine(images, priors).steps == []
    assert len(model.refine(images, priors, steps=2, keep_steps=True).steps) == 2
    assert torch.equal(model.refine(images, priors).height, whole.height)  # a shorter walk leaves nothing behind
    for steps in (0, 7):
        with pytest.raises(ValueError, match="give 1 to 6"):
            model.refine(images, priors, steps=steps)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((3, 8, 8), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        torch.zeros(8, 8, 3),
        np.full((8, 8, 3), 2.0, dtype=np.float32),
        np.full((8, 8, 3), -0.1, dtype=np.float32),
        np.full((8, 8, 3), np.nan, dtype=np.float32),
        np.full((8, 8, 3), 200, dtype=np.int64),
        np.full((8, 8, 3), "a"),
        np.full((8, 8, 3), None),
    ],
)
def test_what_is_no_image(model: D3RSMDE, image: Any) -> None:
    with pytest.raises(ValueError, match="image"):
        model(image)


def test_nothing_is_tracked_for_gradients(model: D3RSMDE) -> None:
    drawn = model(torch.rand(3, 16, 16))
    assert isinstance(drawn, torch.Tensor) and not drawn.requires_grad


def test_the_way_into_the_vae_and_out() -> None:
    maps = torch.rand(2, 1, 4, 4)
    entered = to_vae(maps)
    assert entered.shape == (2, 3, 4, 4)
    assert torch.equal(entered[:, 1], maps[:, 0] * 2 - 1)
    torch.testing.assert_close(from_vae(entered), maps)
    decoded = torch.tensor([-1.0, 0.0, 4.0]).view(1, 3, 1, 1)
    assert from_vae(decoded).item() == 1.0  # the mean over channels, kept in [0, 1]
    assert from_vae(-decoded * 0.5).item() == 0.25


@pytest.mark.parametrize("size", [(16, 16), (13, 7)])
def test_reconstructed_maps_keep_their_size(model: D3RSMDE, size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = reconstruct_maps(model.vae, torch.rand(2, 1, *size))
    assert maps.shape == (2, 1, *size)
    assert maps.min() >= 0.0 and maps.max() <= 1.0


def test_a_margin_is_seen_and_cut_away(tmp_path: Path) -> None:
    model = toy_model("AutoencoderKL", coarse=False)
    images, priors = torch.rand(1, 3, 21, 30), torch.rand(1, 1, 21, 30)
    around = (8, 8, 8, 8)
    by_hand = model.refine(
        torch.nn.functional.pad(images, around, mode="replicate"),
        torch.nn.functional.pad(priors, around, mode="replicate"),
    ).height[..., 8:-8, 8:-8]
    plain = model.refine(images, priors).height
    wide = D3RSMDE(None, model.vae, model.unet, model.scheduler, margin=8)
    wide.save_pretrained(tmp_path / "model")
    drawn = D3RSMDE.from_pretrained(tmp_path / "model").refine(images, priors).height
    assert torch.equal(drawn, by_hand)
    assert not torch.allclose(drawn, plain)
