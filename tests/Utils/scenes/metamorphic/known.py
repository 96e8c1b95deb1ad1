"""What fails today, by role and name: each line goes as soon as the product does right."""

from __future__ import annotations

_FAILING: dict[tuple[str, str], tuple[str, ...]] = {}
_ITEMS = {(role, name): item for (role, item), names in _FAILING.items() for name in names}


def failing(role: str, name: str) -> str:
    """The open item of a disguise in a role, empty for none."""
    return _ITEMS.get((role, name), "")
