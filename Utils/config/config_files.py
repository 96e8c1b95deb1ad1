"""JSON configs, read and checked: a file may take over another one's keys through ``base``.

An empty string means "not given".  Anything unknown, of a wrong type or out of range is an error that names the
file, the key, the value and the nearest valid key, before any model is built.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from Modules.common.plain_json import check_json, parse_json, read_text
from Utils.config.sections import Section, section_in
from Utils.core.errors import UserError

ConfigT = TypeVar("ConfigT", bound=Section)
BASE_KEY = "base"
_SHOWN_CHARACTERS = 80


def load_config(path: Path, kind: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Read a JSON config, with the keys of its bases, and apply ``key=value`` overrides.

    Args:
        path: the JSON file.
        kind: the config's class.
        overrides: ``key=value``; dots enter nested objects; the value is JSON, or else taken as text.

    Raises:
        UserError: a missing or broken file, bases in a circle, an unknown key, a wrong type or value.
    """
    data, files = read_merged(path)
    for override in overrides:
        _apply(data, override)
    try:
        check_json(data)
    except ValueError as error:
        raise UserError(f"config '{path}' with --set: {error}; correct that value") from error
    return parse_config(data, kind, "' with base '".join(map(str, files)))


def read_merged(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """Merge the keys of a JSON file over those of the file that its ``base`` names, and so on.

    A ``base`` is relative to the file that names it.  Objects are merged key by key; any other value, lists included,
    replaces the base's.

    Returns:
        The keys without ``base``, and the files: first the given one, then its bases.

    Raises:
        UserError: a missing or broken file, a base that is no path, bases in a circle.
    """
    data, files = _read_object(path), [path]
    while (base := data.pop(BASE_KEY, "")) != "":
        if not isinstance(base, str):
            raise UserError(f"config '{files[-1]}': {BASE_KEY} = {json.dumps(base)}; give the path of one JSON file")
        files.append(files[-1].parent / base)
        if files[-1].resolve() in [file.resolve() for file in files[:-1]]:
            circle = " -> ".join(f"'{file}'" for file in files)
            raise UserError(f"config '{path}': its bases go round in a circle ({circle}); remove one {BASE_KEY}")
        below = _read_object(files[-1], f"{BASE_KEY} of '{files[-2]}'")
        data = _merged(below, data)
    return data, files


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``; the latter's ``base`` is the next one to follow."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _read_object(path: Path, what: str = "config") -> dict[str, Any]:
    name = f"config '{path}'" if what == "config" else f"{what}, '{path}',"
    try:
        data = parse_json(read_text(path))
    except OSError as error:
        reason = f"{name} cannot be read: {error.strerror or error}"
        raise UserError(f"{reason}; give the path of a JSON file") from error
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON: {error}; correct it there") from error
    if not isinstance(data, dict):
        raise UserError(f"{name} must hold a JSON object, not a {type(data).__name__}")
    return data


def parse_config(data: Mapping[str, Any], kind: type[ConfigT], source: str) -> ConfigT:
    """Check a config that is already in memory; ``source`` names it in errors."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UserError(f"config '{source}': {_explain(error, kind, data)}") from error


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set '{override}': write key=value, for example --set epochs=4")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    *parents, last = key.split(".")
    target = data
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise UserError(f"--set '{override}': '{parent}' is not an object in the config")
    target[last] = value


def _explain(error: ValidationError, kind: type[Section], data: Mapping[str, Any]) -> str:
    """The first error, in one line."""
    errors = error.errors()
    # Each member of a union reports an error: the one that got furthest into the value was meant.
    key = _location(errors[0]["loc"], data)
    about_key = [item for item in errors if _location(item["loc"], data)[: len(key)] == key]
    first = max(about_key, key=lambda item: len(_location(item["loc"], data)))
    location = _location(first["loc"], data)
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{name}'; {_nearest(kind, location)}"
    if first["type"] == "missing":
        absent = [*_location(first["loc"][:-1], data), str(first["loc"][-1])]
        return f"key '{'.'.join(absent)}' is missing or empty; add it"
    same = [item for item in about_key if _location(item["loc"], data) == location]
    # An error about a broken rule explains more than one about a wrong type.
    same = [item for item in same if not item["type"].endswith(("_type", "literal_error"))] or same
    expected = " or ".join(dict.fromkeys(_expectation(item["type"], item["msg"]) for item in same))
    if same[0]["msg"].startswith("Input "):
        expected = f"it should be {expected}"
    shown = json.dumps(first["input"], default=str, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
    return f"key '{name}' = {shown}: {expected}" if name else expected


def _expectation(kind: str, message: str) -> str:
    if kind == "model_type":
        return "a JSON object"
    return message.removeprefix("Value error, ").removeprefix("Input should be ").replace("False", "false")


def _location(place: Sequence[int | str], data: Any) -> list[str]:
    """The keys and indices in an error's location, without the names of union members that pydantic puts among them."""
    keys = []
    for part in place:
        is_key = isinstance(data, Mapping) and part in data
        if is_key or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            keys.append(str(part))
            data = data[part]
    return keys


def _nearest(kind: type[Section], location: Sequence[str]) -> str:
    """A hint at the key that the writer of an unknown key may have meant."""
    *parents, key = location
    known = _keys_at(kind, parents)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    inside = [f"{name}.{key}" for name in known if key in _keys_at(kind, [*parents, name])]
    for meant in (*inside, *near):
        return f"did you mean '{'.'.join([*parents, meant])}'?"
    return f"known keys: {', '.join(sorted(known))}"


def _keys_at(kind: type[Section], location: Sequence[str]) -> list[str]:
    """The keys that the object at ``location`` may have; none where there is no section."""
    for part in location:
        field = kind.model_fields.get(part)
        inner = section_in(field.annotation) if field else None
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)
