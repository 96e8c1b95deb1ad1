"""evaluateScene.py --several: maps ranked over scenes, whatever the size of their errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import evaluateScene
from tests.Utils.scenes.accuracy_maps import terrain, write_dem
from Utils.core.errors import UserError
from Utils.scenes.accuracy.ranking import rank_results


def document(folder: Path, **rmse: float) -> Path:
    folder.mkdir()
    scores = {name.replace("_", " "): {"rmse": value, "nmad": 1.0} for name, value in rmse.items()}
    (folder / "metrics.json").write_text(json.dumps({"scores": scores, "order_statistics": {}}))
    return folder


def test_ranks_do_not_mind_mountains(tmp_path: Path) -> None:
    plains = [document(tmp_path / f"plain{n}", bicubic=1.0 + n, DEM_alone=0.9, prediction=0.8) for n in range(4)]
    # One mountain where the best map elsewhere is the worst by far: its mean error would be the largest.
    mountain = document(tmp_path / "mountain", bicubic=20.0, DEM_alone=18.0, prediction=40.0)
    found = rank_results([*plains, mountain])
    assert found.maps == ["bicubic", "DEM alone", "prediction"]
    assert found.mean_ranks["rmse"] == pytest.approx([2.8, 1.8, 1.4])
    assert 0.01 < found.chance["rmse"] < 0.1
    assert found.mean_ranks["nmad"] == [2.0, 2.0, 2.0] and np.isnan(found.chance["nmad"])
    assert "1.40 (4)" in found.text()


def test_it_reads_what_the_script_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_dem(tmp_path / "truth.tif", terrain())
    rng = np.random.default_rng(0)
    for number in range(2):
        good, bad = (write_dem(tmp_path / f"{size}.tif", terrain() + rng.normal(0, size, (40, 50))) for size in (1, 2))
        given = ["--prediction", good, "--baseline", bad, "--truth", truth, "--output", tmp_path / f"result{number}"]
        assert evaluateScene.main([str(each) for each in given]) == 0
    several = ["--several", tmp_path / "result0", tmp_path / "result1", "--output", tmp_path / "ranking"]
    assert evaluateScene.main([str(each) for each in several]) == 0
    found = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    place = found["maps"].index("prediction")
    assert found["mean_ranks"]["rmse"][place] == found["mean_ranks"]["slope"][place] == 1.0
    assert evaluateScene.main([str(each) for each in several[:2] + several[3:]]) == 2
    assert "at least two scenes" in capsys.readouterr().err


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    one = document(tmp_path / "one", prediction=1.0)
    with pytest.raises(UserError, match="fewer than two maps"):
        rank_results([one, document(tmp_path / "two", prediction=1.0, baseline=2.0)])
    with pytest.raises(UserError, match="no result of evaluateScene"):
        rank_results([one, tmp_path / "nothing"])
