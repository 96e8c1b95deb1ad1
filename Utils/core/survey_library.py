"""The libraries of an extra requirements file, which only surveys need: their absence is one line."""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

from Utils.core.errors import UserError

__all__ = ["REQUIREMENTS", "survey_library"]

REQUIREMENTS = "requirements-survey.txt"


def survey_library(name: str, option: str) -> Any:
    """A module of xdem or geopandas.

    Args:
        name: the module, such as ``xdem.coreg``.
        option: what needs it, for the message.

    Raises:
        UserError: it is not installed; says the command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says on optional parts of its own
            found = importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise UserError(f"{option} needs {library} ({error}): pip install -r {REQUIREMENTS}") from error
    logging.getLogger("xdem").setLevel(logging.WARNING)
    return found
