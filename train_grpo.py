"""Policy gradients without a critic: the answers to one prompt are each other's baseline.

    maximise  E[ r(x, y) ] - beta KL( policy || ref )
    python train_grpo.py                        GRPO's advantages, PPO's KL; a minute on a laptop
    python train_grpo.py --kl_in loss --kl k3   GRPO as published (Shao et al. 2024)
    ... --advantage reinforce --aggregate fixed                     REINFORCE (Williams 1992)
    ... --advantage rloo --aggregate fixed                          RLOO (Ahmadian et al. 2024)
    ... --advantage dr_grpo --aggregate fixed                       Dr. GRPO (Liu et al. 2025)
    ... --aggregate token --clip_high 0.28 --refill 4 --overlong penalty  DAPO (Yu et al. 2025)
    ... --ratio sequence --clip_low 3e-4 --clip_high 4e-4           GSPO (Zheng et al. 2025)
    ... --aggregate token --objective cispo                         CISPO (MiniMax 2025)
    ... --objective sapo                                            SAPO (Qwen team 2025)
    ... --reward verifier --beta 0 --run out/sums                   RLVR: a check, no reward model

Each step:  1. write K answers to each prompt   2. grade them   3. credit each answer
            4. improve the policy
What to watch: as in train_ppo.py, and `flat`, the share of prompts whose answers all score the
same: they teach nothing.
The KL comes off the reward, as in PPO. In the loss, where the paper has it, it is charged to each
token alone, which is not the KL's gradient (tests/README.md has the angles); docs/LAB.md says what
came of it. Dr. GRPO and DAPO leave the KL out altogether: --beta 0.
runs/sums.py has RLVR's settings. Scores of a reward model are seldom equal: --refill is for RLVR.
Left out: MaxRL, GDPO and DeepSeek-V3.2's off-policy mask, which nanorlhf/policy_losses.py has.
"""
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    checkpoints,
    devices,
    files,
    look,
    memory,
    optim,
    resume,
    seeds,
    settings,
    worlds,
)
from nanorlhf.checks import check_kl, check_ratio, check_rollout
from nanorlhf.functional import aggregate, kl_estimate, last_token, masked_mean, masked_sum
from nanorlhf.log import Log
from nanorlhf.logprobs import in_parts, masked_logprobs
from nanorlhf.policy_losses import cispo_loss, clipped_loss, ratios, sapo_loss
from nanorlhf.rollout import answer_texts, generate, generate_in_batches, replaced


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/grpo
    out: str = "grpo"           # name of this stage's folder in the run, to keep several variants
    init: str = ""              # policy to start from; empty: <run>/sft
    ref: str = ""               # model that the KL is measured against; empty: <run>/sft
    # reward model, or "verifier": the world's own check; empty: <run>/rm
    reward: str = ""
    # JSONL (.gz) of prompts, for the verifier with answers that end in "#### number"; empty: the
    # checkpoint's world
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data that no stage trains on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 25        # steps between the states that --resume goes on from

    # ---- answers ----
    steps: int = 75             # rollout batches
    prompts: int = 8            # P, in a rollout batch
    samples_per_prompt: int = 8     # K, answers to each
    # try this many prompts beforehand, and train on those solved 20-80% of the time; 0: on all
    filter: int = 0
    max_new_tokens: int = 64    # longest answer
    # DAPO's dynamic sampling: how often a step may write answers to new prompts in place of those
    # whose answers all score the same; 0: never
    refill: int = 0
    # of sampling, and of every log-prob: they must speak of the same distribution
    temperature: float = 1.0

    # ---- reward and credit ----
    # what an answer's score is compared with
    advantage: Literal["reinforce", "rloo", "grpo", "dr_grpo"] = "grpo"
    # price of one nat of KL; at 0 the policy is free to hack the reward model; at 0.1 it told 76%
    # of the asked facts, here 86% (towns, seed 0)
    beta: float = 0.2
    kl_in: Literal["reward", "loss"] = "reward"     # off each answer's score, or a term of the loss
    # estimator; in the reward only k1 is right, in the loss all but k1
    kl: Literal["k1", "k2", "k3"] = "k1"
    unfinished: float = 2.0     # taken off the reward model's score of an answer that does not end
    # DAPO's ways with length: penalty takes up to 1 off the score of an answer that comes near the
    # longest, in place of --unfinished; filter leaves answers that do not end out of the update,
    # though not out of their group's mean. SFT's answers in towns have at most 53 tokens, so at
    # --max_new_tokens 64 neither acts; 24 cuts a third of them off, 20 nearly half (seed 0)
    overlong: Literal["none", "penalty", "filter"] = "none"
    overlong_buffer: int = 8    # penalty: tokens before the longest in which it goes from 0 to 1
    # leave answers of prompts without spread out of the update, their KL's pull too
    skip_flat: bool = False

    # ---- the loss ----
    # fixed: by B * max_new_tokens; the other two favour short or long answers
    aggregate: Literal["token", "sequence", "fixed"] = "sequence"
    # sequence: GSPO's, the geometric mean over the answer
    ratio: Literal["token", "sequence"] = "token"
    # clip drops the gradient of a token past its clip, cispo only caps its weight, with sapo it
    # fades
    objective: Literal["clip", "cispo", "sapo"] = "clip"
    clip_low: float = 0.2       # how far a ratio may fall
    # how far it may rise; more than clip_low lets rare tokens grow (clip-higher)
    clip_high: float = 0.2

    # ---- training ----
    seed: int = 0               # of prompts, sampled answers, minibatches
    epochs: int = 2             # passes over each rollout batch
    minibatches: int = 2        # updates per pass
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    lr: float = 3e-4            # learning rate
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 10         # steps between lines on the console
    sample_every: int = 25      # steps between samples

    def __post_init__(self):
        settings.check(self)
        own = type(self)        # the defaults
        if self.kl_in == "reward" and self.kl != "k1":
            raise InputError(f"--kl_in reward takes --kl k1: the gradient of {self.kl} in the "
                             "reward is not the KL's")
        if self.advantage != "reinforce" and self.samples_per_prompt < 2:
            raise InputError(f"--samples_per_prompt {self.samples_per_prompt}: {self.advantage} "
                             "compares the answers to a prompt, so it needs at least 2")
        if self.advantage == "reinforce" and (self.skip_flat or self.refill):
            flag = "--skip_flat" if self.skip_flat else "--refill"
            raise InputError(f"{flag} is for advantages within a group; with reinforce "
                             "answers that all score the same still teach")
        if self.objective == "sapo" and (self.clip_low, self.clip_high) != (own.clip_low,
                                                                            own.clip_high):
            raise InputError("--clip_low and --clip_high have no effect on --objective sapo, which "
                             "has a gate in place of the clip")
        if self.overlong == "penalty" and self.unfinished != own.unfinished:
            raise InputError("--unfinished has no effect with --overlong penalty, which stands in "
                             "its place")
        if self.overlong != "penalty" and self.overlong_buffer != own.overlong_buffer:
            raise InputError("--overlong_buffer has no effect without --overlong penalty")
        if self.overlong == "penalty" and self.overlong_buffer > self.max_new_tokens:
            raise InputError(f"--overlong_buffer {self.overlong_buffer}: more than an answer's "
                             f"--max_new_tokens {self.max_new_tokens}")
        if self.ratio == "sequence" and self.aggregate != "sequence":
            raise InputError("--ratio sequence takes --aggregate sequence: its one ratio an "
                             "answer would count once a token")
        if self.filter and self.data and self.reward != "verifier":
            raise InputError("--filter needs answers that are right or wrong: with --data those "
                             "that --reward verifier checks")
        if self.temperature == 0:
            raise InputError("--temperature 0 always gives the same answer; policy gradients "
                             "learn from the difference between answers")


