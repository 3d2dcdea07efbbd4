"""Labels by people or by a model: what does each do to the gold that is learned?

The RLHF Book (first edition 13, current 12): people's labels have high noise and low bias,
synthetic ones low noise and high bias. So with more and more labels people's should go on paying,
and a model's should flatten where its bias is learned. Lee et al. 2023 (RLAIF): as good as people.

The same pairs of SFT's answers, labelled by people, or by the base model and a constitution that
knows no fact (nanorlhf/judge.py), at its best and made as noisy as people are; and by people of
whom half believe the errors that people share. Varied: how many labels. DPO with equal updates
everywhere, and PPO by a reward model of all of them. A judge that is SFT itself, in place of the
base, at the largest number.
"""
import sys

import numpy as np

from lab import exam, notebook, tastes
from lab import labels as label_files
from nanorlhf import figures, seeds
from nanorlhf.worlds.labelers import sigmoid

SEEDS, MINUTES = (0, 1, 2), 10
SETTINGS = {"sizes": [100, 1000, 10000, 50000], "gullible": 0.5, "sharpness": 2.0, "steps": 75,
            "rl_steps": 75}
TOY = {"sizes": [20, 40, 80], "gullible": 0.5, "sharpness": 2.0, "steps": 2, "rl_steps": 2,
       "prompts": 32}
ANSWER = (
    "A judge's labels serve DPO nearly as well as people's; PPO by them runs on and falls silent.")
READING = """
Of the labels that the base gives by its own beliefs 87% are in gold's order, of people's 86%. DPO
earns a little more by people's: 0.14 at 1,000 labels, which holds, 0.18 and 0.10 at 10,000 and
50,000, which three seeds do not settle. What separates them in the book, that people's labels go on
paying where a judge's bias has been learned, is not seen here. But seventy-five updates read some
11,000 pairs, so the last step up is one to other pairs, not to more. The bias that costs is one of
people: where half of them believe the shared errors, 0.79 of gold is lost, and more labels do not
mend it. At a hundredth of the price the judge's labels are worth 1.02 more. The surprise is PPO. By
the judge's labels it earns 0.48 less than by people's, goes 6 nats where it goes 3, and tells 55%
of what is asked. The likeliest reason: the judge is sure, so the scores of its reward model are 2.2
times as wide (a standard deviation of 3.8 to 4.3, by people's labels 1.8 to 1.9), and the same beta
is a lower price. DPO, which never sees a score, is spared that. SFT judges as well as the base.
"""


