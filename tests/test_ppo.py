import copy
import math
import random

import pytest
import torch

from nanorlhf.checks import check_kl, check_ratio, check_rollout
from nanorlhf.functional import kl_estimate, token_logprobs, whiten
from nanorlhf.gpt import GPT, GPTConfig, KVCache
from nanorlhf.rollout import generate
from train_ppo import adapt, explained_variance, gae, policy_loss, token_rewards, value_loss


def row(*xs):
    return torch.tensor([xs], dtype=torch.float64)


def bools(*xs):
    return torch.tensor([xs], dtype=torch.bool)


def spans(seed, B=6, T=12):
    """Response spans of random place and length, and random numbers everywhere, outside the spans
    too."""
    g, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    mask = torch.zeros(B, T, dtype=torch.bool)
    for b in range(B):
        start = rng.randint(1, T - 2)
        mask[b, start:rng.randint(start + 1, T)] = True
    return (
        torch.randn(B, T, generator=g, dtype=torch.float64),
        torch.randn(B, T, generator=g, dtype=torch.float64),
        mask,
    )


# ---- gae ----

def test_gae_by_hand():
    """Values shifted by one; returns taken from other values than the advantages."""
    advantages, returns = gae(row(0, 0, 1), row(0.5, 0.4, 0.3), bools(1, 1, 1), gamma=1.0, lam=0.95)
    torch.testing.assert_close(advantages, row(0.43675, 0.565, 0.7))
    torch.testing.assert_close(returns, row(0.93675, 0.965, 1.0))


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.8), (1.0, 0.0), (0.97, 1.0)])
def test_gae_equals_its_definition(gamma, lam):
    """sum_l (gamma lam)^l delta_{t+l}, the slow way, per row; the values of pads and prompts must
    not leak in."""
    rewards, values, mask = spans(0)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for b in range(len(mask)):
        place = mask[b].nonzero().flatten().tolist()
        r, v = rewards[b, place].tolist(), values[b, place].tolist() + [0.0]
        for t in range(len(r)):
            expected = sum(
                (gamma * lam) ** (u - t) * (r[u] + gamma * v[u + 1] - v[u])
                for u in range(t, len(r))
            )
            assert advantages[b, place[t]].item() == pytest.approx(expected, abs=1e-12)
            assert returns[b, place[t]].item() == pytest.approx(expected + v[t], abs=1e-12)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


def test_gae_limits():
    """lam 0 is the one-step surprise; lam 1 is what is still to come minus the value, and its
    returns do not know the critic."""
    r, v, mask = row(0.5, -1, 2), row(0.1, 0.2, 0.3), bools(1, 1, 1)
    torch.testing.assert_close(
        gae(r, v, mask, 0.9, 0.0)[0], row(0.5 + 0.9 * 0.2 - 0.1, -1 + 0.9 * 0.3 - 0.2, 2 - 0.3)
    )
    advantages, returns = gae(r, v, mask, 0.9, 1.0)
    torch.testing.assert_close(returns, row(0.5 - 0.9 + 0.81 * 2, -1 + 1.8, 2))
    torch.testing.assert_close(advantages, returns - v)


def test_gae_steps_over_a_hole_and_an_empty_row():
    """A hole that cuts the row in two, or whose value or reward is counted; an empty row that is
    NaN."""
    nan = math.nan
    rewards, values = row(9, 1, 7, 2, 3, 9), row(9, 0.5, 7, 0.4, 0.3, 9)
    mask = bools(0, 1, 0, 1, 1, 0)
    advantages, returns = gae(rewards, values, mask, 0.9, 0.8)
    short_advantages, short_returns = gae(
        row(1, 2, 3), row(0.5, 0.4, 0.3), bools(1, 1, 1), 0.9, 0.8
    )
    torch.testing.assert_close(advantages[mask], short_advantages[0])
    torch.testing.assert_close(returns[mask], short_returns[0])
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()
    for x in gae(row(nan, 1, nan, 2, 3, nan), row(nan, 0.5, nan, 0.4, 0.3, nan), mask, 0.9, 0.8):
        assert x.isfinite().all()
    for x in gae(rewards, values, torch.zeros_like(mask), 0.9, 0.8):
        assert (x == 0).all()


