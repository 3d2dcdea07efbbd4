"""Policy gradients without a critic: the answers to one prompt are each other's baseline.

    maximise  E[ r(x, y) ] - beta KL( policy || ref )
    python train_grpo.py                                                     GRPO's advantages, PPO's KL; a minute on a laptop
    python train_grpo.py --kl_in loss --kl k3                                GRPO as published (Shao et al. 2024)
    python train_grpo.py --advantage reinforce --aggregate fixed             REINFORCE (Williams 1992)
    python train_grpo.py --advantage rloo --aggregate fixed                  RLOO (Ahmadian et al. 2024)
    python train_grpo.py --advantage dr_grpo --aggregate fixed               Dr. GRPO (Liu et al. 2025)
    python train_grpo.py --aggregate token --clip_high 0.28 --skip_flat      DAPO (Yu et al. 2025)
    python train_grpo.py --ratio sequence --clip_low 3e-4 --clip_high 4e-4   GSPO (Zheng et al. 2025)
    python train_grpo.py --aggregate token --objective cispo                 CISPO (MiniMax 2025)
    python train_grpo.py --reward verifier --beta 0 --run out/sums           RLVR: a check, no reward model; runs/sums.sh has its settings

Each step:  1. write K answers to each prompt   2. grade them   3. credit each answer   4. improve the policy
What to watch: as in train_ppo.py, and `flat`, the share of prompts whose answers all score the same: they teach nothing.
The KL comes off the reward, as in PPO. In the loss, where the paper has it, it is charged to each token alone, which is not the KL's gradient
(tests/README.md has the angles): it costs more KL for less gold. Dr. GRPO and DAPO leave the KL out altogether: --beta 0.
Left out: sampling until every prompt of a batch has spread (DAPO), a penalty on length near the budget.
"""
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import InputError, data, look, memory, resume, run, sums
from nanorlhf.functional import aggregate, kl_estimate, last_token, masked_mean, masked_sum
from nanorlhf.logprobs import in_parts, masked_logprobs
from nanorlhf.rollout import answer_texts, check_kl, check_ratio, check_rollout, generate, generate_in_batches


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/grpo
    out: str = "grpo"               # name of this stage's folder in the run, to keep several variants
    seed: int = 0                   # of prompts, sampled answers, minibatches
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # policy to start from; empty: <run>/sft
    ref: str = ""                   # model that the KL is measured against; empty: <run>/sft
    reward: str = ""                # reward model, or "verifier": the world's own check; empty: <run>/rm
    data: str = ""                  # JSONL (.gz) of prompts, for the verifier with answers that end in "#### number"; empty: the checkpoint's world
    digits: int = 3                 # of the longest numbers in sums
    filter: int = 0                 # try this many prompts beforehand, and train on those solved 20-80% of the time; 0: on all
    steps: int = 75                 # rollout batches
    prompts: int = 8                # P, in a rollout batch
    samples: int = 8                # K answers to each
    epochs: int = 2                 # passes over each rollout batch
    minibatches: int = 2            # updates per pass
    micro_batch: int = 64           # answers a forward: lower it when memory runs out, the gradient stays the same
    max_new_tokens: int = 64        # longest answer
    temperature: float = 1.0        # of sampling, and of every log-prob: they must speak of the same distribution
    advantage: Literal["reinforce", "rloo", "grpo", "dr_grpo"] = "grpo"     # what an answer's score is compared with
    aggregate: Literal["token", "sequence", "fixed"] = "sequence"   # fixed: by B * max_new_tokens; the other two favour short or long answers
    # at 0 the policy is free to hack the reward model; at 0.1 it told 76% of the asked facts, here 86%
    # (towns, seed 0)
    beta: float = 0.2               # price of one nat of KL
    kl_in: Literal["reward", "loss"] = "reward"     # off each answer's score, or a term of the loss
    kl: Literal["k1", "k2", "k3"] = "k1"            # estimator; in the reward only k1 is right, in the loss all but k1
    ratio: Literal["token", "sequence"] = "token"   # sequence: GSPO's, the geometric mean over the answer
    objective: Literal["clip", "cispo"] = "clip"    # clip drops the gradient of a token past its clip, cispo only caps its weight
    clip_low: float = 0.2           # how far a ratio may fall
    clip_high: float = 0.2          # how far it may rise; more than clip_low lets rare tokens grow (clip-higher)
    skip_flat: bool = False         # leave answers of prompts without spread out of the update, their KL's pull too
    unfinished: float = 2.0         # taken off the reward model's score of an answer that does not end
    lr: float = 3e-4                # learning rate
    max_grad_norm: float = 1.0      # gradients are scaled down to this norm
    log_every: int = 10             # steps between lines on the console
    sample_every: int = 25          # steps between samples
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 25            # steps between the states that --resume goes on from