def as_noisy(gaps, right, share):
    """A sharpness at which a judge with these gaps in worth, right (bool) about the sign or not, is
    right in this share of its labels: by bisection, since more sharpness is more of what it would
    say without noise."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        sure = np.array([sigmoid(middle * abs(gap)) for gap in gaps])
        if np.where(right, sure, 1 - sure).mean() < share:
            low = middle
        else:
            high = middle
    return low


def run(folder, seed, sizes, gullible, sharpness, steps, rl_steps, prompts=exam.PROMPTS):
    train, held_out = label_files.rows_of(folder)
    # all pairs of a prompt, prompts in the order in which they were asked
    train = train[:max(sizes)]
    _, world, _ = exam.held_out(folder, seed)
    worth, own = (tastes.worth_of(folder, seed, name, train) for name in ("base", "sft"))

    def people(row, **more):
        return tastes.by_people(world, row, sharpness=sharpness, **more)

    differ = [row for row in train if abs(row["chosen_gold"] - row["rejected_gold"]) > 1e-9]
    gaps = [tastes.gap(row, worth) for row in differ]
    signs = np.sign([row["chosen_gold"] - row["rejected_gold"] for row in differ])
    right = np.sign(gaps) == signs
    theirs = float(np.mean([max(p, 1 - p) for p in map(people, differ)]))
    noisy = as_noisy(gaps, right, theirs)
    chances = {"people": people, "a judge": tastes.by_worth(worth),
               "a judge as noisy": lambda row: sigmoid(noisy * tastes.gap(row, worth)),
               "half believe errors": lambda row: people(row, gullible=gullible),
               "SFT as its judge": tastes.by_worth(own)}
    rl, models, agree = [], {"sft": ("sft", "", {})}, {}
    for who, chance in chances.items():
        rows = label_files.labelled(train, chance, seeds.rng(seed, "lab feedback"))
        gains = [row["chosen_gold"] - row["rejected_gold"] for row in rows]
        agree[who] = float(np.mean([gain > 0 for gain in gains if abs(gain) > 1e-9]))
        name = exam.folder_name(who)
        for n in sizes if who != "SFT as its judge" else sizes[-1:]:
            data = label_files.write(folder, f"lab/feedback_{name}_{n}", rows[:n], held_out)
            models[f"DPO, {who}, {n}"] = (f"lab/feedback_dpo_{name}_{n}", "train_dpo",
                                          {"data": data, "steps": steps})
        if who in ("people", "a judge"):
            rl.append((folder, seed, name, data, rl_steps, prompts))
    rows = exam.marks_of(folder, seed, models, prompts)
    for (_, _, name, *_), row in zip(rl, exam.at_once(rm_and_ppo, rl, "PPO"), strict=True):
        rows[f"PPO, {name.replace('_', ' ')}, {sizes[-1]}"] = row
    rows = exam.over_sft(folder, seed, rows, prompts)
    for name, row in rows.items():
        _, _, rest = name.partition(", ")
        if who := rest.rpartition(", ")[0]:
            row["agree"] = agree[who]
    return rows


def rm_and_ppo(folder, seed, name, data, steps, prompts):
    """A reward model of these labels, and PPO by it -> marks"""
    reward = exam.trained(folder, seed, f"lab/feedback_rm_{name}", "train_rm", {"data": data})
    exam.trained(folder, seed, f"lab/feedback_ppo_{name}", "train_ppo",
                 {"reward": reward, "steps": steps})
    return exam.mark(folder, seed, f"lab/feedback_ppo_{name}", prompts)


def table(data):
    return notebook.rows_of(data, [
        ("labels in gold's order", "agree", "{:.0%}"), ("gold, T 1", "at_1.gold", "{:.2f}"),
        ("gold, best T", "at_best.gold", "{:.2f}"), ("told", "at_best.told", "{:.0%}"),
        ("right: judged", "at_best.right_of_told_judged", "{:.0%}"), ("KL", "kl", "{:.1f}")])


def claims(data):
    few, *_, cheap, most = SETTINGS["sizes"]      # a judge's label costs a hundredth of people's

    def over(who, other, n=most, method="DPO"):
        return notebook.differences(data, "at_best.gold", f"{method}, {who}, {n}",
                                    f"{method}, {other}, {n}")

    def grows(who):
        return notebook.differences(data, "at_best.gold", f"DPO, {who}, {most}",
                                    f"DPO, {who}, {SETTINGS['sizes'][-2]}")

    return {f"of {few} labels, the judge's earn more than people's": over("a judge", "people", few),
            **{f"of {n} labels, people's earn more than the judge's (seen first)":
                   over("people", "a judge", n) for n in SETTINGS["sizes"][1:-1]},
            f"of {most} labels, people's earn more than the judge's": over("people", "a judge"),
            f"at the same cost, {cheap} of the judge's earn more than {few} of people's":
                notebook.differences(data, "at_best.gold", f"DPO, a judge, {cheap}",
                                     f"DPO, people, {few}"),
            f"of {most} labels, people's earn more than those of a judge as noisy":
                over("people", "a judge as noisy"),
            "people's labels still pay at the last step up": grows("people"),
            "the judge's labels still pay there": grows("a judge"),
            "PPO earns more by people's labels than by the judge's":
                over("people", "a judge", method="PPO"),
            "labels of people of whom half believe the errors earn less":
                over("people", "half believe errors"),
            "the base judges better than SFT": over("a judge", "SFT as its judge")}


def figure(data):
    sizes, lines = SETTINGS["sizes"], {}
    for who in ("people", "a judge", "a judge as noisy", "half believe errors"):
        lines[who] = np.log10(sizes), [notebook.mean_of_seeds(data, f"DPO, {who}, {n}",
                                                              "at_best.gold") for n in sizes]
    return figures.curves("DPO on labels by people and by a model, mean of the seeds",
                          "gold at the best temperature", lines,
                          x_name="log10 of the number of labels")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
