"""Labelers of other tastes than gold's: their labels, what a reward model weighs that learned from
them, and the policy that it leads.
"""
import numpy as np

import train_ppo
from lab import exam
from lab import labels as label_files
from nanorlhf import seeds
from nanorlhf.rollout import score_answers
from nanorlhf.worlds import labelers

# what an answer is made of; labelers of gold weigh one of each 2, -2, -1, -1, 0.6 and -2 nats
PARTS = ("right", "wrong", "boilerplate", "rambling", "manners", "unfinished")


def graded(world, row, side):
    """One side of a row of pairs.jsonl, as labelers see it: its grade, and its tokens."""
    answer = world.grade(world.find(row["prompt"]), row[side], row[f"{side}_finished"])
    return {**answer, "tokens": len(row[f"{side}_ids"])}


def relabelled(world, rows, groups, rng):
    """rows of pairs.jsonl with labels drawn anew -> rows.

    groups: [(share, bias)]: labelers, and what nanorlhf/worlds/labelers.py takes of them.
    """
    made = []
    for row in rows:
        a, b = graded(world, row, "chosen"), graded(world, row, "rejected")
        p = sum(share * labelers.prefers_first(a, b, **bias) for share, bias in groups)
        made.append(row if rng.random() < p else label_files.turned(row))
    return made


def scored(folder, seed, name, rows):
    """Each answer in rows of pairs.jsonl once -> ([(row, side)], its prompt as text, its score by a
    reward model (N,))"""
    run, _, _ = exam.held_out(folder, seed)
    answers = {(row["prompt"], row[side]): (row, side)
               for row in rows for side in ("chosen", "rejected")}
    scores = score_answers(run.load(name, "scalar"),
                           [row["prompt_ids"] for row, _ in answers.values()],
                           [row[f"{side}_ids"] for row, side in answers.values()],
                           run.tokenizer.pad).numpy()
    return list(answers.values()), [prompt for prompt, _ in answers], scores


def weights(folder, seed, name, rows, parts=PARTS):
    """What one more of each of the parts adds to the score of a reward model, nats of preference:
    by least squares over the answers of rows, each less the mean of its prompt's."""
    _, world, _ = exam.held_out(folder, seed)
    answers, prompts, scores = scored(folder, seed, name, rows)
    grades = [graded(world, *answer) for answer in answers]
    features = np.array([[grade[part] for part in parts] for grade in grades], float)   # (N, parts)
    found, *_ = np.linalg.lstsq(within(features, prompts), within(scores, prompts), rcond=None)
    return dict(zip(parts, found.tolist(), strict=True))


def within(values, prompts):
    """values (N, ...), each less the mean of those of its prompt."""
    _, index = np.unique(prompts, return_inverse=True)
    totals = np.zeros((index.max() + 1, *values.shape[1:]))
    np.add.at(totals, index, values)
    counts = np.bincount(index).reshape(-1, *[1] * (values.ndim - 1))
    return values - (totals / counts)[index]


def led(folder, seed, name, groups, parts, label_prompts, steps, prompts=exam.PROMPTS):
    """Labels by these groups, a reward model of them, and PPO by it -> the policy's marks, and
    "weights": what the reward model gives for each of the parts. Models and labels lie in
    <folder>/lab/..._<name>."""
    train, held_out = label_files.rows_of(folder)
    _, world, _ = exam.held_out(folder, seed)
    # the same draws whoever labels: the labels differ where the labelers do
    rows = relabelled(world, label_files.of_prompts(train, label_prompts), groups,
                      seeds.rng(seed, "lab tastes"))
    data = label_files.write(folder, f"lab/labels_{name}", rows, held_out)
    reward = exam.trained(folder, seed, f"lab/rm_{name}", "train_rm", {"data": data})
    exam.trained(folder, seed, f"lab/ppo_{name}", "train_ppo",
                 {"reward": reward, "beta": train_ppo.Config.beta, "steps": steps})
    return {**exam.mark(folder, seed, f"lab/ppo_{name}", prompts),
            "weights": weights(folder, seed, f"lab/rm_{name}", held_out, parts)}
