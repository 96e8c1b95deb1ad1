"""Networks that draw depth from one image, relative or in metres, and nothing that reads files but weights.

``Modules.depth.EncDecIRv2`` is the published network. It is imported when it is asked for: names alone need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Modules.depth.enc_dec import EncDec, EncDecIRv2

__all__ = ["EncDec", "EncDecIRv2"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from Modules.depth import enc_dec

        return getattr(enc_dec, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
