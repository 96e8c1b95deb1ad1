"""Scores whose standard errors are taken over groups of tiles, such as the frames of one scene.

Frames of one scene resemble one another: taken as if they were independent, their errors would seem too certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from Utils.scoring.scores import Summary, paired_change, summarise

Scores = Mapping[str, float]


def summarise_groups(rows: Sequence[Scores], groups: Sequence[str]) -> Summary:
    """Average scores over the tiles of each group, then over groups.

    Args:
        rows: the scores of each tile.
        groups: name of each tile's group.

    Returns:
        As ``summarise``, ``count`` and ``standard_error`` being those of groups.

    Raises:
        ValueError: not one group for each tile.
    """
    return summarise(list(_means(rows, groups).values()))


def paired_group_change(before: Sequence[Scores], after: Sequence[Scores], groups: Sequence[str]) -> Summary:
    """Average the change of each score, after - before, over the groups of the same tiles in the same order.

    Raises:
        ValueError: not one group for each tile, before and after.
    """
    return paired_change(list(_means(before, groups).values()), list(_means(after, groups).values()))


def _means(rows: Sequence[Scores], groups: Sequence[str]) -> dict[str, dict[str, float]]:
    if len(rows) != len(groups):
        raise ValueError(f"{len(rows)} tiles and {len(groups)} names of groups; each tile needs one")
    members: dict[str, list[Scores]] = {}
    for row, group in zip(rows, groups, strict=True):
        members.setdefault(group, []).append(row)
    return {group: {key: score["mean"] for key, score in summarise(own).items()} for group, own in members.items()}
