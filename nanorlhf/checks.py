"""What must hold on the first batch of a run, or every later number is wrong.

Each check is an AssertionError whose message names the likely causes.
"""
import math


def check_rollout(recorded, recomputed, mask, autocast):
    """Log-probs recorded while sampling must be those of the training path: else every ratio
    and every KL is wrong. Both (B, T), nats."""
    error = (recorded - recomputed)[mask].abs()
    if autocast:
        error, bound = error.mean().item(), 0.01
    else:
        error, bound = error.max().item(), 1e-4
    assert error < bound, (
        f"sampled log-probs differ from recomputed ones by {error:.2g} nats (at most {bound}). "
        "Likely causes: another temperature, top-k or top-p while sampling; positions that count "
        "left padding; padding that is attended to; dropout left on")


def check_ratio(error, bound=1e-4):
    """The ratio new/old is 1 before the first update."""
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


LN_2 = math.log(2)


def check_first_loss(loss, bound, expected=LN_2):
    """A loss on log-ratios starts at a known number where the policy is the reference."""
    assert abs(loss - expected) < bound * max(1, expected), (
        f"the policy starts as the reference, yet the first loss is {loss:.6f} and not "
        f"{expected:.6f} (dpo: ln 2). Likely causes: a reference that changed, cached log-probs "
        "of other data or another tokenizer, masks that differ, dropout left on")
