"""The shared formulas against hand-worked numbers and exact sums."""
import pytest
import torch

from nanorlhf.functional import (
    aggregate,
    entropy,
    kl_estimate,
    last_token,
    masked_mean,
    shift_right,
    token_logprobs,
    whiten,
)

MASK = torch.tensor([[False, True, True, False], [False, True, False, False]])
X = torch.tensor([[9.0, 1.0, 3.0, 9.0], [9.0, 5.0, 9.0, float("nan")]])


def test_token_logprobs_and_entropy_against_a_loop():
    g = torch.Generator().manual_seed(0)
    logits, ids = torch.randn(2, 4, 5, generator=g), torch.randint(5, (2, 4), generator=g)
    logp, ent = token_logprobs(logits, ids, 0.7), entropy(logits, 0.7)
    for b in range(2):
        assert logp[b, 0] == 0 and ent[b, 0] == 0
        for t in range(1, 4):
            p = torch.softmax(logits[b, t - 1] / 0.7, -1)
            assert logp[b, t] == pytest.approx(p[ids[b, t]].log().item(), abs=1e-5)
            assert ent[b, t] == pytest.approx(-(p * p.log()).sum().item(), abs=1e-5)


def test_kl_estimators_against_the_exact_kl():
    p, q = (
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64),
    )
    exact = (p * (p / q).log()).sum()
    mean = {k: (p * kl_estimate(p.log(), q.log(), k)).sum() for k in ("k1", "k2", "k3")}
    assert (
        torch.allclose(mean["k1"], exact)
        and torch.allclose(mean["k3"], exact)
        and abs(mean["k2"] - exact) > 0.05
    )
    assert (kl_estimate(p.log(), q.log(), "k3") >= 0).all()
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl_estimate(p, q, "k4")


def test_masks():
    assert masked_mean(X, MASK) == 3.0
    assert masked_mean(X, MASK, dim=1).tolist() == [2.0, 5.0]
    assert last_token(X, MASK).tolist() == [3.0, 5.0]
    assert shift_right(torch.tensor([[1, 2, 3]])).tolist() == [[0, 1, 2]]


def test_whiten_sees_masked_tokens_only():
    white = whiten(X, MASK)
    assert white[MASK].mean().abs() < 1e-6 and white[MASK].var(unbiased=False) == pytest.approx(
        1, abs=1e-5
    )
    assert (white[~MASK] == 0).all()
    assert whiten(X, MASK, shift_mean=False)[MASK].mean() == pytest.approx(3, abs=1e-5)


def test_three_aggregations():
    # a third answer without tokens
    mask = torch.cat([MASK, torch.zeros(1, 4, dtype=torch.bool)])
    x = torch.cat([X, torch.ones(1, 4)])
    assert aggregate(x, mask, "token") == 3.0
    assert aggregate(x, mask, "sequence") == pytest.approx((2 + 5 + 0) / 3)
    assert aggregate(x, mask, "fixed", max_len=4) == pytest.approx(9 / 12)
    with pytest.raises(ValueError, match="max_len"):
        aggregate(x, mask, "fixed")
