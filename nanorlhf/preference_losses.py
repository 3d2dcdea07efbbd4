"""Direct alignment: what a preference pair says, as a loss on the policy's own log-probs.

Some take summed log-probs of answers (policy_chosen and its like), some averages over tokens
(avg_chosen), as each paper has it. All are pure: tensors in, losses out.
"""
import math

import torch
import torch.nn.functional as F

from nanorlhf import InputError

NAMES = ("dpo", "cdpo", "ipo", "hinge", "kto", "orpo", "simpo")
REFERENCE_FREE = ("orpo", "simpo")
# What a beta of 0 stands for; the losses differ in what beta multiplies.
OWN_BETA = {
    "dpo": 0.2,
    "cdpo": 0.2,
    "ipo": 0.1,         # the margin is led to 1 / (2 beta) nats, here 5
    "hinge": 0.2,       # the margin is pushed up to 1 / beta nats, here 5
    "kto": 0.2,
    # weight of the odds ratio beside the chosen answers' cross-entropy; at 0 SFT on them
    "orpo": 3.0,
    # log-probs per token differ by tenths of a nat, sums by several nats: ten times as much
    "simpo": 2.0,
}


def log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """Summed log-probs of answers, each (B,), nats -> (h, chosen_rewards, rejected_rewards),
    each (B,).

    h, nats, is what the losses on log-ratios have in common: the chosen answer's log policy/ref
    less the rejected one's. The rewards are the implicit ones, beta log policy/ref, detached.
    """
    chosen = policy_chosen - ref_chosen.detach()            # (B,)
    rejected = policy_rejected - ref_rejected.detach()      # (B,)
    return chosen - rejected, beta * chosen.detach(), beta * rejected.detach()


def dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.0):
    """Summed log-probs of answers, each (B,), nats -> (losses, chosen_rewards,
    rejected_rewards), each (B,).

    -log sigmoid(beta h), Rafailov et al. 2023, eq. 7. label_smoothing > 0 is cDPO (Mitchell
    2023): that share of the labels is believed to be the wrong way round.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    as_labelled, reversed_ = F.logsigmoid(beta * h), F.logsigmoid(-beta * h)
    losses = -(1 - label_smoothing) * as_labelled - label_smoothing * reversed_
    return losses, *rewards


def ipo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """(h - 1 / (2 beta))^2; in and out as dpo_loss. Azar et al. 2023, eq. 17.

    Sums, as in the paper (some libraries average). The margin has a target: pairs that all
    labelers agree on do not drive it to infinity.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (h - 1 / (2 * beta)) ** 2, *rewards


