"""Preference files of an experiment, made from the run's own by choosing rows and labels anew.

The pairs of make_preferences.py carry the gold of both answers. So what other people would have
said of them is a draw away, and no answer is sampled again.
"""
import json
from itertools import groupby

from nanorlhf.checkpoints import write_atomically


def rows_of(folder):
    """-> (rows of the training prompts, rows of the held-out ones) of <folder>/preferences"""
    with open(f"{folder}/preferences/pairs.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return ([row for row in rows if row["split"] == "train"],
            [row for row in rows if row["split"] != "train"])


def one_a_prompt(rows, rng, n=None):
    """One row of each prompt that was sampled, and of those n: no answer is in two of them."""
    # the pairs of a prompt stand together
    chosen = [rng.choice(list(group)) for _, group in groupby(rows, lambda row: row["prompt"])]
    rng.shuffle(chosen)
    return chosen[:n]


def turned(row):
    """The same two answers, and the other label."""
    sides = {"chosen": "rejected", "rejected": "chosen"}
    return {**row, **{f"{to}{part}": row[f"{side}{part}"] for side, to in sides.items()
                      for part in ("", "_ids", "_finished", "_gold")}}


def write(folder, name, rows, held_out):
    """-> the path of <folder>/<name>/pairs.jsonl, with these rows to train on"""
    return write_rows(f"{folder}/{name}/pairs.jsonl", [*rows, *held_out])


def write_rows(path, rows):
    """JSONL -> its path"""
    write_atomically(path, lambda f: f.writelines(json.dumps(row) + "\n" for row in rows))
    return path
