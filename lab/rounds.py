"""Labels: all at once, or in rounds on what the policy says by then?

The RLHF Book (first edition 5 and 6, current 10 and 11), Bai et al. 2022 and Touvron et al. 2023:
a reward model knows the answers that it has seen judged. As the policy moves away from them it is
worth less, so labels are collected in rounds, each on the last policy's answers.

Varied: the number of labels, one pair a prompt, and in how many rounds they come. In each round the
policy so far answers new prompts, people label, a reward model is trained from SFT anew on all
labels so far, and PPO goes on from the policy so far, its KL still to SFT. Steps of PPO and labels
are the same in sum. The critic starts anew each round, from the reward model.
"""
import sys

from lab import exam, notebook
from lab import labels as label_files
from nanorlhf import figures, seeds

SEEDS, MINUTES = (0, 1, 2), 6
SETTINGS = {"labels": [600, 4000], "rounds": [1, 3], "steps": 75}
TOY = {"labels": [24, 60], "rounds": [1, 2], "steps": 2, "prompts": 32}
ANSWER = "4,000 labels in rounds come out ahead in each seed, too unevenly for three to settle."
READING = """
Three seeds settle nothing here, though 4,000 labels in rounds come out ahead in each. At once they
take the score highest and not gold: the policy goes furthest from SFT and falls silent, in seed 2
down to three asked facts in ten. In rounds each reward model has also seen what the last policy
says and leaves out, and the policy stays nearer. With 600 labels a round has 200, and rounds are
ahead in one seed of three. Seven times as many labels at once buy nothing that is certain: the
order is better and the policy goes further with it.
"""


def label(folder, seed, name, init, n):
    """n pairs of what this model answers, one a prompt, labelled -> (rows, held-out rows)"""
    # some pairs are dropped, where both answers are the same
    exam.trained(folder, seed, name, "make_preferences",
                 {"init": init, "prompts": int(1.3 * n) + 10, "samples_per_prompt": 4})
    train, held_out = label_files.rows_of(folder, name)
    return label_files.one_a_prompt(train, seeds.rng(seed, "lab rounds"), n), held_out


def in_rounds(folder, seed, labels, rounds, steps, prompts):
    """-> marks of the policy of the last round, with "proxy" by the last reward model"""
    policy, rows, name = f"{folder}/sft", [], f"lab/labels_{labels}_in_{rounds}"
    for i in range(rounds):
        # prompts, answers and labels of its own
        new, held_out = label(folder, seed + 1000 * i, f"{name}_round_{i}", policy,
                              labels // rounds)
        rows += new
        seeds.rng(seed, f"lab order {i}").shuffle(rows)
        data = label_files.write(folder, f"{name}_so_far_{i}", rows, held_out)
        reward = exam.trained(folder, seed, f"{name}_rm_{i}", "train_rm", {"data": data})
        policy = exam.trained(folder, seed + 1000 * i, f"{name}_ppo_{i}", "train_ppo",
                              {"init": policy, "reward": reward, "steps": steps // rounds})
    return {**exam.mark(folder, seed, f"{name}_ppo_{rounds - 1}", prompts), "labels": len(rows)}


def run(folder, seed, labels, rounds, steps, prompts=exam.PROMPTS):
    jobs = {f"{n} labels, {k} round{'s' * (k > 1)}": (folder, seed, n, k, steps, prompts)
            for n in labels for k in rounds}
    made = exam.at_once(in_rounds, jobs.values(), f"rounds of seed {seed}")
    rows = {"sft": exam.mark(folder, seed, "sft", prompts), **dict(zip(jobs, made, strict=True))}
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("labels", "labels", "{:.0f}"), ("gold, T 1", "at_1.gold", "{:.2f}"),
        ("gold, best T", "at_best.gold", "{:.2f}"), ("told", "at_best.told", "{:.0%}"),
        ("right: judged", "at_best.right_of_told_judged", "{:.0%}"), ("KL", "kl", "{:.1f}"),
        ("score by all pairs", "proxy.rm", "{:.2f}")])


def claims(data):
    def over(row, other):
        return notebook.differences(data, "at_best.gold", row, other)

    few, many = SETTINGS["labels"]
    k = SETTINGS["rounds"][-1]
    return {f"{many} labels earn more in {k} rounds than at once":
                over(f"{many} labels, {k} rounds", f"{many} labels, 1 round"),
            f"{few} labels earn more in {k} rounds than at once":
                over(f"{few} labels, {k} rounds", f"{few} labels, 1 round"),
            f"{many} labels earn more than {few}, at once":
                over(f"{many} labels, 1 round", f"{few} labels, 1 round"),
            f"{few} labels in {k} rounds earn more than {many} at once":
                over(f"{few} labels, {k} rounds", f"{many} labels, 1 round")}


def figure(data):
    rows = {}
    for name in next(iter(data.values())):
        for title, key in (("T 1", "at_1.gold"), ("best T", "at_best.gold")):
            rows[f"{name}, {title}"] = notebook.mean_of_seeds(data, name, key), None
    return figures.dots("Labels at once and in rounds, mean of the seeds", "gold", rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
