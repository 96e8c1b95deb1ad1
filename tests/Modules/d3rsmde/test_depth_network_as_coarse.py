"""A depth network as the coarse network of a whole model: its direction, its folder, its number format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from Modules.d3rsmde.pipeline import D3RSMDE
from Modules.depth import EncDec

IMAGES = torch.rand(2, 3, 36, 44, generator=torch.Generator().manual_seed(0))


def network(**settings: Any) -> EncDec:
    """The same random weights, whatever the settings."""
    torch.manual_seed(0)
    return EncDec("test_resnet", widths=(16, 8), **settings).eval()


def test_the_coarse_map_rises_with_the_ground_whatever_the_network_draws() -> None:
    up = D3RSMDE(coarse=network(direction="height")).predict_coarse(IMAGES)
    assert up.shape == (2, 1, 36, 44)
    torch.testing.assert_close(up.amin(dim=(1, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(up.amax(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(D3RSMDE(coarse=network(direction="inverse depth")).predict_coarse(IMAGES), up)
    for below in (network(direction="depth"), network(target="summit", max_depth=80.0)):
        torch.testing.assert_close(D3RSMDE(coarse=below).predict_coarse(IMAGES), 1 - up, atol=1e-4, rtol=0)


def test_a_network_of_unknown_direction_draws_no_height() -> None:
    with pytest.raises(ValueError, match="nobody has said what rises"):
        network().relative_height(IMAGES)
    with pytest.raises(ValueError, match="direction is height, not depth"):
        network(target="summit", max_depth=9.0, direction="depth")
    with pytest.raises(ValueError, match="unknown direction 'down'"):
        network(direction="down")


def test_the_folder_gives_back_the_same_maps(tmp_path: Path) -> None:
    model = D3RSMDE(coarse=network(direction="height"), tile_size=32)
    model.save_pretrained(tmp_path)
    loaded = D3RSMDE.from_pretrained(tmp_path)
    assert isinstance(loaded.coarse, EncDec) and loaded.coarse.config["direction"] == "height"
    torch.testing.assert_close(loaded.predict_coarse(IMAGES), model.predict_coarse(IMAGES), rtol=0, atol=0)
    text = (tmp_path / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(text.replace("Modules.depth.enc_dec", "evil_library"))
    with pytest.raises(ValueError, match="evil_library"):
        D3RSMDE.from_pretrained(tmp_path)


def test_in_bf16_the_map_stays_one_of_fp32() -> None:
    exact = D3RSMDE(coarse=network(direction="height")).predict_coarse(IMAGES)
    drawn = D3RSMDE(coarse=network(direction="height")).optimise("bf16").predict_coarse(IMAGES)
    assert drawn.dtype == torch.float32 and len(drawn.unique()) > 1000, "bf16 itself has 128 values between 0.5 and 1"
    assert (drawn - exact).abs().mean() < 0.05
