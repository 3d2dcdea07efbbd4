"""A sampler that lags behind the learner: what breaks, and which correction mends it?

The RLHF Book (first edition 11, current 6): answers are written by mu, a copy of the policy that is
some updates old or runs with coarser numbers; pi_old is the learner's policy as the update begins,
pi the one that is updated. PPO's ratio pi / pi_old knows nothing of mu. Yao et al. 2025 (truncated
importance sampling) weigh each token with w = min(pi_old / mu, C); Zhao et al. 2025 (IcePop) drop
the tokens whose pi_old / mu is out of bounds; or pi / mu itself is clipped.

Varied: by how many batches mu lags; or its temperature; or its weights, rounded to eight bits; and
the correction. One update a batch and as many updates everywhere, GRPO's advantages and price of
KL. Drawn: gold at the end. Measured besides: the mean size of log w.
"""
import collections
import dataclasses
import sys

import torch

import train_grpo
from lab import exam, notebook
from nanorlhf import checkpoints, devices, figures, optim, seeds
from nanorlhf.functional import aggregate, kl_estimate, masked_mean, masked_sum
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.policy_losses import clipped_loss, ratios

SEEDS, MINUTES = (0, 1, 2), 10
# each sampler: by how many batches it lags, its temperature, whether its weights are coarse
SETTINGS = {"samplers": {"no lag": [0, 1.0, False], "lag 2": [2, 1.0, False],
                         "lag 8": [8, 1.0, False], "temperature 1.5": [0, 1.5, False],
                         "8 bits": [0, 1.0, True]},
            "corrections": ["none", "clipped", "truncated", "masked"], "steps": 100, "lr": 6e-4}
TOY = {**SETTINGS, "samplers": {"no lag": [0, 1.0, False], "lag 2": [2, 1.0, False],
                                "lag 8": [8, 1.5, True]},
       "corrections": ["none", "truncated"], "steps": 3, "prompts": 32}
ANSWER = (
    "Eight batches cost gold; a clip against the sampler mends it, and ruins with a hotter one.")
READING = """
A lag of two batches costs nothing that three seeds could show, one of eight does: the KL nearly
doubles and gold at temperature 1 is halved. The three corrections all come out ahead of none there
in the mean. PPO's clip, its ratio taken against the sampler, is ahead in each seed and ends where
no lag ends; it also keeps the sampler nearer. A sampler at temperature 1.5 writes answers that the
policy would not, costs some gold in each seed, and truncated weights or a mask do not mend that.
The clip against it ruins the policy. The likeliest reason: a likely token's ratio is above the clip
before the first update, so where it did well it gets no gradient, and where it did badly it is
pushed down; the KL runs to a hundred nats and more. Weights of eight bits are next to harmless in a
model of this size: 0.01 nats a token, and no correction was needed.
"""
CLIP, MOST, BOUNDS = 0.2, 2.0, (0.5, 5.0)       # PPO's; truncated's C; IcePop's


def coarse(weights):
    """Weights as a sampler of eight bits has them: three bits behind the point."""
    return {name: w.to(torch.float8_e4m3fn).to(w.dtype) for name, w in weights.items()}


def stale_loss(correction, logp, old_logp, mu, advantages, mask):
    """logp, old_logp, mu, mask (B, T): log-probs by pi, by pi_old, by the sampler;
    advantages (B, 1) -> scalar, the mean over answers of the mean over their tokens."""
    losses = clipped_loss(ratios(logp, mu if correction == "clipped" else old_logp, mask),
                          advantages, CLIP, CLIP)                                       # (B, T)
    w = ratios(old_logp, mu, mask)                                                      # (B, T)
    if correction == "truncated":
        losses = losses * w.clamp(max=MOST)
    elif correction == "masked":
        low, high = BOUNDS
        losses = losses * w * ((w >= low) & (w <= high))
    return aggregate(losses, mask, "sequence")


