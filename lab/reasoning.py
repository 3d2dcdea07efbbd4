"""RL from verifiable rewards: does it teach, and how little of a reward is enough?

The RLHF Book (first edition 14, current 7). Yue et al. 2025: RLVR makes what a base model can do
likelier; with enough tries the base solves as much. Shao et al. 2025: a reward at random can help,
since PPO's clip leans towards what is likely already. Chu et al. 2025: SFT memorizes, RL
generalizes.

A run of its own: sums, and an SFT on demonstrations of which one in twenty lends where a column has
to borrow. So it is right in a few of a hundred tries there, though the base could do better.
Varied: the reward, true, at random, or flipped for a share of the answers, where the leave-one-out
advantage only shrinks by 1 - 2 p and GRPO's is scaled up again; the clip; prompts solved in 20 to
80% of the tries; and RL and SFT on sums alone, asked for differences. Drawn: pass@k.
"""
import sys

import numpy as np
import torch

import train_grpo
from lab import exam, notebook
from lab import labels as label_files
from nanorlhf import checkpoints, devices, figures, optim, seeds, worlds
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import answer_texts, generate_in_batches
from nanorlhf.stats import pass_at_k

SEEDS, MINUTES = (0, 1, 2), 10
SETTINGS = {"base": {"batch_size": 32, "lr": 0.0015, "steps": 4000}, "lends_nothing": 0.95,
            "demonstrations": 3000, "steps": 60, "asked": 64, "tries": 256,
            "flips": [0.2, 0.4], "tried": 1024}
TOY = {"base": {"batch_size": 8, "lr": 0.0015, "steps": 20, "pages": 300, "n_layer": 1,
                "n_embd": 32, "n_head": 2}, "lends_nothing": 0.95, "demonstrations": 32,
       "steps": 2, "asked": 8, "tries": 4, "flips": [0.2], "tried": 0}
ANSWER = (
    "It makes likely what SFT made rare; a fifth of the rewards may be wrong, not all at random.")
READING = """
SFT solves three of a hundred tries where something is lent, and 95% of the questions in 256 tries.
Sixty steps of RL make that 90 of a hundred, and all of the questions. So RL makes likely what was
there and rare, as Yue et al. say. Whether the base solves more with many tries cannot be seen here:
both solve all. The help of a random reward is not here. With PPO's clip it leaves pass@1 where it
was and halves what is right where nothing is lent; without the clip it ruins the rest too. One
reward in five may be wrong at hardly a cost. With two in five RL is ahead of SFT in two seeds and
nowhere in the third, and that GRPO scales its advantages up again makes no difference that three
seeds could show. To choose prompts beforehand that are solved in 20 to 80% of the tries does less
than to take all. The likeliest reason: where three tries in a hundred succeed few prompts are
chosen, and they are the same to the end. SFT on sums alone does not bring lending, as Chu et al.
say; RL on sums alone does not either. Both lose what little there was, and in one seed of three
most of the plain differences.
"""
FEW = 16        # tries where pass@k at a large k is not asked for
LENT, KINDS = ("lent",), ("plus", "minus", "lent")


def questions_of(world, n, rng, split, kinds):
    """n questions of these kinds"""
    drawn = []
    while len(drawn) < n:
        drawn += [q for q in world.questions(n, rng, split) if q.kind in kinds]
    return drawn[:n]


def workings(own, seed, n, kinds, lends_nothing, slips):
    """n demonstrations -> path of a file of them"""
    world, rng = worlds.load("sums"), seeds.rng(seed, "lab workings")
    rows = [{"prompt": q.text, "completion": world.demonstration(q, rng, slips, lends_nothing),
             "split": worlds.TRAIN}
            for q in questions_of(world, n, rng, worlds.TRAIN, kinds)]
    return label_files.write_rows(f"{own}/{'_'.join(kinds)}_{lends_nothing:g}.jsonl", rows)


def reward_of(kind, right, rng):
    """right (B,) 0 or 1 -> what is rewarded. kind: "true", "random", or a share of answers whose
    reward is the wrong one."""
    if kind == "true":
        return right
    luck = torch.tensor([rng.random() for _ in right])
    if kind == "random":
        return (luck < 0.5).float()
    return torch.where(luck < kind, 1 - right, right)


