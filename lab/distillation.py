"""A small student of a good teacher: whose answers should it learn on?

The RLHF Book (first edition 15, current 12). Kim and Rush 2016: imitate what the teacher says
(sequence level), or its whole distribution of each next token (word level). Agarwal et al. 2023:
on-policy, on the student's own answers, the student meets its own mistakes and learns to go on
from them (exposure).

The teacher is the run's PPO, the student a model of half the layers with its own base and SFT.
Varied: the level, who writes the answers, how many steps; and RL from scratch, PPO of the student
by the teacher's reward model. Cost: tokens that the teacher wrote, that the student wrote, and
multiplications of one model or the other, 2 a weight and token forward and 4 back. Exposure: the
chance that the first wrong claim comes in the n-th sentence of what was right so far.
"""
import os
import sys

import numpy as np

import train_base
from lab import exam, notebook
from nanorlhf import checkpoints, figures
from nanorlhf.log import read_log

SEEDS, MINUTES = (0, 1, 2), 6
SETTINGS = {"layers": 2, "base_steps": 1500, "steps": [25, 100], "batch_size": 32, "rl_steps": 75}
TOY = {"layers": 1, "base_steps": 5, "steps": [1], "batch_size": 4, "rl_steps": 1,
       "prompts": 32}
ANSWER = "Its own, by a little, in each seed; RL from scratch comes as far at six times the cost."
READING = """
A hundred steps bring a student of half the layers to its teacher, whichever way it is taught. At
temperature 1 on-policy is ahead of word level, word level of sequence level, and the exact gradient
of REINFORCE's, in each of three seeds, by 0.09 to 0.15; no interval leaves 0 out. So it is what
Agarwal et al. say, and little of it. At its best temperature each way is as good as any other: what
they differ in, cooling takes away. RL from scratch comes as far, by the teacher's reward model, and
takes six times the arithmetic: a distribution at each token says more than one score an answer. The
best student is level with its teacher, or above, in each seed. Errors do not pile up here: a claim
behind a true one is wrong less often than the first, whoever wrote what was learned from, and third
claims are too few to tell. So exposure, the reason that is given for on-policy, is not the reason
here; answers of one or two sentences leave it no room.
"""
WAYS = {"sequence level": {"data": "teacher"},
        "word level": {"on_policy": 0.0, "divergence": "forward_kl"},
        "half of each": {"on_policy": 0.5, "divergence": "js"},
        "on-policy": {},
        "on-policy, REINFORCE": {"gradient": "reinforce"}}


def student(folder, seed, layers, steps):
    """A run within the run, of a smaller model: its base and SFT -> its folder"""
    own = exam.base_of(folder, seed, train_base.Config.world, n_layer=layers, steps=steps)
    exam.trained(own, seed, "sft", "train_sft", {})
    return own


def cost(own, folder, name, script, batch_size):
    """What a run of train_distill.py or train_ppo.py wrote and took -> {"student tokens",
    "teacher tokens", "teraflops"}"""
    log = read_log(f"{own}/{name}")
    student, teacher = (sum(p.numel() for p in checkpoints.load_checkpoint(path)[0].parameters())
                        for path in (f"{own}/sft", f"{folder}/ppo"))
    # where both write, each writes half of the batch
    rows = batch_size / 2 if {"len", "teacher_len"} <= set(log) else batch_size
    mine, theirs = (float(np.sum(log[column])) * rows if column in log else 0.0
                    for column in ("len", "teacher_len"))
    if script == "train_ppo":
        # written, read for the old and the reference's log-probs, and two epochs there and back;
        # critic and reward model are of the teacher's size
        flops = mine * (18 * student + 16 * teacher)
    else:
        # each token is written by one, read by the teacher, and gone over there and back
        flops = 2 * (mine * student + theirs * teacher) + (mine + theirs) * (
            6 * student + 2 * teacher)
    return {"student tokens": mine, "teacher tokens": theirs, "teraflops": flops / 1e12}


def exposed(folder, seed, own, name, prompts):
    """Where answers go wrong -> {"1", "2", "3": of those whose claims were all true so far, the
    share whose next one is not}"""
    run, world, questions = exam.held_out(folder, seed, prompts)
    model, _ = checkpoints.load_checkpoint(f"{own}/{name}", run.device, like=run.tokenizer)
    said = run.answer(model, None, [run.tokenizer.prompt(q.text) for q in questions],
                      "evaluate answers at 1")
    came, wrong = np.zeros(3), np.zeros(3)
    for text in said.texts:
        for i, claim in enumerate(world.claims(text)[:3]):
            town, attribute, value = world.parse_claim(claim + ".")
            came[i] += 1
            if world.FACTS[town][attribute] != value:
                wrong[i] += 1
                break
    return {str(i + 1): float(w / max(1, n)) for i, (w, n) in enumerate(
        zip(wrong, came, strict=True))}


