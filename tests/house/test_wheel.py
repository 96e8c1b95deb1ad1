"""What ``pip install`` puts on a user's machine: one package, one command, and every script behind it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rasterio.transform import from_origin

import d3
from tests.conftest import write_raster
from tests.paths import ROOT


def setup_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_the_wheel", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_has_one_top_level_name_and_every_folder_with_code() -> None:
    mapped = setup_file().folders()
    assert {name.partition(".")[0] for name in mapped} == {"d3_rsmde"}
    for top in ("Modules", "Utils", "Systems"):
        for folder in {path.parent for path in (ROOT / top).rglob("*.py")}:
            inside = folder.relative_to(ROOT).as_posix()
            assert mapped.get(f"d3_rsmde.{inside.replace('/', '.')}") == inside, f"{inside} has no __init__.py"
    assert "templates/page.html" in setup_file().data_files()["d3_rsmde.Utils.reports"]


def test_d3_has_a_command_for_every_script() -> None:
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"d3", "setup"}
    assert scripts == {module for module in d3.COMMANDS.values() if "." not in module}


def test_d3_calls_the_main_of_a_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["d3"])
    monkeypatch.setenv("PYTHONPATH", "")
    assert d3.main(["evaluate-scene", "--prediction", "no.tif", "--truth", "no.tif", "--output", "no"]) == 2
    assert "no.tif" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        d3.main(["audit", "--help"])
    assert "--dataset" in capsys.readouterr().out
    assert d3.main(["fly"]) == 2
    assert "d3 has no command 'fly'" in capsys.readouterr().err
    assert d3.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"d3 {name} " in listed for name in d3.COMMANDS)


@pytest.mark.slow
def test_the_wheel_is_installed_and_called_outside_the_clone(tmp_path: Path) -> None:
    """In a new environment that sees the packages of this one, but not the clone."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        """What is no code: by its place, because folders inside of the packages have such names too."""
        results = {"output", "results", "tests"} if Path(folder) == ROOT else set()
        return {name for name in names if name.startswith(".") or name == "BASE_DATA_DIR" or name in results}

    clone = tmp_path / "clone"  # building leaves files behind
    shutil.copytree(ROOT, clone, ignore=ignored)

    def run(*command: object) -> str:
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    run(sys.executable, "-m", "pip", "wheel", clone, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("d3_rsmde-*.whl")
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"d3_rsmde"}
    venv.create(tmp_path / "new")
    (site,) = (tmp_path / "new").glob("lib/python*/site-packages")
    packages = Path(np.__file__).parents[1]
    (site / "packages_of_the_tests.pth").write_text(f"{packages}\n", encoding="utf-8")
    python = tmp_path / "new" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    where = run(python, "-c", "import d3_rsmde, Modules.d3rsmde.names as names; print(names.__file__)")
    assert site.as_posix() in where
    command = tmp_path / "new" / "bin" / "d3"
    configs = Path(run(command, "--help").rsplit("it: ", 1)[1].strip())
    assert (configs / "Demo" / "vit_train.json").is_file()
    profile = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 1.0, 1.0)}
    write_raster(tmp_path / "scene.tif", np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8), **profile)
    heights = np.linspace(100, 200, 64 * 64, dtype=np.float32).reshape(64, 64)
    write_raster(tmp_path / "dem.tif", heights, **profile)
    asked = ("--input", "scene.tif", "--reference", "dem.tif", "--detail", "none", "--output", "height.tif", "--report")
    run(command, "predict", *asked)
    assert (tmp_path / "height.tif").is_file() and (tmp_path / "height.html").is_file()
