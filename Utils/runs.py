"""The former name of ``python -m Utils.training.runs``, kept because earlier READMEs taught it."""

from __future__ import annotations

from Utils.training.runs.listing import main

if __name__ == "__main__":
    raise SystemExit(main())