def taught(folder, seed, own, name, script, settings, batch_size, prompts):
    """A student, taught -> its marks among the run's, what it cost, where it errs"""
    spent = {}
    if script:
        exam.trained(own, seed, name, script, settings)
        spent = cost(own, folder, name, script, batch_size)
    # the same questions and draws as all others; its KL is from the teacher's SFT
    return {**exam.mark(folder, seed, os.path.relpath(f"{own}/{name}", folder), prompts), **spent,
            "wrong at": exposed(folder, seed, own, name, prompts)}


def run(folder, seed, layers, base_steps, steps, batch_size, rl_steps, prompts=exam.PROMPTS):
    own, teacher = student(folder, seed, layers, base_steps), f"{folder}/ppo"
    jobs = {"student, SFT": ("sft", "", {})}
    for way, settings in WAYS.items():
        for n in steps:
            name = f"distill_{exam.folder_name(way)}_{n}"
            jobs[f"{way}, {n} steps"] = name, "train_distill", {
                "teacher": teacher, "steps": n, "batch_size": batch_size, **settings}
    jobs["RL from scratch"] = "ppo", "train_ppo", {
        "reward": f"{folder}/rm", "steps": rl_steps, "batch_size": 2 * batch_size}
    sizes = {row: 2 * batch_size if row == "RL from scratch" else batch_size for row in jobs}
    made = exam.at_once(taught, [(folder, seed, own, *job, sizes[row], prompts)
                                 for row, job in jobs.items()], f"students of seed {seed}")
    rows = {"sft": exam.mark(folder, seed, "sft", prompts),
            "teacher": {**exam.mark(folder, seed, "ppo", prompts),
                        "wrong at": exposed(folder, seed, folder, "ppo", prompts)},
            **dict(zip(jobs, made, strict=True))}
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("told", "at_1.told", "{:.0%}"), ("teacher's tokens", "teacher tokens", "{:.0f}"),
        ("student's", "student tokens", "{:.0f}"), ("teraflops", "teraflops", "{:.2f}"),
        ("first claim wrong", "wrong at.1", "{:.0%}"), ("second", "wrong at.2", "{:.0%}")])


def claims(data):
    few, many = SETTINGS["steps"][0], SETTINGS["steps"][-1]

    def over(row, other, key="at_1.gold"):
        return notebook.differences(data, key, row, other)

    own, words, whole = (f"{way}, {{}} steps" for way in ("on-policy", "word level",
                                                          "sequence level"))
    return {f"{many} steps on-policy earn more than {many} at word level":
                over(own.format(many), words.format(many)),
            f"{few} steps on-policy earn more than {few} at word level":
                over(own.format(few), words.format(few)),
            "word level earns more than sequence level":
                over(words.format(many), whole.format(many)),
            "the exact gradient earns more than REINFORCE's":
                over(own.format(many), f"on-policy, REINFORCE, {many} steps"),
            "on-policy earns more than RL from scratch": over(own.format(many), "RL from scratch"),
            "on-policy, a second claim is less often wrong than at word level (seen first)":
                over(words.format(many), own.format(many), "wrong at.2"),
            "the teacher is better than its best student": over("teacher", own.format(many))}


def figure(data):
    """Gold against what it cost, along the steps: the mean of the seeds."""
    paths = {}
    for way in WAYS:
        names = [f"{way}, {n} steps" for n in SETTINGS["steps"]]
        start = notebook.mean_of_seeds(data, "student, SFT", "at_1.gold")
        paths[way] = [[first, *(notebook.mean_of_seeds(data, name, key) for name in names)]
                      for first, key in ((0.0, "teraflops"), (start, "at_1.gold"))]
    scratch = tuple(notebook.mean_of_seeds(data, "RL from scratch", key)
                    for key in ("teraflops", "at_1.gold"))
    return figures.plane("A student of two layers, mean of the seeds", "teraflops",
                         "gold at temperature 1", {"RL from scratch": scratch}, paths)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
