"""DPO: preferences straight into the policy, without a reward model and without sampling.

    minimise  - E log sigmoid( beta [ log policy/ref (chosen) - log policy/ref (rejected) ] )       Rafailov et al. 2023, eq. 7
              - nll E log policy(chosen) / its tokens                                               Pang et al. 2024, eq. 1
    python train_dpo.py                                             a minute on two laptop cores
    python train_dpo.py --run out/hh --data hh.jsonl.gz             pairs of your own, from the SFT model of the same run

It learns from the pairs that train_rm.py wrote. What to watch: the margin grows, yet *both* log-probs usually fall, the rejected one
faster: the first line asks for a difference only. The probability that they lose goes to sentences that no pair holds, mostly nonsense;
the second line, cross-entropy on the chosen answers, keeps it where answers are. --nll 0 is plain DPO: look at its samples.
Left out: IPO, KTO, ORPO, SimPO, pairs sampled afresh from the policy.
"""
import hashlib
import math
import os
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import InputError, data, run
from nanorlhf.functional import token_logprobs


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/dpo
    seed: int = 0                   # of data order and samples (and initial weights, from scratch)
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # policy to start from, or "scratch" for random weights; empty: <run>/sft
    ref: str = ""                   # reference model; empty: the policy as it starts
    data: str = ""                  # JSONL (.gz) of preference pairs; empty: <run>/rm/pairs.jsonl
    tokenizer: Literal["towns", "gpt2"] = "towns"       # with --init scratch; a checkpoint brings its own
    n_layer: int = 4                # layers, with --init scratch
    n_head: int = 4                 # heads, with --init scratch
    n_embd: int = 112               # width, with --init scratch
    block_size: int = 96            # longest sequence, with --init scratch
    beta: float = 0.2               # price of a nat from the reference; 0.3 leaves twice as many wrong facts
    label_smoothing: float = 0.0    # share of labels believed to be the wrong way round: cDPO
    nll: float = 0.4                # weight of the chosen answers' cross-entropy per token; 0: plain DPO
    held_out: float = 0.1           # share of the prompts of --data kept to measure on
    batch_size: int = 10            # prompts an update, with all their pairs
    steps: int = 0                  # updates; 0: as many as one epoch takes
    lr: float = 6e-4                # peak learning rate
    warmup: int = 10                # steps from 0 to lr
    max_new_tokens: int = 64        # longest sampled answer
    log_every: int = 20             # steps between lines on the console


def dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.0):
    """Summed log-probs of answers, each (B,), nats -> (losses (B,), chosen_rewards (B,), rejected_rewards (B,)).

    The rewards are the implicit ones, beta log policy/ref, detached. label_smoothing > 0 is cDPO (Mitchell 2023).
    """
    chosen_rewards = beta * (policy_chosen - ref_chosen)
    rejected_rewards = beta * (policy_rejected - ref_rejected)
    margin = chosen_rewards - rejected_rewards
    losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return losses, chosen_rewards.detach(), rejected_rewards.detach()


def answer_logprobs(model, ids, mask):
    """ids, mask (N, T) -> (N,): each answer's log-probs, summed over its tokens, end token included."""
    with run.autocast(ids.device):
        logits = model(ids)
    return (token_logprobs(logits, ids) * mask).sum(1)


@torch.no_grad()
def pair_logprobs(model, pairs, pad, batch_size, device):
    """[Pair] -> (chosen (B,), rejected (B,)) on the CPU: the log-probs of all their answers, batch_size answers at a time."""
    prompts, answers, chosen, rejected = data.distinct_answers(pairs)
    logp = data.map_answers(lambda ids, mask: answer_logprobs(model, ids, mask), prompts, answers, pad, device, batch_size)
    return logp[chosen], logp[rejected]


def cache_key(model, tokenizer, pairs):
    """What the reference log-probs depend on: the reference's weights, the tokenizer, the pairs as they are after truncation."""
    digest = hashlib.sha256(repr((tokenizer.state(), [(p.prompt, p.chosen, p.rejected) for p in pairs])).encode())
    for name, w in model.state_dict().items():
        digest.update(name.encode() + w.cpu().numpy().tobytes())
    return digest.hexdigest()


def ref_logprobs(ref, tokenizer, pairs, path, batch_size, device):
    """pair_logprobs of the reference: computed once, kept in path, recomputed when anything changed."""
    key = cache_key(ref, tokenizer, pairs)
    if os.path.exists(path):
        cached = torch.load(path, weights_only=True)
        if cached["key"] == key:
            print(f"reference log-probs from {path}")
            return cached["chosen"], cached["rejected"]
    chosen, rejected = pair_logprobs(ref, pairs, tokenizer.pad, batch_size, device)
    run.write_atomically(path, lambda f: torch.save({"key": key, "chosen": chosen, "rejected": rejected}, f), "wb")
    return chosen, rejected


