"""Make docs/configs.md, the reference of all config keys, from the config classes.

python -m Systems.config_reference [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from Systems.kinds import KINDS
from Utils.config.evaluation_keys import EvaluationConfig, ScoringConfig
from Utils.config.sections import OnResume, Section, section_in
from Utils.config.training_keys import DataConfig, TrainingConfig
from Utils.core.files import atomic_write_bytes
from Utils.core.tables import format_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configs.md"

_INTRODUCTION = """# Config keys

This page is made from the config classes by `python -m Systems.config_reference`.

A config is a JSON object. An empty string means "not given". An unknown key, a wrong type or a value out of range is an
error that names the nearest key. `--set key=value` overrides a key on the command line; dots enter nested objects. The
effective config is written beside every result.

`"base": "train.json"` takes over the keys of another file, whose path is relative to the file that names it; so a file
says only what differs. Nested objects are merged key by key, lists are replaced, and a base may have a base.

Keys marked with R may have another value when a run is resumed; all others must stay as they were. `epochs` and
`max_steps` must stay as well where `lr_schedule` is cosine, linear, linear_by_epoch or polynomial, since these span the
whole run.
"""
_HEADINGS = ("key", "values", "default", "", "meaning")


def reference() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    shared = (
        ("All scripts", DataConfig, Section),
        ("All training scripts", TrainingConfig, DataConfig),
        ("All evaluation scripts", ScoringConfig, DataConfig),
        ("Evaluations of single images", EvaluationConfig, ScoringConfig),
    )
    parts += [f"## {title}\n\n{_table(kind, base)}\n" for title, kind, base in shared]
    for kind in KINDS:
        base = next(each for each in (TrainingConfig, EvaluationConfig, ScoringConfig) if issubclass(kind.config, each))
        title = f"{kind.script} {kind.when}".strip()
        parts.append(f"## {title}\n\n{_table(kind.config, base)}\n")
        for prefix, section in _sections(kind.config):
            parts.append(f"### `{prefix}` of {title}\n\n{_table(section, Section, prefix + '.')}\n")
    return "\n".join(parts)


def _sections(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """The nested objects of a config."""
    for name, field in kind.model_fields.items():
        if (inner := section_in(field.annotation)) is not None:
            yield prefix + name, inner
            yield from _sections(inner, f"{prefix}{name}.")


def _table(kind: type[Section], base: type[Section], prefix: str = "") -> str:
    """The keys of a class that its base class does not have, or describes differently."""
    rows = []
    for name, field in kind.model_fields.items():
        inherited = base.model_fields.get(name)
        if inherited is not None and (inherited.description, inherited.default) == (field.description, field.default):
            continue
        marks = "R" if any(isinstance(mark, OnResume) for mark in field.metadata) else ""
        meaning = " ".join((field.description or "").split())
        rows.append([f"`{prefix}{name}`", _values(field.annotation), _default(field), marks, meaning])
    return format_table(_HEADINGS, rows) if rows else "No keys of its own."


def _values(annotation: Any) -> str:
    """The values that a key may hold, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(json.dumps(value) if isinstance(value, bool) else str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_values(item) for item in arguments if item is not type(None))
    if origin is list:
        return f"list of {_values(arguments[0])}"
    if hasattr(annotation, "__metadata__"):
        return _values(annotation.__origin__)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return "object"
    return {str: "text", int: "whole number", float: "number", bool: "true, false"}[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, Section):
        return "see below"
    return f"`{json.dumps(field.default)}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check that it is up to date; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Systems.config_reference", description="make docs/configs.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is stale")
    given = parser.parse_args(arguments)
    if given.check:
        stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != reference()
        if stale:
            print(f"{PAGE.name} is stale: run python -m Systems.config_reference", file=sys.stderr)
        return int(stale)
    atomic_write_bytes(PAGE, reference().encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