def group_advantages(scores, kind, baseline=0.0, kl=0.0):
    """scores (P, K), reward units -> (P, K): how much better each answer is than what could be expected of its prompt.

    With r = score - kl, and kl (P, K) or 0 the price of each answer's KL, beta k1, in reward units:

    reinforce   r - baseline, a moving average of earlier batches: knows nothing of the prompt       Williams 1992
    rloo        r - mean of the other K-1 = K/(K-1) (r - mean): unbiased                             Kool et al. 2019
    grpo        (r - mean) / (std of the scores + 1e-4): easy and hard prompts weigh alike           Shao et al. 2024, 4.1.2
    dr_grpo     r - mean                                                                             Liu et al. 2025

    The std is that of the task's scores alone, and a row of equal scores (max == min: in float32
    its std often is not 0) gives exact zeros in grpo, KL included. Divided by the std of r, which
    is there nothing but the KL's noise, it would get advantages of 1.5 for what no answer did.
    Elsewhere such a row gets the advantages of -kl, which are part of the exact gradient.
    ValueError when K < 2, but for reinforce.
    """
    P, K = scores.shape
    if kind == "reinforce":
        return scores - kl - baseline
    if K < 2:
        raise ValueError(f"{kind} compares the answers to a prompt: it needs at least 2, not {K}")
    # the mean of equal scores is not always that score in float32: what is left would be noise
    centred = (scores - scores.mean(1, keepdim=True)).masked_fill(is_flat(scores)[:, None], 0.0)
    kl = torch.as_tensor(kl, dtype=scores.dtype, device=scores.device).expand_as(scores)
    advantages = centred - (kl - kl.mean(1, keepdim=True))                                      # (P, K)
    if kind == "rloo":
        return advantages * K / (K - 1)
    if kind == "grpo":
        advantages = advantages / (scores.std(1, keepdim=True) + 1e-4)
        return advantages.masked_fill(is_flat(scores)[:, None], 0.0)
    if kind != "dr_grpo":
        raise ValueError(f"kind is reinforce, rloo, grpo or dr_grpo, not {kind!r}")
    return advantages


def is_flat(scores):
    """scores (P, K) -> (P,) bool: all answers to the prompt score the same."""
    return scores.amax(1) == scores.amin(1)


def policy_loss(logp, old_logp, advantages, mask, clip_low=0.2, clip_high=0.2, ratio="token", objective="clip", how="sequence", max_len=None):
    """Clipped policy gradient, negated. logp, old_logp, mask (B, T); advantages (B, 1) or (B, T) -> (scalar, stats)."""
    log_ratio = torch.where(mask, logp - old_logp, 0.0)                                         # (B, T)
    if ratio == "sequence":
        log_ratio = masked_mean(log_ratio, mask, dim=1)[:, None].expand_as(mask)                # GSPO, eq. 7
    ratios = log_ratio.exp()                                                                    # (B, T) new / old
    capped = ratios.clamp(1 - clip_low, 1 + clip_high)
    if objective == "clip":
        losses = torch.maximum(-advantages * ratios, -advantages * capped)                      # GRPO, eq. 3
    else:
        losses = -capped.detach() * advantages * torch.where(mask, logp, 0.0)                   # CISPO, eq. 4: a weight, not a wall
    with torch.no_grad():
        stats = {"clip_low": masked_mean(((ratios < 1 - clip_low) & (advantages < 0)).float(), mask).item(),
                 "clip_high": masked_mean(((ratios > 1 + clip_high) & (advantages > 0)).float(), mask).item(),
                 "approx_kl": masked_mean(kl_estimate(old_logp, logp, "k3"), mask).item(),      # KL(old || new), per token
                 "ratio_error": torch.where(mask, ratios - 1, 0.0).abs().max().item()}
    return aggregate(losses, mask, how, max_len), stats


