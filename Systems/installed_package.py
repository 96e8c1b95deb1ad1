"""Becomes ``d3_rsmde/__init__.py`` of an installed copy: once it is imported, Modules, Utils and Systems are found.

import d3_rsmde
from Modules.d3rsmde.pipeline import D3RSMDE
"""

import sys
from importlib.util import find_spec
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

# Behind everything else: an import must not change what other names of the process mean.
if str(_FOLDER) not in sys.path:
    sys.path.append(str(_FOLDER))
for _name in ("Modules", "Utils", "Systems"):
    _found = find_spec(_name)
    if _found is None or _FOLDER not in Path(_found.origin or "").parents:
        raise ImportError(
            f"another package named '{_name}' comes first ({_found.origin if _found else 'damaged installation'}); "
            "start Python where that is not on the path, or use the command d3"
        )
