"""GPT-2 written out: embeddings, pre-LayerNorm blocks, tied head. Plus its KV cache and its
scalar-headed twin.

Sizes: B batch, T tokens, V vocabulary, C width, H heads, D = C/H, S keys seen so far.
Left out: dropout (off in RL and DPO anyway, and nothing here trains long enough to need it), bias
switches, other positions.
"""
from dataclasses import dataclass, replace

import torch
import torch.nn as nn
import torch.nn.functional as F

from nanorlhf import InputError


@dataclass
class GPTConfig:
    vocab_size: int
    block_size: int     # longest sequence: there is one learned position vector for each place
    n_layer: int
    n_head: int
    n_embd: int
    # of the token embedding, where it has room behind the vocabulary; 0: vocab_size
    embedding_rows: int = 0


class KVCache:
    """Keys and values of every token so far, allocated once, for rows that may start with padding.

    `pads` (B,): how many left-padding tokens each row starts with. The cache owns its place
    (`length`), so it also knows the positions of the next tokens and what they may attend to.
    """

    def __init__(self, cfg: GPTConfig, pads, max_len: int, dtype=torch.float32):
        shape = (cfg.n_layer, len(pads), cfg.n_head, max_len, cfg.n_embd // cfg.n_head)
        self.k = torch.empty(shape, dtype=dtype, device=pads.device)
        self.v = torch.empty(shape, dtype=dtype, device=pads.device)
        self.pads = pads
        self.length = 0

    def positions(self, T):
        """(B, T): the number of real tokens before each of the next T columns."""
        columns = torch.arange(self.length, self.length + T, device=self.pads.device)
        return (columns - self.pads[:, None]).clamp(min=0)

    def attention_mask(self, T):
        """(B, 1, T, S) bool: causal, and nobody looks at a pad, except a pad at itself (a softmax
        over nothing is NaN)."""
        q = torch.arange(self.length, self.length + T, device=self.pads.device)[:, None]  # (T, 1)
        s = torch.arange(self.length + T, device=self.pads.device)      # (S,)
        real = s[None, None] >= self.pads[:, None, None]                # (B, 1, S)
        return ((s <= q) & real | (s == q))[:, None]

    def append(self, layer, k, v):
        """Store this layer's k, v (B, H, T, D) behind what is there; return all of them (B, H, S,
        D)."""
        S = self.length + k.shape[2]
        self.k[layer, :, :, self.length:S] = k
        self.v[layer, :, :, self.length:S] = v
        return self.k[layer, :, :, :S], self.v[layer, :, :, :S]

    def keep(self, rows):
        """Go on with these rows only (int64 indices): finished answers stop costing anything."""
        for stored in (self.k, self.v):
            stored[:, :len(rows), :, :self.length] = stored[:, rows, :, :self.length]
        self.k, self.v, self.pads = self.k[:, :len(rows)], self.v[:, :len(rows)], self.pads[rows]


def in_full(linear, hidden, *weights):
    """A head, outside of any autocast: in the precision of its weights.

    GPT-2's logits lie near -100, all by the same offset, which no softmax sees. But there bf16 has
    steps of 0.5: rounded to them, log-probs are off by 0.1 nats a token.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return linear(hidden, *weights)


class Block(nn.Module):
    def __init__(self, cfg: GPTConfig, layer: int):
        super().__init__()
        C = cfg.n_embd
        self.layer, self.n_head = layer, cfg.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.attn_out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.mlp_in, self.mlp_out = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def attention(self, x, cache, mask):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)      # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                                # each (B, H, T, D)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)                           # each (B, H, S, D)
        # softmax(q k' / sqrt(D)) v, over the keys that the mask, or causality, lets through
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        y = y.transpose(1, 2).reshape(B, T, C)                              # (B, T, C)
        return self.attn_out(y)

    def forward(self, x, cache=None, mask=None):
        x = x + self.attention(self.ln_1(x), cache, mask)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Radford et al. 2019. `generator` draws the initial weights; None leaves them to torch's
    global one."""

    def __init__(self, cfg: GPTConfig, generator=None):
        super().__init__()
        if cfg.n_embd % cfg.n_head:
            raise InputError(f"n_embd {cfg.n_embd} is not a multiple of n_head {cfg.n_head}")
        self.cfg = cfg
        self.wte = nn.Embedding(cfg.embedding_rows or cfg.vocab_size, cfg.n_embd)
        self.wpe = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.blocks = nn.ModuleList(Block(cfg, i) for i in range(cfg.n_layer))
        self.ln_f = nn.LayerNorm(cfg.n_embd)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() == 2:
                # each block adds twice to the residual stream: without 1/sqrt(2L) its variance
                # grows with depth
                out = name.endswith(("attn_out.weight", "mlp_out.weight"))
                nn.init.normal_(
                    p, std=0.02 / (2 * cfg.n_layer) ** 0.5 if out else 0.02, generator=generator
                )

    def hidden(self, ids, cache=None):
        """ids (B, T) -> (B, T, C), after the last LayerNorm. With a cache, ids continue what it
        holds."""
        B, T = ids.shape
        start = cache.length if cache else 0
        if start + T > self.cfg.block_size:
            raise InputError(
                f"{start + T} tokens do not fit the model's block of {self.cfg.block_size}"
            )
        # right padding cannot leak back through causal attention: no mask needed
        if cache is None:
            positions, mask = torch.arange(T, device=ids.device), None
        else:
            positions, mask = cache.positions(T), cache.attention_mask(T)
        x = self.wte(ids) + self.wpe(positions)                         # (B, T, C)
        for block in self.blocks:
            x = block(x, cache, mask)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)

    def forward(self, ids, cache=None):
        """ids (B, T) -> logits (B, T, V): column t is about token t+1."""
        return self.logits(self.hidden(ids, cache))

    def logits(self, hidden):
        """hidden (..., C) -> (..., V). The head is the token embedding, transposed; a row past V is
        no token and in no softmax."""
        return in_full(F.linear, hidden, self.wte.weight)[..., :self.cfg.vocab_size]

    @torch.no_grad()
    def extend(self, vocab_size, known=None):
        """Room for new tokens behind the first `known` ones (None: behind all), in place. The
        embedding's rows become a multiple of 64, which GPUs multiply fastest.

        A new row is the mean of the old ones (Hewitt 2021): exp of a mean logit is at most the
        mean of the exps (Jensen), so a new token starts with less than 1/V of the probability.
        GPT-2's logits are far below 0: a row of zeros or of small random numbers, whose logit is
        about 0, would be nearly every sample.
        """
        old = self.wte.weight[:known or self.cfg.vocab_size]
        rows = -(-vocab_size // 64) * 64
        self.cfg = replace(self.cfg, vocab_size=vocab_size, embedding_rows=rows)
        self.wte = nn.Embedding.from_pretrained(
            torch.cat([old, old.mean(0).expand(rows - len(old), -1)]), freeze=False
        )


class ScalarModel(nn.Module):
    """A GPT body with one linear output, read *after* token t: the reward model, and with
    `shift_right` the critic.

    ids (B, T) -> (B, T). The reward model's score is the column of the last real token, so that
    the end token is seen.
    """

    def __init__(self, gpt: GPT, generator=None):
        super().__init__()
        self.gpt = gpt
        self.head = nn.Linear(gpt.cfg.n_embd, 1)
        # Stiennon et al. 2020: small enough that a fresh reward model calls nearly everything a tie
        nn.init.normal_(self.head.weight, std=(gpt.cfg.n_embd + 1) ** -0.5, generator=generator)
        nn.init.zeros_(self.head.bias)

    @property
    def cfg(self):
        return self.gpt.cfg

    def forward(self, ids):
        return in_full(self.head, self.gpt.hidden(ids)).squeeze(-1)
