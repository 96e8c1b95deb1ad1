"""Scores of relief whose zero is unknown, the published ones, and shape from shading as their control."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.mars_sets import AZIMUTH, ELEVATION, relief, shaded
from Utils.scoring.relief import ReliefScorer, relief_scores
from Utils.scoring.shading_map import shading_map


def test_offsets_do_not_count_nor_tilts_where_the_plane_is_removed() -> None:
    truth = relief(0, 40)
    valid = np.ones(truth.shape, bool)
    valid[3:9, 4:20] = False
    rows, columns = np.indices(truth.shape)
    noise = np.random.default_rng(0).normal(0, 0.5, truth.shape)
    scores = {
        name: relief_scores(truth, guess, valid, 2.0)
        for name, guess in {
            "noise": truth + noise,
            "shifted": truth + noise + 300.0,
            "tilted": truth + noise + 0.2 * rows - 0.1 * columns,
        }.items()
    }
    assert scores["noise"]["mae"] == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.05)
    assert scores["shifted"] == pytest.approx(scores["noise"], rel=1e-3)
    assert scores["tilted"]["mae"] > 3 * scores["noise"]["mae"]
    assert scores["tilted"]["plane_removed_mae"] == pytest.approx(scores["noise"]["plane_removed_mae"], rel=0.01)
    # A constant tilt of the truth is a known angle: flat ground for a slope of 1 in 2.
    slope = relief_scores(2.0 * 0.5 * rows, np.zeros(rows.shape), valid, 2.0)["slope_error_degrees"]
    assert slope == pytest.approx(math.degrees(math.atan(0.5)))


def test_pixels_outside_the_mask_change_nothing_and_unknown_maps_have_no_score() -> None:
    truth = relief(1, 24)
    valid = np.ones(truth.shape, bool)
    valid[:, :5] = False
    guess = truth * 0.5
    spoilt, holes = np.where(valid, truth, np.nan), np.where(valid, guess, 1e30)
    assert relief_scores(spoilt, holes, valid, 2.0) == relief_scores(truth, guess, valid, 2.0)
    assert all(math.isnan(score) for score in relief_scores(truth, guess * np.nan, valid, 2.0).values())


def test_published_scores_are_pooled_and_summits_are_misses() -> None:
    depth = torch.tensor([[[[0.0, 10.0], [20.0, 40.0]]], [[[0.0, 4.0], [0.0, 0.0]]]])
    valid = torch.tensor([[[[True, True], [True, True]]], [[[True, True], [False, False]]]])
    batch = {"depth": depth, "valid": valid, "id": ["a", "b"]}
    scorer = ReliefScorer({"a": 1.0, "b": None})
    rows = scorer.score_batch(batch, -(depth * 1.2))
    found = scorer.summarise(rows)
    # Two of six pixels are summits; the four others are within 1.25.
    assert found["published.delta1"]["mean"] == pytest.approx(4 / 6)
    assert found["published.mae"]["mean"] == pytest.approx(0.2 * 74 / 6)
    assert found["published.rmse"]["mean"] == pytest.approx(0.2 * math.sqrt((100 + 400 + 1600 + 16) / 6))
    assert [scorer.pixels(row) for row in rows] == [4, 2] and scorer.pixels(None) == 0
    assert found["relief.mae"]["count"] == 2 and set(found) >= set(scorer.keys)
    worse = scorer.change(rows, scorer.score_batch(batch, -(depth * 1.4)))
    assert worse["published.mae"]["mean"] == pytest.approx(0.2 * 74 / 6) and worse["relief.mae"]["mean"] > 0


def test_shading_finds_what_faces_the_sun() -> None:
    truth = relief(2, 64)
    image = shaded(truth)
    everywhere = np.ones(truth.shape, bool)
    found = shading_map(image, everywhere, AZIMUTH, ELEVATION, 2.0)
    with_sun, flat = (relief_scores(truth, guess, everywhere, 2.0) for guess in (found, np.zeros_like(truth)))
    opposite = relief_scores(truth, shading_map(image, everywhere, AZIMUTH + 180, ELEVATION, 2.0), everywhere, 2.0)
    assert with_sun["mae"] < 0.85 * flat["mae"] < flat["mae"] < opposite["mae"]
    # Along the sun the slopes are those of the ground, wherever the sun is.
    for azimuth in (0.0, 90.0, 215.0):
        rows, columns = np.indices((48, 48), dtype=np.float64)
        along = -rows * math.cos(math.radians(azimuth)) + columns * math.sin(math.radians(azimuth))
        wave = np.sin(along / 4)
        light = 1 - np.cos(along / 4) / 4 / math.tan(math.radians(40))
        drawn = shading_map(light, np.ones((48, 48), bool), azimuth, 40.0, 1.0)[12:-12, 12:-12]
        assert np.corrcoef(drawn.ravel(), wave[12:-12, 12:-12].ravel())[0, 1] > 0.9
    valid = everywhere.copy()
    valid[:, 30:] = False
    spoilt = np.where(valid, image, np.nan)
    assert np.array_equal(shading_map(spoilt, valid, AZIMUTH, ELEVATION, 2.0)[:, 30:], np.zeros((64, 34)))
    assert not shading_map(image, ~everywhere, AZIMUTH, ELEVATION, 2.0).any()