@torch.no_grad()
def of_middling_difficulty(policy, tokenizer, questions, world, cfg, device, tries=8):
    """The questions that the policy solves in 20-80% of its tries. Always or never solved, a prompt gives its answers nothing to differ in.

    Offline: measured once, with the policy that training starts from, which leaves the hard ones behind as it learns.
    """
    if "correct" not in world.WORTH:
        raise InputError("--filter needs answers that are right or wrong, as those of sums; those of towns are better or worse")
    asked = [q for q in questions for _ in range(tries)]
    _, texts, finished = generate_in_batches(policy, [tokenizer.prompt(q.text) for q in asked], cfg.max_new_tokens, tokenizer,
                                             run.generator(cfg.seed, "grpo filter", device), progress="filter", temperature=cfg.temperature)
    right = [world.grade(*answer)["correct"] for answer in zip(asked, texts, finished)]
    rates = torch.tensor(right, dtype=torch.float32).view(-1, tries).mean(1)
    kept = [q for q, rate in zip(questions, rates.tolist()) if 0.2 <= rate <= 0.8]
    print(f"filter: of {len(questions)} prompts {len(kept)} are solved in 20-80% of {tries} tries and kept; dropped: "
          f"{(rates < 0.2).sum()} too hard, {(rates > 0.8).sum()} too easy")
    if not kept:
        raise InputError(f"--filter {cfg.filter}: no prompt is solved 20-80% of the time; try more, or other --digits")
    return kept


def check_settings(cfg):
    if cfg.kl_in == "reward" and cfg.kl != "k1":
        raise InputError(f"--kl_in reward takes --kl k1: the gradient of {cfg.kl} in the reward is not the KL's")
    if cfg.advantage != "reinforce" and cfg.samples < 2:
        raise InputError(f"--samples {cfg.samples}: {cfg.advantage} compares the answers to a prompt, so it needs at least 2")
    if cfg.advantage == "reinforce" and cfg.skip_flat:
        raise InputError("--skip_flat is for advantages within a group; with reinforce answers that all score the same still teach")
    if cfg.ratio == "sequence" and cfg.aggregate != "sequence":
        raise InputError("--ratio sequence takes --aggregate sequence: its one ratio an answer would count once a token")
    if cfg.filter and cfg.data and cfg.reward != "verifier":
        raise InputError("--filter needs answers that are right or wrong: with --data those that --reward verifier checks")
    if cfg.temperature == 0:
        raise InputError("--temperature 0 always gives the same answer; policy gradients learn from the difference between answers")


