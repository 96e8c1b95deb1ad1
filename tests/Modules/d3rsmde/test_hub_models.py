"""Models go to the hub and come back, from a stand-in of it; and from its cache where there is no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from Modules.common.hub import push_folder
from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth.enc_dec import EncDec
from Systems import push
from Systems.models import load_predictor
from tests.hub_stand_in import hub_stand_in
from tests.toys import toy_coarse
from Utils.core.errors import UserError

CPU = torch.device("cpu")


def test_models_go_to_the_hub_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = D3RSMDE(coarse=toy_coarse(), tile_size=32)
    model.save_pretrained(tmp_path / "heights")
    (tmp_path / "heights" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (tmp_path / "heights" / "notes.txt").write_text("mine alone", encoding="utf-8")
    EncDec("test_resnet", widths=[16, 8], direction="depth").save_pretrained(tmp_path / "depth")
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    with hub_stand_in(tmp_path / "cache", monkeypatch) as repositories:
        assert push.main(["--model", str(tmp_path / "heights"), "--name", "someone/heights"]) == 0
        push_folder(tmp_path / "depth", "someone/depth", private=True)
        assert push.main(["--model", str(tmp_path / "depth"), "--name", "someone/depth"]) == 2  # it has no card
        assert "README.md" in repositories["someone/heights"] and "notes.txt" not in repositories["someone/heights"]
        loaded = D3RSMDE.from_pretrained("someone/heights")
        np.testing.assert_array_equal(loaded(image), model(image))
        assert load_predictor("someone/depth", CPU).direction == "depth"
        model.push_to_hub("someone/again", card="# A card\n")
        assert repositories["someone/again"]["README.md"] == b"# A card\n"
        with pytest.raises(OSError, match="no repository 'someone/nothing'"):
            D3RSMDE.from_pretrained("someone/nothing")
    # The stand-in is gone: the cache holds the models.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(D3RSMDE.from_pretrained("someone/heights")(image), model(image))
    assert load_predictor("someone/heights", CPU).predicts == "relative height"
    with pytest.raises(UserError, match="someone/nothing"):
        load_predictor("someone/nothing", CPU)
    with pytest.raises(OSError, match="cannot be sent to 'someone/heights'"):
        push_folder(tmp_path / "heights", "someone/heights")
