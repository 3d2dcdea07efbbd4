"""How much may be earned by a proxy before the truth pays for it?

The RLHF Book (first edition 17, current 14): optimize a reward model hard enough and the true
reward falls. Gao et al. 2023: with d = sqrt(KL) the gold reward goes as a d - b d^2 for best-of-N
and as a d - b d log d for RL; more labels move the peak out. Coste et al. 2024: an ensemble of
reward models helps, most of all its minimum.

Varied: the labels that the reward model has, one pair a prompt, or all pairs; PPO and GRPO without
a price of KL, and best-of-N; three heads on the same labels or on a third each, at equal labels.
Drawn: gold, less SFT's, against d. The KL of best-of-N is its bound, log N - (N - 1) / N. Both
forms are fitted to both methods by least squares, up to 40 nats.
"""
import math
import sys

import numpy as np
import torch

from lab import exam, notebook
from lab import labels as label_files
from lab.kl_price import path_of
from nanorlhf import figures, seeds
from nanorlhf.reports import mean
from nanorlhf.rollout import score_answers
from train_rejection import expected_best_of

SEEDS, MINUTES = (0, 1, 2), 8
SETTINGS = {"labels": [250, 1000, 4000], "ensemble": 4000, "n": 64, "best_of_prompts": 192,
            "steps": 75}
TOY = {"labels": [20], "ensemble": 30, "n": 4, "best_of_prompts": 16, "steps": 3, "prompts": 32}
ANSWER = "A few nats' worth: the score rises on, gold turns near four nats, with few labels lower."
READING = """
Most of what Gao et al. saw in language models is here. The score goes on rising; gold rises, turns
near four nats, and falls back to SFT's or below. Few labels turn it lower. Whether they turn it
sooner, as Gao et al. found, hangs on how one looks: the fit of a d - b d^2 has its peak at 3.7 nats
with 250 labels and at 6.1 with all pairs, in the same order in each seed; the step with the most
gold comes at 5.1 nats and at 4.2. Best-of-N follows a d - b d^2 closely. For RL neither form is
close: a policy that runs on for tens of nats ends in a sentence or two for all questions, where
gold is flat, and neither curve has a floor. A first fit, over all nats and from the gold of other
questions, had a d - b d log d ahead in each seed: that verdict hangs on such choices. Three heads
on the same labels pick better than one. Against Coste et al., their minimum does not pick better
than their mean. And heads that have seen a third of the labels each are as good as heads that have
seen all, for a third of the work: what helps is that they differ.
"""


def reward_models(folder, seed, sizes, ensemble):
    """Trains them -> {what it was trained on: its folder in the run}"""
    train, held_out = label_files.rows_of(folder)
    some = label_files.one_a_prompt(train, seeds.rng(seed, "lab labels"))
    third, made = ensemble // 3, {}
    for n in sizes:
        made[f"{n} labels"] = f"lab/rm_{n}", some[:n], seed
    for i in range(3):
        made[f"same {i}"] = f"lab/rm_same_{i}", some[:ensemble], seed + 100 * (i + 1)
        made[f"third {i}"] = f"lab/rm_third_{i}", some[i * third:(i + 1) * third], seed
    jobs = []
    for name, rows, own_seed in made.values():
        data = label_files.write(folder, f"{name}_labels", rows, held_out)
        # a folder of its own seed: the order of the data and the head are drawn anew
        jobs.append((folder, own_seed, name, "train_rm", {"data": data}))
    exam.at_once(exam.trained, jobs, f"reward models of seed {seed}")
    return {"all pairs": "rm", **{what: name for what, (name, *_) in made.items()}}


