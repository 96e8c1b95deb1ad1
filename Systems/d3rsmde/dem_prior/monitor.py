"""The score by which a refiner of DEMs chooses its weights; without torch."""

from __future__ import annotations

MONITORED_SCORE = "detail.rmse"
