"""Batched sampling with a KV cache: from lists of prompt ids to right-padded rollouts, with the
log-probs recorded on the way.

While sampling, prompts are padded on the *left*, because all rows must grow to the right together.
What is handed over is right-padded, [prompt | response | pad], so that training needs no attention
mask and never meets a left pad.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from nanorlhf import InputError
from nanorlhf.batches import map_answers
from nanorlhf.functional import last_token
from nanorlhf.gpt import KVCache


@dataclass
class Rollout:
    ids: torch.Tensor        # (B, T) int64, right-padded
    mask: torch.Tensor       # (B, T) bool: the response, its end token included
    # (B, T) float32: log-prob of each response token when it was sampled; 0 elsewhere
    logp: torch.Tensor
    finished: torch.Tensor   # (B,) bool: the end token was sampled before the budget ran out
    # (B, T) bool: the mask without what a tool wrote, which no policy chose; without a tool the
    # mask itself
    own: torch.Tensor

    def responses(self):
        """Lists of response ids, the end token included where there is one."""
        rows = zip(self.ids.tolist(), self.mask.tolist(), strict=True)
        return [[i for i, said in zip(*row, strict=True) if said] for row in rows]


def check_temperature(temperature):
    if not 0 <= temperature < math.inf:
        raise InputError(f"--temperature {temperature:g}: a number from 0 on is needed; 0 always "
                         "takes the likeliest token")


def sample_token(logits, temperature, top_k, top_p, generator):
    """logits (B, V) -> (ids (B,), logp (B,)). logp is of the untruncated distribution at this
    temperature (at 0: at 1)."""
    logp = F.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        ids = logp.argmax(-1, keepdim=True)
    else:
        probs = logp.exp()
        if top_k or top_p < 1:
            ordered, order = probs.sort(dim=-1, descending=True)
            # the first token is never dropped
            drop = ordered.cumsum(-1) - ordered >= top_p
            if top_k:
                drop[:, top_k:] = True
            probs = torch.zeros_like(probs).scatter(1, order, ordered.masked_fill(drop, 0.0))
        # The first id at which the cumulated probability passes a uniform draw. On a CPU
        # torch.multinomial takes thirty times as long: a fifth of the whole rollout. Divided by the
        # last, the heights end in exactly 1, which no draw from [0, 1) reaches.
        heights = probs.cumsum(-1)
        draw = torch.rand(len(probs), 1, generator=generator, device=probs.device)
        ids = torch.searchsorted(heights / heights[:, -1:], draw, right=True)
        # past the vocabulary only where the heights are NaN, which the caller refuses
        ids = ids.clamp(max=logits.shape[1] - 1)
    return ids.squeeze(1), logp.gather(1, ids).squeeze(1)


@torch.no_grad()
def generate(model, prompts, max_new_tokens, eos, temperature=1.0, top_k=0, top_p=1.0,
             generator=None, pad=0, on_token=None, after_token=None) -> Rollout:
    """Answer each prompt (a list of ids) until `eos`, or until max_new_tokens: then the answer
    counts as not finished.

    In RL leave top_k and top_p alone: a truncated policy is another policy, and its "KL" comes out
    negative. temperature 0 is argmax. pad may be any id: lengths, not ids, say what is padding.
    on_token(rows, ids) is called with each step's new tokens, for whoever wants to stream.
    after_token(ids), a tool, is called with an answer so far, behind each token that the model
    chose, and returns what it writes there (a list of ids, mostly empty). Raises InputError when a
    prompt is empty or does not fit the block together with its answer.
    """
    if not prompts or min(map(len, prompts)) == 0:
        raise InputError("generate needs at least one prompt, and each with at least one token")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    check_temperature(temperature)
    B, width = len(prompts), max(map(len, prompts))
    if width + max_new_tokens > model.cfg.block_size:
        raise InputError(f"a prompt of {width} tokens and an answer of up to {max_new_tokens} "
                         f"do not fit the model's block of {model.cfg.block_size}")
    device = next(model.parameters()).device
    pads = torch.tensor([width - len(p) for p in prompts], device=device)
    # (B, width)
    left = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)

    sampled = torch.full((B, max_new_tokens), eos, device=device)        # (B, N)
    logps = torch.zeros(B, max_new_tokens, device=device)
    lengths = torch.zeros(B, dtype=torch.int64, device=device)
    chosen = torch.ones(B, max_new_tokens, dtype=torch.bool, device=device)
    to_write = [[] for _ in prompts]    # what a tool has still to write
    # rows still in the batch, and which of them are at their end
    rows = torch.arange(B, device=device)
    done = torch.zeros(B, dtype=torch.bool, device=device)
    cache = KVCache(model.cfg, pads, width + max_new_tokens, _cache_dtype(device))
    hidden = model.hidden(left, cache)[:, -1]                            # (B, C)
    for n in range(max_new_tokens):
        ids, logp = sample_token(model.logits(hidden), temperature, top_k, top_p, generator)
        if after_token:
            for i, row in enumerate(rows.tolist()):
                if to_write[row]:
                    ids[i], logp[i], chosen[row, n] = to_write[row].pop(0), 0.0, False
                elif not done[i] and ids[i] != eos:
                    to_write[row] = list(after_token([*sampled[row, :n].tolist(), ids[i].item()]))
        # what a row adds past its end is masked out below
        sampled[rows, n], logps[rows, n] = ids, logp
        # its end token counts, nothing behind it
        lengths[rows] += ~done
        if on_token:
            on_token(rows[~done].tolist(), ids[~done].tolist())
        done |= ids == eos
        # all that the CPU asks a GPU for each token: to ask is to wait
        ended, finite = torch.stack([done.sum(), logp.isfinite().all()]).tolist()
        if not finite:
            raise InputError("the model has logits that are not finite: its weights are broken, or "
                             "its training went astray; sampling from it means nothing")
        alive = len(rows) - ended
        if not alive or n + 1 == max_new_tokens:
            break
        # finished rows leave the batch; one by one would cost more in copies than it saves
        if alive <= 0.75 * len(rows):
            kept = (~done).nonzero().squeeze(1)
            rows, ids, done = rows[kept], ids[kept], done[kept]
            cache.keep(kept)
        hidden = model.hidden(ids[:, None], cache)[:, -1]
    finished = sampled.gather(1, lengths[:, None] - 1).squeeze(1) == eos
    return _right_pad(prompts, sampled, logps, lengths, finished, chosen, pad)


def _cache_dtype(device):
    return (
        torch.get_autocast_dtype(device.type)
        if torch.is_autocast_enabled(device.type)
        else torch.float32
    )


def _right_pad(prompts, sampled, logps, lengths, finished, chosen, pad):
    """[prompt | response | pad], one shift per row."""
    starts = torch.tensor([len(p) for p in prompts], device=sampled.device)
    T = int((starts + lengths).max())
    columns = torch.arange(T, device=sampled.device)[None]              # (1, T)
    mask = (columns >= starts[:, None]) & (columns < (starts + lengths)[:, None])  # (B, T)
    place = (columns - starts[:, None]).clamp(0, sampled.shape[1] - 1)
    before = torch.tensor([p + [pad] * (T - len(p)) for p in prompts], device=sampled.device)
    ids = torch.where(mask, sampled.gather(1, place), before)
    return Rollout(ids, mask, torch.where(mask, logps.gather(1, place), 0.0), finished,
                   mask & chosen.gather(1, place))


def replaced(out, gone, new, pad):
    """A rollout without the rows that gone (B,) marks, those of another one below -> a rollout."""
    T = max(out.ids.shape[1], new.ids.shape[1])

    def both(x, y, filler):
        return torch.cat([F.pad(x[~gone], (0, T - x.shape[1]), value=filler),
                          F.pad(y, (0, T - y.shape[1]), value=filler)])                 # (B, T)

    return Rollout(both(out.ids, new.ids, pad), both(out.mask, new.mask, False),
                   both(out.logp, new.logp, 0.0), torch.cat([out.finished[~gone], new.finished]),
                   both(out.own, new.own, False))


def answer_texts(rollout, tokenizer):
    """The answers as text, without the end token that closes them."""
    texts = []
    for answer, done in zip(rollout.responses(), rollout.finished.tolist(), strict=True):
        texts.append(tokenizer.decode(answer[:-1] if done else answer))
    return texts


def generate_in_batches(model, prompts, max_new_tokens, tokenizer, generator, batch_size=256,
                        progress=None, temperature=1.0):
    """`generate` for many prompts -> (list of response ids, texts, list of finished), in the order
    given.

    progress: what the bar is called while it runs (on a terminal); None shows none.
    """
    responses, written, finished = [], [], []
    for i in tqdm(
        range(0, len(prompts), batch_size),
        desc=progress,
        disable=True if progress is None else None,
        leave=False,
    ):
        out = generate(
            model,
            prompts[i : i + batch_size],
            max_new_tokens,
            tokenizer.end,
            temperature,
            generator=generator,
            pad=tokenizer.pad,
        )
        responses += out.responses()
        written += answer_texts(out, tokenizer)
        finished += out.finished.tolist()
    return responses, written, finished


@torch.no_grad()
def score_answers(reward_model, prompts, responses, pad, batch_size=256):
    """Lists of N prompts and N responses (ids) -> (N,) scores on the CPU, in the reward model's
    units."""
    device = next(reward_model.parameters()).device
    return map_answers(
        lambda ids, mask: last_token(reward_model(ids), mask),
        prompts,
        responses,
        pad,
        device,
        batch_size,
    )
