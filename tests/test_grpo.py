"""train_grpo.py's formulas against hand-worked numbers, independent float64 formulas and finite
differences."""
import itertools
import math
import re

import pytest
import torch

import train_grpo
from nanorlhf import InputError, settings
from nanorlhf.functional import masked_sum
from nanorlhf.policy_losses import (
    SAPO_TAU,
    gdpo_advantages,
    maxrl_advantages,
    off_policy_mask,
    sapo_loss,
)
from train_grpo import Config, group_advantages, is_flat, overlong_penalty, policy_loss

KINDS = ("reinforce", "rloo", "grpo", "dr_grpo")


def scores(P=6, K=5):
    return torch.randn(P, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# ---- advantages ----

@pytest.mark.parametrize(
    "kind, expected",
    [
        ("reinforce", [[0.5, 2.5, 4.5], [-0.5, -0.5, 2.5]]),
        ("dr_grpo", [[-2, 0, 2], [-1, -1, 2]]),
        ("rloo", [[-3, 0, 3], [-1.5, -1.5, 3]]),
        (
            "grpo",
            [[-2 / 2.0001, 0, 2 / 2.0001], [-1 / 1.73215081, -1 / 1.73215081, 2 / 1.73215081]],
        ),
    ],
)
def test_advantages_by_hand(kind, expected):
    """The mean over prompts instead of answers; K for K-1; the biased std; a std in Dr. GRPO; the
    baseline's sign."""
    got = group_advantages(
        torch.tensor([[1.0, 3.0, 5.0], [0.0, 0.0, 3.0]]).double(), kind, baseline=0.5
    )
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=0, atol=1e-7)


def test_rloo_is_the_score_less_the_mean_of_the_others():
    """Its definition, and K/(K-1) times Dr. GRPO for every K: the answer itself must not be in its
    own baseline."""
    for K in (2, 3, 8):
        r = scores(K=K)
        loo = torch.stack(
            [r[:, k] - r[:, [j for j in range(K) if j != k]].mean(1) for k in range(K)], 1
        )
        torch.testing.assert_close(group_advantages(r, "rloo"), loo)
        torch.testing.assert_close(
            group_advantages(r, "rloo"), K / (K - 1) * group_advantages(r, "dr_grpo")
        )


def test_what_a_change_of_the_scores_does():
    """Only reinforce sees a constant added to a prompt; only GRPO is blind to its scale, and sees
    the 1e-4 where the std is as small."""
    r, shift, scale = (
        scores(),
        torch.arange(6.0).double()[:, None],
        torch.tensor([0.5, 1, 2, 5, 10, 100.0]).double()[:, None],
    )
    for kind in KINDS[1:]:
        torch.testing.assert_close(group_advantages(r + shift, kind), group_advantages(r, kind))
    torch.testing.assert_close(group_advantages(r + shift, "reinforce", 0.5), r + shift - 0.5)
    torch.testing.assert_close(
        group_advantages(scale * r, "grpo"), group_advantages(r, "grpo"), rtol=0, atol=1e-3
    )
    for kind in ("rloo", "dr_grpo"):
        torch.testing.assert_close(
            group_advantages(scale * r, kind), scale * group_advantages(r, kind)
        )
    tiny = group_advantages(torch.tensor([[0.0, 1e-4]]).double(), "grpo")
    assert tiny[0, 1].item() == pytest.approx(0.5 / (0.5 ** 0.5 + 1), abs=1e-6)


