"""A tool in the answer: who learns when to call, and what of the result is learned from?

The RLHF Book (current edition, 13). Schick et al. 2023 (Toolformer): a model writes a call, a tool
the result, the model goes on from there. Tokens that a tool wrote are no action of the policy, so
they are masked out of the loss (Jin et al. 2025, Search-R1): learned from, they pull the model
towards text that it did not choose.

A run of its own (nanorlhf/worlds/calculator.py): easy products and hard ones, where nobody is right
without the tool; a call costs a tenth of what is earned. Varied: RL with the tool, its tokens
masked or not; with calls that cost nothing, or half; and without a tool, where the model writes the
results itself. Drawn: how often easy and hard products are called for.
"""
import sys

import torch

import train_grpo
from lab import exam, notebook
from lab.reasoning import improve
from nanorlhf import checkpoints, devices, figures, optim, seeds, worlds
from nanorlhf.functional import kl_estimate, masked_sum
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import answer_texts, generate
from nanorlhf.stats import average

SEEDS, MINUTES = (0, 1, 2), 4
SETTINGS = {"base": {"batch_size": 32, "lr": 0.0015, "steps": 1500}, "demonstrations": 3000,
            "steps": 80, "beta": 0.01}
TOY = {"base": {"batch_size": 8, "lr": 0.0015, "steps": 5, "pages": 300, "n_layer": 1,
                "n_embd": 32, "n_head": 2}, "demonstrations": 32, "steps": 2, "beta": 0.01,
       "prompts": 32}
ANSWER = (
    "RL learns to call where nothing else helps; to mask what the tool wrote changes nothing here.")
READING = """
People call for a quarter of the products, easy or hard; SFT for a tenth, though its base called for
half. RL learns to call in 80 steps: for 99% of the hard products, of which 97% are then right and
11% were. For easy ones it ends on one side or the other. Where a call costs half of what is earned
it makes none, and where calls are free it always calls; at a tenth two seeds make next to none, and
one always calls. To call would pay in all three: a call earns 0.9, and what they know by heart is
right in 53 to 69%. So RL ends where it leaned already, and SFT seldom calls. The mask makes no
difference that three seeds could show. In Search-R1 the tool writes whole pages; here it writes
four digits and a bracket that follow from the call, so to learn them pulls nowhere: that is the
likeliest reason. Where the tool is taken away, the model goes on writing calls, and invents the
result: 99% of what it writes there is wrong, 83% of SFT's. Trained without a tool it stops calling,
and gets no hard product right.
"""
LONGEST = 24


def calculator(tokenizer, world):
    """The world's tool, as generate() takes it."""
    return lambda ids: tokenizer.encode(world.tool(tokenizer.decode(ids)))


def answer(model, tokenizer, world, questions, draws, with_tool):
    """-> a rollout at temperature 1"""
    return generate(model, [tokenizer.prompt(q.text) for q in questions], LONGEST, tokenizer.end,
                    generator=draws, pad=tokenizer.pad,
                    after_token=calculator(tokenizer, world) if with_tool else None)


def train(own, seed, name, steps, beta, with_tool=True, masked=True, price=0.1):
    """GRPO on being right, less the price of each call; writes <own>/<name>/model.pt. masked: the
    tool's tokens are in no loss."""
    device, draws = devices.pick("auto"), seeds.Draws(seed)
    policy, tokenizer = checkpoints.load_checkpoint(f"{own}/sft", device)
    ref, _ = checkpoints.load_checkpoint(f"{own}/sft", device)
    world, asking = worlds.of(tokenizer), draws.rng("lab questions")
    sampling, shuffling = draws.generator("answers", device), draws.generator("minibatches")
    cfg = train_grpo.Config(prompts=16, lr=1e-4)
    optimizer = optim.adamw(policy, cfg.lr)
    P, K = cfg.prompts, cfg.samples_per_prompt
    for _ in range(steps):
        questions = [q for q in world.questions(P, asking) for _ in range(K)]
        out = answer(policy, tokenizer, world, questions, sampling, with_tool)
        grades = [world.grade(*a) for a in zip(questions, answer_texts(out, tokenizer),
                                               out.finished.tolist(), strict=True)]
        scores = torch.tensor([grade["correct"] - price * grade["call"] for grade in grades],
                              device=device)                                            # (B,)
        ids, mask = out.ids, out.own if masked else out.mask                            # (B, T)
        with torch.no_grad():
            old_logp = masked_logprobs(policy, ids, mask)                               # (B, T)
            ref_logp = masked_logprobs(ref, ids, mask)                                  # (B, T)
            kl = masked_sum(kl_estimate(old_logp, ref_logp, "k1"), mask)                # (B,)
        advantages = train_grpo.group_advantages(scores.view(P, K), "rloo",
                                                 kl=beta * kl.view(P, K)).view(-1, 1)   # (B, 1)
        improve(cfg, policy, optimizer, ids, mask, old_logp, advantages, shuffling)
    checkpoints.save_checkpoint(f"{own}/{name}/model.pt", policy, tokenizer)


