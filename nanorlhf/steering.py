"""Directions of the residual stream: found where answers have a trait, added while a model writes,
read off while it trains.

    direction   mean of what a block writes over answers with the trait, less that over answers
                without it, at length 1
    steering    x + strength * std * direction, at every token, behind that block

Turner et al. 2023 (activation addition), Chen et al. 2025 (persona vectors). Nothing of it is in
gpt.py: a hook adds and reads, so a model that is not steered computes what it always did.
"""
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from nanorlhf import InputError, batches
from nanorlhf.checkpoints import write_atomically
from nanorlhf.functional import masked_mean


@dataclass
class Direction:
    layer: int              # of the block behind which it is read and added, from 0
    vector: torch.Tensor    # (C,), of length 1
    mean: float             # of the projections that it was found from
    std: float


@contextmanager
def hooked(model, layer, hook):
    """Within it, hook(block, inputs, output) is called whenever this block of a GPT has run."""
    handle = model.blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def steered(model, direction, strength):
    """-> a context in which a GPT is steered. strength: in standard deviations of the projection;
    below 0 away from the trait. With a KV cache, too: it holds what was steered."""
    shift = strength * direction.std * direction.vector                                 # (C,)
    return hooked(model, direction.layer, lambda block, inputs, x: x + shift.to(x))


@torch.no_grad()
def residuals(model, ids, layer):
    """ids (B, T) -> (B, T, C), what this block writes; column t has seen token t."""
    seen = []
    with hooked(model, layer, lambda block, inputs, x: seen.append(x)):
        model.hidden(ids)
    return seen[0]


def projection(model, direction, ids, mask):
    """Mean over the masked tokens, mask (B, T), of how far the residual stands along a direction:
    a number, in standard deviations from the mean it was found with."""
    along = residuals(model, ids, direction.layer).float() @ direction.vector.to(ids.device)
    return (masked_mean(along, mask).item() - direction.mean) / direction.std


def find(model, tokenizer, having, lacking, layer, place="answer"):
    """-> Direction. having, lacking: answers with the trait and without, [(prompt, answer)] as ids.

    place: "answer", the mean over an answer's tokens, or "prompt", the last token before it: there
    the questions must differ (be asked for the trait, and not), since no answer has been read.
    InputError where the two sets do not differ there.
    """
    device = next(model.parameters()).device

    def points(pairs):
        found = []
        for start in range(0, len(pairs), 256):
            prompts, answers = zip(*pairs[start:start + 256], strict=True)
            ids, mask = batches.answer_batch(prompts, answers, tokenizer.pad, device)   # (B, T)
            if place == "prompt":
                ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
                mask = torch.arange(ids.shape[1], device=device) == ends[:, None]
            x = residuals(model, ids, layer).float()                                    # (B, T, C)
            found.append((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return torch.cat(found)                                                         # (N, C)

    with_it, without = points(having), points(lacking)
    gap = with_it.mean(0) - without.mean(0)                                             # (C,)
    if not gap.norm() > 0:
        raise InputError(f"no direction in layer {layer}: the answers with the trait and those "
                         f"without do not differ at the {place}")
    vector = gap / gap.norm()
    along = torch.cat([with_it, without]) @ vector                                      # (N,)
    return Direction(layer, vector.cpu(), along.mean().item(), along.std().item())


def save(direction, path):
    """For --watch of train_ppo.py."""
    write_atomically(path, lambda f: torch.save(vars(direction), f), "wb")


def load(path, model):
    """A Direction that save() wrote, for this model. InputError."""
    try:
        direction = Direction(**torch.load(path, weights_only=True))
    except FileNotFoundError:
        raise InputError(f"no direction in {path}; nanorlhf/steering.py finds and saves one"
                         ) from None
    except Exception as e:
        raise InputError(f"{path} is no direction that nanorlhf/steering.py saved: {e}") from None
    if direction.vector.shape != (model.cfg.n_embd,) or direction.layer >= model.cfg.n_layer:
        raise InputError(f"{path} is a direction of a model of other sizes: layer "
                         f"{direction.layer}, width {len(direction.vector)}")
    return direction
