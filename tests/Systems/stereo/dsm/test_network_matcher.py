from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from Modules.stereo.networks import StereoNetwork
from Systems.stereo.dsm.network_matcher import NetworkMatcher
from Systems.stereo.dsm.views import Crop
from tests.rational_cameras import camera
from tests.rational_views import TILTS, picture
from Utils.core.errors import UserError


def network(**settings: object) -> StereoNetwork:
    torch.manual_seed(0)
    chosen = {"network": "CasMVSNet", "hypotheses": (8, 8, 8), "base": 4, "norm": "group", "geometry": "rpc"} | settings
    return StereoNetwork(**chosen)  # type: ignore[arg-type]


def test_a_network_gives_heights_within_the_range_where_there_is_data(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path / "model")
    matcher = NetworkMatcher(tmp_path / "model", torch.device("cpu"))
    sizes = ((40, 52), (36, 60))  # no multiples of anything, and unlike
    crops = [
        Crop(picture(camera(tilt, size), size).astype(np.float32), camera(tilt, size))
        for tilt, size in zip(TILTS, sizes, strict=False)
    ]
    crops[0].pixels[:5] = np.nan
    heights, trust = matcher.match(crops, (0.0, 80.0), step=1.0)
    assert heights.shape == trust.shape == (40, 52)
    assert np.isnan(heights[:5]).all() and np.isfinite(heights[5:]).all()
    assert heights[5:].min() >= 0.0 and heights[5:].max() <= 80.0
    assert trust[5:].min() >= 0.0 and trust[5:].max() <= 1.0 + 1e-6
    brighter = [Crop(crop.pixels * 3 + 100, crop.model) for crop in crops]
    np.testing.assert_allclose(matcher.match(brighter, (0.0, 80.0), step=1.0)[0], heights, atol=0.05)


def test_weights_tell_two_models_apart(tmp_path: Path) -> None:
    first = network()
    first.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        next(first.parameters()).add_(0.01)
    first.save_pretrained(tmp_path / "second")
    described = [NetworkMatcher(tmp_path / name, torch.device("cpu")).describe() for name in ("first", "second")]
    assert described[0]["weights"] != described[1]["weights"]


def test_what_cannot_be_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="does not exist"):
        NetworkMatcher(tmp_path / "absent", torch.device("cpu"))
    network(relative_depth="guided").save_pretrained(tmp_path / "guided")
    with pytest.raises(UserError, match="needs relative depth maps"):
        NetworkMatcher(tmp_path / "guided", torch.device("cpu"))
    network(geometry="pinhole").save_pretrained(tmp_path / "pinhole")
    NetworkMatcher(tmp_path / "pinhole", torch.device("cpu"))
    assert "has learnt depths from pinhole cameras" in caplog.text


def test_an_interval_is_as_many_pixels_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(interval_parallax=0.08).save_pretrained(tmp_path / "model")
    matcher = NetworkMatcher(tmp_path / "model", torch.device("cpu"))
    asked: list[float] = []
    forward = StereoNetwork.forward

    def watched(self, images, geometry, values, interval, relative=None):  # type: ignore[no-untyped-def]
        asked.append(float(interval[0]))
        return forward(self, images, geometry, values, interval, relative)

    monkeypatch.setattr(StereoNetwork, "forward", watched)
    crops = [
        Crop(picture(camera(tilt, (32, 32)), (32, 32)).astype(np.float32), camera(tilt, (32, 32))) for tilt in TILTS
    ]
    matcher.match(crops, (0.0, 80.0), step=1.5)  # metres of half a pixel
    assert asked == [pytest.approx(0.08 * 3.0)]
