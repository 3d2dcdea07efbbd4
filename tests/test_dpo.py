import copy
import math

import pytest
import torch

import train_dpo
from nanorlhf.data import Pair
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.tokenizer import Tokenizer
from train_dpo import check_first_loss, dpo_loss, pair_logprobs, ref_logprobs

CPU = torch.device("cpu")
TOKENIZER = Tokenizer()


def tiny(seed=0):
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 24, 1, 2, 16), torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(8)
    return model


def pairs():
    end = TOKENIZER.end
    return [Pair([1, 2, 3], [4, 5, end], [6, end]), Pair([7], [8, 9, 10, 11, 12, end], [13, 14]), Pair([2, 3], [end], [4, 4, 4, end])]


def four(seed=0, B=5):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, generator=g, dtype=torch.float64) * 3 - 20 for _ in range(4)]


def test_loss_is_ln_2_where_policy_is_reference():
    """A constant left out, or log-ratios taken between chosen and rejected instead of policy and reference."""
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
    args = [torch.tensor([x], dtype=torch.float64) for x in (1.0, -1.0, 0.0, 0.0)]             # margin 2 beta = 1
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
    torch.testing.assert_close(dpo_loss(pc, pr, rc, rr, 0.3, 0.1)[0], dpo_loss(pr, pc, rr, rc, 0.3, 0.9)[0])


def test_rewards_are_detached():
    """Logged rewards that hold the graph of every step."""
    pc, pr, rc, rr = four(3)
    losses, chosen, rejected = dpo_loss(pc.requires_grad_(), pr.requires_grad_(), rc, rr, 0.3)
    assert losses.requires_grad and not chosen.requires_grad and not rejected.requires_grad
    torch.testing.assert_close(chosen, 0.3 * (pc.detach() - rc))


@torch.no_grad()
def test_pair_logprobs_equal_one_row_at_a_time():
    """Prompt tokens, pads or the token after counted in; the end token left out; a mean for the sum; the sides or the batches mixed up."""
    model = tiny()
    chosen, rejected = pair_logprobs(model, pairs(), TOKENIZER.pad, 2, CPU)
    for i, p in enumerate(pairs()):
        for got, answer in ((chosen[i], p.chosen), (rejected[i], p.rejected)):
            logp = model(torch.tensor([p.prompt + answer]))[0].log_softmax(-1)
            expected = sum(logp[len(p.prompt) + t - 1, token].item() for t, token in enumerate(answer))
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
    monkeypatch.setattr(train_dpo, "pair_logprobs", refuse)
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
    monkeypatch.setattr(train_dpo, "pair_logprobs", refuse)
    ref_logprobs(ref, TOKENIZER, rows, path, 2, CPU)           # and the new ones were kept


@torch.no_grad()
def test_first_loss_is_checked():
    """Passes where the policy is the reference; trips when the reference has changed since."""
    policy, ref = tiny(), tiny()
    assert torch.equal(policy.wte.weight, ref.wte.weight)

    def first_loss():
        return dpo_loss(*pair_logprobs(policy, pairs(), TOKENIZER.pad, 2, CPU), *pair_logprobs(ref, pairs(), TOKENIZER.pad, 2, CPU),
                        beta=0.1)[0].mean().item()

    check_first_loss(first_loss(), 1e-5)
    changed = copy.deepcopy(ref.state_dict())
    changed["wpe.weight"] = changed["wpe.weight"].flip(0)
    ref.load_state_dict(changed)
    with pytest.raises(AssertionError, match="not ln 2 .* a reference that changed"):
        check_first_loss(first_loss(), 1e-5)
    with pytest.raises(AssertionError):
        check_first_loss(math.nan, 1e-5)
