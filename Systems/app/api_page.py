"""The page at /docs: the API's own description (OpenAPI) as tables, which needs no script from the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from Utils.reports.items import Item, Section, Table, Text
from Utils.reports.page import render_page

__all__ = ["api_page"]


def api_page(schema: Mapping[str, Any]) -> str:
    """The page of a description as FastAPI writes it."""
    sections = [
        Section(f"{method.upper()} {path}", _items(schema, operation))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return render_page(f"{schema['info']['title']}: HTTP API", sections, {"description": "/openapi.json"})


def _items(schema: Mapping[str, Any], operation: Mapping[str, Any]) -> list[Item]:
    items: list[Item] = [Text("", [operation.get("description", operation["summary"])])]
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        form = _resolved(schema, body["schema"])
        rows = [
            [name, _type(field), "yes" if name in form.get("required", ()) else _default(field), _words(field)]
            for name, field in form["properties"].items()
        ]
        items.append(Table(f"fields ({kind})", ["field", "type", "required", "what it is"], rows))
    rows = [[status, answer["description"]] for status, answer in operation["responses"].items()]
    return [*items, Table("answers", ["status", "what it means"], rows)]


def _resolved(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of the description, looked up where it is only named."""
    if "$ref" not in part:
        return part
    found: Any = schema
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def _type(field: Mapping[str, Any]) -> str:
    one = next((choice for choice in field.get("anyOf", []) if choice.get("type") != "null"), field)
    if one.get("format") == "binary" or "contentMediaType" in one:
        return "file"
    return ", ".join(map(str, one["enum"])) if "enum" in one else str(one.get("type", ""))


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return f"no: {value}" if value not in (None, "") else "no"


def _words(field: Mapping[str, Any]) -> str:
    return str(field.get("description", ""))