# ---- rewards ----

def test_token_rewards_by_hand():
    """The score on a pad or on the prompt; the sign of the KL; k2 or k3 for k1."""
    rewards = token_rewards(
        torch.tensor([2.0]).double(),
        row(5, -1, -2, 5),
        row(0, -1.5, -1, 0),
        bools(0, 1, 1, 0),
        beta=0.1,
    )
    torch.testing.assert_close(rewards, row(0, -0.05, 0.1 + 2, 0))


def test_token_rewards_sum_to_score_minus_kl():
    """Summed over the answer it must be the objective; an empty row gets nothing, not its score on
    token 0."""
    logp, ref, mask = spans(1)
    mask[2] = False
    mask[3] = bools(0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0)[0]
    scores = torch.arange(1, 7).double()
    rewards = token_rewards(scores, logp, ref, mask, beta=0.3)
    expected = scores - 0.3 * torch.where(mask, logp - ref, 0.0).sum(1)
    expected[2] = 0
    torch.testing.assert_close(rewards.sum(1), expected)
    assert (rewards[~mask] == 0).all()
    no_kl = token_rewards(scores, logp, logp, mask, beta=0.3)
    for b in (0, 1, 3, 4, 5):
        last = mask[b].nonzero().max().item()
        assert no_kl[b, last] == scores[b] and no_kl[b].count_nonzero() == 1


# ---- losses ----

def test_policy_loss_on_policy_is_plain_policy_gradient():
    """At ratio 1 the loss is -mean(A) and its gradient -A/n on masked tokens: the sign, and the
    mean over tokens."""
    logp, advantages, mask = spans(2)
    new = logp.clone().requires_grad_()
    loss, stats = policy_loss(new, logp, advantages, mask)
    loss.backward()
    assert loss.item() == pytest.approx(-advantages[mask].mean().item(), abs=1e-12)
    torch.testing.assert_close(new.grad, torch.where(mask, -advantages / mask.sum(), 0.0))
    assert stats["clip_fraction"] == 0 and stats["ratio_error"] == 0 and stats["approx_kl"] == 0


