"""Log-probs of a frozen reference, computed once and kept.

A reference says the same of the same pairs in every epoch and in every run that varies something else: half of DPO's forwards.
"""
import hashlib
import os

import torch

from nanorlhf import run
from nanorlhf.logprobs import pair_logprobs


def cache_key(model, tokenizer, pairs):
    """What the log-probs depend on: the reference's weights, the tokenizer, the pairs as they are after truncation."""
    digest = hashlib.sha256(repr((tokenizer.state(), [(p.prompt, p.chosen, p.rejected) for p in pairs])).encode())
    for name, w in model.state_dict().items():
        digest.update(name.encode() + w.cpu().numpy().tobytes())
    return digest.hexdigest()


def ref_logprobs(ref, tokenizer, pairs, path, batch_size, device):
    """pair_logprobs of the reference, from path if they were kept there for the same reference and pairs; else computed, and kept."""
    key = cache_key(ref, tokenizer, pairs)
    if os.path.exists(path):
        try:
            cached = torch.load(path, weights_only=True)
            if cached["key"] == key:
                print(f"reference log-probs from {path}")
                return cached["chosen"], cached["rejected"]
        except Exception as e:      # torch.load alone raises half a dozen kinds
            print(f"{path} cannot be read ({type(e).__name__}): computed again")
    chosen, rejected = pair_logprobs(ref, pairs, tokenizer.pad, batch_size, device)
    run.write_atomically(path, lambda f: torch.save({"key": key, "chosen": chosen, "rejected": rejected}, f), "wb")
    return chosen, rejected