def figures_of(own, seed, name, prompts):
    """What a model says with the tool, and "alone": of the results that it writes without one, the
    share that is wrong"""
    device = devices.pick("auto")
    model, tokenizer = checkpoints.load_checkpoint(f"{own}/{name}", device)
    world, row = worlds.of(tokenizer), {}
    questions = world.questions(prompts, seeds.rng(seed, "lab products"), worlds.HELD_OUT)
    for with_tool in (True, False):
        out = answer(model, tokenizer, world, questions,
                     seeds.generator(seed, "lab products", device), with_tool)
        texts, finished = answer_texts(out, tokenizer), out.finished.tolist()
        columns = world.columns(questions, texts, finished)
        if not with_tool:
            return row | {"alone": average(columns["invented"])}
        grades = [world.grade(*a) for a in zip(questions, texts, finished, strict=True)]
        row["gold"] = average([grade["gold"] for grade in grades])
        for kind in world.KINDS:
            here = [i for i, q in enumerate(questions) if q.kind == kind]
            row[kind] = average([grades[i]["correct"] for i in here])
            row[f"call_{kind}"] = average(columns[f"call_{kind}"])
        row["finished"] = average(list(map(float, finished)))


def train_and_look(own, seed, name, steps, beta, settings, prompts):
    if settings is not None:
        train(own, seed, name, steps, beta, **settings)
    return figures_of(own, seed, name, prompts)


def run(folder, seed, base, demonstrations, steps, beta, prompts=exam.PROMPTS):
    own = exam.base_of(folder, seed, "calculator", **base)
    exam.trained(own, seed, "sft", "train_sft", {"demonstrations": demonstrations})
    jobs = {"base": ("base", None), "sft": ("sft", None), "RL, masked": ("masked", {}),
            "RL, the tool's tokens too": ("unmasked", {"masked": False}),
            "RL, calls are free": ("free", {"price": 0.0}),
            "RL, calls cost half": ("dear", {"price": 0.5}),
            "RL without a tool": ("alone", {"with_tool": False})}
    made = exam.at_once(train_and_look, [(own, seed, name, steps, beta, settings, prompts)
                                         for name, settings in jobs.values()],
                        f"calculators of seed {seed}")
    return dict(zip(jobs, made, strict=True))


def table(data):
    return notebook.rows_of(data, [
        ("right: easy", "easy", "{:.0%}"), ("hard", "hard", "{:.0%}"),
        ("calls: easy", "call_easy", "{:.0%}"), ("hard", "call_hard", "{:.0%}"),
        ("gold", "gold", "{:.2f}"), ("ends", "finished", "{:.0%}"),
        ("invented without a tool", "alone", "{:.0%}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    masked, unmasked, free = "RL, masked", "RL, the tool's tokens too", "RL, calls are free"
    return {"RL calls more often for hard products than SFT": over("call_hard", masked, "sft"),
            "RL calls less often for easy ones than SFT": over("call_easy", "sft", masked),
            "where a call costs half of what is earned, RL calls less often for easy ones than SFT":
                over("call_easy", "sft", "RL, calls cost half"),
            "and as often for hard ones as where it costs a tenth, or more":
                over("call_hard", "RL, calls cost half", masked),
            "where calls are free, it calls for easy ones more than where they cost a tenth":
                over("call_easy", free, masked),
            "masked, RL earns more gold than with the tool's tokens in the loss":
                over("gold", masked, unmasked),
            "without a tool, RL calls less often for hard products":
                over("call_hard", masked, "RL without a tool"),
            "alone, results are invented as often after RL as before":
                over("alone", masked, "sft"),
            "RL earns more gold than SFT": over("gold", masked, "sft")}


def figure(data):
    rows = {}
    for name in next(iter(data.values())):
        for kind in ("easy", "hard"):
            rows[f"{name}: {kind}"] = notebook.mean_of_seeds(data, name, f"call_{kind}"), None
    return figures.dots("When the calculator is called, mean of the seeds", "share of answers",
                        rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
