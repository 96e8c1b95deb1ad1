"""Footprints that share ground are found wherever they lie, and sides follow the seed and the names alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from Systems.mars.preparing.footprints import Footprint, crossing, group_pairs, share_ground
from Systems.mars.preparing.options import PrepareOptions
from Systems.mars.preparing.sides import choose_sides, fold_of
from Utils.core.errors import UserError


def square(longitude: float, latitude: float, side: float = 0.1) -> Footprint:
    """A footprint of so many degrees a side; at the poles in longitudes as far apart as they must be."""
    wide = side / max(np.cos(np.radians(latitude)), 1e-3)
    xs = longitude + wide * np.array([-0.5, 0.5, 0.5, -0.5])
    return Footprint(tuple(xs), tuple(latitude + side * np.array([-0.5, -0.5, 0.5, 0.5])))


def test_shared_ground_is_found_at_the_date_line_and_at_the_pole() -> None:
    assert share_ground(square(10.0, 20.0), square(10.05, 20.05)) and not share_ground(
        square(10.0, 20.0), square(10.2, 20.0)
    )
    assert share_ground(square(179.98, -30.0), square(-179.98, -30.0)) and share_ground(
        square(359.98, 5.0), square(0.02, 5.0)
    )
    around = tuple(np.arange(0.0, 360.0, 45.0))
    cap = Footprint(around, (89.9,) * 8)
    assert share_ground(cap, square(123.0, 89.93, 0.02)) and not share_ground(cap, square(123.0, 89.7, 0.02))
    # Side by side, 6 km apart.
    near, far = square(10.0, 0.0), square(10.2, 0.0)
    assert not share_ground(near, far, 5000.0) and share_ground(near, far, 7000.0)


def test_groups_join_through_others_and_by_source_images() -> None:
    footprints = {"A": square(0, 0), "B": square(0.08, 0), "C": square(0.16, 0), "D": square(50, 0), "E": square(60, 0)}
    sources = {"A": ("1",), "B": ("2",), "C": ("3",), "D": ("4", "5"), "E": ("5", "6")}
    groups = group_pairs(footprints, sources)
    assert groups == {"A": "A", "B": "A", "C": "A", "D": "D", "E": "D"}
    assert crossing({"A": "train", "B": "test", "C": "train", "D": "val", "E": "val"}, groups) == ["A"]


def options(**given: object) -> PrepareOptions:
    return PrepareOptions(Path("out"), products=[Path("in")], **given)  # type: ignore[arg-type]


def test_sides_by_hash_keep_their_shares_and_ignore_who_else_is_there() -> None:
    names = [f"DTEEC_{number:06d}_1800" for number in range(2000)]
    many = choose_sides({name: name for name in names}, options())
    few = choose_sides({name: name for name in names[:700]}, options())
    assert few == {name: many[name] for name in few}
    counts = [list(many.values()).count(side) for side in ("train", "val", "test")]
    # Five standard deviations of a binomial draw.
    assert abs(counts[1] - 200) < 67 and abs(counts[2] - 200) < 67 and sum(counts) == 2000
    assert choose_sides({name: name for name in names}, options(seed=1)) != many
    assert {fold_of(name, 3, 42) for name in names} == {1, 2, 3}


def test_small_sets_have_every_side_that_was_asked_for() -> None:
    for seed in range(20):
        sides = choose_sides({name: name for name in "abcd"}, options(seed=seed))
        assert sorted(set(sides.values())) == ["test", "train", "val"]
    assert set(choose_sides({"a": "a"}, options()).values()) == {"train"}


def test_the_published_split_goes_by_name_and_says_what_it_tears_apart(caplog: pytest.LogCaptureFixture) -> None:
    groups = {f"pair{number:03d}": f"pair{number // 2:03d}" for number in range(477)}
    sides = choose_sides(groups, options(split="published"))
    assert [list(sides.values()).count(side) for side in ("train", "val", "test")] == [381, 48, 48]
    assert "of 239 groups of pairs that share ground" in caplog.text


def test_a_table_of_sides_is_followed_or_refused(tmp_path: Path) -> None:
    table = tmp_path / "sides.csv"
    table.write_text("pair,side\na,train\nb,test\n")
    assert choose_sides({"a": "a", "b": "b"}, options(split=str(table))) == {"a": "train", "b": "test"}
    with pytest.raises(UserError, match="names no side for 1 of 3 pairs, first c"):
        choose_sides(dict.fromkeys("abc", "g"), options(split=str(table)))
    table.write_text("pair,side\na,training\n")
    with pytest.raises(UserError, match="side 'training'; write train, val, test"):
        choose_sides({"a": "a"}, options(split=str(table)))
