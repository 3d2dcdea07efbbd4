"""What a model says of tokens that are there, in as little memory as it takes: log-probs of masked
tokens, and of whole answers.

`plain_logprobs` is what it comes to. But of GPT-2's logits, (B, T, V) in float32, a batch of
16 x 512 tokens has 1.6 GB, and training wants them three times. `masked_logprobs` makes them from
the hidden states for the masked tokens alone, and not for all of those at once.
"""
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from nanorlhf import batches, devices
from nanorlhf.functional import token_logprobs

LOGITS_AT_ONCE = 2 ** 25        # 128 MB in float32


def plain_logprobs(model, ids, mask, temperature=1.0):
    """ids, mask (B, T) -> (B, T) nats: what masked_logprobs comes to, in one line of mathematics.

    A test holds the two together, values and gradients. Training takes the other one.
    """
    logp = token_logprobs(model(ids), ids, temperature)                 # (B, T)
    return torch.where(mask, logp, 0.0)


def in_parts(f, size, *tensors):
    """f(*tensors), `size` rows at a time: the same values and the same gradients.

    With more rows than that and gradients on, nothing of a part is kept but its rows: backward()
    runs its forward again, a third more work. So one part fills the memory, not the batch, and the
    loss that reads the result needs no gradient accumulation.
    """
    if len(tensors[0]) <= size:
        return f(*tensors)
    parts = zip(*(x.split(size) for x in tensors), strict=True)
    if torch.is_grad_enabled():
        again = [checkpoint(f, *part, use_reentrant=False, preserve_rng_state=False)
                 for part in parts]
        return torch.cat(again)
    return torch.cat([f(*part) for part in parts])


def masked_logprobs(model, ids, mask, temperature=1.0, micro_batch=256, entropy=False):
    """ids, mask (B, T) -> (B, T) nats: token_logprobs(model(ids), ids, temperature) where mask is
    true (never in column 0), else 0.

    micro_batch: rows a forward. entropy: return a pair, the other (B, T) as functional.entropy has
    it, without gradient.
    """
    def of_tokens(hidden, targets):
        logp = F.log_softmax(model.logits(hidden), dim=-1)              # (N, V)
        chosen = logp.gather(1, targets[:, None])                       # (N, 1)
        if not entropy:
            return chosen
        of_each = -(logp.exp() * logp).sum(-1, keepdim=True)            # (N, 1)
        return torch.cat([chosen, of_each], 1)                          # (N, 2)

    def of_rows(ids, mask):
        # places in the flattened batch; nothing stands before column 0
        where = F.pad(mask[:, 1:], (1, 0)).flatten().nonzero().squeeze(1)       # (N,)
        with devices.autocast(ids.device):
            hidden = model.hidden(ids).flatten(0, 1)                            # (B T, C)
        # divided here, by the temperature, there are fewer numbers than in the logits
        before = hidden.index_select(0, where - 1) / temperature                # (N, C)
        at_once = max(1, LOGITS_AT_ONCE // model.cfg.vocab_size)
        stats = in_parts(of_tokens, at_once, before, ids.flatten()[where])      # (N, 1 or 2)
        everywhere = stats.new_zeros(ids.numel(), stats.shape[1])               # (B T, 1 or 2)
        return everywhere.index_copy(0, where, stats).view(*ids.shape, -1)      # (B, T, 1 or 2)

    stats = in_parts(of_rows, micro_batch, ids, mask).unbind(2)                 # (B, T) each
    return (stats[0], stats[1].detach()) if entropy else stats[0]


def answer_logprobs(model, ids, mask, micro_batch=256):
    """ids, mask (N, T) -> (N,) nats: each answer's log-probs, summed over its tokens, end token
    included."""
    return masked_logprobs(model, ids, mask, micro_batch=micro_batch).sum(1)


@torch.no_grad()
def pair_logprobs(model, pairs, pad, batch_size, device):
    """[Preference] -> (chosen (B,), rejected (B,)) on the CPU: the log-probs of all their answers,
    batch_size answers at a time."""
    prompts, answers, chosen, rejected = batches.distinct_answers(pairs)
    logp = batches.map_answers(
        lambda ids, mask: answer_logprobs(model, ids, mask),
        prompts,
        answers,
        pad,
        device,
        batch_size,
    )
    return logp[chosen], logp[rejected]