def test_policy_loss_is_clipped_on_both_sides():
    """Ratio 1.5 with A > 0 and 0.5 with A < 0 have had enough; the other two must still be able to
    come back."""
    ratios, advantages = row(1.5, 0.5, 1.5, 0.5), row(1, -1, -1, 1)
    new = ratios.log().requires_grad_()
    loss, stats = policy_loss(
        new, torch.zeros_like(ratios), advantages, bools(1, 1, 1, 1), clip=0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx((-1.2 + 0.8 + 1.5 - 0.5) / 4)
    torch.testing.assert_close(new.grad, row(0, 0, 1.5 / 4, -0.5 / 4))
    assert stats["clip_fraction"] == pytest.approx(0.5)
    assert stats["ratio_error"] == pytest.approx(0.5)
    # KL(old || new) from samples of old: k3 with log(old/new), ratio - 1 - log ratio
    assert stats["approx_kl"] == pytest.approx(sum(r - 1 - math.log(r) for r in (1.5, 0.5)) / 2)


def test_policy_loss_inside_the_clip_is_the_ratio():
    """new / old, not old / new."""
    loss, _ = policy_loss(row(math.log(1.1)), row(0.0), row(2.0), bools(1), clip=0.2)
    assert loss.item() == pytest.approx(-2.2)


def test_policy_loss_ignores_what_is_outside_the_mask():
    """exp overflowing on a pad: inf * 0 is NaN, in the loss or in the gradient."""
    new = row(0.0, 900.0).float().requires_grad_()
    loss, _ = policy_loss(new, row(0.0, 0.0).float(), row(3.0, 5.0).float(), bools(1, 0))
    loss.backward()
    assert loss.item() == -3 and new.grad.tolist() == [[-3, 0]]


def test_value_loss_by_hand():
    """Half the squared error; the clipped branch where it is the larger: there the gradient stops.
    """
    values = row(0.5, 1.0, 1.0, 9.0).requires_grad_()
    old, returns, mask = row(0.4, 0.0, 0.0, 0.0), row(1.0, 2.0, 0.1, 0.0), bools(1, 1, 1, 0)
    # within the clip (0.25); clipped to 0.2, (0.2 - 2)^2 > (1 - 2)^2; clipped to 0.2 but (1 -
    # 0.1)^2 is the larger
    loss, stats = value_loss(values, old, returns, mask, clip=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (0.25 + 3.24 + 0.81) / 3)
    torch.testing.assert_close(values.grad, row(-0.5 / 3, 0, 0.9 / 3, 0))
    assert stats["value_clip_fraction"] == pytest.approx(1 / 3)


def test_whitening_comes_after_the_returns():
    """Whitened over response tokens only; returns rebuilt from whitened advantages would have
    another scale."""
    rewards, values, mask = spans(3)
    advantages, returns = gae(10 * rewards, values, mask, 1.0, 0.95)
    white = whiten(advantages, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-9)
    assert white[mask].std(unbiased=False).item() == pytest.approx(1, abs=1e-6)
    assert (white[~mask] == 0).all()
    torch.testing.assert_close(returns[mask], (advantages + values)[mask])
    assert (returns - white - values)[mask].abs().max() > 1


def test_explained_variance_limits():
    """1 for a critic that knows, 0 for the mean, negative for worse; pads do not count, equal
    returns are not a division by 0."""
    returns, mask = row(1, 2, 6, 50), bools(1, 1, 1, 0)
    assert explained_variance(returns, returns, mask) == pytest.approx(1)
    assert explained_variance(row(3, 3, 3, -9), returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(1 - 4 * 41 / 14)
    assert explained_variance(row(2, 2, 2, 2), row(2, 2, 2, 9), mask) == pytest.approx(1)


def test_adapt_moves_beta_towards_the_target():
    """Ziegler's rule: the error is clipped at 20%, either way."""
    assert adapt(0.1, kl=6.6, target=6.0, episodes=100, horizon=1000) == pytest.approx(0.1 * 1.01)
    assert adapt(0.1, kl=60.0, target=6.0, episodes=100, horizon=1000) == pytest.approx(0.1 * 1.02)
    assert adapt(0.1, kl=0.0, target=6.0, episodes=100, horizon=1000) == pytest.approx(0.1 * 0.98)
    assert adapt(0.1, kl=6.0, target=6.0, episodes=100, horizon=1000) == pytest.approx(0.1)


# ---- what is asserted on the first batch ----

def test_check_rollout_by_hand():
    """In float32 the largest error counts, under autocast the mean; pads do not."""
    recorded, mask = row(*[0.0] * 9, 5.0), bools(*[1] * 9, 0)
    off = row(0.02, *[0.0] * 9)
    check_rollout(recorded, torch.zeros_like(recorded), mask)
    check_rollout(recorded, off, mask, bf16=True)
    with pytest.raises(AssertionError, match=r"differ .* by 0\.02 nats .*temperature"):
        check_rollout(recorded, off, mask)
    with pytest.raises(AssertionError, match="positions that count left padding"):
        check_rollout(recorded, 9 * off, mask, bf16=True)
    # in bf16 relative to the spread: an average of 0.1 nats where log-probs lie 10 nats apart
    wide = row(*[0.0, 20.0] * 5)
    check_rollout(wide + 0.1, wide, mask, bf16=True)
    with pytest.raises(AssertionError, match="differ"):
        check_rollout(wide + 0.2, wide, mask, bf16=True)


def test_check_ratio_and_check_kl_by_hand():
    check_ratio(5e-5)
    check_kl(-5e-4)
    with pytest.raises(AssertionError, match="ratio new/old is off 1 by 0.01.*dropout"):
        check_ratio(0.01)
    check_ratio(0.3, True, spread=3.0)
    with pytest.raises(AssertionError, match="off 1 by 0.4"):
        check_ratio(0.4, True, spread=3.0)
    for kl in (0.5, -0.5):          # a sampled KL can be wrong on either side
        with pytest.raises(AssertionError, match="policy starts as the reference.*temperatures"):
            check_kl(kl)
    for check in (check_ratio, check_kl):
        with pytest.raises(AssertionError):
            check(math.nan)


PROMPTS = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10], [2, 4]]