def improve(cfg, policy, optimizer, ids, mask, old_logp, advantages, shuffling):
    """GRPO's updates from one batch of answers, over the tokens in mask; ids, mask, old_logp
    (B, T), advantages (B, 1)."""
    for _ in range(cfg.epochs):
        order = torch.randperm(len(ids), generator=shuffling).to(ids.device)
        for rows in order.chunk(cfg.minibatches):
            logp = masked_logprobs(policy, ids[rows], mask[rows])                       # (b, T)
            loss, _ = train_grpo.policy_loss(logp, old_logp[rows], advantages[rows], mask[rows],
                                             cfg.clip_low, cfg.clip_high, how="token")
            loss.backward()
            optim.update(policy, optimizer, cfg.lr, cfg.max_grad_norm)


def train(own, seed, name, steps, kinds=LENT, reward="true", advantage="rloo", clip=0.2, tried=0):
    """GRPO on questions of these kinds, no price of KL; writes <own>/<name>/model.pt. tried: how
    many prompts --filter tries."""
    device, draws = devices.pick("auto"), seeds.Draws(seed)
    cfg = train_grpo.Config(run=own, out=name, seed=seed, reward="verifier", advantage=advantage,
                            aggregate="token", beta=0.0, steps=steps, prompts=16, lr=5e-5,
                            clip_low=clip, clip_high=clip)
    setup = train_grpo.set_up(cfg, device, draws)
    policy, tokenizer, world = setup.policy, setup.tokenizer, worlds.of(setup.tokenizer)
    asking, luck = draws.rng("lab questions"), draws.rng("lab rewards")
    sampling, shuffling = draws.generator("answers", device), draws.generator("minibatches")
    optimizer, pool, K = optim.adamw(policy, cfg.lr), [], cfg.samples_per_prompt
    if tried:
        pool = train_grpo.filter_by_difficulty(
            cfg, policy, tokenizer, questions_of(world, tried, asking, worlds.TRAIN, kinds),
            world.correct, device)

    def ask(n):
        some = (asking.choices(pool, k=n) if pool else
                questions_of(world, n, asking, worlds.TRAIN, kinds))
        return some, [tokenizer.prompt(q.text) for q in some]

    setup.ask = ask
    for _ in range(steps):
        out, questions = train_grpo.write(cfg, setup, cfg.prompts, sampling)
        answers = zip(questions, answer_texts(out, tokenizer), out.finished.tolist(), strict=True)
        right = torch.tensor([float(done and world.correct(q, text)) for q, text, done in answers])
        scores = reward_of(reward, right, luck).to(device)                              # (B,)
        advantages = train_grpo.group_advantages(scores.view(-1, K), advantage).view(-1, 1)
        ids, mask = out.ids, out.mask                                                   # (B, T)
        with torch.no_grad():
            old_logp = masked_logprobs(policy, ids, mask)                               # (B, T)
        improve(cfg, policy, optimizer, ids, mask, old_logp, advantages, shuffling)
    checkpoints.save_checkpoint(f"{own}/{name}/model.pt", policy, tokenizer)


def solved(own, seed, name, asked, tries):
    """-> {"pass": {k: share of the held-out questions that lend, solved in k tries},
    "plus", "minus", "lent": share of right answers at temperature 1}"""
    model, tokenizer = checkpoints.load_checkpoint(f"{own}/{name}", devices.pick("auto"))
    world, device, row = worlds.of(tokenizer), devices.pick("auto"), {}
    for kind in KINDS:
        n = tries if kind == "lent" else FEW
        questions = questions_of(world, asked, seeds.rng(seed, f"lab {kind}"), worlds.HELD_OUT,
                                 (kind,))
        each = [q for q in questions for _ in range(n)]
        _, texts, finished = generate_in_batches(
            model, [tokenizer.prompt(q.text) for q in each], 40, tokenizer,
            seeds.generator(seed, "lab tries", device))
        right = np.array([done and world.correct(q, text) for q, text, done in
                          zip(each, texts, finished, strict=True)]).reshape(-1, n)      # (N, n)
        row[kind] = float(right.mean())
        if kind == "lent":
            ks = [2 ** i for i in range(n.bit_length())]
            row["pass"] = {str(k): float(np.mean([pass_at_k(n, int(r), k) for r in right.sum(1)]))
                           for k in ks}
    return row


