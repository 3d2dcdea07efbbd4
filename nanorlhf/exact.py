"""A world small enough to enumerate: an end token and two words, answers of at most three tokens,
15 answers to each of two prompts.

With every answer a row of a batch, each expectation is a sum, pi* = ref exp(r/beta)/Z can be
written down, and what the scripts do to sampled answers can be compared with what they should do
on average, to the last digit. A prompt is one word, and the padding is the end token's id: a mask
taken from ids instead of lengths goes wrong here.
"""
import itertools
from dataclasses import dataclass

import torch
import torch.nn as nn

from nanorlhf.functional import token_logprobs
from nanorlhf.gpt import GPT, GPTConfig

END, WORDS, V, T = 0, (1, 2), 3, 3
PROMPTS = WORDS


@dataclass
class Answers:
    ids: torch.Tensor        # (N, 1+T) prompt, answer, padding
    mask: torch.Tensor       # (N, 1+T) the answer, its end token included
    # (N,) False: cut off after T words. That is an outcome too, or the probabilities do not sum to
    # 1
    finished: torch.Tensor


def answers(prompt=PROMPTS[0]):
    """Every answer there is to this prompt."""
    complete = [words + (END,) for n in range(T) for words in itertools.product(WORDS, repeat=n)]
    cut_off = list(itertools.product(WORDS, repeat=T))
    rows = complete + cut_off
    ids = torch.tensor([(prompt, *row) + (END,) * (T - len(row)) for row in rows])
    mask = torch.tensor([[False] + [t < len(row) for t in range(T)] for row in rows])
    return Answers(ids, mask, torch.arange(len(rows)) < len(complete))


def waves(n, scale, phase):
    """n numbers that look random and are the same on every machine."""
    return scale * (phase + 1.7 * torch.arange(n, dtype=torch.float64)).sin()


class Table(nn.Module):
    """A free parameter for each prefix and output: as a policy (V outputs) any distribution, as a
    critic (1) any function of a prefix.

    ids (B, L) -> (B, L, V), or (B, L) with one output; column t is read after token t, as in GPT
    and ScalarModel.
    """

    def __init__(self, outputs=V, scale=1.0, phase=0.0):
        super().__init__()
        self.weight = nn.Parameter(
            waves(2 * V ** (T + 1) * outputs, scale, phase).view(-1, outputs)
        )
        self.cfg = GPTConfig(V, 1 + T, n_layer=1, n_head=1, n_embd=1)

    def forward(self, ids):
        return self.hidden(ids).squeeze(-1)

    def logits(self, hidden):
        """generate() asks for what hidden() gives to be turned into logits; here it is logits
        already."""
        return hidden

    def hidden(self, ids, cache=None):
        """With a cache, the last prefix's number is the key that it holds."""
        code = (
            cache.k[0, :, 0, cache.length - 1, 0].long()
            if cache and cache.length
            else torch.ones_like(ids[:, 0])
        )
        codes = []
        for column in ids.T:
            codes.append(code := V * code + column)
        codes = torch.stack(codes, 1)                                   # (B, L)
        if cache:
            cache.append(0, codes[:, None, :, None], codes[:, None, :, None])
            cache.length += ids.shape[1]
        return self.weight[codes]


def tiny_gpt(seed):
    """GPT-2's initial weights times 15: far from uniform, so that prefixes matter."""
    model = GPT(
        GPTConfig(V, 1 + T, n_layer=1, n_head=2, n_embd=16), torch.Generator().manual_seed(seed)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(15)
    return model


def logprobs(model, world):
    """(N, 1+T): the log-prob of each token of each answer, 0 outside the answers."""
    return torch.where(world.mask, token_logprobs(model(world.ids), world.ids), 0.0)


def optimum(ref_logp, r, beta):
    """log pi* (N,), from the reference's log-probs of answers and their rewards: where E[r] - beta
    KL(pi || ref) is largest."""
    return torch.log_softmax(ref_logp + r / beta, dim=0)


def kl(logp, other):
    """KL between two distributions over the answers, given as log-probs (N,), nats."""
    return (logp.exp() * (logp - other)).sum()
