import copy
import json
import math
import random
import typing
from types import SimpleNamespace

import pytest
import torch

import train_dpo
import train_online_dpo
from nanorlhf import reference, worlds
from nanorlhf.batches import mismatched
from nanorlhf.checks import check_first_loss
from nanorlhf.files import Preference
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.preference_losses import (
    NAMES,
    OWN_BETA,
    REFERENCE_FREE,
    first_loss,
    pair_losses,
)
from nanorlhf.reference import kto_reference_point, pair_logprobs, ref_logprobs
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import towns
from train_dpo import (
    apo_down_loss,
    apo_zero_loss,
    dpo_loss,
    dpo_norm_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    robust_loss,
    simpo_loss,
)

CPU = torch.device("cpu")
TOKENIZER = Tokenizer()


def tiny(seed=0):
    model = GPT(
        GPTConfig(TOKENIZER.vocab_size, 24, 1, 2, 16), torch.Generator().manual_seed(seed)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(8)
    return model


def pairs():
    end = TOKENIZER.end
    return [
        Preference([1, 2, 3], [4, 5, end], [6, end]),
        Preference([7], [8, 9, 10, 11, 12, end], [13, 14]),
        Preference([2, 3], [end], [4, 4, 4, end]),
    ]


def four(seed=0, B=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, generator=g, dtype=torch.float64) * 3 - 20 for _ in range(4)]


def test_loss_is_ln_2_where_policy_is_reference():
    """A constant left out, or log-ratios taken between chosen and rejected instead of policy and
    reference."""
    chosen, rejected, *_ = four()
    losses, *rewards = dpo_loss(chosen, rejected, chosen.clone(), rejected.clone(), beta=0.1)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=0, atol=1e-6)
    assert all((r == 0).all() for r in rewards)


def test_dpo_loss_by_hand():
    """Margin 0.1 * ((-10 + 12) - (-11 + 10)) = 0.3: eq. 7's signs, and beta on both."""
    args = [torch.tensor([x]) for x in (-10.0, -11.0, -12.0, -10.0)]
    losses, chosen, rejected = dpo_loss(*args, beta=0.1)
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-6)
    assert chosen.item() == pytest.approx(0.2) and rejected.item() == pytest.approx(-0.1)


def test_gradient_against_finite_differences_and_closed_form():
    """A detached side would learn, more slowly, something else."""
    beta, (pc, pr, rc, rr) = 0.7, four(1)
    pc, pr = pc.requires_grad_(), pr.requires_grad_()
    losses, chosen, rejected = dpo_loss(pc, pr, rc, rr, beta)
    losses.sum().backward()
    closed = -beta * torch.sigmoid(-(chosen - rejected))
    torch.testing.assert_close(pc.grad, closed)
    torch.testing.assert_close(pr.grad, -closed)
    eps = 1e-6
    with torch.no_grad():
        up, down = (dpo_loss(pc + e, pr, rc, rr, beta, 0.0)[0] for e in (eps, -eps))
        torch.testing.assert_close(pc.grad, (up - down) / (2 * eps), rtol=1e-6, atol=1e-8)
        up, down = (dpo_loss(pc, pr + e, rc, rr, beta, 0.0)[0] for e in (eps, -eps))
        torch.testing.assert_close(pr.grad, (up - down) / (2 * eps), rtol=1e-6, atol=1e-8)


def test_label_smoothing_by_hand():
    """cDPO: 0.2 of the labels are the other way round; at 0.5 neither side is preferred."""
    # margin 2 beta = 1
    args = [torch.tensor([x], dtype=torch.float64) for x in (1.0, -1.0, 0.0, 0.0)]
    expected = 0.8 * math.log(1 + math.exp(-1)) + 0.2 * math.log(1 + math.exp(1))
    assert dpo_loss(*args, beta=0.5, label_smoothing=0.2)[0].item() == pytest.approx(expected)
    swapped = dpo_loss(args[1], args[0], args[3], args[2], 0.5, 0.5)[0]
    torch.testing.assert_close(dpo_loss(*args, 0.5, 0.5)[0], swapped)


def test_swapping_the_answers_swaps_the_rewards():
    """loss(margin) - loss(-margin) = -margin, and smoothing s on one order is 1-s on the other."""
    pc, pr, rc, rr = four(2)
    losses, chosen, rejected = dpo_loss(pc, pr, rc, rr, 0.3)
    swapped, chosen2, rejected2 = dpo_loss(pr, pc, rr, rc, 0.3)
    torch.testing.assert_close(chosen, rejected2)
    torch.testing.assert_close(rejected, chosen2)
    torch.testing.assert_close(losses - swapped, rejected - chosen)
    torch.testing.assert_close(
        dpo_loss(pc, pr, rc, rr, 0.3, 0.1)[0], dpo_loss(pr, pc, rr, rc, 0.3, 0.9)[0]
    )


