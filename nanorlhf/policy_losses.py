"""Policy gradients: what a token's advantage and the ratio new/old of its probability make.

All take and give (B, T), aligned with ids; the scripts choose how tokens add up to one number.
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
