"""PPO: improve the policy by trial, graded by the reward model.

    maximise  E[ r(x, y) ] - beta KL( policy || ref ) + ptx E_pages[ log policy ]           InstructGPT, eq. 2
    python train_ppo.py                                         a minute on two laptop cores
    python train_ppo.py --run out/hh --data hh.jsonl.gz         prompts of your own, SFT and reward model of the same run

Each step:  1. write answers   2. grade them   3. credit each token   4. improve policy and critic
What to watch: score and gold rise together while kl stays a few nats. Score rising with gold falling is over-optimization: raise --beta.
Left out: reward whitening (shortens answers), an entropy bonus (not needed at this size), early stopping on KL.
"""
import copy
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import InputError, data, look, memory, resume, run
from nanorlhf.functional import kl_estimate, last_token, masked_mean, masked_sum, shift_right, whiten
from nanorlhf.logprobs import in_parts, masked_logprobs
from nanorlhf.rollout import answer_texts, check_kl, check_ratio, check_rollout, generate


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/ppo
    out: str = "ppo"                # name of this stage's folder in the run, to keep several variants
    seed: int = 0                   # of prompts, sampled answers, minibatches
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # policy to start from; empty: <run>/sft
    ref: str = ""                   # model that the KL is measured against; empty: <run>/sft
    reward: str = ""                # reward model, from which the critic starts too; empty: <run>/rm
    data: str = ""                  # JSONL (.gz) whose prompts are answered; empty: questions of the checkpoint's world
    steps: int = 75                 # rollout batches
    batch_size: int = 64            # prompts, with one answer each, in a rollout batch
    epochs: int = 2                 # passes over each rollout batch
    minibatches: int = 2            # updates per pass
    micro_batch: int = 64           # answers a forward: lower it when memory runs out, the gradient stays the same
    max_new_tokens: int = 64        # longest answer
    temperature: float = 1.0        # of sampling, and of every log-prob: they must speak of the same distribution
    # at 0 the policy is free to hack the reward model; at 0.1 it told 82% of the asked facts, here 86%
    # (towns, seed 0)
    beta: float = 0.2               # price of one nat of KL
    target_kl: float = 0.0          # nats per answer that beta adapts to; 0: beta stays as it is
    horizon: int = 2000             # answers over which an adaptive beta moves
    ptx: float = 0.0                # weight of the pretraining loss mixed in, so that nothing is forgotten; 0: none
    unfinished: float = 2.0         # taken off the score of an answer that does not end
    gamma: float = 1.0              # discount; 1: a good end is worth as much to the first token as to the last
    lam: float = 0.95               # GAE: 1 is Monte Carlo (noisy), 0 believes the critic (biased)
    clip: float = 0.2               # how far a token's ratio may go before its gradient stops
    value_clip: float = 0.2         # how far a value may go from its old one before its gradient stops
    lr: float = 3e-4                # the policy's learning rate
    critic_lr: float = 1e-3         # the critic's
    max_grad_norm: float = 1.0      # gradients are scaled down to this norm
    log_every: int = 10             # steps between lines on the console
    sample_every: int = 25          # steps between samples
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 25            # steps between the states that --resume goes on from


def token_rewards(scores, logp, ref_logp, mask, beta):
    """scores (B,) one per answer -> rewards (B, T) one per token: -beta * k1 on each response token, the score on the last one.

    KL belongs in the reward because the policy pays it token by token for what it does; the sum is the objective above.
    A row with an empty mask gets no reward at all.
    """
    rewards = torch.where(mask, -beta * kl_estimate(logp, ref_logp, "k1"), 0.0)
    last = (torch.arange(mask.shape[1], device=mask.device) * mask).amax(1, keepdim=True)       # (B, 1)
    return rewards.scatter_add(1, last, (scores * mask.any(1))[:, None].to(rewards.dtype))


