"""Preference files of an experiment, made from the run's own by choosing rows and labels anew.

The pairs of make_preferences.py carry the gold of both answers. So what other people would have
said of them is a draw away, and no answer is sampled again.
"""
import json
import pathlib
from collections import Counter
from itertools import groupby

from nanorlhf import worlds
from nanorlhf.checkpoints import write_atomically


def rows_of(folder, name="preferences"):
    """-> (rows of the training prompts, rows of the held-out ones) of <folder>/<name>"""
    with open(f"{folder}/{name}/pairs.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return ([row for row in rows if row["split"] == "train"],
            [row for row in rows if row["split"] != "train"])


def by_prompt(rows):
    """[rows of one prompt that was sampled]: the pairs of a prompt stand together, and the same
    text may be sampled again."""
    return [list(group) for _, group in groupby(rows, lambda row: row["prompt"])]


def of_prompts(rows, n):
    """All pairs of the first n prompts."""
    return [row for group in by_prompt(rows)[:n] for row in group]


def one_a_prompt(rows, rng, n=None):
    """One row of each prompt that was sampled, and of those n: no answer is in two of them."""
    chosen = [rng.choice(group) for group in by_prompt(rows)]
    rng.shuffle(chosen)
    return chosen[:n]


def turned(row):
    """The same two answers, and the other label."""
    sides = {"chosen": "rejected", "rejected": "chosen"}
    return {**row, **{f"{to}{part}": row[f"{side}{part}"] for side, to in sides.items()
                      for part in ("", "_ids", "_finished", "_gold")}}


def labelled(rows, chance, rng):
    """rows with the label drawn anew: chance(row) that what is chosen now is preferred."""
    return [row if rng.random() < chance(row) else turned(row) for row in rows]


def best_of(group):
    """The row whose chosen answer won most of its prompt's pairs."""
    wins = Counter(row["chosen"] for row in group)
    return max(group, key=lambda row: wins[row["chosen"]])


def with_mismatched(rows, world, share, rng):
    """rows, and for this share of the prompts a pair that nobody labels: the prompt's best answer
    before the best one to another question about the same, a group of its own."""
    made, about = by_prompt(rows), {}
    asked = [(world.find(group[0]["prompt"]), best_of(group)) for group in made]
    for question, best in asked:
        about.setdefault(worlds.cluster(question), []).append((question.key, best))
    for question, best in rng.sample(asked, int(share * len(asked))):
        others = [row for key, row in about[worlds.cluster(question)] if key != question.key]
        if others:
            other = rng.choice(others)
            gold = world.grade(question, other["chosen"], other["chosen_finished"])["gold"]
            made.append([{**best, "rejected_gold": gold, "certainty": 1.0, **{
                f"rejected{part}": other[f"chosen{part}"] for part in ("", "_ids", "_finished")}}])
    rng.shuffle(made)
    return [row for group in made for row in group]


def write(folder, name, rows, held_out):
    """-> the path of <folder>/<name>/pairs.jsonl, with these rows to train on"""
    return write_rows(f"{folder}/{name}/pairs.jsonl", [*rows, *held_out])


def write_rows(path, rows):
    """JSONL -> its path. A file that says the same stays as old as it is: so do models made of it.
    """
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = pathlib.Path(path)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(str(path), lambda f: f.write(text))
    return str(path)
