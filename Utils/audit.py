"""The former name of ``python -m Systems.audit``, which is above this folder: says so."""

from __future__ import annotations

from Utils.core.command_line import say_new_name

if __name__ == "__main__":
    raise SystemExit(say_new_name("Systems.audit"))
