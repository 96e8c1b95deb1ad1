from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from Modules.stereo.networks import StereoNetwork
from Systems.stereo.dsm.network_matcher import NetworkMatcher
from Systems.stereo.dsm.relative_crops import RelativeCrops
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
    with pytest.raises(UserError, match="needs relative depth maps of the images; name a model that draws them"):
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


class _Brightness:
    """A monocular model for which bright is high."""

    predicts, side, multiple = "relative height", None, 1

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(1)

    def describe(self) -> dict[str, str]:
        return {"model": "brightness"}


@pytest.mark.parametrize("fusion", ["guided", "concatenated"])
def test_maps_of_a_monocular_model_reach_the_network(
    tmp_path: Path, fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(relative_depth=fusion).save_pretrained(tmp_path / "model")
    relative = RelativeCrops(_Brightness(), torch.device("cpu"))  # type: ignore[arg-type]
    matcher = NetworkMatcher(tmp_path / "model", torch.device("cpu"), relative)
    assert matcher.describe()["relative_depth"] == {"model": "brightness"}
    seen: list[torch.Tensor] = []
    forward = StereoNetwork.forward

    def watched(self, images, geometry, values, interval, relative=None):  # type: ignore[no-untyped-def]
        seen.append(relative)
        return forward(self, images, geometry, values, interval, relative)

    monkeypatch.setattr(StereoNetwork, "forward", watched)
    crops = [
        Crop(picture(camera(tilt, (32, 36)), (32, 36)).astype(np.float32), camera(tilt, (32, 36))) for tilt in TILTS
    ]
    crops[0].pixels[:4] = np.nan
    heights, _ = matcher.match(crops, (0.0, 80.0), step=1.5)
    assert np.isfinite(heights[4:]).all()
    own = seen[0][0, 0, 0]
    assert (
        (own[:4] == 0).all()
        and abs(float(own[4:].mean())) < 1e-4
        and float(own[4:].std()) == pytest.approx(1, abs=0.01)
    )
    # Near is dark: the map falls where the model's height, brightness, rises.
    assert np.corrcoef(own[4:].ravel(), crops[0].pixels[4:].ravel())[0, 1] < -0.9
    assert bool(seen[0][0, 1].any()) == (fusion == "concatenated")
