"""Folders of trainDepth.py, opened as predictors: what rises in their maps, and who is asked where nobody says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from Modules.depth import EncDec
from Systems.models import load_predictor
from Utils.core.errors import UserError

CPU = torch.device("cpu")
IMAGES = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))


def write(folder: Path, **config: object) -> EncDec:
    torch.manual_seed(0)
    network = EncDec(backbone="test_resnet", widths=[16, 8], **config).eval()  # type: ignore[arg-type]
    network.save_pretrained(folder)
    return network


def test_metres_below_a_summit_become_heights(tmp_path: Path) -> None:
    network = write(tmp_path / "mine" / "model", target="summit", max_depth=90.0)
    predictor = load_predictor(tmp_path / "mine", CPU)
    with torch.no_grad():
        # The other memory layout adds in another order.
        torch.testing.assert_close(predictor(IMAGES), -network(IMAGES)[:, 0], atol=1e-3, rtol=0.0)
    described = predictor.describe()
    assert (described["name"], described["target"], described["direction"]) == ("mine", "summit", "depth")
    assert described["predicts"] == "relative height" and len(described["weights"]) == 16


@pytest.mark.parametrize(("polarity", "sign"), [("depth", -1.0), ("height", 1.0)])
def test_other_targets_need_a_polarity(tmp_path: Path, polarity: str, sign: float) -> None:
    network = write(tmp_path / "model")
    with pytest.raises(UserError, match=r"target relative\): what rises in its maps, .*; say it with --polarity"):
        load_predictor(tmp_path / "model", CPU)
    predictor = load_predictor(tmp_path / "model", CPU, polarity=polarity)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(predictor(IMAGES), sign * network(IMAGES)[:, 0], atol=1e-5, rtol=0.0)


def test_what_a_network_cannot_do_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "model", target="summit", max_depth=90.0)
    with pytest.raises(UserError, match="--polarity height: '.*' gives depth"):
        load_predictor(tmp_path / "model", CPU, polarity="height")
    with pytest.raises(UserError, match="--steps 3: this model takes none"):
        load_predictor(tmp_path / "model", CPU, steps=3)
