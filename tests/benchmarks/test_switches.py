"""python -m benchmarks.switches on a depth network: seconds, and how far its maps move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.switches import SWITCHES, compare, main
from Modules.depth import EncDec
from tests.conftest import make_dataset


def network(**config: object) -> EncDec:
    torch.manual_seed(0)
    return EncDec(backbone="test_resnet", widths=[16, 8], **config).eval()  # type: ignore[arg-type]


def test_differences_of_a_depth_network_are_shares_of_what_it_can_draw() -> None:
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    plain, other = next(iter(SWITCHES)), "bf16"
    for config, largest in (({}, 1.0), ({"target": "metres", "max_depth": 40.0}, 40.0)):
        found = compare(lambda config=config: network(**config), images, [plain, other], repeats=1, trained=True)
        with torch.no_grad():
            true, drawn = network(**config)(images), network(**config).optimise("bf16", channels_last=False)(images)
        expected = 255.0 * (drawn - true).abs() / largest
        assert float(found[plain].differences["map"].max()) == 0.0
        torch.testing.assert_close(found[other].differences["map"], expected, atol=1e-3, rtol=0.0)
        assert float(expected.max()) > 0.0 and len(found[other].seconds) == 1


def test_the_command_takes_a_depth_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path / "tiles", priors=False)
    network().save_pretrained(tmp_path / "run" / "model")
    given = ["--model", str(tmp_path / "run"), "--dataset", str(tmp_path / "tiles"), "--tiles", "2", "--repeats", "1"]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "map: largest (mean) difference" in said and "(2, 3, 32, 32)" in said and "bf16, channels_last" in said


@pytest.mark.parametrize("size", ["0", "12x", "1x2x3"])
def test_a_size_that_is_none_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--published", "EncDecIRv2", "--size", size])
    assert "--size" in capsys.readouterr().err