def hinge_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """max(0, 1 - beta h); in and out as dpo_loss.

    The hinge-norm loss of RSO (Liu et al. 2023): SLiC's, on log-ratios. Past a margin of 1 / beta
    nats a pair has no gradient at all.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return F.relu(1 - beta * h), *rewards


def kto_loss(policy, ref, desirable, z0, beta):
    """Summed log-probs of answers (B,), desirable (B,) bool, z0 () nats -> losses (B,).

    1 - sigmoid(+-beta (log policy/ref - z0)): + for a desirable answer, - for an undesirable one.
    Ethayarajh et al. 2024, eq. 8. z0, the KL at which people see neither gain nor loss, is a
    constant here: no gradient goes through it.
    """
    gain = beta * (policy - ref.detach() - torch.as_tensor(z0).detach())
    return 1 - torch.sigmoid(torch.where(desirable, gain, -gain))


def orpo_loss(avg_chosen, avg_rejected, beta):
    """Log-probs per token (B,) -> losses (B,): -avg_chosen - beta log sigmoid(log odds ratio).

    Hong et al. 2024, eq. 6 and 7. Odds are p / (1 - p) of p = exp(avg). No reference: the first
    term, plain cross-entropy, is what holds the policy back.
    """
    def log_odds(avg):
        # 1 - exp(avg) would be 0 where an answer is nearly certain
        return avg - torch.log(-torch.expm1(avg.clamp(max=-1e-6)))

    return -avg_chosen - beta * F.logsigmoid(log_odds(avg_chosen) - log_odds(avg_rejected))


def simpo_loss(avg_chosen, avg_rejected, beta, gamma):
    """Log-probs per token (B,) -> losses (B,): -log sigmoid(beta (avg_chosen - avg_rejected) -
    gamma). Meng et al. 2024, eq. 6.

    No reference, and averages: the reward is how likely the policy finds an answer per token,
    whatever its length.
    """
    return -F.logsigmoid(beta * (avg_chosen - avg_rejected) - gamma)


def thumb_weights(chosen_tokens, rejected_tokens, lambda_D, lambda_U):
    """Lengths of answers (B,) -> (up (B,), down (B,)): what the two sides of each row count in
    KTO's loss.

    lambda_D for a desirable answer and lambda_U for an undesirable one (Ethayarajh et al. 2024, eq.
    8). A pair is one of each, half a row; of an answer judged alone the other side has no tokens.
    """
    up, down = (chosen_tokens > 0).float(), (rejected_tokens > 0).float()
    return lambda_D * up / (up + down), lambda_U * down / (up + down)


def first_loss(loss, beta, thumbs=(0.5, 0.5)):
    """What it must be where the policy is the reference; None where there is no reference.
    thumbs: kto's, as pair_losses takes them."""
    weights = sum(torch.as_tensor(side).mean().item() for side in thumbs)
    known = {"dpo": math.log(2), "cdpo": math.log(2), "ipo": 1 / (4 * beta ** 2), "hinge": 1.0,
             "kto": 0.5 * weights}
    return known.get(loss)


def pair_losses(cfg, beta, chosen, rejected, ref_chosen, ref_rejected, chosen_tokens,
                rejected_tokens, z0=0.0, thumbs=(0.5, 0.5)):
    """What cfg.loss makes of B pairs: summed log-probs and lengths in tokens, each (B,) -> as
    dpo_loss.

    cfg has loss, label_smoothing and gamma. orpo and simpo read no ref. z0 and thumbs, what a
    liked and a disliked answer count, are kto's.
    """
    summed = chosen, rejected, ref_chosen, ref_rejected
    if cfg.loss == "dpo":
        return dpo_loss(*summed, beta)
    if cfg.loss == "cdpo":
        return dpo_loss(*summed, beta, cfg.label_smoothing)
    if cfg.loss == "ipo":
        return ipo_loss(*summed, beta)
    if cfg.loss == "hinge":
        return hinge_loss(*summed, beta)
    if cfg.loss == "kto":
        liked = torch.ones_like(chosen, dtype=torch.bool)
        up = kto_loss(chosen, ref_chosen, liked, z0, beta)
        down = kto_loss(rejected, ref_rejected, ~liked, z0, beta)
        chosen_rewards = beta * (chosen - ref_chosen).detach()
        rejected_rewards = beta * (rejected - ref_rejected).detach()
        return thumbs[0] * up + thumbs[1] * down, chosen_rewards, rejected_rewards
    avg_chosen, avg_rejected = chosen / chosen_tokens, rejected / rejected_tokens
    if cfg.loss == "orpo":
        losses = orpo_loss(avg_chosen, avg_rejected, beta)
    else:
        losses = simpo_loss(avg_chosen, avg_rejected, beta, cfg.gamma)
    return losses, beta * avg_chosen.detach(), beta * avg_rejected.detach()


def check_settings(cfg):
    """InputErrors that the scripts on pairs share: settings without effect."""
    if cfg.ref and cfg.loss in REFERENCE_FREE:
        raise InputError(f"--loss {cfg.loss} has no reference; leave --ref out")
    for flag, loss in (("label_smoothing", "cdpo"), ("gamma", "simpo"), ("lambda_D", "kto"),
                       ("lambda_U", "kto")):
        own = getattr(type(cfg), flag, None)
        if cfg.loss != loss and getattr(cfg, flag, own) != own:
            raise InputError(f"--{flag} has no effect on --loss {cfg.loss}; "
                             f"it belongs to --loss {loss}")
