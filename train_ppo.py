"""PPO: improve the policy by trial, graded by the reward model.

    maximise  E[ r(x, y) ] - beta KL( policy || ref ) + ptx E_pages[ log policy ]
    InstructGPT (Ouyang et al. 2022), eq. 2
    python train_ppo.py                                     a minute on two laptop cores
    python train_ppo.py --run out/hh --data hh.jsonl.gz     prompts of your own, that run's models

Each step:  1. write answers   2. grade them   3. credit each token   4. improve policy and critic
What to watch: score and gold rise together while kl stays a few nats. Score rising with gold
falling is over-optimization: raise --beta.
Left out: reward whitening (shortens answers), an entropy bonus (not needed at this size), early
stopping on KL.
"""
import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    files,
    look,
    memory,
    optim,
    resume,
    seeds,
    settings,
    steering,
    worlds,
)
from nanorlhf.checks import check_kl, check_ratio, check_rollout
from nanorlhf.functional import (
    kl_estimate,
    last_token,
    masked_mean,
    masked_sum,
    shift_right,
    whiten,
)
from nanorlhf.log import Log
from nanorlhf.logprobs import in_parts, masked_logprobs
from nanorlhf.policy_losses import clipped_loss, ratios
from nanorlhf.rollout import answer_texts, generate


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/ppo
    out: str = "ppo"            # name of this stage's folder in the run, to keep several variants
    init: str = ""              # policy to start from; empty: <run>/sft
    ref: str = ""               # model that the KL is measured against; empty: <run>/sft
    reward: str = ""            # reward model, from which the critic starts too; empty: <run>/rm
    # JSONL (.gz) whose prompts are answered; empty: questions of the checkpoint's world
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data that no stage trains on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 25        # steps between the states that --resume goes on from

    # ---- answers ----
    steps: int = 75             # rollout batches
    batch_size: int = 64        # prompts, with one answer each, in a rollout batch
    max_new_tokens: int = 64    # longest answer
    # of sampling, and of every log-prob: they must speak of the same distribution
    temperature: float = 1.0

    # ---- reward and credit ----
    # price of one nat of KL; at 0 the policy is free to hack the reward model; at 0.1 it told 82%
    # of the asked facts, here 86% (towns, seed 0)
    beta: float = 0.2
    target_kl: float = 0.0      # nats per answer that beta adapts to; 0: beta stays as it is
    horizon: int = 2000         # answers over which an adaptive beta moves
    unfinished: float = 2.0     # taken off the score of an answer that does not end
    # discount; 1: a good end is worth as much to the first token as to the last
    gamma: float = 1.0
    lam: float = 0.95           # GAE: 1 is Monte Carlo (noisy), 0 believes the critic (biased)

    # ---- training ----
    seed: int = 0               # of prompts, sampled answers, minibatches
    epochs: int = 2             # passes over each rollout batch
    minibatches: int = 2        # updates per pass
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    clip: float = 0.2           # how far a token's ratio may go before its gradient stops
    value_clip: float = 0.2     # how far a value may go from its old one before its gradient stops
    # weight of the pretraining loss mixed in, so that nothing is forgotten; 0: none
    ptx: float = 0.0
    lr: float = 3e-4            # the policy's learning rate
    critic_lr: float = 1e-3     # the critic's
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 10         # steps between lines on the console
    sample_every: int = 25      # steps between samples
    # a direction that nanorlhf/steering.py saved; the log then has "trait", how far the answers
    # stand along it, in standard deviations
    watch: str = ""

    def __post_init__(self):
        settings.check(self)
        if self.temperature == 0:
            raise InputError("--temperature 0 always gives the same answer; PPO learns from the "
                             "difference between answers")
        if self.data and self.ptx:
            raise InputError("--ptx mixes in pages of a made-up world; with --data there are none")