def tiny():
    model = GPT(
        GPTConfig(17, 32, n_layer=2, n_head=2, n_embd=16), torch.Generator().manual_seed(0)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(10)          # far from uniform, so that temperature and positions matter
    return model


def first_batch(model, temperature, recompute_at):
    """-> (rollout, log-probs of the training path), as train_ppo.py has them on its first step."""
    out = generate(
        model,
        PROMPTS,
        12,
        eos=0,
        temperature=temperature,
        generator=torch.Generator().manual_seed(1),
        pad=16,
    )
    with torch.no_grad():
        return out, token_logprobs(model(out.ids), out.ids, recompute_at)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_right_path_trips_nothing(temperature):
    """An assertion that fires on correct code would be switched off."""
    model = tiny()
    out, logp = first_batch(model, temperature, temperature)
    _, ref_logp = first_batch(copy.deepcopy(model), temperature, temperature)
    check_rollout(out.logp, logp, out.mask)
    check_kl((kl_estimate(logp, ref_logp) * out.mask).sum(1).mean().item())
    check_ratio(policy_loss(logp, logp.clone(), torch.ones_like(logp), out.mask)[1]["ratio_error"])
    assert out.mask.sum() >= len(PROMPTS) and out.logp[out.mask].max() < 0


def test_sampling_at_another_temperature_trips():
    """Sampled at 0.7 and scored at 1.0: the most reported cause of a negative KL."""
    out, logp = first_batch(tiny(), 0.7, recompute_at=1.0)
    with pytest.raises(AssertionError, match="another temperature"):
        check_rollout(out.logp, logp, out.mask)


def test_positions_that_count_left_pads_trip(monkeypatch):
    """Only ragged prompts show it: without padding both ways to count agree."""
    def counts_pads(cache, T):
        return torch.arange(cache.length, cache.length + T).expand(len(cache.pads), T)

    monkeypatch.setattr(KVCache, "positions", counts_pads)
    out, logp = first_batch(tiny(), 1.0, recompute_at=1.0)
    with pytest.raises(AssertionError, match="left padding"):
        check_rollout(out.logp, logp, out.mask)


def test_attention_to_left_pads_trips(monkeypatch):
    """A causal mask that forgets the padding."""
    def sees_pads(cache, T):
        q = torch.arange(cache.length, cache.length + T)[:, None]
        return (torch.arange(cache.length + T) <= q).expand(len(cache.pads), 1, T, cache.length + T)

    monkeypatch.setattr(KVCache, "attention_mask", sees_pads)
    out, logp = first_batch(tiny(), 1.0, recompute_at=1.0)
    with pytest.raises(AssertionError, match="padding that is attended to"):
        check_rollout(out.logp, logp, out.mask)


def test_a_changed_reference_trips_check_kl():
    """A reference that shares its weights with the policy's optimizer drifts without a word."""
    model = tiny()
    ref = copy.deepcopy(model)
    with torch.no_grad():
        for p in ref.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
        out, logp = first_batch(model, 1.0, recompute_at=1.0)
        ref_logp = token_logprobs(ref(out.ids), out.ids)
    with pytest.raises(AssertionError, match="a reference that changed"):
        check_kl((kl_estimate(logp, ref_logp) * out.mask).sum(1).mean().item())