def best_of_n(folder, seed, rewards, n, prompts):
    """rewards: {name: [folders of reward models, which vote by their mean, or by their minimum
    where the name ends in "minimum"]} -> {name: [{"n", "proxy", "gold", "kl_bound"}]}"""
    run, world, questions = exam.held_out(folder, seed, prompts)
    asked = [q for q in questions for _ in range(n)]
    ids = [run.tokenizer.prompt(q.text) for q in asked]
    said = run.answer(run.sft, "best of n", ids, "lab best of n")
    gold = torch.tensor(world.columns(asked, said.texts, said.finished)["gold"]).view(-1, n)
    known = {}
    for path in {path for paths in rewards.values() for path in paths}:
        known[path] = score_answers(run.load(path, "scalar"), ids, said.ids, run.tokenizer.pad)
    curves = {}
    for name, paths in rewards.items():
        # each is centred: what SFT writes scores 0 on average
        votes = torch.stack([known[path] for path in paths])                    # (R, P n)
        scores = votes.amin(0) if name.endswith("minimum") else votes.mean(0)   # (P n,)
        scores = scores.view(-1, n)
        curves[name] = [point(scores, gold, 2 ** i) for i in range(int(math.log2(n)) + 1)]
    return curves


def point(scores, gold, k):
    """What the best of k is worth, on average, by the scores and in truth."""
    return {"n": k, "kl_bound": math.log(k) - (k - 1) / k,
            "proxy": mean([expected_best_of(s, k) for s in scores]),
            "gold": mean([expected_best_of(s, k, g) for s, g in zip(scores, gold, strict=True)])}


def gold_of_asked(folder, seed, n):
    """SFT's mean gold on what PPO and GRPO are asked: other questions than the held-out ones."""
    run, world, _ = exam.held_out(folder, seed)
    questions = world.questions(n, seeds.rng(seed, "lab asked"), world.JUDGED)
    said = run.answer(run.sft, "asked", [run.tokenizer.prompt(q.text) for q in questions],
                      "lab asked")
    return float(np.mean(world.columns(questions, said.texts, said.finished)["gold"]))


def fits(kl, gained, furthest=40):
    """Gao et al.'s two forms, by least squares up to so many nats -> {form: {"a", "b", "rms",
    "peak": where it is highest, in nats}}"""
    # at least 0: a KL that is measured on 64 answers can come out a little under it
    kl, gained = np.maximum(kl, 1e-9), np.array(gained)
    d, gained, made = np.sqrt(kl[kl <= furthest]), gained[kl <= furthest], {}
    for form, second in (("a d - b d^2", d ** 2), ("a d - b d log d", d * np.log(d))):
        (a, b), *_ = np.linalg.lstsq(np.stack([d, -second], 1), gained, rcond=None)
        rms = float(np.sqrt(np.mean((a * d - b * second - gained) ** 2)))
        peak = None
        if a > 0 and b > 0:
            peak = (a / (2 * b)) ** 2 if form.endswith("d^2") else math.exp(2 * (a / b - 1))
        made[form] = {"a": float(a), "b": float(b), "rms": rms, "peak": peak}
    return made