def group_advantages(scores, kind, baseline=0.0, kl=0.0):
    """scores (P, K), reward units -> (P, K): how much better each answer is than what could be
    expected of its prompt.

    With r = score - kl, and kl (P, K) or 0 the price of each answer's KL, beta k1, in reward units:

    reinforce   r - baseline, a moving average of earlier batches (Williams 1992)
    rloo        r - mean of the other K-1 = K/(K-1) (r - mean): unbiased (Kool et al. 2019)
    grpo        (r - mean) / (std of the scores + 1e-4): easy and hard prompts weigh alike
                (Shao et al. 2024, 4.1.2)
    dr_grpo     r - mean (Liu et al. 2025)

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
    advantages = centred - (kl - kl.mean(1, keepdim=True))              # (P, K)
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


def overlong_penalty(lengths, longest, buffer):
    """lengths (B,) of answers, tokens -> (B,), reward units, to be added to the score: 0 up to
    longest - buffer tokens, then down in a straight line to -1 at the longest, where what does not
    end is cut off.

    DAPO's soft overlong punishment (Yu et al. 2025, eq. 13).
    """
    return ((longest - buffer - lengths) / buffer).clamp(max=0)


def policy_loss(logp, old_logp, advantages, mask, clip_low=0.2, clip_high=0.2, ratio="token",
                objective="clip", how="sequence", max_len=None):
    """Clipped policy gradient, negated -> (scalar, stats).

    logp, old_logp, mask (B, T); advantages (B, 1) or (B, T). GRPO, eq. 3. Of sapo the stats say
    which share a clip would stop.
    """
    level = ratio
    ratio = ratios(logp, old_logp, mask, level)                         # (B, T) new / old
    if objective == "clip":
        losses = clipped_loss(ratio, advantages, clip_low, clip_high)
    elif objective == "sapo":
        losses = sapo_loss(ratio, advantages)
    else:
        losses = cispo_loss(ratio, logp, advantages, mask, clip_low, clip_high)
    with torch.no_grad():
        low = (ratio < 1 - clip_low) & (advantages < 0)
        high = (ratio > 1 + clip_high) & (advantages > 0)
        stats = {"clip_low": masked_mean(low.float(), mask).item(),
                 "clip_high": masked_mean(high.float(), mask).item(),
                 # KL(old || new), per token
                 "approx_kl": masked_mean(kl_estimate(old_logp, logp, "k3"), mask).item(),
                 "ratio_error": torch.where(mask, ratio - 1, 0.0).abs().max().item()}
    return aggregate(losses, mask, how, max_len), stats


def filter_by_difficulty(cfg, policy, tokenizer, questions, correct, device, tries=8):
    """The questions that the policy solves in 20-80% of its tries. Always or never solved, a
    prompt gives its answers nothing to differ in.

    Offline: measured once, with the policy that training starts from, which leaves the hard ones
    behind as it learns.
    """
    if correct is None:
        raise InputError("--filter needs answers that are right or wrong; in this world they are "
                         "better or worse")
    asked = [q for q in questions for _ in range(tries)]
    _, texts, finished = generate_in_batches(
        policy, [tokenizer.prompt(q.text) for q in asked], cfg.max_new_tokens, tokenizer,
        seeds.generator(cfg.seed, "grpo filter", device), progress="filter",
        temperature=cfg.temperature)
    right = [done and correct(question, text)
             for question, text, done in zip(asked, texts, finished, strict=True)]
    rates = torch.tensor(right, dtype=torch.float32).view(-1, tries).mean(1)            # (P,)
    kept = [q for q, rate in zip(questions, rates.tolist(), strict=True) if 0.2 <= rate <= 0.8]
    print(f"filter: of {len(questions)} prompts {len(kept)} are solved in 20-80% of {tries} tries "
          f"and kept; dropped: {(rates < 0.2).sum()} too hard, {(rates > 0.8).sum()} too easy")
    if not kept:
        raise InputError(f"--filter {cfg.filter}: no prompt is solved 20-80% of the time; try "
                         "more, or others")
    return kept


def set_up(cfg, device, draws):
    """What the loop needs -> models, tokenizer, grade (None where nobody knows the true reward),
    and ask(n) -> (questions, prompts)."""
    load = checkpoints.load_checkpoint
    policy, tokenizer = load(cfg.init or f"{cfg.run}/sft", device)
    ref, _ = load(cfg.ref or f"{cfg.run}/sft", device, like=tokenizer)
    prompt_rng, frozen = draws.rng("grpo prompts"), {"ref": ref}
    room, pool, shown = policy.cfg.block_size - cfg.max_new_tokens, [], []
    grade = correct = None

    def prompt_of(question):
        # what load_prompts reads are ids already
        return question if isinstance(question, list) else tokenizer.prompt(question.text)

    if cfg.data and cfg.reward == "verifier":
        everything, report = files.load_problems(cfg.data, tokenizer, room)
        grade, correct = files.grade, files.correct
    elif cfg.data:
        everything, report = files.load_prompts(cfg.data, tokenizer, room)
    else:
        world = worlds.of(tokenizer)
        grade, correct = world.grade, world.correct
    if cfg.data:
        rows = [(prompt_of(q), []) for q in everything]
        print(look.summary(f"{cfg.data}: {len(rows)} prompts", rows, report))
        # what SFT and the others hold out of this file, nothing is trained on here
        pool, held_out = files.split(everything, report, cfg.held_out, cfg.seed)
        print(f"{len(pool)} to train on, {len(held_out)} held out")

    def draw(n):
        return prompt_rng.choices(pool, k=n) if pool else world.questions(n, prompt_rng,
                                                                          world.JUDGED)

    if cfg.filter:
        pool = filter_by_difficulty(cfg, policy, tokenizer, draw(cfg.filter), correct, device)
    if cfg.data:
        shown = [prompt_of(q) for q in pool[:3]]
    if cfg.reward != "verifier":
        reward_model, _ = load(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)
        frozen["reward model"] = reward_model

    def ask(n):
        questions = draw(n)
        return questions, [prompt_of(q) for q in questions]

    return SimpleNamespace(policy=policy, ref=ref, reward_model=frozen.get("reward model"),
                           frozen=frozen, tokenizer=tokenizer, grade=grade, ask=ask, pool=pool,
                           shown=shown)


def write(cfg, setup, n, sampling):
    """K answers to each of n prompts, prompt-major: B = n K -> (rollout, its rows' questions)."""
    K = cfg.samples_per_prompt
    asked, prompts = setup.ask(n)
    questions = [q for q in asked for _ in range(K)]
    prompts = [prompt for prompt in prompts for _ in range(K)]
    out = generate(setup.policy, prompts, cfg.max_new_tokens, setup.tokenizer.end, cfg.temperature,
                   generator=sampling, pad=setup.tokenizer.pad)
    return out, questions


@torch.no_grad()
def score(cfg, setup, out, questions):
    """-> (scores, gold), (B,) each, reward units: what each answer of a rollout is learned from,
    and its true reward, None where nobody knows it."""
    gold = None
    if setup.grade:
        texts, finished = answer_texts(out, setup.tokenizer), out.finished.tolist()
        gold = [setup.grade(*a)["gold"] for a in zip(questions, texts, finished, strict=True)]
        gold = torch.tensor(gold, device=out.ids.device)                                # (B,)
    if setup.reward_model:
        after = in_parts(setup.reward_model, cfg.micro_batch, out.ids)                  # (B, T)
        scores = last_token(after, out.mask)                                            # (B,)
    else:
        scores = gold
    if cfg.overlong == "penalty":
        lengths = out.mask.sum(1)                                                       # (B,)
        scores = scores + overlong_penalty(lengths, cfg.max_new_tokens, cfg.overlong_buffer)
    elif setup.reward_model:
        scores = scores - cfg.unfinished * ~out.finished
    return scores, gold


def refill(cfg, setup, out, questions, scores, gold, sampling):
    """DAPO's dynamic sampling (Yu et al. 2025, section 3.2) -> (rollout, questions, scores, gold),
    B rows as before: groups without spread give way to new prompts, --refill times at most."""
    for _ in range(cfg.refill):
        flat = is_flat(scores.view(-1, cfg.samples_per_prompt))                         # (P,)
        if not flat.any():
            break
        gone = flat.repeat_interleave(cfg.samples_per_prompt)                           # (B,)
        new, asked = write(cfg, setup, int(flat.sum()), sampling)
        new_scores, new_gold = score(cfg, setup, new, asked)
        scores = torch.cat([scores[~gone], new_scores])
        gold = torch.cat([gold[~gone], new_gold]) if setup.grade else None
        left = [q for q, g in zip(questions, gone.tolist(), strict=True) if not g]
        out, questions = replaced(out, gone, new, setup.tokenizer.pad), left + asked
    return out, questions, scores, gold


def say_what_to_expect(cfg, device):
    print(f"grpo: {cfg.steps} steps of {cfg.prompts} x {cfg.samples_per_prompt} answers on "
          f"{device.type}; advantage {cfg.advantage}, {cfg.aggregate} aggregation, {cfg.ratio} "
          f"ratio, {cfg.objective}, beta {cfg.beta:g} in the {cfg.kl_in} ({cfg.kl})")
    if (cfg.advantage != "reinforce" and cfg.aggregate == "sequence" and cfg.objective != "sapo"
            and cfg.overlong != "filter"):
        print("the policy loss starts at 0 in every step, since a group's advantages add up to 0; "
              "its gradient does not: watch score and grad_norm")
    if cfg.kl_in == "loss" and cfg.kl == "k1" and cfg.beta:
        print("k1 in the loss holds nothing: its gradient is 0 on average; --kl k3 is the "
              "paper's, --kl_in reward takes k1")


def train(cfg):
    """-> (policy, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    P, K = cfg.prompts, cfg.samples_per_prompt
    saved = resume.load(cfg, folder)
    setup = set_up(cfg, device, draws)
    policy, ref, tokenizer = setup.policy, setup.ref, setup.tokenizer
    optimizer = optim.adamw(policy, cfg.lr)
    starts_at_ref = checkpoints.same_weights(policy, ref)
    sampling = draws.generator("grpo answers", device)
    shuffling = draws.generator("grpo minibatches")

    def logprobs_of(model, ids, mask, **more):
        return masked_logprobs(model, ids, mask, cfg.temperature, cfg.micro_batch, **more)

    def show(title):
        look.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed,
                          setup.shown)

    say_what_to_expect(cfg, device)
    print(memory.plan({"policy": policy}, setup.frozen, cfg.micro_batch, devices.bf16(device),
                      P * K))
    log = Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    show("before grpo")
    kept = {"baseline": 0.0}
    for step in resume.steps(log, policy, tokenizer, draws, {"optimizer": optimizer, "kept": kept},
                             read={**setup.frozen, "data": setup.pool}):
        # 1. write K answers to each prompt, prompt-major: B = P K
        out, questions = write(cfg, setup, P, sampling)

        # 2. grade them
        scores, gold = score(cfg, setup, out, questions)                                # (B,)
        out, questions, scores, gold = refill(cfg, setup, out, questions, scores, gold, sampling)
        ids, mask = out.ids, out.mask                                                   # (B, T)
        seen = {"score": scores.mean().item()}
        if setup.grade:
            seen["gold"] = gold.mean().item()

        # 3. credit each answer
        with torch.no_grad():
            old_logp, entropy = logprobs_of(policy, ids, mask, entropy=True)            # (B, T)
            ref_logp = logprobs_of(ref, ids, mask)                                      # (B, T)
            kls = {kind: masked_sum(kl_estimate(old_logp, ref_logp, kind), mask)
                   for kind in ("k1", "k2", "k3")}                      # (B,) nats per answer
            price = torch.zeros_like(scores)                                            # (B,)
            if cfg.kl_in == "reward":
                # off each answer's score: charged to its own token, a token would not pay for
                # where it leads
                price = cfg.beta * kls["k1"]
            advantages = group_advantages(scores.view(P, K), cfg.advantage, kept["baseline"],
                                          price.view(P, K)).view(P * K, 1)              # (B, 1)
            flat = is_flat(scores.view(P, K))                                           # (P,)
            mean_score = (scores - price).mean().item()
            if step == 1:
                kept["baseline"] = mean_score
            else:
                kept["baseline"] = 0.9 * kept["baseline"] + 0.1 * mean_score
        if step == 1:
            check_rollout(out.logp, old_logp, mask, devices.bf16(device))
            if starts_at_ref:
                check_kl(kls["k1"].mean().item())

        # 4. improve the policy
        in_use = torch.ones(P * K, dtype=torch.bool, device=device)                     # (B,)
        if cfg.skip_flat:
            in_use &= ~flat.repeat_interleave(K)
        if cfg.overlong == "filter":
            in_use &= out.finished
        rows_in_use = in_use.nonzero().squeeze(1)                                       # (b,)
        epochs, updates = cfg.epochs, []
        if len(rows_in_use) < cfg.minibatches:
            epochs = 0
        for _ in range(epochs):
            order = torch.randperm(len(rows_in_use), generator=shuffling).to(device)
            for rows in rows_in_use[order].chunk(cfg.minibatches):
                logp = logprobs_of(policy, ids[rows], mask[rows])                       # (b, T)
                loss, stats = policy_loss(
                    logp, old_logp[rows], advantages[rows], mask[rows], cfg.clip_low,
                    cfg.clip_high, cfg.ratio, cfg.objective, cfg.aggregate, cfg.max_new_tokens)
                if step == 1 and not updates:
                    check_ratio(stats["ratio_error"], devices.bf16(device),
                                old_logp[mask].std(correction=0).item())
                if cfg.kl_in == "loss":
                    kl = kl_estimate(logp, ref_logp[rows], cfg.kl)                      # (b, T)
                    loss = loss + cfg.beta * aggregate(kl, mask[rows], cfg.aggregate,
                                                       cfg.max_new_tokens)
                loss.backward()
                stats["grad_norm"] = optim.update(policy, optimizer, cfg.lr, cfg.max_grad_norm)
                updates.append({**stats, "loss": loss.item()})
        mean = {}
        if updates:
            mean = {name: sum(u[name] for u in updates) / len(updates) for name in updates[0]}
            mean["first_ratio_error"] = updates[0]["ratio_error"]
        mean["distinct"] = len(set(map(tuple, out.responses()))) / (P * K)

        log(step, **seen, kl=kls["k1"].mean().item(), flat=flat.float().mean().item(),
            grad_norm=mean.pop("grad_norm", 0.0), entropy=masked_mean(entropy, mask).item(),
            len=mask.sum(1).float().mean().item(), finished=out.finished.float().mean().item(),
            **{f"_kl_{kind}": kl.mean().item() for kind, kl in kls.items()},
            **{f"_{name}": value for name, value in mean.items()})
        if step % cfg.sample_every == 0 or step == cfg.steps:
            show(f"grpo, after {step} steps")

    checkpoints.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    return policy, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
