"""The protocol of detail."""

from __future__ import annotations

import pytest
import torch

from Utils.scoring.detail import DetailScorer


def test_shares_of_the_errors_of_the_dem_alone() -> None:
    torch.manual_seed(0)
    truth, surface = torch.randn(3, 1, 20, 20), torch.zeros(3, 1, 20, 20)
    valid = torch.ones(3, 1, 20, 20, dtype=torch.bool)
    valid[1, :, :10] = False
    valid[2] = False
    scorer = DetailScorer()
    batch = {"surface": surface, "truth": truth, "valid": valid}
    assert scorer.score_batch(batch, torch.zeros_like(truth))[:2] == [{"detail.rmse": 1.0, "detail.slope": 1.0}] * 2
    half = scorer.score_batch(batch, 0.5 * truth)
    assert half[0] is not None and half[0]["detail.rmse"] == pytest.approx(0.5)
    assert half[2] is None
    right = scorer.summarise(scorer.score_batch(batch, truth))
    assert right["detail.rmse"] == {"mean": 0.0, "standard_error": 0.0, "count": 2}


def test_what_is_not_valid_does_not_count() -> None:
    truth = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    valid[..., 4:8, 4:8] = False
    spoilt = truth.masked_fill(~valid, 1e6)
    rows = [
        DetailScorer().score_batch({"surface": 0 * truth, "truth": one, "valid": valid}, 0.2 * truth)
        for one in (truth, spoilt)
    ]
    assert rows[0] == rows[1]