def gae(rewards, values, mask, gamma, lam):
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) -> (advantages, returns), both (B, T), 0 outside the mask.

    values[:, t] stands before token t. Past the last masked token values and rewards are 0; a hole in the mask is stepped over.
    """
    advantages = torch.zeros_like(rewards)
    advantage = next_value = torch.zeros_like(rewards[:, 0])                                    # (B,)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]                               # (B,) surprise at token t
        advantage = torch.where(mask[:, t], delta + gamma * lam * advantage, advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = advantage
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, torch.where(mask, advantages + values, 0.0)


def policy_loss(logp, old_logp, advantages, mask, clip=0.2):
    """PPO's clipped objective, negated (Schulman et al. 2017, eq. 7): mean over masked tokens. All (B, T) -> (scalar, stats)."""
    log_ratio = torch.where(mask, logp - old_logp, 0.0)
    ratio = log_ratio.exp()                                                                     # (B, T) new / old
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(plain, clipped), mask)                                     # pessimistic: the worse of the two
    with torch.no_grad():
        stats = {"clip_fraction": masked_mean((clipped > plain).float(), mask).item(),
                 "approx_kl": masked_mean(kl_estimate(old_logp, logp, "k3"), mask).item(),      # KL(old || new), per token
                 "ratio_error": torch.where(mask, ratio - 1, 0.0).abs().max().item()}
    return loss, stats


