"""Direct alignment: what a preference pair says, as a loss on the policy's own log-probs.

Some take summed log-probs of answers (policy_chosen and its like), some averages over tokens
(avg_chosen), as each paper has it. All are pure: tensors in, losses out.
"""
import math

import torch
import torch.nn.functional as F

from nanorlhf import InputError

NAMES = ("dpo", "cdpo", "robust", "dpo_norm", "ipo", "hinge", "apo_zero", "apo_down",
         "kto", "orpo", "simpo")
REFERENCE_FREE = ("orpo", "simpo")
# What a beta of 0 stands for; the losses differ in what beta multiplies.
OWN_BETA = {
    "dpo": 0.2,
    "cdpo": 0.2,
    "robust": 0.2,
    # of log-ratios per token, as simpo's; Lambert et al. 2024 have 5
    "dpo_norm": 5.0,
    "ipo": 0.1,         # the margin is led to 1 / (2 beta) nats, here 5
    "hinge": 0.2,       # the margin is pushed up to 1 / beta nats, here 5
    "apo_zero": 0.2,
    "apo_down": 0.2,
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


def robust_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta, label_smoothing):
    """((1 - e) L - e L~) / (1 - 2e), L DPO's loss and L~ that of the pair the other way round; in
    and out as dpo_loss. Chowdhury et al. 2024, "Provably robust DPO".

    e, label_smoothing, below 0.5: share of the labels believed to be the wrong way round. Where it
    is that share, the mean over the flips is DPO's loss on the right labels. Unlike cDPO's it has
    no minimum: however large h, its slope stays steeper than e beta / (1 - 2e).
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    as_labelled, reversed_ = -F.logsigmoid(beta * h), -F.logsigmoid(-beta * h)
    e = label_smoothing
    return ((1 - e) * as_labelled - e * reversed_) / (1 - 2 * e), *rewards


def dpo_norm_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_tokens,
                  rejected_tokens, beta):
    """DPO on log-probs per token; in and out as dpo_loss, the answers' lengths (B,) beside them.

    -log sigmoid(beta (h_c / n_c - h_r / n_r)), Lambert et al. 2024 (Tulu 3), eq. 6. A longer answer
    has more log-ratio to win with: divided by its length it has not.
    """
    return dpo_loss(policy_chosen / chosen_tokens, policy_rejected / rejected_tokens,
                    ref_chosen / chosen_tokens, ref_rejected / rejected_tokens, beta)


def ipo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """(h - 1 / (2 beta))^2; in and out as dpo_loss. Azar et al. 2023, eq. 17.

    Sums, as in the paper; TRL averages over tokens, with its authors' consent. The margin has a
    target: pairs that all labelers agree on do not drive it to infinity.
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


def apo_zero_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """1 - sigmoid(beta h_c) + sigmoid(beta h_r); in and out as dpo_loss. D'Oosterlinck et al. 2024,
    eq. 7.

    h_c and h_r: log policy/ref of the chosen answer, of the rejected one. Each has its own anchor
    at 0: the chosen one goes up and the rejected one down. For chosen answers that are better than
    the policy's own. It is twice KTO's loss of a pair with a z0 of 0.
    """
    _, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    h_c, h_r = policy_chosen - ref_chosen.detach(), policy_rejected - ref_rejected.detach()
    return 1 - torch.sigmoid(beta * h_c) + torch.sigmoid(beta * h_r), *rewards


def apo_down_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """sigmoid(beta h_c) + 1 - sigmoid(beta (h_c - h_r)); in and out as dpo_loss. D'Oosterlinck et
    al. 2024, eq. 8.

    Both go down, the rejected one further. For policies that are better than both answers.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    h_c = policy_chosen - ref_chosen.detach()               # (B,)
    return torch.sigmoid(beta * h_c) + 1 - torch.sigmoid(beta * h), *rewards


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
    if loss in ("dpo", "cdpo", "robust", "dpo_norm"):
        return math.log(2)
    known = {"ipo": 1 / (4 * beta ** 2), "hinge": 1.0, "apo_zero": 1.0, "apo_down": 1.0,
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
    if cfg.loss == "robust":
        return robust_loss(*summed, beta, cfg.label_smoothing)
    if cfg.loss == "dpo_norm":
        return dpo_norm_loss(*summed, chosen_tokens, rejected_tokens, beta)
    if cfg.loss == "ipo":
        return ipo_loss(*summed, beta)
    if cfg.loss == "hinge":
        return hinge_loss(*summed, beta)
    if cfg.loss == "apo_zero":
        return apo_zero_loss(*summed, beta)
    if cfg.loss == "apo_down":
        return apo_down_loss(*summed, beta)
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
    for flag, losses in (("label_smoothing", ("cdpo", "robust")), ("gamma", ("simpo",)),
                         ("lambda_D", ("kto",)), ("lambda_U", ("kto",))):
        own = getattr(type(cfg), flag, None)
        if cfg.loss not in losses and getattr(cfg, flag, own) != own:
            raise InputError(f"--{flag} has no effect on --loss {cfg.loss}; "
                             f"it belongs to --loss {' and '.join(losses)}")
    if cfg.loss == "robust" and cfg.label_smoothing >= 0.5:
        raise InputError(f"--label_smoothing {cfg.label_smoothing:g}: robust needs less than 0.5; "
                         "where half of the labels are wrong they say nothing")
