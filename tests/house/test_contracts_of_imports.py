"""Who may know whom: import-linter's contracts hold, and breaking any of them is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.paths import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
# For each contract: a file, and an import in it that breaks the contract.
BREAKS = {
    "Systems stand on Utils, and both on Modules": ("Utils/core/errors.py", "import Systems.kinds"),
    "A system knows no other system, nor the files that know all of them": (
        "Systems/d3rsmde/monitor.py",
        "import Systems.models",
    ),
    "Utils knows no network": ("Utils/scoring/paper.py", "import timm"),
    "Modules knows neither rasters nor configs nor processes": ("Modules/common/padding.py", "import rasterio"),
    "Floors inside Modules": ("Modules/losses/contexts.py", "import Modules.d3rsmde.names"),
    "Floors inside Utils": ("Utils/pictures/comparison.py", "import Utils.reports.items"),
    "No circles": ("Utils/core/files.py", "import Utils.core.tables"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copy_of_the_house(folder: Path) -> Path:
    for name in ("Modules", "Utils", "Systems"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_breaking_any_contract_is_noticed(tmp_path: Path) -> None:
    assert {contract["name"] for contract in CONTRACTS} == BREAKS.keys()
    house = copy_of_the_house(tmp_path)
    for file, line in BREAKS.values():
        path = house / file
        path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1
    verdicts = {name: f"{name} BROKEN" in done.stdout for name in BREAKS}
    assert all(verdicts.values()), verdicts


def test_a_new_system_has_to_be_named(tmp_path: Path) -> None:
    """A folder that no contract names could know anybody."""
    house = copy_of_the_house(tmp_path)
    (house / "Systems" / "newcomer").mkdir()
    (house / "Systems" / "newcomer" / "__init__.py").write_text("", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1 and "newcomer" in done.stdout
