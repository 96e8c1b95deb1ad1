"""The three.js that trimesh ships inside of its viewer, for pages with surfaces: WebGL and the reader of GLB files."""

from __future__ import annotations

import io
import zipfile
from functools import cache

__all__ = ["three_library"]

_ARCHIVE, _TEMPLATE = "templates/viewer.zip", "viewer.html.template"
# The library, its controls and its reader of GLB files stand in one script, before the viewer's own first line.
_BEGIN, _END = "<script>", "var camera,"
_EXPECTED = ("Three.js Authors", "THREE.GLTFLoader=GLTFLoader")


@cache
def three_library() -> str:
    """The text of the script, which defines ``THREE`` with its ``GLTFLoader``.

    Raises:
        RuntimeError: this release of trimesh holds another viewer than the ones that requirements.txt allows.
    """
    from trimesh import resources

    with zipfile.ZipFile(io.BytesIO(resources.get_bytes(_ARCHIVE))) as archive:
        page = archive.read(_TEMPLATE).decode("utf-8")
    script = page.partition(_BEGIN)[2].partition(_END)[0].strip()
    if not all(text in script for text in _EXPECTED) or "</script" in script:
        raise RuntimeError("trimesh ships another viewer than expected; install the one of requirements.txt")
    return script
