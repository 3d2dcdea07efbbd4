"""The optimizer's part of a step: AdamW, a clipped update, a learning rate that goes to 0."""
import math

import torch

from nanorlhf import InputError


def adamw(model, lr, weight_decay=0.0):
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95),
                             weight_decay=weight_decay, fused=True)


def update(model, optimizer, lr, max_grad_norm):
    """Clip what backward() left, step at this learning rate, clear.

    Returns the gradient's norm before clipping; InputError where it is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise InputError(f"the gradient became {norm}: stopped before the weights were hurt; "
                         "try a lower --lr")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def linear(step, steps, lr, warmup=0):
    """Learning rate of this step (from 0): linear warm-up, then a straight line down to 0."""
    return lr * min((step + 1) / (warmup + 1), (steps - step) / max(1, steps - warmup))
