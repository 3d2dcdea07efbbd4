"""Policy gradients: what a token's advantage and the ratio new/old of its probability make.

Losses take and give (B, T), aligned with ids; the scripts choose how tokens add up to one number.
Below them stand newer advantages and a mask that no script has a flag for.
"""
import torch

from nanorlhf.functional import masked_mean


def ratios(logp, old_logp, mask, level="token"):
    """exp(logp - old_logp), 1 outside the mask. (B, T) each.

    level "sequence": one ratio an answer, the geometric mean over its tokens, in every column
    (GSPO, Zheng et al. 2025, eq. 7).
    """
    log_ratio = torch.where(mask, logp - old_logp, 0.0)
    if level == "sequence":
        log_ratio = masked_mean(log_ratio, mask, dim=1)[:, None].expand_as(mask)
    return log_ratio.exp()


def clipped_loss(ratio, advantages, clip_low, clip_high):
    """-min(ratio A, clip(ratio) A): the worse of the two (Schulman et al. 2017, eq. 7).

    Past the clip a token's gradient is 0 where going on would pay, and whole where it would not.
    advantages (B, T) or (B, 1).
    """
    capped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(-advantages * ratio, -advantages * capped)


def cispo_loss(ratio, logp, advantages, mask, clip_low, clip_high):
    """-sg(clip(ratio)) A log pi: the ratio is a capped weight, not a wall (MiniMax 2025, eq. 4)."""
    weight = ratio.clamp(1 - clip_low, 1 + clip_high).detach()
    return -weight * advantages * torch.where(mask, logp, 0.0)


# temperatures of SAPO's gate for advantages above 0, and for the others: these fade sooner
SAPO_TAU = 1.0, 1.05


def sapo_loss(ratio, advantages):
    """-(4 / tau) sigmoid(tau (ratio - 1)) A: a gate in place of the clip ("Soft Adaptive Policy
    Optimization", Qwen team 2025).

    Its gradient by log pi is the plain -A ratio, times sech^2(tau (ratio - 1) / 2): 1 at ratio 1,
    and less the further the ratio is from it, on either side. advantages (B, T) or (B, 1).
    """
    above, others = SAPO_TAU
    tau = torch.full_like(advantages, others).masked_fill(advantages > 0, above)
    return -advantages * 4 / tau * torch.sigmoid(tau * (ratio - 1))


def maxrl_advantages(rewards):
    """rewards (P, K), right 1 or wrong 0 -> (P, K): (r - mean) / mean, 0 where no answer is right.
    MaxRL, Tajwar et al. 2026. ValueError for other rewards.

    With p the chance to be right, the expected gradient of (1/K) sum of A log pi is p's gradient
    times 1 + (1-p) + ... + (1-p)^(K-2). As K grows that sum goes to 1/p, and the gradient to that
    of log p: maximum likelihood, to which hard prompts matter more. With K = 2 it is RLOO.
    """
    if not ((rewards == 0) | (rewards == 1)).all():
        raise ValueError("MaxRL takes rewards of 0 and 1 alone")
    mean = rewards.mean(1, keepdim=True)                                # (P, 1)
    return torch.where(mean > 0, (rewards - mean) / mean, 0.0)


def gdpo_advantages(parts, weights):
    """parts (P, K, M): M rewards of each answer; weights (M,) -> (P, K). GDPO, Liu et al. 2026.

    Each part is normalised within its group, as GRPO does it, before they are added up; the sums
    are normalised over the batch. Were the parts added up first, one with a large spread would
    drown the others. A part that is flat in a group says nothing there. ValueError when K < 2.
    """
    if parts.shape[1] < 2:
        raise ValueError(f"GDPO compares the answers to a prompt: it needs 2, not {parts.shape[1]}")
    flat = parts.amax(1, keepdim=True) == parts.amin(1, keepdim=True)   # (P, 1, M)
    centred = parts - parts.mean(1, keepdim=True)                       # (P, K, M)
    each = (centred / (parts.std(1, keepdim=True) + 1e-4)).masked_fill(flat, 0.0)
    total = (each * weights).sum(2)                                     # (P, K)
    return (total - total.mean()) / (total.std() + 1e-4)


def off_policy_mask(advantages, old_logp, logp, mask, delta):
    """-> (B,) bool, False for answers to leave out of the update: worse than expected, and written
    by a policy that is no longer this one (DeepSeek-V3.2, 2025).

    advantages (B, 1) or (B, T), of which the mean counts; the others (B, T). delta: nats a token
    that old_logp may lie above logp on average. Good answers stay. A mistake that this policy no
    longer makes teaches it little, and can do harm.
    """
    advantage = masked_mean(advantages.expand_as(mask), mask, dim=1)    # (B,)
    drift = masked_mean(old_logp - logp, mask, dim=1)                   # (B,) nats a token
    return ~((advantage < 0) & (drift > delta))