def test_rewards_are_detached():
    """Logged rewards that hold the graph of every step."""
    pc, pr, rc, rr = four(3)
    losses, chosen, rejected = dpo_loss(pc.requires_grad_(), pr.requires_grad_(), rc, rr, 0.3)
    assert losses.requires_grad and not chosen.requires_grad and not rejected.requires_grad
    torch.testing.assert_close(chosen, 0.3 * (pc.detach() - rc))


@torch.no_grad()
def test_pair_logprobs_equal_one_row_at_a_time():
    """Prompt tokens, pads or the token after counted in; the end token left out; a mean for the
    sum; the sides or the batches mixed up."""
    model = tiny()
    chosen, rejected = pair_logprobs(model, pairs(), TOKENIZER.pad, 2, CPU)
    for i, p in enumerate(pairs()):
        for got, answer in ((chosen[i], p.chosen), (rejected[i], p.rejected)):
            logp = model(torch.tensor([p.prompt + answer]))[0].log_softmax(-1)
            expected = sum(
                logp[len(p.prompt) + t - 1, token].item() for t, token in enumerate(answer)
            )
            assert got.item() == pytest.approx(expected, abs=1e-4)


def refuse(*_):
    raise RuntimeError("computed")


def test_reference_logprobs_are_read_back(tmp_path, monkeypatch):
    """Computed twice, or read in another order than written."""
    path = str(tmp_path / "dpo" / "ref_logprobs.pt")
    ref = tiny()
    first = ref_logprobs(ref, TOKENIZER, pairs(), path, 2, CPU)
    with torch.no_grad():
        direct = pair_logprobs(ref, pairs(), TOKENIZER.pad, 2, CPU)
    monkeypatch.setattr(reference, "pair_logprobs", refuse)
    second = ref_logprobs(ref, TOKENIZER, pairs(), path, 2, CPU)
    for a, b, c in zip(first, second, direct):
        assert a.shape == (3,) and torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["weight", "pair", "order", "prompt"])
