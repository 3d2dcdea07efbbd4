"""What a frozen reference says: log-probs computed once and kept, and KTO's reference point.

A reference says the same of the same pairs in every epoch and in every run that varies something
else: half of DPO's forwards.
"""
import os

import torch

from nanorlhf import batches, devices
from nanorlhf.checkpoints import fingerprint, write_atomically
from nanorlhf.logprobs import answer_logprobs, pair_logprobs


def cache_key(model, tokenizer, pairs, device):
    """What the log-probs depend on: the reference's weights, the tokenizer, the pairs as they are
    after truncation, the device and its precision."""
    read = [device.type, devices.bf16(device), tokenizer.state(),
            *((p.prompt, p.chosen, p.rejected) for p in pairs)]
    return fingerprint(model) + fingerprint(read)


def ref_logprobs(ref, tokenizer, pairs, path, batch_size, device):
    """pair_logprobs of the reference, from path if they were kept there for the same reference and
    pairs; else computed, and kept."""
    key = cache_key(ref, tokenizer, pairs, device)
    if os.path.exists(path):
        try:
            cached = torch.load(path, weights_only=True)
            if cached["key"] == key:
                print(f"reference log-probs from {path}")
                return cached["chosen"], cached["rejected"]
        except Exception as e:      # torch.load alone raises half a dozen kinds
            print(f"{path} cannot be read ({type(e).__name__}): computed again")
    chosen, rejected = pair_logprobs(ref, pairs, tokenizer.pad, batch_size, device)
    write_atomically(
        path, lambda f: torch.save({"key": key, "chosen": chosen, "rejected": rejected}, f), "wb"
    )
    return chosen, rejected


@torch.no_grad()
def kto_reference_point(policy, ref, pairs, pad, device, micro_batch=256):
    """[Preference] -> () nats: KTO's z0, the mean log policy/ref of answers behind prompts that
    are not theirs, not below 0.

    It stands in for KL(policy || ref), which would take fresh samples. Behind their own prompts
    it would be the mean of what it judges. An answer about something else only becomes less
    likely: in the made-up world it is near 0.
    """
    prompts, answers = batches.mismatched(pairs, policy.cfg.block_size)
    if not prompts:
        return torch.zeros((), device=device)
    ids, mask = batches.answer_batch(prompts, answers, pad, device)             # (N, T)
    policy_logp = answer_logprobs(policy, ids, mask, micro_batch)               # (N,)
    ref_logp = answer_logprobs(ref, ids, mask, micro_batch)                     # (N,)
    return (policy_logp - ref_logp).mean().clamp(min=0)
