"""The parts of configs: JSON objects without unknown keys, number types, and marks for what may change on resuming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

_LARGEST = 2**31 - 1
Positive = Annotated[int, Field(gt=0, le=_LARGEST)]
NotNegative = Annotated[int, Field(ge=0, le=_LARGEST)]
PositiveNumber = Annotated[float, Field(gt=0.0)]
NotNegativeNumber = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Paths = str | list[str]


@dataclass(frozen=True)
class OnResume:
    """Marks a key that may have another value when a run is resumed: it changes no epoch that was trained before.

    Attributes:
        own_of_launch: whether several launches that work on one run at the same time may have different values.
    """

    own_of_launch: bool = False


MAY_CHANGE = OnResume()
OWN_OF_LAUNCH = OnResume(own_of_launch=True)


class Section(BaseModel):
    """A JSON object: unknown keys are errors, types are strict, values cannot be changed after loading.

    The string below a key is its meaning; docs/configs.md is made from it.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_strings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # An unknown key stays even when it is empty, because it is an error either way.
        given = {key: value for key, value in data.items() if value != "" or key not in cls.model_fields}
        return {key: _without_empty(value) if isinstance(value, list) else value for key, value in given.items()}

    @classmethod
    def keys_that_may_change(cls, own_of_launch: bool = False) -> frozenset[str]:
        """The keys that may change on resume; with ``own_of_launch`` only those that each launch may choose alone."""
        marks = {
            name: [mark for mark in field.metadata if isinstance(mark, OnResume)]
            for name, field in cls.model_fields.items()
        }
        return frozenset(
            name for name, found in marks.items() if any(mark.own_of_launch or not own_of_launch for mark in found)
        )


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a key holds, also where it may be left out (a union with None); None for other keys."""
    for inner in (annotation, *get_args(annotation)):
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None


def _without_empty(items: list[Any]) -> list[Any]:
    return [item for item in items if item != ""]
