"""Channels of a map beside those of the truth: flow runs downhill through filled places, and agreement is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.scenes import landscape
from Utils.scenes.accuracy.drainage import channel_agreement, flow_accumulation, reduced


def test_a_valley_collects_its_slopes() -> None:
    rows, columns = np.indices((20, 21)).astype(float)
    valley = np.abs(columns - 10.0) + 0.1 * (20.0 - rows)  # falls to the middle column, and down along it
    drained = flow_accumulation(valley)
    assert (np.diff(drained[:, 10]) > 0).all()
    assert drained[-1, 10] > 0.8 * drained.size
    assert drained[10, 3] <= 20


def test_water_leaves_a_filled_hollow() -> None:
    rows, columns = np.indices((30, 31)).astype(float)
    ground = np.abs(columns - 15.0) + 0.1 * (30.0 - rows)
    hollow = ground - 8.0 * np.exp(-((rows - 15.0) ** 2 + (columns - 15.0) ** 2) / 8.0)
    assert flow_accumulation(hollow)[-1, 15] == pytest.approx(flow_accumulation(ground)[-1, 15], rel=0.05)


def test_every_cell_leaves_once_and_unknown_cells_hold_nothing() -> None:
    ground = landscape(40, 50, 3)
    ground[10:14, 20:24] = np.nan
    drained = flow_accumulation(ground)
    assert (drained[10:14, 20:24] == 0).all()
    known = np.isfinite(ground)
    beside = known & ~np.isfinite(gaussian_filter(ground, 1e-9) + 0 * ground)
    rim = np.zeros_like(known)
    rim[[0, -1]] = rim[:, [0, -1]] = True
    rim[9:15, 19:25] = True
    assert drained[(rim & known) | beside].sum() == known.sum()


def test_agreement_falls_with_what_is_wrong() -> None:
    truth = gaussian_filter(landscape(80, 90, 5), 1.0) * 100.0
    assert channel_agreement(truth, truth + 7.0) == 1.0
    rng = np.random.default_rng(0)
    little, much = (channel_agreement(truth, truth + rng.normal(0.0, size, truth.shape)) for size in (0.1, 5.0))
    elsewhere = channel_agreement(truth, truth[::-1, ::-1].copy())
    assert 1.0 > little > much > 0.2
    assert elsewhere < 0.6
    assert math.isnan(channel_agreement(truth[:20, :20], truth[:20, :20]))


def test_large_maps_are_averaged() -> None:
    heights = np.arange(900.0)[:, None] + np.zeros((900, 850))
    heights[:, :2] = np.nan
    found = reduced(heights)
    assert found.shape == (300, 284)
    assert found[1, 100] == 4.0 and np.isnan(found[0, 0])
