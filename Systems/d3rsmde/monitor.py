"""The score by which every stage of D³-RSMDE chooses its weights; without torch."""

from __future__ import annotations

MONITORED_SCORE = "paper.mae"