def check_first_loss(loss, bound):
    assert abs(loss - math.log(2)) < bound, (
        f"the policy starts as the reference, yet the first loss is {loss:.6f} and not ln 2 = 0.693147. Likely causes: a reference "
        "that changed, cached log-probs of other data or another tokenizer, masks that differ, dropout left on")


def main():
    cfg = run.parse(Config, __doc__)
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/dpo"
    policy, tokenizer = run.start_model(cfg, f"{cfg.run}/sft", device)
    path = cfg.data or f"{cfg.run}/rm/pairs.jsonl"
    if not cfg.data and not os.path.exists(path):
        raise InputError(f"{path} does not exist; make it first: python train_rm.py --run {cfg.run}")
    pairs, report = data.load_pairs(path, tokenizer, policy.cfg.block_size)
    print(f"{path}: {len(pairs)} pairs; " + ("; ".join(f"{why}: {n}" for why, n in report.items()) or "none dropped"))
    train, held_out = data.split_pairs(pairs, cfg.held_out, run.rng(cfg.seed, "split"))
    ref = run.load_checkpoint(cfg.ref, device, like=tokenizer)[0] if cfg.ref else policy
    starts_at_ref = run.same_weights(policy, ref)
    at_once = 2 * cfg.batch_size                    # answers a forward: what training holds at least
    ref_chosen, ref_rejected = ref_logprobs(ref, tokenizer, train + held_out, f"{folder}/ref_logprobs.pt", at_once, device)
    optimizer = run.adamw(policy, cfg.lr)

    groups = data.by_prompt(range(len(train)), lambda i: train[i].prompt)
    steps = cfg.steps or -(-len(groups) // cfg.batch_size)
    print(f"dpo: {len(train)} pairs, {len(held_out)} held out, {steps} steps of {cfg.batch_size} prompts on {device.type}, beta {cfg.beta:g}")
    print("chosen and rejected are log-probs, relative to the reference: that both fall is usual, the margin is what is trained")
    log = run.Log(folder, cfg, steps, cfg.log_every)
    show = ((lambda title: run.show_samples(folder, title, policy, tokenizer, [p.prompt for p in held_out[:3]], cfg.max_new_tokens, cfg.seed))
            if cfg.data else (lambda title: run.show_world(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed)))
    show("before dpo")
    batches = data.epochs(groups, cfg.batch_size, run.generator(cfg.seed, "data order"), lambda group: max(train[i].length for i in group))
    for step in range(1, steps + 1):
        rows = [i for group in next(batches) for i in group]
        ids, mask, *sides = data.pair_batch([train[i] for i in rows], tokenizer.pad, device)     # (N, T)
        logp = answer_logprobs(policy, ids, mask)                                                # (N,)
        chosen, rejected = (logp[answers] for answers in sides)                                  # (B,) each: B pairs of N answers
        losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, ref_chosen[rows].to(device), ref_rejected[rows].to(device),
                                                            cfg.beta, cfg.label_smoothing)
        loss, margins = losses.mean(), chosen_rewards - rejected_rewards
        if step == 1 and starts_at_ref:
            check_first_loss(loss.item(), bound=1e-5 if device.type == "cpu" else 1e-2)
        nll = -(chosen / torch.tensor([len(train[i].chosen) for i in rows], device=device)).mean()
        (loss + cfg.nll * nll).backward()
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(policy, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss.item(), nll=nll.item(), accuracy=(margins > 0).float().mean().item(), margin=margins.mean().item(),
            chosen=(chosen.detach().cpu() - ref_chosen[rows]).mean().item(),
            rejected=(rejected.detach().cpu() - ref_rejected[rows]).mean().item(),
            _chosen_logprob=chosen.mean().item(), _rejected_logprob=rejected.mean().item(), _grad_norm=grad_norm, _lr=lr)

    chosen, rejected = pair_logprobs(policy, held_out, tokenizer.pad, at_once, device)
    losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, ref_chosen[len(train):], ref_rejected[len(train):],
                                                        cfg.beta, cfg.label_smoothing)
    right = (chosen_rewards > rejected_rewards).float().mean()
    print(f"held-out pairs: loss {losses.mean():.3f}, accuracy of the implicit reward {right:.1%} on {len(held_out)} pairs")
    run.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    show("after dpo")


if __name__ == "__main__":
    run.script(main)
