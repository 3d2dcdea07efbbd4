"""Distillation: how far a student's next token is from its teacher's, token by token.

The states, prompt and tokens so far, are those of answers that somebody has written. The gradient
is that of the next token there. How the student's earlier tokens lead to a state is no part of it:
that would be the gradient of the answers' KL, which is another one (tests/test_distill.py).

Every per-token tensor is (B, T), aligned with ids. The teacher may read another prompt before the
same answer: it has ids and a mask of its own, which marks the same tokens in the same order.
"""
import math

import torch
import torch.nn.functional as F

from nanorlhf import devices
from nanorlhf.logprobs import LOGITS_AT_ONCE, in_parts


def token_divergence(student_logits, teacher_logits, kind="reverse_kl", mix=0.5):
    """(N, V) each -> (N,) nats: the divergence of two next-token distributions, S and T.

    forward_kl   KL(T || S): dear where the student rules out what the teacher says
    reverse_kl   KL(S || T): dear where the student says what the teacher rules out
    js           b KL(T || M) + (1-b) KL(S || M), M = b T + (1-b) S, with b = mix

    js is the generalised Jensen-Shannon divergence of Agarwal et al. 2023, never above ln 2. As b
    goes to 0 it goes to b times forward KL, as b goes to 1 to 1-b times reverse KL. ValueError for
    another kind, and for a mix of 0 or 1, where js is 0 whatever the two say.
    """
    student = F.log_softmax(student_logits, dim=-1)                     # (N, V)
    teacher = F.log_softmax(teacher_logits, dim=-1)                     # (N, V)
    if kind == "forward_kl":
        return _kl(teacher, student)
    if kind == "reverse_kl":
        return _kl(student, teacher)
    if kind != "js":
        raise ValueError(f"kind is forward_kl, reverse_kl or js, not {kind!r}")
    if not 0 < mix < 1:
        raise ValueError(f"js takes a mix between 0 and 1, not {mix}")
    # a log of summed probabilities: where both are tiny, the log of their sum would be -inf
    mixture = torch.logaddexp(teacher + math.log(mix), student + math.log(1 - mix))     # (N, V)
    return mix * _kl(teacher, mixture) + (1 - mix) * _kl(student, mixture)


def _kl(p, q):
    """Log-probs (N, V) each -> KL(p || q), (N,) nats."""
    return (p.exp() * (p - q)).sum(-1)


def reinforce_loss(logp, teacher_logp):
    """-A logp with A = log pi_T - log pi_S, detached. logp, teacher_logp (B, T) of tokens that the
    *student* sampled, nats -> (B, T).

    No discount: a token is credited with its own A alone. On average over what is sampled the
    gradient is that of reverse KL, state by state, which token_divergence sums over the vocabulary.
    A must be detached: else the student's own log-prob in it counts twice. And -A without the
    factor logp teaches nothing, though its mean is the KL: its gradient is 0 on average.
    """
    advantages = (teacher_logp - logp).detach()
    return -advantages * logp


def aligned(x, mask, other_mask):
    """x (B, T), read where mask is true -> (B, T'), the same numbers where other_mask is, else 0.
    Both masks mark as many tokens in each row."""
    return x.new_zeros(other_mask.shape).masked_scatter(other_mask, x[mask])


def masked_states(model, ids, mask, micro_batch=256):
    """ids, mask (B, T) -> (N, C): the hidden state before each of the N masked tokens, row by row.
    Column 0, which nothing stands before, never counts. micro_batch: rows a forward."""
    def of_rows(ids, mask):
        with devices.autocast(ids.device):
            hidden = model.hidden(ids)                                  # (B, T, C)
        return hidden[:, :-1][mask[:, 1:]]                              # (N, C)

    return in_parts(of_rows, micro_batch, ids, mask)


def masked_divergence(student, teacher, ids, mask, teacher_ids, teacher_mask, kind="reverse_kl",
                      mix=0.5, temperature=1.0, micro_batch=256):
    """-> (divergence, kl, entropy), (B, T) nats each: token_divergence where mask is true (never in
    column 0), else 0; KL(student || teacher) and the student's entropy there, without gradient.

    ids, mask (B, T) of the student; teacher_ids, teacher_mask (B, T') of the same answers. The
    gradient goes to the student alone. What is kept are the hidden states of masked tokens, (N, C)
    of both models. Logits are made of some of those at a time, as in logprobs.masked_logprobs. Of
    GPT-2's, (B, T, V) in float32, both models have 3.3 GB for 16 x 512 tokens. ValueError where
    the masks do not mark the same number of tokens.
    """
    def of_tokens(student_states, teacher_states):
        mine = student.logits(student_states / temperature)             # (n, V)
        with torch.no_grad():
            theirs = teacher.logits(teacher_states / temperature)       # (n, V)
        divergence = token_divergence(mine, theirs, kind, mix)          # (n,)
        with torch.no_grad():
            kl = token_divergence(mine, theirs, "reverse_kl")           # (n,)
            logp = F.log_softmax(mine, dim=-1)                          # (n, V)
            entropy = -(logp.exp() * logp).sum(-1)                      # (n,)
        return torch.stack([divergence, kl, entropy], 1)                # (n, 3)

    with torch.no_grad():
        teacher_states = masked_states(teacher, teacher_ids, teacher_mask, micro_batch) # (N, C')
    student_states = masked_states(student, ids, mask, micro_batch)     # (N, C)
    if len(student_states) != len(teacher_states):
        raise ValueError(f"the student's mask marks {len(student_states)} tokens, the teacher's "
                         f"{len(teacher_states)}: they must be the same answers")
    # the logits of both models
    at_once = max(1, LOGITS_AT_ONCE // (2 * student.cfg.vocab_size))
    stats = in_parts(of_tokens, at_once, student_states, teacher_states)                # (N, 3)
    inside = F.pad(mask[:, 1:], (1, 0))                                 # (B, T)
    divergence, kl, entropy = (
        stats.new_zeros(mask.shape).masked_scatter(inside, column) for column in stats.unbind(1))
    return divergence, kl.detach(), entropy.detach()