def test_a_group_without_spread_gives_exact_zeros():
    """In float32 the std of six times 0.3 is 3e-8 (alone; 0 among other rows): std == 0 lets it
    teach rounding errors, divided by 1e-4."""
    missed = 0
    for K in range(2, 9):
        for value in (0.1, 0.2, 0.3, 0.7, -0.4, 2.0):
            r = torch.full((1, K), value)
            missed += (r.std(1) != 0).item()
            assert is_flat(r).all() and all(
                (group_advantages(r, kind) == 0).all() for kind in KINDS[1:]
            )
    assert missed > 5
    r = torch.tensor([[0.3] * 6, [0.3] * 5 + [0.4]])
    assert is_flat(r).tolist() == [True, False]
    for kind in KINDS[1:]:
        assert (group_advantages(r, kind)[0] == 0).all() and (
            group_advantages(r, kind)[1] != 0
        ).all()
    # its baseline is not the group: a flat group still teaches
    assert (group_advantages(r, "reinforce", 1.0) == r - 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_scores_and_unequal_kl(dtype):
    """GRPO's std taken of score - kl: 1.5 for answers that all earned the same; the others' KL,
    part of their exact gradient, lost with the tie; 0.3 less its own mean, which float32 does not
    make 0."""
    kl = torch.tensor(
        [[0.002, -0.004, 0.001, 0.003, 0.0, -0.001], [0.5, 0.1, 0.0, 0.2, 0.3, 0.1]]
    ).to(dtype)
    tied = torch.tensor([[0.3] * 6, [1.1] * 6]).to(dtype)
    assert (group_advantages(tied, "grpo", kl=kl) == 0).all()
    for kind in ("rloo", "dr_grpo"):
        torch.testing.assert_close(
            group_advantages(tied, kind, kl=kl), group_advantages(-kl, kind), rtol=1e-6, atol=0
        )
    torch.testing.assert_close(group_advantages(tied, "reinforce", 0.25, kl), tied - kl - 0.25)


def test_the_kl_comes_off_before_the_baseline_and_stays_out_of_the_std():
    """By hand: scores 0 and 2 (std sqrt 2), prices 0.5 and 0.1, so r is -0.5 and 1.9, its mean 0.7.
    """
    s, kl = (torch.tensor([x], dtype=torch.float64) for x in ([0.0, 2.0], [0.5, 0.1]))
    for kind, expected in (
        ("reinforce", [-0.5, 1.9]),
        ("rloo", [-2.4, 2.4]),
        ("dr_grpo", [-1.2, 1.2]),
        ("grpo", [-1.2 / (2**0.5 + 1e-4), 1.2 / (2**0.5 + 1e-4)]),
    ):
        torch.testing.assert_close(
            group_advantages(s, kind, 0.0, kl),
            torch.tensor([expected], dtype=torch.float64),
            rtol=0,
            atol=1e-12,
        )
        torch.testing.assert_close(
            group_advantages(s, kind, 0.3),
            group_advantages(s, kind, 0.3, torch.zeros(1, 2).double()),
        )


def test_what_advantages_refuse():
    """One answer has no others to be compared with: NaN from the std, or a division by 0."""
    for kind in KINDS[1:]:
        with pytest.raises(ValueError, match=f"{kind} .* at least 2, not 1"):
            group_advantages(torch.ones(3, 1), kind)
    assert group_advantages(torch.ones(3, 1), "reinforce", 0.25).tolist() == [[0.75]] * 3
    with pytest.raises(ValueError, match="reinforce, rloo, grpo or dr_grpo, not 'best'"):
        group_advantages(torch.ones(3, 2), "best")


# ---- the loss, on both sides of each clip ----

RECIPES = {"grpo": dict(clip_low=0.2, clip_high=0.2, how="sequence"),
           "dapo": dict(clip_low=0.2, clip_high=0.28, how="token"),
           "dr_grpo": dict(clip_low=0.2, clip_high=0.2, how="fixed", max_len=7),
           "gspo": dict(clip_low=3e-4, clip_high=4e-4, ratio="sequence", how="sequence"),
           "cispo": dict(clip_low=0.2, clip_high=0.28, objective="cispo", how="token"),
           "sapo": dict(clip_low=0.2, clip_high=0.2, objective="sapo", how="sequence")}


def batch(recipe):
    """Ratios below, inside and above the clip for a good and for a bad answer; answers of different
    length, holes, an empty row."""
    mask = torch.tensor(
        [
            [0, 1, 1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 0, 0],
            [0, 1, 0, 1, 1, 1, 1],
            [0, 1, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 1, 0, 0],
        ],
        dtype=torch.bool,
    )
    advantages = torch.tensor([1.0, -1.0, -0.7, 1.3, 5.0, 0.4]).double()[:, None]
    # 1.25 is past 1 + 0.2 and within 1 + 0.28
    cycle = torch.tensor([0.5, 0.79, 0.85, 1.1, 1.25, 1.5]).double()
    log_ratio = torch.stack([cycle.roll(b).log()[torch.arange(7) % 6] for b in range(6)])
    # mean log-ratios on both sides of -3e-4 and 4e-4
    if recipe == "gspo":
        target = torch.tensor([5e-4, -5e-4, 5e-4, -5e-4, 0, 1e-4]).double()
        log_ratio = (
            log_ratio + (target - (log_ratio * mask).sum(1) / mask.sum(1).clamp(min=1))[:, None]
        )
    old_logp = -1 - torch.rand(
        6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return old_logp + log_ratio, old_logp, advantages, mask


def by_definition(
    logp,
    old_logp,
    advantages,
    mask,
    clip_low,
    clip_high,
    how,
    ratio="token",
    objective="clip",
    max_len=None,
    at=None,
):
    """One token after the other, in plain floats. at: log-probs at which CISPO's weights are taken,
    which are constants."""
    rows, at = [], logp if at is None else at
    for b in range(len(mask)):
        place, A = mask[b].nonzero().flatten().tolist(), advantages[b].item()
        losses = []
        for t in place:
            change = ((at[b, t] - old_logp[b, t]).item() if ratio == "token" else
                      sum((at[b, u] - old_logp[b, u]).item() for u in place) / len(place))
            r = math.exp(change)
            capped = min(max(r, 1 - clip_low), 1 + clip_high)
            tau = 1.0 if A > 0 else 1.05
            losses.append({
                "clip": -min(r * A, capped * A),
                "cispo": -capped * A * logp[b, t].item(),
                "sapo": -A * 4 / tau / (1 + math.exp(-tau * (r - 1))),
            }[objective])
        rows.append(losses)
    if how == "token":
        return sum(map(sum, rows)) / sum(map(len, rows))
    if how == "sequence":
        return sum(sum(row) / max(1, len(row)) for row in rows) / len(rows)
    return sum(map(sum, rows)) / (len(rows) * max_len)


@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_and_gradient_by_definition(recipe):
    """min and max confused, a clip on the wrong side, the other aggregation, a ratio turned over;
    CISPO's weight not held constant."""
    logp, old_logp, advantages, mask = batch(recipe)
    args, settings = (old_logp, advantages, mask), RECIPES[recipe]
    new = logp.clone().requires_grad_()
    loss, _ = policy_loss(new, *args, **settings)
    loss.backward()
    assert loss.item() == pytest.approx(by_definition(logp, *args, **settings), abs=1e-12)
    eps, frozen = 1e-7, logp if recipe == "cispo" else None
    for b in range(6):
        for t in range(7):
            up, down = logp.clone(), logp.clone()
            up[b, t], down[b, t] = logp[b, t] + eps, logp[b, t] - eps
            rise = by_definition(up, *args, **settings, at=frozen) - by_definition(
                down, *args, **settings, at=frozen
            )
            assert new.grad[b, t].item() == pytest.approx(rise / (2 * eps), abs=2e-8), (b, t)
    assert (new.grad[~mask] == 0).all()


@pytest.mark.parametrize(
    "ratio, A, moves",
    [
        (1.25, 1, "dapo"),
        (1.25, -1, "both"),
        (1.35, 1, ""),
        (1.35, -1, "both"),
        (0.75, 1, "both"),
        (0.75, -1, ""),
        (1.1, 1, "both"),
        (0.9, -1, "both"),
    ],
)
def test_where_the_clip_stops_the_gradient(ratio, A, moves):
    """Only a step too far in the advantage's own direction is stopped; clip-higher lets a rare
    token rise on; CISPO stops nothing; in SAPO all fades."""
    for recipe, how in RECIPES.items():
        if recipe == "gspo":                # the same drama at a thousandth of the size
            lr, low, high = (ratio - 1) * 1e-3, 2e-4, 2.8e-4
            how = dict(how, clip_low=low, clip_high=high)
        else:
            lr = math.log(ratio)
        new = torch.full((1, 1), lr, dtype=torch.float64, requires_grad=True)
        zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
        policy_loss(new, zero, A * one, one.bool(), **how)[0].backward()
        low, high = how["clip_low"], how["clip_high"]
        expected = -A * math.exp(lr)
        if recipe == "cispo":
            expected = -A * min(max(math.exp(lr), 1 - low), 1 + high)
        elif recipe == "sapo":
            expected /= math.cosh((1.0 if A > 0 else 1.05) * (math.exp(lr) - 1) / 2) ** 2
        elif not (moves == "both" or moves == "dapo" and high > low):
            expected = 0.0
        assert new.grad.item() == pytest.approx(expected / how.get("max_len", 1), abs=1e-12), (
            recipe
        )


def test_the_gate_of_sapo():
    """Its gradient by log pi is A ratio sech^2(tau (ratio - 1) / 2), A at ratio 1; a temperature of
    the other sign, or 2 / tau for 4 / tau, which would halve every step."""
    assert SAPO_TAU == (1.0, 1.05)
    for A, tau in ((1.3, 1.0), (-0.7, 1.05)):
        log_ratio = torch.linspace(-3, 2, 101, dtype=torch.float64).requires_grad_()
        advantages = torch.full_like(log_ratio, A)
        [slope] = torch.autograd.grad(-sapo_loss(log_ratio.exp(), advantages).sum(), log_ratio)
        ratio = log_ratio.exp().detach()
        expected = A * ratio / torch.cosh(tau * (ratio - 1) / 2) ** 2
        torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)
        assert slope[60].item() == pytest.approx(A) and ratio[60].item() == pytest.approx(1)
    # its limit: with ratios near 1 the plain policy gradient, which has no gate
    near = torch.tensor([1 - 1e-4, 1 + 1e-4], dtype=torch.float64)
    change = -sapo_loss(near, torch.ones_like(near)).diff()
    assert change.item() == pytest.approx(2e-4, rel=1e-6)


def test_statistics_by_hand():
    """Clip fractions that count a side which the minimum does not clip, pads, or the two sides
    swapped; GSPO's own ratio."""
    logp = torch.tensor([[1.5, 0.5, 1.25, 1.0], [1.5, 0.5, 0.75, 9.0]]).double().log()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    advantages = torch.tensor([[1.0], [-1.0]]).double()
    _, stats = policy_loss(logp, torch.zeros_like(logp), advantages, mask, 0.2, 0.28)
    assert stats["clip_high"] == pytest.approx(1 / 7) and stats["clip_low"] == pytest.approx(2 / 7)
    assert stats["ratio_error"] == pytest.approx(0.5)
    assert stats["approx_kl"] == pytest.approx(
        sum(r - 1 - math.log(r) for r in (1.5, 0.5, 1.25, 1.0, 1.5, 0.5, 0.75)) / 7
    )
    _, stats = policy_loss(
        logp, torch.zeros_like(logp), advantages, mask, 3e-4, 4e-4, ratio="sequence"
    )
    mean = [math.log(1.5 * 0.5 * 1.25) / 4, math.log(1.5 * 0.5 * 0.75) / 3]
    assert stats["ratio_error"] == pytest.approx(1 - math.exp(mean[1]))
    assert stats["clip_high"] == 0 and stats["clip_low"] == pytest.approx(3 / 7)


@pytest.mark.parametrize("recipe", RECIPES)
def test_on_policy_every_recipe_is_the_policy_gradient(recipe):
    """At ratio 1 the gradient is -A times each token's share, whatever the recipe; the loss of
    centred groups is 0 there, but with SAPO's two temperatures."""
    logp, _, _, mask = batch(recipe)
    mask = mask[:4]
    advantages = torch.tensor([1.0, -1.0, 2.0, -2.0]).double()[:, None]
    new = logp[:4].clone().requires_grad_()
    loss, stats = policy_loss(new, logp[:4], advantages, mask, **RECIPES[recipe])
    loss.backward()
    share = {
        "sequence": 1 / (4 * mask.sum(1, keepdim=True)),
        "token": 1 / mask.sum(),
        "fixed": 1 / 28,
    }[RECIPES[recipe]["how"]]
    torch.testing.assert_close(new.grad, torch.where(mask, -advantages * share, 0.0))
    assert stats["clip_low"] == stats["clip_high"] == stats["ratio_error"] == 0
    if RECIPES[recipe]["how"] == "sequence" and recipe != "sapo":
        assert loss.item() == pytest.approx(0, abs=1e-12) and new.grad.abs().max() > 0.04


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_outside_the_mask_does_not_count(recipe):
    """NaN or an overflow on a pad, in the loss, the statistics or the gradient; a batch without any
    token is 0, not NaN."""
    logp, old_logp, advantages, mask = batch(recipe)
    wrong = torch.tensor([math.nan, math.inf, -math.inf, 900.0]).double().repeat(11)[:42].view(6, 7)
    new = torch.where(mask, logp, wrong).requires_grad_()
    loss, stats = policy_loss(
        new, torch.where(mask, old_logp, -wrong), advantages, mask, **RECIPES[recipe]
    )
    loss.backward()
    clean, clean_stats = policy_loss(logp, old_logp, advantages, mask, **RECIPES[recipe])
    assert loss.item() == clean.item() and stats == clean_stats
    assert (
        new.grad.isfinite().all() and (new.grad[~mask] == 0).all() and (new.grad[mask] != 0).any()
    )
    nothing = policy_loss(
        logp.requires_grad_(), old_logp, advantages, torch.zeros_like(mask), **RECIPES[recipe]
    )
    nothing[0].backward()
    assert nothing[0].item() == 0 and (logp.grad == 0).all() and set(nothing[1].values()) == {0.0}


def test_masked_sum():
    """NaN * 0 is NaN."""
    x, mask = (
        torch.tensor([[math.nan, 2.0, 3.0], [1.0, 1.0, 1.0]]),
        torch.tensor([[0, 1, 1], [0, 0, 0]]).bool(),
    )
    assert masked_sum(x, mask).tolist() == [5.0, 0.0]


# ---- length, and advantages without a flag ----

def test_the_overlong_penalty_by_hand():
    """DAPO, eq. 13, with 20 tokens and a buffer of 8: 0 up to 12, -1 at 20, a line between. A line
    that begins elsewhere, or pays for length."""
    lengths = torch.tensor([1, 12, 13, 16, 19, 20])
    got = overlong_penalty(lengths, 20, 8)
    torch.testing.assert_close(got, torch.tensor([0, 0, -0.125, -0.5, -0.875, -1.0]))
    # only the distance to the longest counts
    torch.testing.assert_close(overlong_penalty(lengths + 44, 64, 8), got)
    # and in a buffer as long as the answer all of it does
    assert overlong_penalty(torch.tensor([5]), 20, 20).item() == -0.25


@pytest.mark.parametrize("K", [2, 3, 5])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_maxrl_on_average(K, p):
    """All 2^K outcomes of K answers that are right with probability p = sigmoid(x): the expected
    step is dp/dx times 1 + (1-p) + ... + (1-p)^(K-2). A term too many, as without the baseline."""
    score, step = {1.0: 1 - p, 0.0: -p}, 0.0            # d log pi / dx of a right and a wrong one
    for outcome in itertools.product((0.0, 1.0), repeat=K):
        chance = math.prod(p if r else 1 - p for r in outcome)
        advantages = maxrl_advantages(torch.tensor([outcome], dtype=torch.float64))[0].tolist()
        step += chance * sum(A * score[r] for A, r in zip(advantages, outcome)) / K
    slope = p * (1 - p)                                 # dp/dx; of log p it is slope / p
    assert step == pytest.approx(slope * sum((1 - p) ** k for k in range(K - 1)), rel=1e-12)
    assert step < slope / p


def test_maxrl_by_hand():
    """A group without a right answer, or without a wrong one, says nothing; two answers are RLOO's;
    a reward that is no 0 or 1 has no maximum likelihood."""
    r = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    expected = torch.tensor([[3.0, -1, -1, -1], [1, 1, -1, -1], [0, 0, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(maxrl_advantages(r), expected)
    two = torch.tensor([[1.0, 0], [0, 1], [0, 0], [1, 1]])
    torch.testing.assert_close(maxrl_advantages(two), group_advantages(two, "rloo"))
    with pytest.raises(ValueError, match="0 and 1 alone"):
        maxrl_advantages(torch.tensor([[0.5, 1.0]]))


def test_gdpo_by_hand():
    """Two prompts, two answers, two parts, the second worth half: one std for both parts or for the
    batch; a flat part that does; no std over the batch."""
    parts = torch.tensor([[[0.0, 50.0], [1.0, 10.0]], [[3.0, 0.0], [3.0, 1.0]]]).double()
    # in units of 1/sqrt 2: 1 - 1/2 for the first prompt's second answer, 1/2 for the second's
    got = gdpo_advantages(parts, torch.tensor([1.0, 0.5]).double())
    half = math.sqrt(3) / 2                 # of +-a, +-a the std is 2a / sqrt 3
    expected = torch.tensor([[-half, half], [-half, half]]).double()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)
    assert (gdpo_advantages(torch.full((2, 3, 2), 0.3), torch.ones(2)) == 0).all()
    with pytest.raises(ValueError, match="needs 2, not 1"):
        gdpo_advantages(torch.ones(3, 1, 2), torch.ones(2))


def test_gdpo_forgets_each_part_s_scale():
    """Parts added up before they are normalised: the one with the larger spread decides alone."""
    parts = torch.stack([scores(), scores(K=5).flip(0)], 2)                     # (P, K, M)
    weights = torch.tensor([1.0, 0.5]).double()
    got = gdpo_advantages(parts, weights)
    assert got.mean().abs() < 1e-12 and got.std().item() == pytest.approx(1, abs=1e-3)
    other = parts * torch.tensor([10.0, 1.0]) + torch.tensor([-3.0, 7.0])
    torch.testing.assert_close(gdpo_advantages(other, weights), got, rtol=0, atol=2e-3)
    torch.testing.assert_close(gdpo_advantages(parts.flip(2), weights.flip(0)), got)
    torch.testing.assert_close(gdpo_advantages(parts, 8 * weights), got, rtol=0, atol=1e-3)
    # one part alone: GRPO's advantages, whitened
    alone = group_advantages(parts[..., 0], "grpo")
    torch.testing.assert_close(gdpo_advantages(parts[..., :1], weights[:1]),
                               alone / (alone.std() + 1e-4))


def test_what_the_off_policy_mask_drops():
    """Good answers dropped, or answers that have become likelier; a sum for the mean over tokens;
    pads counted."""
    nan = math.nan
    old_logp = torch.full((5, 3), -1.0)
    drift = torch.tensor([[0.9, 0, 0], [0.9, 0.3, nan], [2, 2, 2], [-4, -4, -4], [9, 9, 9]])
    logp = old_logp - drift
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]]).bool()
    advantages = torch.tensor([-1.0, -1, 1, -1, -1])[:, None]
    # 0.3, 0.6, 2, -4 and 0 nats a token
    kept = off_policy_mask(advantages, old_logp, logp, mask, 0.5)
    assert kept.tolist() == [True, False, True, True, True]
    per_token = off_policy_mask(advantages.expand(5, 3), old_logp, logp, mask, 0.5)
    assert torch.equal(per_token, kept)
    # only the sign of an advantage counts, and nothing is dropped on-policy or without a bound
    assert torch.equal(off_policy_mask(9 * advantages, old_logp, logp, mask, 0.5), kept)
    assert off_policy_mask(advantages, logp, logp, mask, 0.0).all()
    assert off_policy_mask(advantages, old_logp, logp, mask, math.inf).all()


