"""Whatever the product imports is named in its requirements."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions

from tests.paths import ROOT

OURS = {"Modules", "Utils", "Systems", "benchmarks", *(path.stem for path in ROOT.glob("*.py"))}
# Imported only where another package has brought it along.
BROUGHT_ALONG = {"psutil": "accelerate", "starlette": "fastapi"}
# What a command asks for by name where an option needs it and it is missing (predictStereo.py --points, --geoid).
ON_REQUEST = {"laspy", "pyproj"}


# What only some commands need, and name when it is missing.
EXTRA = ("requirements-survey.txt", "requirements-app.txt", "requirements-export.txt")


def imported(*folders: str) -> set[str]:
    """The top-level packages that the files of some folders import."""
    paths = [path for path in ROOT.glob("*.py") if path.stem != "setup"] if not folders else []
    paths += [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - OURS - set(sys.stdlib_module_names)


def required(*files: str) -> set[str]:
    text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    return {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)", text, re.MULTILINE)}


def test_the_product_requires_what_it_imports() -> None:
    needed = imported() | imported("Modules", "Utils", "Systems")
    assert {"torch", "PIL", "rasterio"} <= needed
    distributions = packages_distributions()
    needed -= ON_REQUEST
    names = {name: {each.lower().replace("_", "-") for each in distributions[name]} for name in needed}
    missing = {name for name, known in names.items() if not known & required("requirements.txt", *EXTRA)}
    assert missing - BROUGHT_ALONG.keys() == set()
