"""The comparison of VAEs: what it counts, what it scores, what it writes and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from benchmarks.reconstruction import count_cost, main, reconstruct_tiles
from Modules.d3rsmde.autoencoders import Autoencoder, AutoencoderShape, build_autoencoder, decode, encode
from Modules.d3rsmde.pipeline import to_vae
from tests.conftest import TEST, TEST_IDS, height_path, image_path, synthetic_height, write_raster
from tests.toys import VAE_TYPES, toy_vae
from Utils.core.tables import read_csv
from Utils.data.published_layout import TEST_PART, list_tiles
from Utils.scoring.aligned import aligned_scores
from Utils.scoring.paper import paper_scores


def test_the_work_of_plain_convolutions_by_hand() -> None:
    """Two operations a weight and output pixel; an AutoencoderTiny is nothing but convolutions."""
    vae = build_autoencoder("AutoencoderTiny", AutoencoderShape((8,), 1, 2, 1))
    assert isinstance(vae, AutoencoderTiny)
    cost = count_cost(vae)
    pixels = 512 * 512
    block = 3 * 9 * 8 * 8
    assert cost.encode == 2 * pixels * (9 * 3 * 8 + block + 9 * 8 * 2)
    assert cost.decode == 2 * pixels * (9 * 2 * 8 + block + 9 * 8 * 3)
    assert cost.parameters == sum(parameter.numel() for parameter in vae.parameters())


@pytest.mark.parametrize("vae_type", VAE_TYPES)
def test_counting_leaves_the_vae_as_it_was(vae_type: str) -> None:
    vae = toy_vae(vae_type)  # type: ignore[arg-type]
    cost = count_cost(vae)
    assert cost.encode > 0 and cost.decode > 0
    assert {parameter.device.type for parameter in vae.parameters()} == {"cpu"}


def folders(tmp_path: Path) -> dict[str, Path]:
    found = {"large": tmp_path / "large", "light": tmp_path / "light"}
    toy_vae("AutoencoderKL").save_pretrained(found["large"])
    toy_vae("AutoencoderTiny").save_pretrained(found["light"])
    return found


def arguments(dataset: Path, vaes: dict[str, Path]) -> list[str]:
    return ["--dataset", str(dataset), *(part for name, path in vaes.items() for part in ("--vae", f"{name}={path}"))]


def test_the_tables_and_files(shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    more = ["--output", str(output), "--pictures", "2"]
    assert main([*arguments(shared_dataset, folders(tmp_path)), *more]) == 0
    table = capsys.readouterr().out.strip()
    assert (output / "table.md").read_text(encoding="utf-8").strip() == table
    for words in ("AutoencoderKL", "AutoencoderTiny", "light - large", "true maps reconstructed, 3 tiles"):
        assert words in table
    assert len(list((output / "pictures").glob("tile_*.png"))) == 2
    lines = read_csv(output / "tiles.csv", text_columns=("id",))
    expected = [(vae, tile) for vae in ("large", "light") for tile in TEST_IDS]
    assert [(line["vae"], line["id"]) for line in lines] == expected
    # The scores of one tile, computed without any of this module's code.
    height = synthetic_height(int(TEST_IDS[1]))
    vae: Autoencoder = toy_vae("AutoencoderTiny")
    with torch.no_grad():
        values = to_vae(torch.from_numpy(height / 255.0).float()[None, None])
        drawn = ((decode(vae, encode(vae, values)).mean(dim=1) + 1.0) / 2.0).clamp(0.0, 1.0)[0].numpy()
    line = next(line for line in lines if line["vae"] == "light" and line["id"] == TEST_IDS[1])
    # Rounding to grey levels may fall to the other side for a few of 1024 pixels.
    assert line["paper.psnr"] == pytest.approx(paper_scores(height, drawn)["psnr"], abs=0.01)
    assert line["aligned.gradient_error"] == pytest.approx(aligned_scores(height, drawn)["gradient_error"], rel=1e-4)
    # The table's cells are those of the JSON.
    document = json.loads((output / "reconstruction.json").read_text())
    psnr = [line["paper.psnr"] for line in lines if line["vae"] == "light"]
    summary = document["summary"]["light"]["paper.psnr"]
    assert summary["mean"] == pytest.approx(np.mean(psnr)) and summary["count"] == 3
    assert summary["standard_error"] == pytest.approx(np.std(psnr, ddof=1) / np.sqrt(3))
    assert f"{summary['mean']:.2f} ± {summary['standard_error']:.2f}" in table
    assert set(document["cost"]) == {"large", "light"}


def test_a_table_is_compared_like_its_folder(
    shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{image_path(Path(), tile, TEST)},{height_path(Path(), tile, TEST)}\n" for tile in TEST_IDS]
    (tmp_path / "test.csv").write_text("".join(lines))
    vaes = folders(tmp_path)
    assert main(arguments(shared_dataset, vaes)) == 0
    table = capsys.readouterr().out
    assert main([*arguments(tmp_path / "test.csv", vaes), "--root", str(shared_dataset)]) == 0
    assert capsys.readouterr().out == table


def test_tiles_without_a_valid_height_are_left_out(dataset: Path) -> None:
    path = height_path(dataset, TEST_IDS[0], TEST)
    write_raster(path, np.full((32, 32), 0, np.uint8), nodata=0)
    found = reconstruct_tiles({"a": toy_vae()}, list_tiles(dataset, TEST_PART), margin=4)
    assert found.ids == list(TEST_IDS[1:]) and len(found.rows["a"]) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--vae", "large"], "--vae 'large': write NAME=FOLDER"),
        (["--vae", "=x"], "write NAME=FOLDER"),
        (["--vae", "a={large}", "--vae", "a={light}"], "the name 'a' is given twice"),
        (["--vae", "a=/nowhere"], "'/nowhere' holds no config.json"),
        (["--vae", "a={large}", "--dataset", "/nowhere"], "dataset folder '/nowhere"),
        (["--vae", "a={large}", "--output", "{large}/config.json/x"], "cannot write"),
    ],
)
def test_mistakes(
    given: list[str], said: str, shared_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {name: str(path) for name, path in folders(tmp_path).items()}
    assert main(["--dataset", str(shared_dataset), *(part.format(**paths) for part in given)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error.splitlines()[-1] and "Traceback" not in error


def test_pictures_need_a_folder(shared_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([*arguments(shared_dataset, folders(tmp_path)), "--pictures", "1"])
