"""Labelers of other tastes than gold's: their labels, what a reward model weighs that learned from
them, and the policy that it leads.
"""
import numpy as np

import train_ppo
from lab import exam
from lab import labels as label_files
from nanorlhf import judge, seeds, worlds
from nanorlhf.rollout import score_answers
from nanorlhf.stats import within
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
    def chance(row):
        a, b = graded(world, row, "chosen"), graded(world, row, "rejected")
        return sum(share * labelers.prefers_first(a, b, **bias) for share, bias in groups)

    return label_files.labelled(rows, chance, rng)


def by_people(world, row, **people):
    """Chance that people, as nanorlhf/worlds/labelers.py takes them, prefer what is chosen now; the
    gullible see it as the world's believed_gold does."""
    question = world.find(row["prompt"])
    a, b = ({"gold": row[f"{side}_gold"], "believed": world.believed_gold(
        question, row[side], row[f"{side}_finished"])} for side in ("chosen", "rejected"))
    return labelers.prefers_first(a, b, **people)


def gap(row, worth):
    """How much more what is chosen now is worth than the other. worth: {(prompt, answer): worth}"""
    return worth[row["prompt"], row["chosen"]] - worth[row["prompt"], row["rejected"]]


def by_worth(worth):
    """-> chance(row), for labelled(), of a judge who never wavers"""
    return lambda row: float(gap(row, worth) > 0)


def worth_of(folder, seed, name, rows, principles=()):
    """{(prompt, answer): what a judge whose beliefs are those of this model finds it worth}, by
    these principles, or by the world's own"""
    run, world, _ = exam.held_out(folder, seed)
    principles = principles or judge.read(worlds.constitution(world.name))
    answers = sorted({(row["prompt"], row[side]) for row in rows
                      for side in ("chosen", "rejected")})
    said = judge.verdicts(run.load(name), run.tokenizer, principles, *zip(*answers, strict=True))
    return dict(zip(answers, judge.worth(principles, said), strict=True))


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
