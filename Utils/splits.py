"""The former name of ``python -m Utils.data.splits``, kept because earlier READMEs taught it."""

from __future__ import annotations

from Utils.data.splits import main

if __name__ == "__main__":
    raise SystemExit(main())
