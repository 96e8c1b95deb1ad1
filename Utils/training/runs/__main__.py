"""``python -m Utils.training.runs``: list runs."""

from __future__ import annotations

from Utils.training.runs.listing import main

if __name__ == "__main__":
    raise SystemExit(main())