def run(folder, seed, labels, ensemble, n, best_of_prompts, steps, prompts=exam.PROMPTS):
    rewards = reward_models(folder, seed, labels, ensemble)
    # an ensemble and what it is made of; the others stand alone
    alone = {what: name for what, name in rewards.items() if not what.startswith(("same", "third"))}
    free = {"beta": 0.0, "steps": steps}
    models = {"PPO, all pairs": ("lab/ppo_beta_0", "train_ppo", free),
              "GRPO, all pairs": ("lab/grpo_beta_0", "train_grpo", free)}
    for count in labels:
        models[f"PPO, {count} labels"] = (f"lab/ppo_rm_{count}", "train_ppo",
                                          {**free, "reward": f"{folder}/lab/rm_{count}"})
    rows = exam.marks_of(folder, seed, {"sft": ("sft", "", {}), **models}, prompts)
    start = rows["sft"]["asked"] = gold_of_asked(folder, seed, 4 * prompts)
    for name, (made, _, _) in models.items():
        path = path_of(f"{folder}/{made}", ("kl", "gold", "score"))
        gained = np.array(path["gold"]) - start
        rows[name] |= {"path": path, "peak": float(gained.max()),
                       "fits": fits(path["kl"], gained)}
    rows = exam.over_sft(folder, seed, rows, prompts)
    judges = {what: [name] for what, name in alone.items()}
    same, third = ([name for what, name in rewards.items() if what.startswith(kind)]
                   for kind in ("same", "third"))
    judges |= {"one head": same[:1], "three heads, mean": same, "three heads, minimum": same,
               "thirds, mean": third, "thirds, minimum": third}
    for name, curve in best_of_n(folder, seed, judges, n, best_of_prompts).items():
        gained = [point["gold"] - curve[0]["gold"] for point in curve]
        rows[f"best of N, {name}"] = {"curve": curve, "peak": max(gained),
                                      "at_1": {"gold": curve[-1]["gold"]},
                                      "kl": curve[-1]["kl_bound"],
                                      "fits": fits([p["kl_bound"] for p in curve], gained)}
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("KL at the end", "kl", "{:.1f}"), ("gold at the end", "at_1.gold", "{:.2f}"),
        ("at its best T", "at_best.gold", "{:.2f}"), ("most gained on the way", "peak", "{:+.2f}"),
        ("off a d - b d^2", "fits.a d - b d^2.rms", "{:.2f}"),
        ("its peak, nats", "fits.a d - b d^2.peak", "{:.1f}"),
        ("off a d - b d log d", "fits.a d - b d log d.rms", "{:.2f}"),
        ("its peak, nats", "fits.a d - b d log d.peak", "{:.1f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    def closer(row, form, other):
        """By how much less this form is off than the other."""
        return {seed: notebook.look_up(rows[row], other) - notebook.look_up(rows[row], form)
                for seed, rows in data.items()}

    square, log = "fits.a d - b d^2.rms", "fits.a d - b d log d.rms"
    few = f"PPO, {SETTINGS['labels'][0]} labels"
    return {
        "PPO without a price of KL ends below SFT's gold":
            over("at_1.gold", "sft", "PPO, all pairs"),
        f"all pairs take PPO higher than {SETTINGS['labels'][0]} labels, on the way":
            over("peak", "PPO, all pairs", few),
        "and further, where a d - b d^2 has its peak, in nats (seen first)":
            over("fits.a d - b d^2.peak", "PPO, all pairs", few),
        "and where a d - b d log d has it (seen first)":
            over("fits.a d - b d log d.peak", "PPO, all pairs", few),
        "a d - b d log d fits PPO better than a d - b d^2":
            closer("PPO, all pairs", log, square),
        "a d - b d^2 fits best-of-N better than a d - b d log d":
            closer("best of N, all pairs", square, log),
        "three heads on the same labels pick better than one":
            over("at_1.gold", "best of N, three heads, mean", "best of N, one head"),
        "their minimum picks better than their mean":
            over("at_1.gold", "best of N, three heads, minimum", "best of N, three heads, mean"),
        "three heads on the same labels pick better than three on a third each":
            over("at_1.gold", "best of N, three heads, mean", "best of N, thirds, mean")}


def figure(data):
    seed, paths = min(data), {}
    for name, row in data[seed].items():
        if "path" in row:
            d = np.sqrt(np.maximum(row["path"]["kl"], 0))
            paths[name] = d, np.array(row["path"]["gold"]) - data[seed]["sft"]["asked"]
    curve = data[seed]["best of N, all pairs"]["curve"]
    paths["best of N"] = ([math.sqrt(p["kl_bound"]) for p in curve],
                          [p["gold"] - curve[0]["gold"] for p in curve])
    return figures.plane(f"What a proxy buys, seed {seed}", "d = square root of the KL (best of N: "
                         "of its bound)", "gold, less SFT's", {}, paths)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
