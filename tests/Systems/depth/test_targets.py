"""What depth networks learn, made of maps in any unit."""

from __future__ import annotations

import pytest
import torch

from Systems.depth.targets import depth_target
from Utils.data.sample import Sample


def sample(*values: float) -> Sample:
    target = torch.tensor(values, dtype=torch.float32).view(1, 1, -1)
    return {"target": target, "valid": torch.ones_like(target, dtype=torch.bool)}


def made(found: Sample) -> tuple[list[float], list[bool]]:
    return found["depth"].flatten().tolist(), found["valid"].flatten().tolist()


def test_relative_depth_is_stretched_over_what_is_known() -> None:
    depth, valid = made(depth_target("relative", hole=0.0).add(sample(0, 10, 20, 30)))
    assert depth == [0, 0, 0.5, 1] and valid == [False, True, True, True]
    assert made(depth_target("relative").add(sample(5, 5)))[0] == [0, 0]


def test_metres_up_to_the_largest() -> None:
    depth, valid = made(depth_target("metres", 10.0, 0.001, hole=0.0).add(sample(0, 1500, 10000, 10001)))
    assert depth == pytest.approx([0, 1.5, 10, 0]) and valid == [False, True, True, False]


def test_metres_below_the_summit() -> None:
    depth, valid = made(depth_target("summit", 100.0, 1.0, hole=-9999.0).add(sample(850, 900, 700, -9999)))
    assert depth == [50, 0, 0, 0] and valid == [True, True, False, False]
    nothing, known = made(depth_target("summit", hole=3.0).add(sample(3, 3)))
    assert nothing == [0, 0] and known == [False, False]