def value_loss(values, old_values, returns, mask, clip=0.2):
    """Half the squared error, the larger of plain and clipped around old_values (Stiennon et al. 2020). All (B, T) -> (scalar, stats)."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    plain, clipped = (values - returns) ** 2, (near - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(plain, clipped), mask)
    return loss, {"value_clip_fraction": masked_mean((clipped > plain).float(), mask).item()}


def explained_variance(values, returns, mask):
    """1: the critic knows each return; 0: no better than their mean; negative: worse than saying nothing."""
    mean = masked_mean(returns, mask)
    return (1 - masked_mean((returns - values) ** 2, mask) / masked_mean((returns - mean) ** 2, mask).clamp(min=1e-8)).item()


def adapt(beta, kl, target, episodes, horizon):
    """Ziegler et al. 2019, eq. 2: beta grows where the KL is above its target, by at most 20% in `horizon` answers."""
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * episodes / horizon)


def main():
    cfg = run.parse(Config, __doc__)
    if cfg.temperature == 0:
        raise InputError("--temperature 0 always gives the same answer; PPO learns from the difference between answers")
    if cfg.data and cfg.ptx:
        raise InputError("--ptx mixes in pages of a made-up world; with --data there are none")
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/{cfg.out}"
    saved = resume.load(cfg, folder)
    policy, tokenizer = run.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    ref, _ = run.load_checkpoint(cfg.ref or f"{cfg.run}/sft", device, like=tokenizer)
    reward_model, _ = run.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)
    prompt_rng, pool = run.rng(cfg.seed, "ppo prompts"), []
    world = None if cfg.data else run.world_of(tokenizer)       # None: nobody knows the true reward
    if cfg.data:
        pool, report = data.load_prompts(cfg.data, tokenizer, policy.cfg.block_size - cfg.max_new_tokens)
        print(look.summary(f"{cfg.data}: {len(pool)} prompts", [(p, []) for p in pool], report))
    critic = copy.deepcopy(reward_model)            # it knows already what the end will be worth; it has to learn to see it coming
    policy_optimizer, critic_optimizer = run.adamw(policy, cfg.lr), run.adamw(critic, cfg.critic_lr)
    starts_at_ref = run.same_weights(policy, ref)
    sampling, shuffling = run.generator(cfg.seed, "ppo answers", device), run.generator(cfg.seed, "ppo minibatches")

    writer, places = run.rng(cfg.seed, "ppo pages"), run.generator(cfg.seed, "ppo page places")
    pages = torch.tensor([i for _ in range(2000 if cfg.ptx else 0) for i in data.page_ids(world.page(writer), tokenizer)])

    def logprobs_of(model, ids, mask, **more):
        return masked_logprobs(model, ids, mask, cfg.temperature, cfg.micro_batch, **more)     # (B, T)

    def values_of(ids):
        with run.autocast(device):
            after = in_parts(critic, cfg.micro_batch, ids)                                      # (B, T) read after token t
        return shift_right(after)       # before token t is chosen: a critic that has seen the action is a biased baseline

    def page_loss(rows):
        page = data.page_batch(pages, rows, policy.cfg.block_size, places).to(device)
        logp = masked_logprobs(policy, page, torch.ones_like(page, dtype=torch.bool), 1.0, cfg.micro_batch)     # 1, as in pretraining
        return -logp[:, 1:].mean()      # token 0 has nothing before it

    def show(title):
        run.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed, pool[:3])

    print(f"ppo: {cfg.steps} steps of {cfg.batch_size} answers on {device.type}, beta {cfg.beta:g}")
    print(memory.plan({"policy": policy, "critic": critic}, {"ref": ref, "reward model": reward_model}, cfg.micro_batch, run.bf16(device), cfg.batch_size))
    log = run.Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    show("before ppo")
    kept = {"beta": cfg.beta}
    for step in resume.steps(log, policy, tokenizer, {"policy_optimizer": policy_optimizer, "critic": critic, "critic_optimizer": critic_optimizer,
                                                      "prompts": prompt_rng, "sampling": sampling, "shuffling": shuffling, "places": places,
                                                      "kept": kept}):
        # 1. write answers
        questions = world.sample_questions(cfg.batch_size, prompt_rng, world.JUDGED) if world else []
        prompts = [tokenizer.prompt(q.text) for q in questions] if world else prompt_rng.choices(pool, k=cfg.batch_size)
        out = generate(policy, prompts, cfg.max_new_tokens, tokenizer.end, cfg.temperature, generator=sampling, pad=tokenizer.pad)
        ids, mask = out.ids, out.mask                                                           # (B, T)

        # 2. grade them
        with torch.no_grad():
            scores = last_token(in_parts(reward_model, cfg.micro_batch, ids), mask) - cfg.unfinished * ~out.finished       # (B,)
        golds = [world.grade(q, text, done)["gold"]                                             # to watch, never to learn from
                 for q, text, done in zip(questions, answer_texts(out, tokenizer), out.finished.tolist())]
        gold = {"gold": sum(golds) / len(golds)} if world else {}

        # 3. credit each token
        with torch.no_grad():
            old_logp, entropy = logprobs_of(policy, ids, mask, entropy=True)
            ref_logp = logprobs_of(ref, ids, mask)
            old_values = values_of(ids)
            rewards = token_rewards(scores, old_logp, ref_logp, mask, kept["beta"])
            advantages, returns = gae(rewards, old_values, mask, cfg.gamma, cfg.lam)
            advantages = whiten(advantages, mask)       # after the returns are taken: they keep the rewards' scale, or the critic chases noise
            kl = masked_sum(kl_estimate(old_logp, ref_logp, "k1"), mask).mean().item()          # nats per answer
        if step == 1:
            check_rollout(out.logp, old_logp, mask, autocast=run.bf16(device))
            if starts_at_ref:
                check_kl(kl)

        # 4. improve policy and critic
        updates = []
        for _ in range(cfg.epochs):
            for rows in torch.randperm(cfg.batch_size, generator=shuffling).to(device).chunk(cfg.minibatches):
                logp = logprobs_of(policy, ids[rows], mask[rows])
                loss, stats = policy_loss(logp, old_logp[rows], advantages[rows], mask[rows], cfg.clip)
                if step == 1 and not updates:
                    check_ratio(stats["ratio_error"], bound=0.2 if run.bf16(device) else 1e-4)     # bf16 rounds by batch shape
                stats["policy_loss"] = loss.item()
                if cfg.ptx:
                    mix = page_loss(len(rows))
                    stats["page_loss"] = mix.item()
                    loss = loss + cfg.ptx * mix
                loss.backward()
                stats["grad_norm"] = run.update(policy, policy_optimizer, cfg.lr, cfg.max_grad_norm)
                v_loss, v_stats = value_loss(values_of(ids[rows]), old_values[rows], returns[rows], mask[rows], cfg.value_clip)
                v_loss.backward()
                run.update(critic, critic_optimizer, cfg.critic_lr, cfg.max_grad_norm)
                updates.append(stats | v_stats | {"value_loss": v_loss.item()})
        mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}      # over the whole step

        log(step, score=scores.mean().item(), **gold, kl=kl, beta=kept["beta"],
            clip_fraction=mean.pop("clip_fraction"), entropy=masked_mean(entropy, mask).item(),
            explained_variance=explained_variance(old_values, returns, mask), len=mask.sum(1).float().mean().item(),
            finished=out.finished.float().mean().item(), **{f"_{name}": value for name, value in mean.items()})
        if cfg.target_kl:
            kept["beta"] = adapt(kept["beta"], kl, cfg.target_kl, cfg.batch_size, cfg.horizon)
        if step % cfg.sample_every == 0 or step == cfg.steps:
            show(f"ppo, after {step} steps")

    run.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)


if __name__ == "__main__":
    run.script(main)