def token_rewards(scores, logp, ref_logp, mask, beta):
    """scores (B,) one per answer -> rewards (B, T) one per token: -beta * k1 on each response
    token, the score on the last one.

    KL belongs in the reward because the policy pays it token by token for what it does; the sum is
    the objective above. A row with an empty mask gets no reward at all.
    """
    rewards = torch.where(mask, -beta * kl_estimate(logp, ref_logp, "k1"), 0.0)
    columns = torch.arange(mask.shape[1], device=mask.device)           # (T,)
    last = (columns * mask).amax(1, keepdim=True)                       # (B, 1)
    scores = (scores * mask.any(1))[:, None].to(rewards.dtype)          # (B, 1)
    return rewards.scatter_add(1, last, scores)


def gae(rewards, values, mask, gamma, lam):
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) -> (advantages, returns),
    both (B, T), 0 outside the mask.

    values[:, t] stands before token t. Past the last masked token values and rewards are 0; a hole
    in the mask is stepped over.
    """
    advantages = torch.zeros_like(rewards)
    advantage = next_value = torch.zeros_like(rewards[:, 0])            # (B,)
    # in the columns before, there are prompts alone
    first = int(mask.any(0).int().argmax())
    for t in reversed(range(first, rewards.shape[1])):
        # the surprise at token t
        delta = rewards[:, t] + gamma * next_value - values[:, t]       # (B,)
        advantage = torch.where(mask[:, t], delta + gamma * lam * advantage, advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = advantage
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, torch.where(mask, advantages + values, 0.0)


def policy_loss(logp, old_logp, advantages, mask, clip=0.2):
    """PPO's clipped objective, negated (Schulman et al. 2017, eq. 7): mean over masked tokens.

    All (B, T) -> (scalar, stats).
    """
    ratio = ratios(logp, old_logp, mask)                                # (B, T) new / old
    losses = clipped_loss(ratio, advantages, clip, clip)                # (B, T)
    with torch.no_grad():
        clipped = losses > -advantages * ratio
        stats = {"clip_fraction": masked_mean(clipped.float(), mask).item(),
                 # KL(old || new), per token
                 "approx_kl": masked_mean(kl_estimate(old_logp, logp, "k3"), mask).item(),
                 "ratio_error": torch.where(mask, ratio - 1, 0.0).abs().max().item()}
    return masked_mean(losses, mask), stats


def value_loss(values, old_values, returns, mask, clip=0.2):
    """Half the squared error, the larger of plain and clipped around old_values (Stiennon et al.
    2020). All (B, T) -> (scalar, stats)."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    plain, clipped = (values - returns) ** 2, (near - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(plain, clipped), mask)
    return loss, {"value_clip_fraction": masked_mean((clipped > plain).float(), mask).item()}


def explained_variance(values, returns, mask):
    """1: the critic knows each return; 0: no better than their mean; negative: worse than saying
    nothing."""
    unexplained = masked_mean((returns - values) ** 2, mask)
    variance = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    return (1 - unexplained / variance.clamp(min=1e-8)).item()


def adapt(beta, kl, target, episodes, horizon):
    """Ziegler et al. 2019, eq. 2: beta grows where the KL is above its target, by at most 20% in
    `horizon` answers."""
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * episodes / horizon)


