"""What a wheel holds: every folder and script of ours under one package, ``d3_rsmde``; pyproject.toml says the rest.

Users' machines have packages of their own named Utils or Systems, and the folders keep their names here. The command
``d3`` (``d3.py``) adds the package's folder to the path of its own process. In other processes,
``import d3_rsmde`` does so, behind everything that is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "d3_rsmde"
FOLDERS = ("Modules", "Utils", "Systems")
ROOT = Path(__file__).resolve().parent
_FIRST_LINES = ROOT / "Systems" / "installed_package.py"


def folders() -> Mapping[str, str]:
    """Every package of the wheel, with the folder that it comes from."""
    found = find_packages(str(ROOT), include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
    inside = {f"{PACKAGE}.{name}": name.replace(".", "/") for name in found}
    return {PACKAGE: ".", f"{PACKAGE}.Config": "Config", **inside}


def data_files() -> Mapping[str, list[str]]:
    """Files that are no code, such as the templates of pages, by the package that they lie in or below."""
    found = {f"{PACKAGE}.Config": ["**/*.json"]}
    packages = folders()
    for top in FOLDERS:
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                folder = next(each for each in path.parents if each.relative_to(ROOT).as_posix() in packages.values())
                name = f"{PACKAGE}.{'.'.join(folder.relative_to(ROOT).parts)}"
                found.setdefault(name, []).append(path.relative_to(folder).as_posix())
    return found


class BuildOnePackage(build_py):
    """Also writes the package's ``__init__.py``, which the repository's root has not, and leaves this file out."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """The modules of a package."""
        found = super().find_package_modules(package, package_dir)
        return [each for each in found if each[:2] != (PACKAGE, Path(__file__).stem)]

    def run(self) -> None:
        """Build."""
        super().run()
        self.copy_file(str(_FIRST_LINES), str(Path(self.build_lib) / PACKAGE / "__init__.py"))


if __name__ == "__main__":
    setup(
        packages=list(folders()),
        package_dir=dict(folders()),
        package_data=dict(data_files()),
        cmdclass={"build_py": BuildOnePackage},
    )