def rl(own, seed, name, asked, tries, settings):
    train(own, seed, name, **settings)
    return solved(own, seed, name, asked, tries)


def sft(own, seed, name, asked, tries, settings):
    exam.trained(own, seed, name, "train_sft", settings)
    return solved(own, seed, name, asked, tries)


def run(folder, seed, base, lends_nothing, demonstrations, steps, asked, tries, flips, tried):
    own = exam.base_of(folder, seed, "sums", **base)
    people = workings(own, seed, demonstrations, KINDS, lends_nothing, 0.25)
    exam.trained(own, seed, "sft", "train_sft", {"data": people, "held_out": 0.0})
    right = workings(own, seed, demonstrations, ("plus",), 0.0, 0.0)
    jobs = {"base": (solved, "base", tries), "sft": (solved, "sft", tries)}

    def add(row, k=FEW, **settings):
        jobs[row] = rl, exam.folder_name(row), k, {"steps": steps, **settings}

    add("RL", tries)
    add("RL, random reward", reward="random")
    add("RL, random reward, no clip", reward="random", clip=1e6)
    for share in flips:
        add(f"RL, {share:.0%} flipped", reward=share)
    for share in (0.0, *flips):
        add(f"RL, {share:.0%} flipped, GRPO's advantage", reward=share, advantage="grpo")
    if tried:
        add("RL, filtered", tried=tried)
    add("RL, sums alone", kinds=("plus",))
    jobs["SFT, sums alone"] = sft, "sft_plus", FEW, {"data": right, "held_out": 0.0,
                                                     "init": f"{own}/sft"}
    made = exam.at_once(exam.called, [(function, own, seed, name, asked, min(k, tries), *settings)
                                 for function, name, k, *settings in jobs.values()],
                        f"sums of seed {seed}")
    return dict(zip(jobs, made, strict=True))


def table(data):
    most = str(SETTINGS["tries"])
    return notebook.rows_of(data, [
        ("pass@1", "pass.1", "{:.2f}"), ("pass@4", "pass.4", "{:.2f}"),
        ("pass@16", "pass.16", "{:.2f}"), (f"pass@{most}", f"pass.{most}", "{:.2f}"),
        ("plus", "plus", "{:.2f}"), ("minus, nothing lent", "minus", "{:.2f}")])


def claims(data):
    most = str(SETTINGS["tries"])

    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    flipped = f"RL, {SETTINGS['flips'][-1]:.0%} flipped"
    return {"RL raises pass@1": over("pass.1", "RL", "sft"),
            f"RL raises pass@{most}": over(f"pass.{most}", "RL", "sft"),
            f"the base solves more in {most} tries than RL": over(f"pass.{most}", "base", "RL"),
            "a random reward raises pass@1": over("pass.1", "RL, random reward", "sft"),
            "a random reward does more with the clip than without":
                over("pass.1", "RL, random reward", "RL, random reward, no clip"),
            f"with {SETTINGS['flips'][-1]:.0%} of rewards flipped, RL still raises pass@1":
                over("pass.1", flipped, "sft"),
            "and GRPO's advantage, scaled up again, does more than the leave-one-out one":
                over("pass.1", f"{flipped}, GRPO's advantage", flipped),
            "filtered prompts do more than all": over("pass.1", "RL, filtered", "RL"),
            "SFT on sums alone raises sums": over("plus", "SFT, sums alone", "sft"),
            "RL on sums alone raises sums": over("plus", "RL, sums alone", "sft"),
            "RL on sums alone leaves differences better than SFT on sums alone":
                over("minus", "RL, sums alone", "SFT, sums alone"),
            "RL on sums alone raises differences in which something is lent":
                over("lent", "RL, sums alone", "sft")}


def figure(data):
    lines = {}
    for name in ("base", "sft", "RL"):
        ks = list(next(iter(data.values()))[name]["pass"])
        lines[name] = (np.log2([int(k) for k in ks]),
                       [notebook.mean_of_seeds(data, name, f"pass.{k}") for k in ks])
    return figures.curves("Differences that lend, mean of the seeds", "pass@k", lines,
                          x_name="log2 of k, tries")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
