"""What a model says of tokens that are there, in as little memory as it takes: log-probs of masked tokens, and of whole answers.

`token_logprobs(model(ids), ids)` is what it comes to. But of GPT-2's logits, (B, T, V) in float32, a batch of 16 x 512 tokens has 1.6 GB, and
training wants them three times: here they are made from the hidden states for the masked tokens alone, and not for all of those at once.
"""
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from nanorlhf import data, run

LOGITS_AT_ONCE = 2 ** 25        # 128 MB in float32


def in_parts(f, size, *tensors):
    """f(*tensors), `size` rows at a time: the same values and the same gradients.

    With more rows than that and gradients on, nothing of a part is kept but its rows: backward() runs its forward again, a third more work.
    So one part fills the memory, not the batch, and the loss that reads the result needs no gradient accumulation.
    """
    if len(tensors[0]) <= size:
        return f(*tensors)
    parts = zip(*(x.split(size) for x in tensors))
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(f, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    return torch.cat([f(*part) for part in parts])


def masked_logprobs(model, ids, mask, temperature=1.0, micro_batch=256, entropy=False):
    """ids, mask (B, T) -> (B, T) nats: token_logprobs(model(ids), ids, temperature) where mask is true (never in column 0), else 0.

    micro_batch: rows a forward. entropy: return a pair, the other (B, T) as functional.entropy has it, without gradient.
    """
    def of_tokens(hidden, targets):
        with run.autocast(ids.device):
            logits = model.logits(hidden)                                                       # (N, V)
        logp = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        chosen = logp.gather(1, targets[:, None])                                               # (N, 1)
        return torch.cat([chosen, -(logp.exp() * logp).sum(-1, keepdim=True)], 1) if entropy else chosen

    def of_rows(ids, mask):
        where = F.pad(mask[:, 1:], (1, 0)).flatten().nonzero().squeeze(1)                       # (N,) places in the flattened batch
        with run.autocast(ids.device):
            before = model.hidden(ids).flatten(0, 1).index_select(0, where - 1) / temperature   # (N, C): fewer to divide than logits
        stats = in_parts(of_tokens, max(1, LOGITS_AT_ONCE // model.cfg.vocab_size), before, ids.flatten()[where])
        return stats.new_zeros(ids.numel(), stats.shape[1]).index_copy(0, where, stats).view(*ids.shape, -1)     # (B, T, 1 or 2)

    stats = in_parts(of_rows, micro_batch, ids, mask).unbind(2)
    return (stats[0], stats[1].detach()) if entropy else stats[0]


def answer_logprobs(model, ids, mask, micro_batch=256):
    """ids, mask (N, T) -> (N,) nats: each answer's log-probs, summed over its tokens, end token included."""
    return masked_logprobs(model, ids, mask, micro_batch=micro_batch).sum(1)


@torch.no_grad()
def pair_logprobs(model, pairs, pad, batch_size, device):
    """[Pair] -> (chosen (B,), rejected (B,)) on the CPU: the log-probs of all their answers, batch_size answers at a time."""
    prompts, answers, chosen, rejected = data.distinct_answers(pairs)
    logp = data.map_answers(lambda ids, mask: answer_logprobs(model, ids, mask), prompts, answers, pad, device, batch_size)
    return logp[chosen], logp[rejected]