def test_a_stale_cache_is_not_used(change, tmp_path, monkeypatch):
    """Log-probs of another reference or of other data: every margin would be off by a constant."""
    path = str(tmp_path / "ref_logprobs.pt")
    ref, rows = tiny(), pairs()
    before = ref_logprobs(ref, TOKENIZER, rows, path, 2, CPU)
    if change == "weight":
        with torch.no_grad():
            ref.wte.weight[4, 0] += 0.5
    elif change == "pair":
        rows[0].rejected[0] += 1
    elif change == "order":
        rows = rows[::-1]
    else:
        rows[1].prompt = [8]
    after = ref_logprobs(ref, TOKENIZER, rows, path, 2, CPU)
    assert not all(torch.equal(a, b) for a, b in zip(before, after))
    with torch.no_grad():
        for a, b in zip(after, pair_logprobs(ref, rows, TOKENIZER.pad, 2, CPU)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    monkeypatch.setattr(reference, "pair_logprobs", refuse)
    ref_logprobs(ref, TOKENIZER, rows, path, 2, CPU)           # and the new ones were kept


def test_a_cache_that_cannot_be_read_is_made_again(tmp_path, capsys):
    """A traceback from a file that nobody needs: the log-probs can always be computed."""
    path, ref = tmp_path / "ref_logprobs.pt", tiny()
    path.write_bytes(b"half a file")
    again = ref_logprobs(ref, TOKENIZER, pairs(), str(path), 2, CPU)
    assert "computed again" in capsys.readouterr().out
    assert all(
        torch.equal(a, b)
        for a, b in zip(again, ref_logprobs(ref, TOKENIZER, pairs(), str(path), 2, CPU))
    )


@torch.no_grad()
def test_first_loss_is_checked():
    """Passes where the policy is the reference; trips when the reference has changed since."""
    policy, ref = tiny(), tiny()
    assert torch.equal(policy.wte.weight, ref.wte.weight)

    def first_loss():
        return (
            dpo_loss(
                *pair_logprobs(policy, pairs(), TOKENIZER.pad, 2, CPU),
                *pair_logprobs(ref, pairs(), TOKENIZER.pad, 2, CPU),
                beta=0.1,
            )[0]
            .mean()
            .item()
        )

    check_first_loss(first_loss(), 1e-5)
    changed = copy.deepcopy(ref.state_dict())
    changed["wpe.weight"] = changed["wpe.weight"].flip(0)
    ref.load_state_dict(changed)
    with pytest.raises(AssertionError, match="not 0.693147 .* a reference that changed"):
        check_first_loss(first_loss(), 1e-5)
    with pytest.raises(AssertionError):
        check_first_loss(math.nan, 1e-5)
    # IPO's is large, and so is its rounding
    check_first_loss(25.0001, 1e-5, expected=25.0)
    with pytest.raises(AssertionError, match="not 25"):
        check_first_loss(25.001, 1e-5, expected=25.0)


# ---- the relatives ----

FOUR = {
    "dpo": dpo_loss,
    "cdpo": lambda *a: dpo_loss(*a, label_smoothing=0.2),
    "robust": lambda *a: robust_loss(*a, label_smoothing=0.2),
    "ipo": ipo_loss,
    "hinge": hinge_loss,
    "apo_zero": apo_zero_loss,
    "apo_down": apo_down_loss,
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand(name, a, b, c, d, beta):
    """The losses of one pair in plain floats, written from the papers and not from the code."""
    # the policy's preference minus the reference's
    h = (a - b) - (c - d)
    return {
        "dpo": -math.log(sigmoid(beta * h)),
        "cdpo": -0.8 * math.log(sigmoid(beta * h)) - 0.2 * math.log(1 - sigmoid(beta * h)),
        "robust": (0.2 * math.log(1 - sigmoid(beta * h)) - 0.8 * math.log(sigmoid(beta * h))) / 0.6,
        "ipo": h * h - h / beta + 1 / (4 * beta * beta),
        "hinge": max(0.0, 1 - beta * h),
        "apo_zero": 1 - sigmoid(beta * (a - c)) + sigmoid(beta * (b - d)),
        "apo_down": sigmoid(beta * (a - c)) + 1 - sigmoid(beta * h),
    }[name]


def central(f, x, eps=1e-6):
    """df/dx of a per-row function, by finite differences."""
    with torch.no_grad():
        return (f(x + eps) - f(x - eps)) / (2 * eps)


@pytest.mark.parametrize("beta", [0.05, 0.4])
@pytest.mark.parametrize("name", FOUR)
def test_reference_losses_and_gradients_by_hand(name, beta):
    """A sign, a side, beta in the wrong place, a reference on one side only, an average for a sum;
    a part of the loss that
    is detached, or a reference that is not."""
    args = [x.requires_grad_() for x in four(4, B=40)]
    losses, chosen, rejected = FOUR[name](*args, beta)
    expected = [by_hand(name, *row, beta) for row in torch.stack(args, 1).tolist()]
    torch.testing.assert_close(
        losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(chosen, beta * (args[0] - args[2]).detach())
    torch.testing.assert_close(rejected, beta * (args[1] - args[3]).detach())
    assert not chosen.requires_grad and not rejected.requires_grad
    losses.sum().backward()
    for i in range(2):
        slope = central(
            lambda x: FOUR[name](*args[:i], x, *args[i + 1 :], beta)[0], args[i].detach()
        )
        torch.testing.assert_close(args[i].grad, slope, rtol=1e-5, atol=1e-7)
    # nothing flows into the reference
    assert args[2].grad is None and args[3].grad is None


@pytest.mark.parametrize(
    "name, value",
    [("dpo", math.log(2)), ("cdpo", math.log(2)), ("robust", math.log(2)),
     ("dpo_norm", math.log(2)), ("ipo", 1 / 0.36), ("hinge", 1.0), ("apo_zero", 1.0),
     ("apo_down", 1.0), ("kto", 0.5)],
)
def test_first_loss_of_each(name, value):
    """What the script asserts at step 1, and that it asserts the same number."""
    cfg, (chosen, rejected, *_) = train_dpo.Config(loss=name, beta=0.3), four(5)
    tokens = torch.tensor([5, 6, 7, 8, 9]), torch.tensor([9, 3, 4, 20, 1])
    losses, *rewards = pair_losses(cfg, 0.3, chosen, rejected, chosen, rejected, *tokens, 0.0)
    torch.testing.assert_close(losses, torch.full_like(losses, value))
    assert first_loss(name, 0.3) == pytest.approx(value) and all((r == 0).all() for r in rewards)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFERENCE_FREE])
def test_no_first_loss_is_steeper_than_its_bound_allows(name):
    """A loss that a nat changes by more than 4 beta of itself: rounding alone would trip the check
    of the first step."""
    cfg, beta = train_dpo.Config(loss=name), 0.3
    if name in ("cdpo", "robust"):
        cfg = train_dpo.Config(loss=name, label_smoothing=0.4)
    chosen, rejected, *_ = (x.requires_grad_() for x in four(5))
    tokens = torch.tensor([5, 6, 7, 8, 9]), torch.tensor([9, 3, 4, 20, 1])
    losses, *_ = pair_losses(cfg, beta, chosen, rejected, chosen.detach(), rejected.detach(),
                             *tokens)
    losses.sum().backward()
    steepest = max(chosen.grad.abs().max(), rejected.grad.abs().max())
    assert 0 < steepest <= 4 * beta * first_loss(name, beta) * (1 + 1e-9)


def test_every_loss_can_be_asked_for():
    """A loss without a beta of its own, or one that a script does not know."""
    assert set(OWN_BETA) == set(NAMES) and set(REFERENCE_FREE) < set(NAMES)
    for script in (train_dpo, train_online_dpo):
        assert typing.get_args(typing.get_type_hints(script.Config)["loss"]) == NAMES


@pytest.mark.parametrize("e", [0.1, 0.3, 0.45])
def test_robust_over_the_flips_is_dpo_on_the_right_labels(e):
    """Chowdhury et al. 2024: seen as it is with 1 - e and the other way round with e, a pair costs
    what DPO makes of it, and pulls as DPO does; with no label wrong it is DPO."""
    pc, pr, rc, rr = four(9)
    pc, pr = pc.requires_grad_(), pr.requires_grad_()
    seen = (1 - e) * robust_loss(pc, pr, rc, rr, 0.3, e)[0]
    seen = seen + e * robust_loss(pr, pc, rr, rc, 0.3, e)[0]
    right = dpo_loss(pc, pr, rc, rr, 0.3)[0]
    torch.testing.assert_close(seen, right, rtol=0, atol=1e-12)
    for got, expected in zip(*(torch.autograd.grad(x.sum(), (pc, pr)) for x in (seen, right))):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(robust_loss(pc, pr, rc, rr, 0.3, 0.0)[0], right)
    # and it never stops pulling
    far = torch.tensor([1e3], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(far)
    [slope] = torch.autograd.grad(robust_loss(far, zero, zero, zero, 0.3, e)[0], far)
    assert slope.item() == pytest.approx(-0.3 * e / (1 - 2 * e))


def test_apo_zero_is_two_thumbs_at_an_anchor_of_0():
    """D'Oosterlinck et al. 2024, eq. 7, as KTO's pair with z0 = 0; one side of it turned over would
    raise what was rejected."""
    pc, pr, rc, rr = (x.requires_grad_() for x in four(10))
    losses, *rewards = apo_zero_loss(pc, pr, rc, rr, 0.3)
    kto = pair_losses(train_dpo.Config(loss="kto"), 0.3, pc, pr, rc, rr, None, None, 0.0)
    torch.testing.assert_close(losses, 2 * kto[0])
    torch.testing.assert_close(rewards, list(kto[1:]))
    slopes = torch.autograd.grad(losses.sum(), (pc, pr))
    assert (slopes[0] < 0).all() and (slopes[1] > 0).all()
    torch.testing.assert_close(losses + apo_zero_loss(pr, pc, rr, rc, 0.3)[0],
                               torch.full_like(losses, 2.0))


def test_apo_down_lowers_both():
    """D'Oosterlinck et al. 2024, eq. 8: the chosen answer down too, as soon as the margin is wider
    than it is far from the reference; the rejected one always."""
    h_c = torch.tensor([-2.0, -0.5, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    h_r = (h_c.detach() - 4).requires_grad_()
    zero = torch.zeros_like(h_c)
    losses, *_ = apo_down_loss(h_c, h_r, zero, zero, 0.3)
    slopes = torch.autograd.grad(losses.sum(), (h_c, h_r))
    assert (slopes[0] > 0).all() and (slopes[1] > 0).all()
    # at the reference nothing moves the chosen one yet
    start = torch.zeros_like(h_c, requires_grad=True)
    [slope] = torch.autograd.grad(apo_down_loss(start, zero, zero, zero, 0.3)[0].sum(), start)
    assert (slope.abs() < 1e-12).all()


def test_dpo_norm_divides_each_answer_by_its_own_length():
    """Lambert et al. 2024, eq. 6, by hand; with answers of n tokens DPO at beta / n; an answer that
    says all twice has the same loss. Lengths exchanged, or of the policy's side alone."""
    pc, pr, rc, rr = four(11)
    n_c, n_r = torch.tensor([5, 6, 7, 8, 9]), torch.tensor([9, 3, 4, 20, 1])
    losses, chosen, rejected = dpo_norm_loss(pc, pr, rc, rr, n_c, n_r, 5.0)
    for loss, a, b, c, d, n, m in zip(losses.tolist(), pc, pr, rc, rr, n_c, n_r):
        assert loss == pytest.approx(-math.log(sigmoid(5 * ((a - c) / n - (b - d) / m).item())))
    torch.testing.assert_close(chosen, 5.0 * (pc - rc) / n_c)
    torch.testing.assert_close(rejected, 5.0 * (pr - rr) / n_r)
    seven = torch.full_like(n_c, 7)
    torch.testing.assert_close(dpo_norm_loss(pc, pr, rc, rr, seven, seven, 5.0)[0],
                               dpo_loss(pc, pr, rc, rr, 5.0 / 7)[0])
    torch.testing.assert_close(dpo_norm_loss(2 * pc, pr, 2 * rc, rr, 2 * n_c, n_r, 5.0)[0], losses)
    through = pair_losses(train_dpo.Config(loss="dpo_norm"), 5.0, pc, pr, rc, rr, n_c, n_r)
    torch.testing.assert_close(through[0], losses)


def test_ipo_is_least_at_half_an_inverse_beta():
    """1 / beta for 1 / (2 beta), or a target in rewards and not in nats: the margin of every pair
    would be led elsewhere."""
    h = torch.linspace(-10, 10, 401, dtype=torch.float64).requires_grad_()
    zero = torch.zeros_like(h)
    for beta, best in ((0.1, 5.0), (0.25, 2.0)):
        losses = ipo_loss(h, zero, zero, zero, beta)[0]
        [slope] = torch.autograd.grad(losses.sum(), h)
        assert h[losses.argmin()].item() == pytest.approx(best) and losses.min() < 1e-12
        # and past it pairs are pulled back, as DPO never does
        torch.testing.assert_close(slope, 2 * (h.detach() - best))


def test_hinge_is_flat_past_its_margin():
    """A loss that keeps pushing pairs that are far enough apart, or stops before beta h = 1."""
    h = torch.tensor([4.9, 5.1, 50.0, -50.0], dtype=torch.float64).requires_grad_()
    zero = torch.zeros_like(h)
    losses = hinge_loss(h, zero, zero, zero, 0.2)[0]
    [slope] = torch.autograd.grad(losses.sum(), h)
    torch.testing.assert_close(losses, torch.tensor([0.02, 0.0, 0.0, 11.0], dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([-0.2, 0.0, 0.0, -0.2], dtype=torch.float64))


def test_cdpo_stops_where_its_labels_are_as_sure_as_it_says():
    """At smoothing s the loss is least at margin log((1-s)/s), where DPO has no minimum; at 0.5 no
    side is preferred."""
    for s in (0.1, 0.25, 0.5):
        h = torch.tensor([math.log((1 - s) / s) / 0.2], dtype=torch.float64).requires_grad_()
        zero = torch.zeros_like(h)
        [slope] = torch.autograd.grad(dpo_loss(h, zero, zero, zero, 0.2, s)[0].sum(), h)
        assert abs(slope.item()) < 1e-12
        [beyond] = torch.autograd.grad(dpo_loss(h + 1, zero, zero, zero, 0.2, s)[0].sum(), h)
        assert beyond.item() > 1e-3


def test_kto_by_hand_and_its_gradients():
    """Good and bad mixed up, z0 with the wrong sign or times another beta; a gradient through what
    must stay fixed."""
    policy, ref, *_ = (x.requires_grad_() for x in four(6, B=6))
    desirable, z0 = (
        torch.tensor([True, False] * 3),
        torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
    )
    losses = kto_loss(policy, ref, desirable, z0, 0.3)
    for loss, p, r, good in zip(losses.tolist(), policy.tolist(), ref.tolist(), desirable.tolist()):
        gain = 0.3 * ((p - r) - 0.7)
        assert loss == pytest.approx(1 - sigmoid(gain) if good else 1 - sigmoid(-gain), rel=1e-12)
    losses.sum().backward()
    slope = central(lambda x: kto_loss(x, ref, desirable, z0, 0.3), policy.detach())
    torch.testing.assert_close(policy.grad, slope, rtol=1e-6, atol=1e-9)
    # up with the good, down with the bad
    assert (policy.grad[desirable] < 0).all() and (policy.grad[~desirable] > 0).all()
    assert ref.grad is None and z0.grad is None


def test_kto_saturates():
    """Answers that are already far above or below the reference point teach next to nothing,
    whichever kind they are: unlike DPO."""
    policy = torch.tensor([-60.0, 60.0], dtype=torch.float64).requires_grad_()
    for kind in (True, False):
        losses = kto_loss(
            policy, torch.zeros(2, dtype=torch.float64), torch.tensor([kind] * 2), 0.0, 1.0
        )
        [slope] = torch.autograd.grad(losses.sum(), policy)
        assert slope.abs().max() < 1e-20
        torch.testing.assert_close(
            losses, torch.tensor([1.0, 0.0] if kind else [0.0, 1.0], dtype=torch.float64)
        )


def test_kto_of_a_pair_is_one_thumb_up_and_one_down():
    """Both sides taken as liked, or a sum for the mean, which would double the loss beside the NLL.
    """
    pc, pr, rc, rr = four(7)
    losses, chosen, rejected = pair_losses(
        train_dpo.Config(loss="kto"), 0.3, pc, pr, rc, rr, None, None, 0.4
    )
    up = [1 - sigmoid(0.3 * (p - r - 0.4)) for p, r in zip(pc.tolist(), rc.tolist())]
    down = [1 - sigmoid(-0.3 * (p - r - 0.4)) for p, r in zip(pr.tolist(), rr.tolist())]
    torch.testing.assert_close(
        losses, torch.tensor([(u + d) / 2 for u, d in zip(up, down)], dtype=torch.float64)
    )
    torch.testing.assert_close(chosen - rejected, 0.3 * ((pc - rc) - (pr - rr)))


def test_kto_of_thumbs_by_hand():
    """The side that is not there counted, at 1 - sigmoid(0) of its own; the weights exchanged, or
    halved as a pair's are; a mean over pairs and thumbs that is not one over rows."""
    chosen, rejected = torch.tensor([3, 0, 4]), torch.tensor([0, 2, 5])
    thumbs = train_dpo.thumb_weights(chosen, rejected, 1.5, 0.5)
    assert [side.tolist() for side in thumbs] == [[1.5, 0, 0.75], [0, 0.5, 0.25]]
    (pc, rc), (pr, rr) = ((torch.tensor(row, dtype=torch.float64) for row in side) for side in
                          (([[-3.0, 0, -5], [-4.0, 0, -4]]), ([[0, -6.0, -7], [0, -5.0, -9]])))
    pc.requires_grad_(), pr.requires_grad_()
    losses, *_ = pair_losses(train_dpo.Config(loss="kto"), 0.3, pc, pr, rc, rr, chosen, rejected,
                             0.4, thumbs)
    up = [1 - sigmoid(0.3 * (gain - 0.4)) for gain in (1, 0, -1)]
    down = [1 - sigmoid(-0.3 * (gain - 0.4)) for gain in (0, -1, 2)]
    assert losses.tolist() == pytest.approx(
        [1.5 * up[0], 0.5 * down[1], (1.5 * up[2] + 0.5 * down[2]) / 2])
    losses.sum().backward()
    assert pc.grad[1] == 0 == pr.grad[0]
    slope = 0.3 * 1.5 * up[0] * (1 - up[0])
    assert pc.grad[0].item() == pytest.approx(-slope)
    # where the policy is the reference, and z0 is 0, every side is 1/2 of its weight
    zero = torch.zeros(3, dtype=torch.float64)
    losses, *_ = pair_losses(train_dpo.Config(loss="kto"), 0.3, zero, zero, zero, zero, chosen,
                             rejected, 0.0, thumbs)
    assert train_dpo.first_loss("kto", 0.3, thumbs) == pytest.approx(losses.mean().item())


def test_thumbs_have_other_answers_for_z0():
    """An answer of no tokens among the mismatched: its log-ratio is 0, and z0 too small."""
    batch = [Preference([1, 2], [3], []), Preference([4], [], [5, 6]), Preference([7], [8], [9])]
    prompts, answers = mismatched(batch, 16)
    assert sorted(answers) == [[3], [5, 6], [8], [9]] and len(prompts) == 4
    assert mismatched(batch[:1], 16) == ([], [])


def test_mismatched_answers_are_to_another_prompt():
    """A prompt that stands in the batch twice would meet its own answers; and no answer may be
    lost, cut or moved."""
    a, b, c = [1, 2, 3], [7], [2, 3, 9, 9, 9]
    batch = [
        Preference(a, [4], [5]),
        Preference(a, [4], [6]),
        Preference(b, [8], [9, 9]),
        Preference(a, [10], [11]),
        Preference(c, [12], [13]),
    ]
    own = {tuple(answer): pair.prompt for pair in batch for answer in (pair.chosen, pair.rejected)}
    prompts, answers = mismatched(batch, 16)
    assert sorted(map(tuple, answers)) == sorted(own)
    following = {tuple(a): b, tuple(b): c, tuple(c): a}
    assert all(p == following[tuple(own[tuple(answer)])] for p, answer in zip(prompts, answers))
    # what does not fit goes from the prompt's beginning
    prompts, answers = mismatched(batch, 4)
    assert all(len(p) + len(answer) <= 4 and p for p, answer in zip(prompts, answers))
    assert prompts[answers.index([9, 9])] == [9, 9]
    assert mismatched(batch[:2], 16) == ([], [])


@torch.no_grad()
def test_the_reference_point_is_a_mean_log_ratio_and_never_negative():
    """Answers scored behind their own prompts; policy and reference the wrong way round; no clamp.
    """
    policy, ref, batch = tiny(1), tiny(2), pairs()
    ratios = []
    for i, pair in enumerate(batch):
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([batch[(i + 1) % 3].prompt + answer])
            logps = [m(ids)[0].log_softmax(-1) for m in (policy, ref)]
            ratios.append(
                sum(
                    (logps[0] - logps[1])[ids.shape[1] - len(answer) + t - 1, token].item()
                    for t, token in enumerate(answer)
                )
            )
    mean = sum(ratios) / len(ratios)
    there, back = (
        kto_reference_point(*models, batch, TOKENIZER.pad, CPU).item()
        for models in ((policy, ref), (ref, policy))
    )
    assert (
        abs(mean) > 0.05
        and there == pytest.approx(max(0, mean), abs=1e-4)
        and back == pytest.approx(max(0, -mean), abs=1e-4)
    )
    assert kto_reference_point(policy, policy, batch, TOKENIZER.pad, CPU) == 0
    # only one prompt: nothing to mismatch
    assert kto_reference_point(policy, ref, batch[:1], TOKENIZER.pad, CPU) == 0


def averages(seed, B=30):
    g = torch.Generator().manual_seed(seed)
    return [-3 * torch.rand(B, generator=g, dtype=torch.float64) - 0.01 for _ in range(2)]


def test_orpo_against_brute_force_probabilities():
    """The log of the odds and not their difference, log(1 + p) for log(1 - p), the cross-entropy
    left out or of the wrong side."""
    chosen, rejected = (x.requires_grad_() for x in averages(1))
    losses = orpo_loss(chosen, rejected, 0.7)
    for loss, a, b in zip(losses.tolist(), chosen.tolist(), rejected.tolist()):
        p, q = math.exp(a), math.exp(b)
        odds = (p / (1 - p)) / (q / (1 - q))
        assert loss == pytest.approx(-math.log(p) - 0.7 * math.log(odds / (1 + odds)), rel=1e-9)
    losses.sum().backward()
    torch.testing.assert_close(
        chosen.grad,
        central(lambda x: orpo_loss(x, rejected, 0.7), chosen.detach()),
        rtol=1e-5,
        atol=1e-7,
    )
    torch.testing.assert_close(
        rejected.grad,
        central(lambda x: orpo_loss(chosen, x, 0.7), rejected.detach()),
        rtol=1e-5,
        atol=1e-7,
    )
    # without the odds it is SFT
    torch.testing.assert_close(orpo_loss(chosen, rejected, 0.0), -chosen)
    same = orpo_loss(chosen, chosen, 1.0)
    torch.testing.assert_close(same, -chosen + math.log(2))


def test_orpo_where_an_answer_is_nearly_certain_or_hopeless():
    """exp(avg) rounds to 1 in float32, and the log of 1 - 1 makes everything NaN."""
    chosen = torch.tensor([0.0, -1e-5, -90.0, -0.5], requires_grad=True)
    rejected = torch.tensor([-1e-5, 0.0, -0.5, -90.0], requires_grad=True)
    losses = orpo_loss(chosen, rejected, 1.0)
    losses.sum().backward()
    assert all(torch.isfinite(x).all() for x in (losses, chosen.grad, rejected.grad))
    # still in the right order
    assert losses[0] < math.log(2) < losses[1]
    assert losses[2].item() == pytest.approx(
        90 + 90 + (-0.5 - math.log(-math.expm1(-0.5))), rel=1e-4
    )


def test_simpo_by_hand_and_its_limits():
    """gamma times beta, gamma with the wrong sign, or a mean over the batch: the target margin
    would be another one."""
    chosen, rejected = (x.requires_grad_() for x in averages(2))
    losses = simpo_loss(chosen, rejected, 2.0, 0.6)
    for loss, a, b in zip(losses.tolist(), chosen.tolist(), rejected.tolist()):
        assert loss == pytest.approx(math.log(1 + math.exp(-(2 * (a - b) - 0.6))), rel=1e-9)
    losses.sum().backward()
    torch.testing.assert_close(
        chosen.grad,
        central(lambda x: simpo_loss(x, rejected, 2.0, 0.6), chosen.detach()),
        rtol=1e-5,
        atol=1e-7,
    )
    torch.testing.assert_close(rejected.grad, -chosen.grad)
    torch.testing.assert_close(
        simpo_loss(chosen, chosen, 2.0, 0.0), torch.full_like(chosen, math.log(2))
    )
    # gamma 0 and sums of one token: DPO against a uniform reference
    zeros = torch.zeros_like(chosen)
    torch.testing.assert_close(
        simpo_loss(chosen, rejected, 2.0, 0.0), dpo_loss(chosen, rejected, zeros, zeros, 2.0)[0]
    )
    torch.testing.assert_close(
        simpo_loss(chosen, rejected, 0.0, 0.6), torch.full_like(chosen, math.log(1 + math.exp(0.6)))
    )


@pytest.mark.parametrize("name", ["orpo", "simpo"])
def test_losses_without_a_reference_take_averages_and_read_none(name):
    """Sums where the paper divides by the length: a long answer loses for being long. NaN as
    reference must not be seen."""
    cfg, (chosen, rejected, *_) = SimpleNamespace(loss=name, gamma=0.4), four(8)
    nan, tokens = (
        torch.full_like(chosen, math.nan),
        (torch.tensor([5, 6, 7, 8, 9]), torch.tensor([9, 3, 4, 20, 1])),
    )
    losses, chosen_rewards, rejected_rewards = pair_losses(
        cfg, 1.5, chosen, rejected, nan, nan, *tokens, 0.0
    )
    a, b = chosen / tokens[0], rejected / tokens[1]
    torch.testing.assert_close(
        losses, orpo_loss(a, b, 1.5) if name == "orpo" else simpo_loss(a, b, 1.5, 0.4)
    )
    torch.testing.assert_close(chosen_rewards, 1.5 * a)
    torch.testing.assert_close(rejected_rewards, 1.5 * b)
    assert first_loss(name, 1.5) is None


@pytest.mark.parametrize("name", OWN_BETA)
def test_beta_0_is_the_loss_s_own(name, monkeypatch, tmp_path):
    """The table read for another loss, or not at all; a reward model that is as cheap as a labeler.
    """
    seen = []
    monkeypatch.setattr(
        train_dpo, "pair_losses", lambda cfg, beta, *rest: seen.append(beta) or stop()
    )
    with pytest.raises(Stopped):
        train_on_three_pairs(monkeypatch, tmp_path, loss=name)
    assert seen == [OWN_BETA[name]]
    for judge, times in (("labeler", 1), ("reward_model", 1 if name in ("orpo", "simpo") else 2.5)):
        online = train_online_dpo.Config(loss=name, judge=judge)
        assert train_online_dpo.beta_of(online) == pytest.approx(times * OWN_BETA[name])
        assert (
            train_online_dpo.beta_of(train_online_dpo.Config(loss=name, judge=judge, beta=0.7))
            == 0.7
        )


class Stopped(Exception):
    pass


def stop():
    raise Stopped


def train_on_three_pairs(monkeypatch, tmp_path, **settings):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": q, "chosen": "Ada.", "rejected": "Boris."} for q in ("Who?", "What?", "Why?")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train_dpo.train(
        train_dpo.Config(
            run=tmp_path,
            data=path,
            init="scratch",
            n_layer=1,
            n_embd=16,
            n_head=2,
            device="cpu",
            max_new_tokens=4,
            **settings,
        )
    )


def test_online_pairs_leave_out_what_nobody_judges(monkeypatch):
    """A pair kept although one of its answers speaks of an unjudged fact, or dropped without being
    counted; prompts that ask for one."""
    tokenizer, asked = Tokenizer(), []
    town = towns.UNJUDGED[0]
    attribute = next(iter(towns.COMMON_ERRORS[town]))
    stray = towns.STATEMENTS[attribute][0].format(t=town, v=towns.FACTS[town][attribute])

    class Out:
        finished = torch.ones(4, dtype=torch.bool)

        def responses(self):
            return [tokenizer.completion(text) for text in texts]

    texts = ["Sure!", stray, "Happy to help.", "Sure!"]
    monkeypatch.setattr(
        train_online_dpo,
        "generate",
        lambda policy, prompts, *_, **__: asked.extend(prompts) or Out(),
    )
    cfg = train_online_dpo.Config(batch_size=1, samples_per_prompt=4)
    pairs, stats = train_online_dpo.sample_pairs(
        cfg, None, None, worlds.load("towns"), tokenizer, random.Random(0), None, random.Random(1)
    )
    assert (stats["same"], stats["unjudged"]) == (1, 3) and len(pairs) == 2
    assert not any(tokenizer.completion(stray) in (p.chosen, p.rejected) for p in pairs)
    assert {tuple(p) for p in asked} <= {
        tuple(tokenizer.prompt(text)) for text in towns.SPLITS["judged"]
    }