def set_up(cfg, device, draws):
    """What the loop needs -> models, tokenizer, world (None with --data: nobody knows the true
    reward), and ask(n) -> (questions or None, prompts)."""
    load = checkpoints.load_checkpoint
    policy, tokenizer = load(cfg.init or f"{cfg.run}/sft", device)
    ref, _ = load(cfg.ref or f"{cfg.run}/sft", device, like=tokenizer)
    reward_model, _ = load(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)
    # it knows already what the end will be worth; it has to learn to see it coming
    critic = copy.deepcopy(reward_model)
    prompt_rng, pool = draws.rng("ppo prompts"), []
    if cfg.data:
        world, room = None, policy.cfg.block_size - cfg.max_new_tokens
        prompts, report = files.load_prompts(cfg.data, tokenizer, room)
        rows = [(prompt, []) for prompt in prompts]
        print(look.summary(f"{cfg.data}: {len(rows)} prompts", rows, report))
        # what SFT and the others hold out of this file, nothing is trained on here
        pool, held_out = files.split(prompts, report, cfg.held_out, cfg.seed)
        print(f"{len(pool)} to train on, {len(held_out)} held out")
    else:
        world = worlds.of(tokenizer)

    def ask(n):
        if cfg.data:
            return None, prompt_rng.choices(pool, k=n)
        questions = world.questions(n, prompt_rng, world.JUDGED)
        return questions, [tokenizer.prompt(q.text) for q in questions]

    return SimpleNamespace(policy=policy, ref=ref, reward_model=reward_model, critic=critic,
                           tokenizer=tokenizer, world=world, ask=ask, pool=pool)


def page_mixer(cfg, policy, tokenizer, world, device, draws):
    """-> f(rows): the pretraining loss of so many stretches of new pages, for --ptx."""
    writer, places = seeds.rng(cfg.seed, "ppo pages"), draws.generator("ppo page places")
    pages = [batches.page_ids(world.page(writer), tokenizer) for _ in range(2000)]
    stream = torch.tensor([i for ids in pages for i in ids])

    def page_loss(rows):
        ids = batches.page_batch(stream, rows, policy.cfg.block_size, places).to(device)
        everything = torch.ones_like(ids, dtype=torch.bool)
        # temperature 1, as in pretraining
        logp = masked_logprobs(policy, ids, everything, 1.0, cfg.micro_batch)           # (B, T)
        return -logp[:, 1:].mean()      # token 0 has nothing before it

    return page_loss


