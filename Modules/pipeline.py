"""The former place of ``Modules.d3rsmde.pipeline``, kept because earlier READMEs showed this import."""

from __future__ import annotations

from Modules.d3rsmde.pipeline import D3RSMDE

__all__ = ["D3RSMDE"]
