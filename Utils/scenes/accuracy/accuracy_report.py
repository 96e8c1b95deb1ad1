"""The page of a scored scene: tables, figure, and truth and prediction under a slider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Utils.reports.drawing import draw_relief, encode
from Utils.reports.items import Item, Picture, Section, Slider, Table, Text
from Utils.reports.page import write_page
from Utils.scenes.accuracy.accuracy_tables import NO_SLOPES, notes, tables
from Utils.scenes.accuracy.scene_scores import PREDICTION, SceneScores

_LONGEST = 1000


def write_accuracy_report(path: Path, scores: SceneScores, figure: Path) -> None:
    """Write the page.

    Args:
        path: the page to write, in an existing folder.
        scores: the scores of the scene.
        figure: the picture that ``save_accuracy_figure`` drew.

    Raises:
        OSError: the page cannot be written.
    """
    shown: list[Item] = [Text("", notes(scores)), *(Table("", *rows) for rows in tables(scores))]
    if not scores.classes:
        shown.append(Text("", [NO_SLOPES]))
    if scores.before is not None:
        shown.insert(0, Text("", ["After coregistration (Nuth and Kaab); below, as the files lie."]))
        shown += [Text("As the files lie", notes(scores.before))]
        shown += [Table("", *rows) for rows in tables(scores.before)]
    pictures: list[Item] = [_slider(scores), Picture("", figure.read_bytes())]
    write_page(path, "Accuracy of a scene", [Section("Scores", shown), Section("Maps", pictures)], scores.to_document())


def _slider(scores: SceneScores) -> Slider:
    truth, prediction = scores.views.maps["truth"], scores.views.maps[PREDICTION]
    known = np.isfinite(truth) & np.isfinite(prediction)
    low, high = np.percentile(truth[known], (0.5, 99.5)) if known.any() else (0.0, 1.0)

    def drawn(heights: NDArray[np.float64]) -> bytes:
        levels = np.clip((np.where(known, heights, low) - low) / max(high - low, 1e-9), 0.0, 1.0) * 255.0
        return encode(draw_relief(levels, known), _LONGEST)

    caption = "Both on the truth's colours, lit from the north-west. Move the line: drag, tap, or arrow keys."
    return Slider("Truth and prediction", drawn(truth), drawn(prediction), "truth", PREDICTION, caption)
