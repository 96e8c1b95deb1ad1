"""Latents on disk: the same loss as without, rebuilt when what they depend on changes, safe however a build ends."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

import trainDiffusion
from Systems.d3rsmde.latents import kept_latents as latents
from Systems.d3rsmde.latents.kept_latents import LatentDataset, flip_variants, keep_latents
from Systems.d3rsmde.targets import RELATIVE_HEIGHT
from Systems.d3rsmde.tasks.refiner_task import LATENTS, RefinerTask
from tests.conftest import (
    TRAINING,
    TRAINING_IDS,
    full_disk,
    height_path,
    image_path,
    make_dataset,
    prior_path,
    shaded_image,
    small_diffusion,
    synthetic_height,
    write_config,
    write_prior,
    write_raster,
    write_tile,
)
from tests.launching import HANG
from tests.toys import generators, toy_model
from tests.Utils.training.test_training import assert_same_state, rows_without_times, train
from Utils.core.errors import UserError
from Utils.data.loaders import TrainingLoader
from Utils.data.published_layout import find_priors, list_tiles
from Utils.data.sample import mirror
from Utils.data.tile_dataset import TileDataset

BOTH = ("horizontal", "vertical")


def open_tiles(dataset: Path, *flips: str) -> TileDataset:
    files = list_tiles(dataset, TRAINING)
    priors = find_priors(dataset, TRAINING, list(files))
    return TileDataset(files, list(files), priors, flips=flips, seed=7, target=RELATIVE_HEIGHT)


def make_task(*losses: str, vae_type: Any = "AutoencoderKL") -> RefinerTask:
    return RefinerTask(toy_model(vae_type, coarse=False), losses or ("L1Loss",))


@contextmanager
def kept(task: RefinerTask, tiles: TileDataset, folder: Path, gigabytes: float = 1.0) -> Iterator[TileDataset]:
    with keep_latents(task, task._model, tiles, folder, gigabytes, num_workers=0) as given:
        yield given


def build(task: RefinerTask, tiles: TileDataset, folder: Path, gigabytes: float = 1.0) -> None:
    with kept(task, tiles, folder, gigabytes) as given:
        assert isinstance(given, LatentDataset)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def times_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def keys_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def spoil_some_pixels(dataset: Path) -> None:
    """A hole that no flip maps onto itself."""
    holed = synthetic_height(2).astype(np.float32)
    holed[3:9, 20:31] = np.nan
    write_raster(height_path(dataset, "2"), holed)


@pytest.mark.parametrize(
    ("vae_type", "flips", "losses"),
    [
        ("AutoencoderKL", (), ("L1Loss",)),
        ("AutoencoderKL", ("horizontal",), ("L1Loss",)),
        ("AutoencoderKL", ("vertical",), ("L1Loss", "SSIMAELoss")),
        ("AutoencoderKL", BOTH, ("HDNLoss",)),
        ("VA_VAE", BOTH, ("L1Loss",)),
        ("DC_AE", BOTH, ("L1Loss", "SSIMAELoss")),
        ("AutoencoderTiny", BOTH, ("L1Loss",)),
    ],
)
def test_a_step_gives_the_same_loss_as_one_without(
    vae_type: str, flips: tuple[str, ...], losses: tuple[str, ...], dataset: Path, tmp_path: Path
) -> None:
    spoil_some_pixels(dataset)
    task = make_task(*losses, vae_type=vae_type)
    tiles = open_tiles(dataset, *flips)
    met = set()
    with kept(task, tiles, tmp_path / "latents") as given:
        assert isinstance(given, LatentDataset) and len(given) == len(tiles)
        for epoch in range(1, 5):
            tiles.epoch = given.epoch = epoch
            met |= {tuple(tiles.mirrored(tile)) for tile in tiles.ids}
            plain, latent = (default_collate([data[i] for i in range(6)]) for data in (tiles, given))
            assert plain["id"] == latent["id"]
            assert set(latent) == {*LATENTS, "whole", "id"} | (set() if losses == ("L1Loss",) else {"height", "valid"})
            assert torch.equal(task.encode(plain)["whole"], latent["whole"])
            expected = task.loss(plain, generators(plain, epoch))
            loss = task.loss(latent, generators(latent, epoch))
            # A tile encoded in a batch of others differs from one encoded alone by float32's rounding.
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0.0)
    assert met == set(flip_variants(flips)), "some flip was never drawn"


def test_tiles_that_have_to_be_padded(dataset: Path, tmp_path: Path) -> None:
    for tile in TRAINING_IDS:
        height = synthetic_height(int(tile))[:29, :22]
        write_raster(height_path(dataset, tile), height)
        write_raster(image_path(dataset, tile), shaded_image(height))
        write_raster(prior_path(dataset, tile), height // 2)
    task, tiles = make_task("L1Loss", "SSIMAELoss"), open_tiles(dataset, *BOTH)
    with kept(task, tiles, tmp_path / "latents") as given:
        for epoch in (1, 2):
            tiles.epoch = given.epoch = epoch
            plain, latent = (default_collate([data[i] for i in range(6)]) for data in (tiles, given))
            assert latent["whole"].shape == (6, 1, 16, 12)
            # Wholly valid, but for the last row of cells, half of which is padding, and the one beyond.
            assert latent["whole"][:, :, :14, :11].all()
            assert not latent["whole"][:, :, 14:].any() and not latent["whole"][..., 11:].any()
            expected, loss = (task.loss(batch, generators(batch, epoch)) for batch in (plain, latent))
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0.0)  # as above


def test_every_variant_is_the_mirrored_tiles_own(dataset: Path, tmp_path: Path) -> None:
    spoil_some_pixels(dataset)
    task, tiles = make_task(), open_tiles(dataset, *BOTH)
    build(task, tiles, tmp_path / "latents")
    assert flip_variants(BOTH) == [(), ("horizontal",), ("vertical",), BOTH]
    whole = open_tiles(dataset)
    plain = default_collate([whole[1]])
    expected = [task.encode(mirror(plain, whole.kinds, variant)) for variant in flip_variants(BOTH)]
    masks = {item["whole"].numpy().tobytes() for item in expected}
    assert len(masks) == 4
    match = [
        tensors
        for tensors in map(load_file, (tmp_path / "latents").rglob("*.safetensors"))
        if torch.equal(tensors["whole"], torch.cat([item["whole"] for item in expected]))
    ]
    (stored,) = match
    for name in LATENTS:
        # All variants are encoded in one batch: another order of sums.
        torch.testing.assert_close(stored[name], torch.cat([item[name] for item in expected]), rtol=1e-5, atol=1e-5)


def test_latents_are_fp32_in_a_bf16_step_too(dataset: Path) -> None:
    """Or a step with kept latents would see others than one without."""
    task, batch = make_task(), default_collate([open_tiles(dataset)[0]])
    with torch.autocast("cpu", torch.bfloat16):
        found = task.encode(batch)
    assert all(torch.equal(values, found[name]) for name, values in task.encode(batch).items())


def test_no_raster_is_opened(dataset: Path, tmp_path: Path) -> None:
    tiles = open_tiles(dataset, "horizontal")
    with kept(make_task(), tiles, tmp_path / "a") as bare, kept(make_task("HDNLoss"), tiles, tmp_path / "a") as maps:
        for tile in TRAINING_IDS:
            image_path(dataset, tile).unlink()
            prior_path(dataset, tile).unlink()
        assert maps[0]["height"].shape == maps[0]["valid"].shape == (1, 32, 32)
        for tile in TRAINING_IDS:
            height_path(dataset, tile).unlink()
        assert bare[0]["truth_latent"].shape == (4, 16, 16)
        with pytest.raises(UserError, match="no such file"):
            tiles[0]


def test_maps_beside_latents_are_kept_in_memory(dataset: Path, tmp_path: Path) -> None:
    tiles = open_tiles(dataset)
    tiles.cache_bytes = 1e9
    with kept(make_task("HDNLoss"), tiles, tmp_path / "latents") as maps:
        first = maps[0]
        height_path(dataset, "1").unlink()
        assert torch.equal(maps[0]["height"], first["height"])


def test_nothing_is_encoded_twice(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, tiles = make_task(), open_tiles(dataset)
    build(task, tiles, tmp_path / "latents")
    monkeypatch.setattr(task, "encode", None)
    before = times_of(tmp_path / "latents")
    assert len(before) == 6
    build(task, tiles, tmp_path / "latents")
    assert times_of(tmp_path / "latents") == before


def test_tiles_of_equal_files_share_latents(dataset: Path, tmp_path: Path) -> None:
    for path in (image_path, height_path, prior_path):
        path(dataset, "2").write_bytes(path(dataset, "1").read_bytes())
    with kept(make_task(), open_tiles(dataset), tmp_path / "latents") as given:
        assert torch.equal(given[0]["image_latent"], given[1]["image_latent"])
    assert len(files_of(tmp_path / "latents")) == 5


def one_weight(task: RefinerTask) -> None:
    next(iter(task._vae.parameters())).data.view(-1)[0] += 1e-6


def scale(task: RefinerTask) -> None:
    task._vae.register_to_config(scaling_factor=0.5)


@pytest.mark.parametrize("change", [one_weight, scale])
def test_another_autoencoder_gets_latents_of_its_own(change: Any, dataset: Path, tmp_path: Path) -> None:
    task, tiles, folder = make_task(), open_tiles(dataset), tmp_path / "latents"
    build(task, tiles, folder)
    first = files_of(folder)
    change(task)
    build(task, tiles, folder)
    assert len(keys_of(folder)) == 2
    assert {name: content for name, content in files_of(folder).items() if name in first} == first
    build(make_task(), tiles, folder)
    assert len(files_of(folder)) == 12


def test_other_flips_and_other_padding_get_latents_of_their_own(dataset: Path, tmp_path: Path) -> None:
    task, folder = make_task(), tmp_path / "latents"
    build(task, open_tiles(dataset, "vertical"), folder)
    build(task, open_tiles(dataset, *BOTH), folder)
    build(task, open_tiles(dataset, *reversed(BOTH)), folder)
    assert len(keys_of(folder)) == 2
    task._model.unet.register_to_config(block_out_channels=(16, 32, 32))
    build(task, open_tiles(dataset, *BOTH), folder)
    assert len(keys_of(folder)) == 3


@pytest.mark.parametrize("what", ["image", "height", "prior", "side file"])
def test_a_changed_tile_is_encoded_again_and_no_other(what: str, dataset: Path, tmp_path: Path) -> None:
    task, folder = make_task(), tmp_path / "latents"
    build(task, open_tiles(dataset), folder)
    before = times_of(folder)
    if what == "image":
        image_path(dataset, "3").write_bytes(image_path(dataset, "1").read_bytes())
    elif what == "height":
        write_raster(height_path(dataset, "3"), synthetic_height(99))
    elif what == "prior":
        write_prior(dataset, "3", dtype="uint8")
    else:
        side = height_path(dataset, "3").with_suffix(".tif.aux.xml")
        side.write_text("<PAMDataset><PAMRasterBand band='1'><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>")
    tiles = open_tiles(dataset)
    with kept(task, tiles, folder) as given:
        assert isinstance(given, LatentDataset)
        plain = task.encode(default_collate([tiles[2]]))
        torch.testing.assert_close(given[2]["truth_latent"], plain["truth_latent"][0], rtol=1e-5, atol=1e-5)
        assert torch.equal(given[2]["whole"], plain["whole"][0])
    after = times_of(folder)
    assert len(after) == 7 and {name: after[name] for name in before} == before


def test_a_damaged_file_is_made_again(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, tiles, folder = make_task(), open_tiles(dataset), tmp_path / "latents"
    build(task, tiles, folder)
    sound, times = files_of(folder), times_of(folder)
    cut, turned, zeroed, foreign, empty, untouched = (folder / name for name in sound)
    cut.write_bytes(cut.read_bytes()[:-1])
    content = bytearray(turned.read_bytes())
    content[-3] ^= 1
    turned.write_bytes(content)
    zeroed.write_bytes(bytes(len(content)))
    save_file({"image_latent": torch.zeros(3)}, foreign)
    empty.write_bytes(b"")
    caplog.clear()
    build(task, tiles, folder)
    assert files_of(folder) == sound
    assert sum("is damaged; tile " in message and "is encoded again" in message for message in caplog.messages) == 5
    assert times_of(folder)[str(untouched.relative_to(folder))] == times[str(untouched.relative_to(folder))]


def test_a_file_that_vanishes_under_training_is_an_error_with_a_remedy(dataset: Path, tmp_path: Path) -> None:
    with kept(make_task(), open_tiles(dataset), tmp_path / "latents") as given:
        for path in (tmp_path / "latents").rglob("*.safetensors"):
            path.unlink()
        with pytest.raises(UserError, match=r"the latents '.*' are gone or damaged .*; continue with --resume, which"):
            given[0]


def build_slowly(dataset: Path, folder: Path, encoded: Any) -> None:
    task = make_task()
    encode = task.encode

    def slowly(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        time.sleep(0.3)
        encoded.value += 1
        return encode(batch)

    task.encode = slowly  # type: ignore[method-assign]
    build(task, open_tiles(dataset, *BOTH), folder)


@contextmanager
def another_builder(dataset: Path, folder: Path) -> Iterator[tuple[Any, Any]]:
    """A process that builds latents and has made two files, with the number of tiles that it encodes."""
    # Forked: another interpreter would take longer to import torch than all the rest takes.
    context = multiprocessing.get_context("fork")
    encoded = context.Value("i", 0)
    process = context.Process(target=build_slowly, args=(dataset, folder, encoded))
    process.start()
    try:
        deadline = time.monotonic() + HANG
        while len(times_of(folder)) < 2 and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process, encoded
    finally:
        process.kill()
        process.join()


def test_a_killed_build_is_continued_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    with another_builder(dataset, folder) as (process, _):
        process.kill()
        process.join()
    before = times_of(folder)
    assert 2 <= len(before) < 6, "it was to be killed in its middle"
    # As if the kill had met it while it wrote.
    leftover = folder / next(iter(before))
    leftover = leftover.with_name(f".{leftover.name}.0123456789ab.tmp")
    leftover.write_bytes(b"half")
    build(make_task(), open_tiles(dataset, *BOTH), folder)
    build(make_task(), open_tiles(dataset, *BOTH), whole)
    assert files_of(folder) == files_of(whole)
    assert {name: made for name, made in times_of(folder).items() if name in before} == before
    assert not leftover.exists()


def test_a_second_process_waits_and_finds_everything(dataset: Path, tmp_path: Path) -> None:
    folder, own = tmp_path / "latents", multiprocessing.Value("i", 0)
    with another_builder(dataset, folder) as (process, encoded):
        assert len(times_of(folder)) < 6, "the first was to be still building"
        build_slowly(dataset, folder, own)
        process.join(timeout=HANG)
        assert (process.exitcode, encoded.value, own.value) == (0, 6, 0)
    build(make_task(), open_tiles(dataset, *BOTH), tmp_path / "alone")
    assert files_of(folder) == files_of(tmp_path / "alone")


def sizes(folder: Path) -> int:
    return sum(len(content) for content in files_of(folder).values())


def test_the_bound_is_known_beforehand_and_exact(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = open_tiles(dataset, "vertical")
    build(make_task(), tiles, tmp_path / "free")
    needed = sizes(tmp_path / "free")
    build(make_task(), tiles, tmp_path / "just", needed / 2**30)
    assert sizes(tmp_path / "just") == needed
    task = make_task()
    monkeypatch.setattr(task, "encode", None)
    caplog.clear()
    with kept(task, tiles, tmp_path / "short", (needed - 1) / 2**30) as given:
        assert given is tiles
    (line,) = caplog.messages
    assert line.startswith(f"latents are encoded in every step: they would need {needed / 2**30:.4g} GiB in '")
    assert files_of(tmp_path / "short") == {}


def test_older_latents_give_way_unless_a_run_uses_them(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, tiles = tmp_path / "latents", open_tiles(dataset)
    old, new = make_task(), make_task()
    one_weight(new)
    build(old, tiles, folder)
    bound = 1.5 * sizes(folder) / 2**30
    (key,) = keys_of(folder)
    with kept(old, tiles, folder, bound):
        caplog.clear()
        with kept(new, tiles, folder, bound) as given:
            assert given is tiles
        assert "and other processes use " in caplog.text
        assert keys_of(folder) == {key}
    build(new, tiles, folder, bound)
    assert len(keys_of(folder)) == 1 and keys_of(folder) != {key}


def test_a_full_disk_is_a_line_and_no_more(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, tiles, folder = make_task(), open_tiles(dataset), tmp_path / "latents"
    with full_disk(5000), kept(task, tiles, folder) as given:
        assert given is tiles
        batch = default_collate([given[0]])
        assert torch.isfinite(task.loss(batch, generators(batch)))
    (line,) = caplog.messages
    assert line == f"latents are encoded in every step: '{folder}' cannot be written (File too large)"
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    # Full after two files: these go as well, the checkpoints need the room.
    real, count = latents.atomic_write_bytes, iter(range(100))

    def fills_up(path: Path, data: bytes) -> None:
        if next(count) == 2:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(latents, "atomic_write_bytes", fills_up)
    with kept(task, tiles, folder) as given:
        assert given is tiles
        assert list(folder.rglob("users/*.lock")) == [], "who does not use them does not keep them from being evicted"
    assert "cannot be written (No space left on device)" in caplog.text
    assert files_of(folder) == {}


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_is_a_line_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Outside of tmp_path, which root's runs of pytest close to others.
    with tempfile.TemporaryDirectory() as open_to_all:
        root = Path(open_to_all)
        root.chmod(0o755)
        tiles = open_tiles(make_dataset(root / "dataset"))
        (root / "file").write_text("", encoding="utf-8")
        (root / "closed").mkdir(mode=0o555)
        with ordinary_user():
            for name, reason in (("file", "File exists"), ("file/below", "Not a directory"), ("closed", "Permission")):
                caplog.clear()
                with kept(make_task(), tiles, root / name) as given:
                    assert given is tiles
                (line,) = caplog.messages
                expected = f"latents are encoded in every step: '{root / name}' cannot be written ({reason}"
                assert line.startswith(expected)


def test_an_unreadable_tile_stays_the_users_error(dataset: Path, tmp_path: Path) -> None:
    tiles = open_tiles(dataset)
    prior_path(dataset, "3").unlink()
    with pytest.raises(UserError, match=r"tile_3_pred_depth.png' cannot be read"), kept(make_task(), tiles, tmp_path):
        pass


def test_workers_serve_the_same_latents(dataset: Path, tmp_path: Path) -> None:
    with kept(make_task("HDNLoss"), open_tiles(dataset, *BOTH), tmp_path / "latents") as given:
        alone, parted = (TrainingLoader(given, 4, workers, seed=1) for workers in (0, 2))
        for epoch in (1, 2, 5):
            for parts in zip(alone.epoch(epoch), parted.epoch(epoch), strict=True):
                one, other = (part.batch for (part,) in parts)
                assert one.keys() == other.keys() and one["id"] == other["id"]
                assert all(torch.equal(one[name], other[name]) for name in one if name != "id")


def test_two_and_two_epochs_from_latents_equal_four(shared_dataset: Path, tmp_path: Path) -> None:
    """With a loss of latents and one of the maps that are kept beside them."""
    changes = {"epochs": 4, "flips": list(BOTH), "loss_types": ["L1Loss", "SSIMAELoss"], "dropout": 0.2}
    whole = small_diffusion(shared_dataset, tmp_path / "whole") | changes
    train(trainDiffusion, whole, tmp_path / "a")
    assert len(files_of(tmp_path / "whole" / "latents")) == 5, "one tile of six is held out"
    shared = {"epochs": 2, "output_dir": str(tmp_path / "halves"), "latent_path": str(tmp_path / "shared")}
    train(trainDiffusion, whole | shared, tmp_path / "b")
    assert not (tmp_path / "halves" / "latents").exists()
    # One of them is gone by then, and the others lie elsewhere.
    shutil.move(tmp_path / "shared", tmp_path / "moved")
    next((tmp_path / "moved").rglob("*.safetensors")).unlink()
    resume = ["--resume", str(tmp_path / "halves"), "--set", "epochs=4", "--set", f"latent_path={tmp_path / 'moved'}"]
    assert trainDiffusion.main([*resume, "--set", "num_workers=2"]) == 0
    assert_same_state(tmp_path / "whole" / "unet", tmp_path / "halves" / "unet")
    rows = [rows_without_times(tmp_path / name / "unet") for name in ("whole", "halves")]
    assert rows[0] == rows[1]


def test_the_switch_turns_it_off(shared_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "_fill", None)
    config = small_diffusion(shared_dataset, tmp_path / "run") | {"keep_latents": False}
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    assert not (tmp_path / "run" / "latents").exists()


def test_a_run_without_room_trains_all_the_same(
    shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_diffusion(shared_dataset, tmp_path / "run") | {"latent_gigabytes": 0.0}
    assert trainDiffusion.main(["--config", str(write_config(tmp_path / "c.json", config))]) == 0
    assert "latents are encoded in every step: they would need " in capsys.readouterr().err
    assert files_of(tmp_path / "run" / "latents") == {}


def test_a_run_lets_go_of_its_latents(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it ends well or not."""
    tiles = open_tiles(dataset)
    with pytest.raises(UserError, match="diverged"), kept(make_task(), tiles, tmp_path):
        assert len(list(tmp_path.rglob("users/*.lock"))) == 1
        raise UserError("diverged")
    assert list(tmp_path.rglob("users/*.lock")) == []
    with caplog.at_level(logging.INFO):
        write_tile(dataset, "40")
        write_prior(dataset, "40")
        build(make_task(), open_tiles(dataset), tmp_path)
    assert "waiting" not in caplog.text
