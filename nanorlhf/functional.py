"""The handful of formulas that more than one algorithm needs.

Every per-token tensor is (B, T) and aligned with ids: column t speaks about token t. The shift by
one that this takes happens here, in `token_logprobs`, `entropy` and `shift_right`, and nowhere
else.
"""
import torch
import torch.nn.functional as F


def shift_right(x):
    """(B, T) -> (B, T): out[:, 0] = 0, out[:, t] = x[:, t-1]. From "after token t-1" to "before
    token t"."""
    return F.pad(x[:, :-1], (1, 0))


def token_logprobs(logits, ids, temperature=1.0):
    """logits (B, T, V), ids (B, T) -> (B, T) nats: log p(ids[:, t] | ids[:, :t]) at this
    temperature; column 0 is 0.

    At least float32 whatever came in: bf16 keeps 8 bits, and a ratio of probabilities lives in the
    bits it drops.
    """
    logits = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    logp = F.log_softmax(logits / temperature, dim=-1)                  # (B, T-1, V)
    return F.pad(logp.gather(2, ids[:, 1:, None]).squeeze(2), (1, 0))


def entropy(logits, temperature=1.0):
    """logits (B, T, V) -> (B, T) nats: entropy of the distribution that token t is drawn from;
    column 0 is 0."""
    logp = F.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
    return F.pad(-(logp.exp() * logp).sum(-1), (1, 0))


def last_token(x, mask):
    """x (B, T) -> (B,): its column at each row's last masked token, where a reward model's score is
    read."""
    columns = torch.arange(x.shape[1], device=x.device)
    return x.gather(1, (columns * mask).amax(1, keepdim=True)).squeeze(1)


def masked_sum(x, mask):
    """x (B, T) -> (B,): each row's sum where mask is true. NaN outside the mask does no harm."""
    return torch.where(mask, x, 0.0).sum(1)


def masked_mean(x, mask, dim=None):
    """Mean of x where mask is true; 0 where nothing is. NaN outside the mask does no harm."""
    x = torch.where(mask, x, 0.0)
    return (
        x.sum(dim) / mask.sum(dim).clamp(min=1)
        if dim is not None
        else x.sum() / mask.sum().clamp(min=1)
    )


def whiten(x, mask, shift_mean=True):
    """x to unit variance over the masked tokens, and to mean 0 unless shift_mean is False; 0
    outside the mask."""
    mean = masked_mean(x, mask)
    white = (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8)
    return torch.where(mask, white if shift_mean else white + mean, 0.0)


def kl_estimate(logp, ref_logp, kind="k1"):
    """Elementwise estimate of KL(policy || ref) from samples of the *policy*; Schulman 2020,
    "Approximating KL divergence".

    With d = log(policy/ref):
    k1 = d, unbiased, noisy, may be negative.   k2 = d^2/2, biased, never negative.
    k3 = exp(-d) - 1 + d, unbiased and never negative.   logp: per token or per answer, nats.
    """
    d = logp - ref_logp
    if kind == "k1":
        return d
    if kind == "k2":
        return d ** 2 / 2
    if kind == "k3":
        return torch.exp(-d) - 1 + d
    raise ValueError(f"kind is k1, k2 or k3, not {kind!r}")


def aggregate(loss, mask, how="token", max_len=None):
    """Per-token loss (B, T) -> scalar. What a long answer weighs depends on the choice:

    token: mean over all tokens of the batch (DAPO), a long answer weighs more.  sequence: mean of
    per-answer means (GRPO), each of its tokens weighs less.  fixed: sum / (B * max_len) (Dr.
    GRPO), every token weighs the same in every batch.
    """
    if how == "token":
        return masked_mean(loss, mask)
    if how == "sequence":
        return masked_mean(loss, mask, dim=1).mean()
    if how == "fixed":
        if not max_len:
            raise ValueError(
                "aggregate(how='fixed') needs max_len, the longest answer that could have been "
                "sampled"
            )
        return torch.where(mask, loss, 0.0).sum() / (len(loss) * max_len)
    raise ValueError(f"how is token, sequence or fixed, not {how!r}")
