"""LPIPS with made-up AlexNet weights in the real file format: no network, no published numbers."""

import warnings
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from Utils.scoring.perceptual import HOW_TO_GET_LPIPS, WEIGHTS_NAME, LpipsScore, find_lpips_weights


@pytest.fixture(scope="module")
def alexnet() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return dict(torchvision.models.alexnet(weights=None).state_dict())


@pytest.fixture(scope="module")
def weights(alexnet: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alexnet") / "some_name.pth"
    torch.save(small(alexnet), path)
    return path


@pytest.fixture(scope="module")
def score(weights: Path) -> LpipsScore:
    return LpipsScore(weights)


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return np.rint(rng.uniform(0, 255, (48, 40))), np.rint(rng.uniform(0, 255, (48, 40)))


def small(alexnet: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same state without the 230 MB of its classifier, which LPIPS has no use for: one number, repeated."""
    return {
        name: tensor if name.startswith("features.") else torch.full((1,), 0.01).expand(tensor.shape)
        for name, tensor in alexnet.items()
    }


def test_identical_maps_are_at_distance_zero(score: LpipsScore, maps: tuple[np.ndarray, np.ndarray]) -> None:
    assert score(maps[0], maps[0].copy()) == 0
    assert score(*maps) > 0


def test_the_value_is_that_of_the_package(
    score: LpipsScore, alexnet: dict[str, torch.Tensor], maps: tuple[np.ndarray, np.ndarray]
) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = dict(reference.net.named_parameters())
    for name, parameter in own.items():
        parameter.data.copy_(alexnet["features." + name.split(".", 1)[1]])
    assert len(own) == 10
    images = [torch.from_numpy(values).float().repeat(1, 3, 1, 1) / 255 * 2 - 1 for values in maps]
    expected = reference(*images).item()
    assert score(*maps) == pytest.approx(expected, rel=1e-5)  # fp32, the scaling in another order


def test_no_random_number_enters_or_is_drawn(
    score: LpipsScore, weights: Path, maps: tuple[np.ndarray, np.ndarray]
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        state = torch.random.get_rng_state()
        again = LpipsScore(weights)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert again(*maps) == score(*maps)


def test_construction_is_silent(
    weights: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    LpipsScore(weights)
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_whole_files_give_the_same_value(
    suffix: str,
    score: LpipsScore,
    alexnet: dict[str, torch.Tensor],
    tmp_path: Path,
    maps: tuple[np.ndarray, np.ndarray],
) -> None:
    path = tmp_path / f"alexnet{suffix}"
    (torch.save if suffix == ".pth" else save_file)(alexnet, path)
    value = LpipsScore(path)(*maps)
    path.unlink()  # 244 MB that pytest would keep for its last three runs
    assert value == score(*maps)


def test_a_release_with_other_weights_is_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for contents in ({}, {"another": torch.zeros(1)}):
        torch.save(contents, tmp_path / "linear.pth")
        monkeypatch.setattr("Utils.scoring.perceptual._LINEAR_LAYERS", tmp_path / "linear.pth")
        with pytest.raises(RuntimeError, match="lpips has other weights"):
            LpipsScore(weights)


def test_any_array_type_and_layout_is_read(score: LpipsScore, maps: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = (values.astype(np.uint8) for values in maps)
    target.flags.writeable = False
    assert score(target, prediction) == score(*maps)
    flipped = score(target[::-1], prediction[::-1])
    assert flipped == score(target[::-1].copy(), prediction[::-1].copy())


def test_a_score_that_does_not_exist_is_nan(score: LpipsScore, maps: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = maps
    prediction[3, 4] = np.nan
    assert np.isnan(score(target, prediction))
    assert np.isnan(score(target, np.where(np.isnan(prediction), np.inf, prediction)))
    assert np.isnan(score(target[:30], target[:30]))
    assert score(target[:31, :31], target[:31, :31]) == 0


def test_maps_of_other_shapes_are_refused(score: LpipsScore, maps: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        score(maps[0], maps[1].T)
    with pytest.raises(ValueError, match="one shape"):
        score(maps[0][None], maps[1][None])


def test_a_wrong_file_is_refused(alexnet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    whole = small(alexnet)
    features = {name: tensor for name, tensor in whole.items() if name.startswith("features.")}
    wrong = {
        "renamed": {name.replace("features", "backbone"): tensor for name, tensor in whole.items()},
        "lacking": features,
        "wrapped": {"state_dict": whole, "epoch": 3},
        "a list": [1, 2, 3],
        "another shape": {**whole, "features.0.weight": torch.zeros(64, 1, 11, 11)},
        "broken": {**whole, "features.0.bias": torch.full((64,), torch.nan)},
        "code": torch.nn.Linear(2, 2),
    }
    for reason, contents in wrong.items():
        path = tmp_path / f"{reason}.pth"
        torch.save(contents, path)
        with pytest.raises(ValueError, match=f"{reason}.*not a torchvision AlexNet"):
            LpipsScore(path)
    for name in ("noise.pth", "empty.pth", "noise.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"" if name.startswith("empty") else b"no weights at all" * 9)
        with pytest.raises(ValueError, match=f"{name}.*not a torchvision AlexNet"):
            LpipsScore(path)


def test_weights_are_found_where_torchvision_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_lpips_weights() is None
    cached = tmp_path / "checkpoints" / WEIGHTS_NAME
    cached.parent.mkdir()
    cached.write_bytes(b"")
    assert find_lpips_weights(None) == cached
    own = tmp_path / "own.pth"
    own.write_bytes(b"")
    assert find_lpips_weights(own) == own


def test_a_given_file_must_exist(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pth"
    for load in (find_lpips_weights, LpipsScore):
        with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
            load(absent)


def test_the_advice_is_one_line_that_names_the_file() -> None:
    assert WEIGHTS_NAME in HOW_TO_GET_LPIPS and "lpips_weights" in HOW_TO_GET_LPIPS
    assert "\n" not in HOW_TO_GET_LPIPS