def main():
    cfg = run.parse(Config, __doc__)
    check_settings(cfg)
    device = run.pick_device(cfg.device)
    folder, P, K = f"{cfg.run}/{cfg.out}", cfg.prompts, cfg.samples
    saved = resume.load(cfg, folder)
    policy, tokenizer = run.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    ref, _ = run.load_checkpoint(cfg.ref or f"{cfg.run}/sft", device, like=tokenizer)
    prompt_rng, pool, room = run.rng(cfg.seed, "grpo prompts"), [], policy.cfg.block_size - cfg.max_new_tokens
    world = (sums if cfg.reward == "verifier" else None) if cfg.data else run.world_of(tokenizer)     # None: nobody knows the true reward

    def prompt_of(question):        # what load_prompts reads are ids already
        return tokenizer.prompt(question.text) if world else question

    if cfg.data:
        pool, report = (data.load_problems if world else data.load_prompts)(cfg.data, tokenizer, room)
        print(look.summary(f"{cfg.data}: {len(pool)} prompts", [(prompt_of(q), []) for q in pool], report))

    def ask(n):
        return prompt_rng.choices(pool, k=n) if pool else world.sample_questions(n, prompt_rng, world.JUDGED, **run.knobs(world, cfg.digits))

    if cfg.filter:
        pool = of_middling_difficulty(policy, tokenizer, ask(cfg.filter), world, cfg, device)
    frozen = {"ref": ref}
    if cfg.reward != "verifier":
        frozen["reward model"] = reward_model = run.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)[0]
    optimizer = run.adamw(policy, cfg.lr)
    starts_at_ref = run.same_weights(policy, ref)
    sampling, shuffling = run.generator(cfg.seed, "grpo answers", device), run.generator(cfg.seed, "grpo minibatches")

    def logprobs_of(model, ids, mask, **more):
        return masked_logprobs(model, ids, mask, cfg.temperature, cfg.micro_batch, **more)     # (B, T)

    def show(title):
        run.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed, [prompt_of(q) for q in pool[:3]] if cfg.data else ())

    print(f"grpo: {cfg.steps} steps of {P} x {K} answers on {device.type}; advantage {cfg.advantage}, {cfg.aggregate} aggregation, "
          f"{cfg.ratio} ratio, {cfg.objective}, beta {cfg.beta:g} in the {cfg.kl_in} ({cfg.kl})")
    if cfg.advantage != "reinforce" and cfg.aggregate == "sequence":
        print("the policy loss starts at 0 in every step, since a group's advantages add up to 0; its gradient does not: watch score and grad_norm")
    if cfg.kl_in == "loss" and cfg.kl == "k1" and cfg.beta:
        print("k1 in the loss holds nothing: its gradient is 0 on average; --kl k3 is the paper's, --kl_in reward what works best here")
    print(memory.plan({"policy": policy}, frozen, cfg.micro_batch, run.bf16(device), P * K))
    log = run.Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    show("before grpo")
    kept = {"baseline": 0.0}
    for step in resume.steps(log, policy, tokenizer, {"optimizer": optimizer, "prompts": prompt_rng, "sampling": sampling,
                                                      "shuffling": shuffling, "kept": kept}):
        # 1. write K answers to each prompt, prompt-major
        questions = [q for q in ask(P) for _ in range(K)]
        out = generate(policy, [prompt_of(q) for q in questions], cfg.max_new_tokens, tokenizer.end,
                       cfg.temperature, generator=sampling, pad=tokenizer.pad)
        ids, mask = out.ids, out.mask                                                           # (B, T), B = P K

        # 2. grade them
        if world:
            gold = torch.tensor([world.grade(q, text, done)["gold"] for q, text, done in
                                 zip(questions, answer_texts(out, tokenizer), out.finished.tolist())], device=device)     # (B,)
        if cfg.reward == "verifier":
            scores = gold
        else:
            with torch.no_grad():
                scores = last_token(in_parts(reward_model, cfg.micro_batch, ids), mask) - cfg.unfinished * ~out.finished   # (B,)

        # 3. credit each answer
        with torch.no_grad():
            old_logp, entropy = logprobs_of(policy, ids, mask, entropy=True)
            ref_logp = logprobs_of(ref, ids, mask)
            kls = {k: masked_sum(kl_estimate(old_logp, ref_logp, k), mask) for k in ("k1", "k2", "k3")}     # (B,) nats per answer
            # off each answer's score: charged to its own token, a token would not pay for where it leads
            price = cfg.beta * kls["k1"] if cfg.kl_in == "reward" else torch.zeros_like(scores)   # (B,)
            advantages = group_advantages(scores.view(P, K), cfg.advantage, kept["baseline"], price.view(P, K))
            advantages = advantages.view(P * K, 1)
            mean_score = (scores - price).mean().item()
            kept["baseline"] = mean_score if step == 1 else 0.9 * kept["baseline"] + 0.1 * mean_score
            flat = is_flat(scores.view(P, K))
        if step == 1:
            check_rollout(out.logp, old_logp, mask, autocast=run.bf16(device))
            if starts_at_ref:
                check_kl(kls["k1"].mean().item())

        # 4. improve the policy
        rows_in_use = (~flat.repeat_interleave(K)).nonzero().squeeze(1) if cfg.skip_flat else torch.arange(P * K, device=device)
        updates = []
        for _ in range(cfg.epochs * (len(rows_in_use) >= cfg.minibatches)):
            order = torch.randperm(len(rows_in_use), generator=shuffling).to(device)
            for rows in rows_in_use[order].chunk(cfg.minibatches):
                logp = logprobs_of(policy, ids[rows], mask[rows])
                loss, stats = policy_loss(logp, old_logp[rows], advantages[rows], mask[rows], cfg.clip_low, cfg.clip_high, cfg.ratio,
                                          cfg.objective, cfg.aggregate, cfg.max_new_tokens)
                if step == 1 and not updates:
                    check_ratio(stats["ratio_error"], bound=0.2 if run.bf16(device) else 1e-4)     # bf16 rounds by batch shape
                if cfg.kl_in == "loss":
                    kl_loss = aggregate(kl_estimate(logp, ref_logp[rows], cfg.kl), mask[rows], cfg.aggregate, cfg.max_new_tokens)
                    loss = loss + cfg.beta * kl_loss
                loss.backward()
                stats["grad_norm"] = run.update(policy, optimizer, cfg.lr, cfg.max_grad_norm)
                updates.append(stats | {"loss": loss.item()})
        mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]} if updates else {}      # over the whole step

        log(step, score=scores.mean().item(), **({"gold": gold.mean().item()} if world else {}), kl=kls["k1"].mean().item(), flat=flat.float().mean().item(),
            grad_norm=mean.pop("grad_norm", 0.0), entropy=masked_mean(entropy, mask).item(),
            len=mask.sum(1).float().mean().item(), finished=out.finished.float().mean().item(),
            **{f"_kl_{k}": v.mean().item() for k, v in kls.items()}, **{f"_{name}": value for name, value in mean.items()})
        if step % cfg.sample_every == 0 or step == cfg.steps:
            show(f"grpo, after {step} steps")

    run.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)


if __name__ == "__main__":
    run.script(main)
