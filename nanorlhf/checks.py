"""What must hold on the first batch of a run, or every later number is wrong.

Each check is an AssertionError whose message names the likely causes.
"""
import math

BF16 = 2 ** -8      # the step of bf16, relative to the number


def tolerance(bf16, spread):
    """Nats that a token's log-prob may be off by, on average, between two ways to compute it.

    In bf16 both factors of every product are rounded, by up to half a step. Roundings are as often
    up as down, and the residual stream that the layers add to is float32: a hidden state is off by
    a step or two of its length. So are the logits of theirs, whatever their common offset, for the
    head is float32. At GPT-2's width 1.2 to 2.3 steps of the log-probs' spread were measured, with
    2 layers and with 12. Four are allowed.
    """
    return 4 * BF16 * max(1.0, spread) if bf16 else 1e-4


def check_rollout(recorded, recomputed, mask, bf16=False):
    """Log-probs recorded while sampling must be those of the training path: else every ratio
    and every KL is wrong. Both (B, T), nats; bf16: whether the training path rounds so."""
    error, spread = (recorded - recomputed)[mask].abs(), recomputed[mask].std(correction=0).item()
    error, bound = (error.mean() if bf16 else error.max()).item(), tolerance(bf16, spread)
    assert error < bound, (
        f"sampled log-probs differ from recomputed ones by {error:.2g} nats (at most {bound:.2g}). "
        "Likely causes: another temperature, top-k or top-p while sampling; positions that count "
        "left padding; padding that is attended to; dropout left on")


def check_ratio(error, bf16=False, spread=1.0):
    """The ratio new/old is 1 before the first update. error: the largest of a batch. In bf16,
    which rounds another shape of batch in another way, the largest is some 8 times the average."""
    bound = 8 * tolerance(bf16, spread) if bf16 else 1e-4
    assert error < bound, (
        f"before the first update the ratio new/old is off 1 by {error:.2g}. Likely causes: old "
        "log-probs at another temperature or from another path (sampling, autocast), rows "
        "shuffled against their log-probs, dropout left on, an update made too early")


def check_kl(kl):
    """The KL of a policy to itself is 0."""
    assert abs(kl) < 1e-3, (
        f"the policy starts as the reference, yet the KL between them is {kl:.2g} nats. Likely "
        "causes: a reference that changed or is being trained, log-probs at different "
        "temperatures, or masks that differ")


def check_divergence(nats):
    """A student that is its teacher and reads the same prompts is at no distance from it."""
    assert abs(nats) < 1e-3, (
        f"the student starts as its teacher, yet the first loss is {nats:.2g} nats an answer. "
        "Likely causes: a teacher that is being trained, the two asked at different temperatures, "
        "or masks that do not mark the same tokens")


LN_2 = math.log(2)


def first_loss_bound(bf16, beta, logp, tokens):
    """By how much of itself a first loss may be off. logp, tokens (B,): answers' summed log-probs
    and their lengths.

    Errors of n tokens add up to sqrt(n) of one, those of B pairs average to 1/sqrt(B). A pair
    has four sums, of which two differ by more than the shape of their batch. A loss on beta times
    their difference changes by at most 4 beta of itself a nat: ipo does, dpo by beta / (2 ln 2),
    robust by that over 1 - 2e (for e up to 0.4), dpo_norm by that over an answer's tokens.
    """
    if not bf16:
        return 1e-5
    nats, n = (-logp / tokens).mean().item(), tokens.float().mean().item()
    return 8 * beta * tolerance(bf16, nats) * math.sqrt(n / len(logp))


def check_first_loss(loss, bound, expected=LN_2):
    """A loss on log-ratios starts at a known number where the policy is the reference."""
    assert abs(loss - expected) < bound * max(1, expected), (
        f"the policy starts as the reference, yet the first loss is {loss:.6f} and not "
        f"{expected:.6f} (dpo: ln 2). Likely causes: a reference that changed, cached log-probs "
        "of other data or another tokenizer, masks that differ, dropout left on")