def train(folder, seed, name, sampler, correction, steps, lr):
    """GRPO whose answers a lagging sampler writes; writes <folder>/<name>/model.pt -> mean size of
    log w, nats a token, over all steps"""
    lag, temperature, eight_bits = sampler
    device, draws = devices.pick("auto"), seeds.Draws(seed)
    cfg = train_grpo.Config(run=folder, out=name, seed=seed, steps=steps, lr=lr, epochs=1,
                            minibatches=1)
    setup = train_grpo.set_up(cfg, device, draws)
    policy, tokenizer, K = setup.policy, setup.tokenizer, cfg.samples_per_prompt
    # what writes, with settings of its own
    setup.policy, _ = checkpoints.load_checkpoint(f"{folder}/sft", device)
    writing = dataclasses.replace(cfg, temperature=temperature)
    optimizer, sampling = optim.adamw(policy, lr), draws.generator("grpo answers", device)
    queue, sizes = collections.deque(maxlen=lag + 1), []
    for _ in range(steps):
        queue.append({name: w.clone() for name, w in policy.state_dict().items()})
        setup.policy.load_state_dict(coarse(queue[0]) if eight_bits else queue[0])
        out, questions = train_grpo.write(writing, setup, cfg.prompts, sampling)
        scores, _ = train_grpo.score(cfg, setup, out, questions)                        # (B,)
        ids, mask, mu = out.ids, out.mask, out.logp                                     # (B, T)
        with torch.no_grad():
            old_logp = masked_logprobs(policy, ids, mask)                               # (B, T)
            ref_logp = masked_logprobs(setup.ref, ids, mask)                            # (B, T)
            price = cfg.beta * masked_sum(kl_estimate(old_logp, ref_logp, "k1"), mask)  # (B,)
            advantages = train_grpo.group_advantages(scores.view(-1, K), cfg.advantage, 0.0,
                                                     price.view(-1, K)).view(-1, 1)     # (B, 1)
            sizes.append(masked_mean((old_logp - mu).abs(), mask).item())
        logp = masked_logprobs(policy, ids, mask)                                       # (B, T)
        stale_loss(correction, logp, old_logp, mu, advantages, mask).backward()
        optim.update(policy, optimizer, lr, cfg.max_grad_norm)
    checkpoints.save_checkpoint(f"{folder}/{name}/model.pt", policy, tokenizer)
    return sum(sizes) / steps


def train_and_mark(folder, seed, name, sampler, correction, steps, lr, prompts):
    size = train(folder, seed, name, sampler, correction, steps, lr)
    return {**exam.mark(folder, seed, name, prompts), "log_w": size}


def run(folder, seed, samplers, corrections, steps, lr, prompts=exam.PROMPTS):
    jobs = {}
    for sampler, how in samplers.items():
        # where mu is pi_old all corrections are the same
        for correction in corrections if sampler != "no lag" else corrections[:1]:
            name = f"lab/stale_{exam.folder_name(sampler)}_{correction}"
            jobs[f"{sampler}, {correction}"] = (folder, seed, name, how, correction, steps, lr,
                                                prompts)
    made = exam.at_once(train_and_mark, jobs.values(), f"samplers of seed {seed}")
    rows = {"sft": exam.mark(folder, seed, "sft", prompts), **dict(zip(jobs, made, strict=True))}
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("size of log w, nats a token", "log_w", "{:.3f}"), ("gold, T 1", "at_1.gold", "{:.2f}"),
        ("gold, best T", "at_best.gold", "{:.2f}"), ("score", "proxy.rm", "{:.2f}"),
        ("KL", "kl", "{:.1f}")])


def claims(data):
    def over(row, other):
        return notebook.differences(data, "at_1.gold", row, other)

    return {"a lag of 8 batches costs gold": over("no lag, none", "lag 8, none"),
            "a lag of 2 batches costs gold": over("no lag, none", "lag 2, none"),
            "at a lag of 8, truncated weights have more gold than no correction":
                over("lag 8, truncated", "lag 8, none"),
            "at a lag of 8, a mask has more gold than no correction":
                over("lag 8, masked", "lag 8, none"),
            "at a lag of 8, a clip against mu has more gold than no correction":
                over("lag 8, clipped", "lag 8, none"),
            "a sampler at temperature 1.5 costs gold":
                over("no lag, none", "temperature 1.5, none"),
            "truncated weights mend it": over("temperature 1.5, truncated",
                                              "temperature 1.5, none"),
            "a sampler of eight bits costs gold": over("no lag, none", "8 bits, none")}


def figure(data):
    rows = {name: (notebook.mean_of_seeds(data, name, "at_1.gold"), None)
            for name in next(iter(data.values()))}
    return figures.dots("A sampler that is not the learner, mean of the seeds",
                        "gold at temperature 1", rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
