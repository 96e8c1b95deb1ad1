"""Every command and snippet of the READMEs runs, on small data where its own would take hours."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trainViT
from Systems import audit
from tests.conftest import TEST, TEST_IDS, image_path
from tests.paths import ROOT
from Utils.data import splits

SCRIPTS = ("trainViT", "evaluateViT", "trainDiffusion", "evaluateDiffusion")


def blocks(name: str, language: str) -> list[str]:
    page = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(name: str) -> list[list[str]]:
    """The shell commands of a page's unmarked blocks, continued lines joined, comments dropped."""
    lines = "\n".join(blocks(name, "")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(("python ", "make "))]
    return found


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [command[1] for command in commands("README.md") if command[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "Systems.d3rsmde.demo" in makefile  # run at small size in test_demo.py


LAUNCHED = re.findall(r"^(?:accelerate launch|torchrun) .*", "\n".join(blocks("README.md", "")), re.MULTILINE)


@pytest.mark.parametrize("command", LAUNCHED, ids=lambda command: command.split()[0])
def test_launches_of_the_readme(command: str, shared_dataset: Path, vit_run: Path, tmp_path: Path) -> None:
    """The script and config that a launcher is given; that launchers work is shown in test_processes.py."""
    _, script, arguments = re.split(r" ((?:train|evaluate)\w+)\.py ", command)
    small = [f"dataset_path={shared_dataset}", f"output_dir={tmp_path / 'out'}"]
    small += [f"checkpoint_path={vit_run}"] if script.startswith("evaluate") else []
    changes = [part for change in small for part in ("--set", change)]
    given = shlex.split(arguments, comments=True)
    assert importlib.import_module(script).main([*given, *changes, "--dry-run"]) == 0


PYTHON_COMMANDS = [command for command in commands("README.md") if command[0] == "python"]


@pytest.mark.parametrize("command", PYTHON_COMMANDS, ids=lambda command: " ".join(command[1:4]))
def test_commands_of_the_readme(
    command: list[str],
    shared_dataset: Path,
    vit_run: Path,
    diffusion_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    if command[1:3] == ["-m", "Systems.audit"]:
        small_data = ["--dataset", str(shared_dataset), "--output", str(tmp_path / "audit")]
        assert audit.main([*command[3:], *small_data]) == 0
        return
    if "--resume" in command:
        assert trainViT.main(["--resume", str(vit_run)]) == 0
        return
    script = command[1].removesuffix(".py")
    assert script in SCRIPTS
    small = {"dataset_path": shared_dataset, "prior_path": shared_dataset, "output_dir": tmp_path / "out"}
    if script.startswith("evaluate"):
        small["checkpoint_path"] = vit_run if script == "evaluateViT" else diffusion_run
    if script == "evaluateDiffusion":
        # The small run has a schedule and an autoencoder of its own.
        small |= {"diffusion_cfg": '{"diff_iter": false}', "vae_type": "AutoencoderKL"}
    if script == "trainDiffusion":
        small |= {"coarse_checkpoint_path": vit_run, "vae_crop_size": 0}
    changes = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    assert importlib.import_module(script).main([*command[2:], *changes, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()


def test_the_snippet_of_the_readme(shared_dataset: Path, diffusion_run: Path, tmp_path: Path) -> None:
    (snippet,) = blocks("README.md", "python")
    with_stage_1 = tmp_path / "model"
    from Modules.d3rsmde.pipeline import D3RSMDE
    from tests.toys import toy_model

    toy_model().save_pretrained(with_stage_1)
    snippet = snippet.replace("output/Demo/diffusion/model", str(with_stage_1))
    snippet = snippet.replace("tile.png", str(image_path(shared_dataset, TEST_IDS[0], TEST)))
    names: dict[str, object] = {}
    exec(snippet, names)
    assert isinstance(names["model"], D3RSMDE)
    height = names["height"]
    assert isinstance(height, np.ndarray) and height.dtype == np.float32
    image = np.asarray(Image.open(image_path(shared_dataset, TEST_IDS[0], TEST)))
    assert height.shape == image.shape[:2] and 0.0 <= height.min() <= height.max() <= 1.0


def test_the_command_of_the_dataset_page(shared_dataset: Path, tmp_path: Path) -> None:
    (command,) = [c for c in commands("Dataset/README.md") if c[0] == "python"]
    assert command[1:3] == ["-m", "Utils.data.splits"]
    where = ["--dataset", str(shared_dataset), "--output", str(tmp_path)]
    assert splits.main([*command[3:], *where]) == 0
    assert len(list(tmp_path.rglob("*stage1-*.txt"))) == 5


def test_configs_named_in_the_readme_exist() -> None:
    for name in re.findall(r"Config/\w+/\w+\.json", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name