# ---- settings ----

@pytest.mark.parametrize(
    "flags, why",
    [
        ("--kl_in reward --kl k2", "--kl k1"),
        ("--kl_in reward --kl k3", "--kl k1"),
        ("--samples_per_prompt 1", "at least 2"),
        ("--temperature 0", "always gives the same"),
        ("--ratio sequence --aggregate token", "--aggregate sequence"),
        ("--ratio sequence --aggregate fixed", "--aggregate sequence"),
        ("--objective sapo --clip_high 0.28", "a gate in place of the clip"),
        ("--objective sapo --clip_low 0.1", "a gate in place of the clip"),
        ("--advantage reinforce --skip_flat", "--skip_flat is for"),
        ("--advantage reinforce --refill 2", "--refill is for"),
        ("--overlong penalty --unfinished 1", "stands in its place"),
        ("--overlong filter --overlong_buffer 4", "without --overlong penalty"),
        ("--overlong penalty --overlong_buffer 9 --max_new_tokens 8", "more than an answer's"),
    ],
)
def test_settings_that_cannot_work(flags, why):
    """Each would train, on something else."""
    with pytest.raises(InputError, match=why):
        settings.parse(Config, train_grpo.__doc__, flags.split())


def test_commands_of_the_docstring_are_accepted():
    """A command that a reader copies and that ends in an error message."""
    commands = re.findall(r"^    (?:python train_grpo.py|\.\.\.)(.*?)(?:  |$)", train_grpo.__doc__,
                          re.MULTILINE)
    assert len(commands) >= 8
    for flags in commands:
        settings.parse(Config, train_grpo.__doc__, flags.split())
    settings.parse(Config, "", "--samples_per_prompt 1 --advantage reinforce".split())
