"""``python -m Systems.export``: a trained model as an ONNX file."""

from __future__ import annotations

from Systems.export.command import main

if __name__ == "__main__":
    raise SystemExit(main())