def train(cfg):
    """-> (policy, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    setup = set_up(cfg, device, draws)
    policy, ref, critic, tokenizer = setup.policy, setup.ref, setup.critic, setup.tokenizer
    policy_optimizer = optim.adamw(policy, cfg.lr)
    critic_optimizer = optim.adamw(critic, cfg.critic_lr)
    starts_at_ref = checkpoints.same_weights(policy, ref)
    sampling, shuffling = draws.generator("ppo answers", device), draws.generator("ppo minibatches")
    page_loss = page_mixer(cfg, policy, tokenizer, setup.world, device, draws) if cfg.ptx else None
    watched = steering.load(cfg.watch, policy) if cfg.watch else None

    def logprobs_of(model, ids, mask, **more):
        return masked_logprobs(model, ids, mask, cfg.temperature, cfg.micro_batch, **more)

    def values_of(ids):
        with devices.autocast(device):
            after = in_parts(critic, cfg.micro_batch, ids)      # (B, T) read after token t
        # before token t is chosen: a critic that has seen the action is a biased baseline
        return shift_right(after)

    def show(title):
        look.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed,
                          setup.pool[:3])

    print(f"ppo: {cfg.steps} steps of {cfg.batch_size} answers on {device.type}, "
          f"beta {cfg.beta:g}")
    print(memory.plan({"policy": policy, "critic": critic},
                      {"ref": ref, "reward model": setup.reward_model}, cfg.micro_batch,
                      devices.bf16(device), cfg.batch_size))
    log = Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    show("before ppo")
    kept = {"beta": cfg.beta}
    parts = {"policy_optimizer": policy_optimizer, "critic": critic,
             "critic_optimizer": critic_optimizer, "kept": kept}
    read = {"ref": ref, "reward model": setup.reward_model, "data": setup.pool}
    for step in resume.steps(log, policy, tokenizer, draws, parts, read=read):
        # 1. write answers
        questions, prompts = setup.ask(cfg.batch_size)
        out = generate(policy, prompts, cfg.max_new_tokens, tokenizer.end, cfg.temperature,
                       generator=sampling, pad=tokenizer.pad)
        ids, mask = out.ids, out.mask                                                   # (B, T)

        # 2. grade them
        with torch.no_grad():
            after = in_parts(setup.reward_model, cfg.micro_batch, ids)                  # (B, T)
            scores = last_token(after, mask) - cfg.unfinished * ~out.finished           # (B,)
        seen = {"score": scores.mean().item()}
        if setup.world:         # to watch, never to learn from
            texts, finished = answer_texts(out, tokenizer), out.finished.tolist()
            graded = [setup.world.grade(*a) for a in zip(questions, texts, finished, strict=True)]
            seen["gold"] = sum(grade["gold"] for grade in graded) / len(graded)
        if watched:
            seen["trait"] = steering.projection(policy, watched, ids, mask)

        # 3. credit each token
        with torch.no_grad():
            old_logp, entropy = logprobs_of(policy, ids, mask, entropy=True)            # (B, T)
            ref_logp = logprobs_of(ref, ids, mask)                                      # (B, T)
            old_values = values_of(ids)                                                 # (B, T)
            rewards = token_rewards(scores, old_logp, ref_logp, mask, kept["beta"])     # (B, T)
            advantages, returns = gae(rewards, old_values, mask, cfg.gamma, cfg.lam)    # (B, T)
            # after the returns are taken: they keep the rewards' scale, or the critic chases noise
            advantages = whiten(advantages, mask)                                       # (B, T)
            kl = masked_sum(kl_estimate(old_logp, ref_logp, "k1"), mask)                # (B,) nats
            kl = kl.mean().item()
        if step == 1:
            check_rollout(out.logp, old_logp, mask, devices.bf16(device))
            if starts_at_ref:
                check_kl(kl)

        # 4. improve policy and critic
        updates = []
        for _ in range(cfg.epochs):
            order = torch.randperm(cfg.batch_size, generator=shuffling).to(device)      # (B,)
            for rows in order.chunk(cfg.minibatches):
                logp = logprobs_of(policy, ids[rows], mask[rows])                       # (b, T)
                loss, stats = policy_loss(logp, old_logp[rows], advantages[rows], mask[rows],
                                          cfg.clip)
                stats["policy_loss"] = loss.item()
                if step == 1 and not updates:
                    check_ratio(stats["ratio_error"], devices.bf16(device),
                                old_logp[mask].std(correction=0).item())
                if cfg.ptx:
                    mix = page_loss(len(rows))
                    stats["page_loss"] = mix.item()
                    loss = loss + cfg.ptx * mix
                loss.backward()
                stats["grad_norm"] = optim.update(policy, policy_optimizer, cfg.lr,
                                                  cfg.max_grad_norm)
                v_loss, v_stats = value_loss(values_of(ids[rows]), old_values[rows], returns[rows],
                                             mask[rows], cfg.value_clip)
                v_loss.backward()
                optim.update(critic, critic_optimizer, cfg.critic_lr, cfg.max_grad_norm)
                updates.append({**stats, **v_stats, "value_loss": v_loss.item()})
        mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
        distinct = len(set(map(tuple, out.responses()))) / cfg.batch_size

        log(step, **seen, kl=kl, beta=kept["beta"], clip_fraction=mean.pop("clip_fraction"),
            entropy=masked_mean(entropy, mask).item(),
            explained_variance=explained_variance(old_values, returns, mask),
            len=mask.sum(1).float().mean().item(), finished=out.finished.float().mean().item(),
            _first_ratio_error=updates[0]["ratio_error"], _distinct=distinct,
            **{f"_{name}": value for name, value in mean.items()})
        if cfg.target_kl:
            kept["beta"] = adapt(kept["beta"], kl, cfg.target_kl, cfg.batch_size, cfg.horizon)
        if step % cfg.sample_every == 0 or step == cfg.steps:
            show(f"ppo, after {step} steps")

    checkpoints.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    return policy, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
