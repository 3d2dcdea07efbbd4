"""What training is about to read, for people: a line of statistics on loaded data, and the first batch coloured by its mask."""
import sys
from itertools import groupby

import numpy as np

GREEN, CYAN, DIM, OFF = "\033[32m", "\033[36m", "\033[2m", "\033[0m"
COLOURS = {"trained on": (GREEN, OFF), "read": (CYAN, OFF), "padding": (DIM, OFF)}
BRACKETS = {"trained on": ("[", "]"), "read": ("", ""), "padding": ("", "")}       # where colours would be junk: in a file, in a pipe


def summary(what, rows, report):
    """A line: what there is, tokens a row, the share of all tokens that is trained on (of prompts alone: none), what was dropped.

    what: such as "chats.jsonl: 40 conversations"; rows: [(ids, mask)]; report: the Counter that came with them. Each of the three
    lengths is one that occurs: 95% of the rows are no longer than the second.
    """
    lengths = [len(ids) for ids, _ in rows]
    median, most, longest = np.percentile(lengths, [50, 95, 100], method="inverted_cdf")
    trained = sum(sum(mask) for _, mask in rows) / sum(lengths)
    return (f"{what}; tokens: median {median}, 95% up to {most}, longest {longest}" + (f", {trained:.0%} of all trained on" if trained else "")
            + "; " + ("; ".join(f"{why}: {n}" for why, n in report.items()) or "none dropped"))


def batch_text(tokenizer, ids, mask, chosen=(), rejected=(), colour=False):
    """ids (N, T), mask (N, T) bool -> a line for each row, tokens parted by "·", and one that says which row is preferred to which.

    chosen, rejected (B,): rows of ids, as data.pair_batch gives them. colour: ANSI colours by the mask, else brackets around what is
    trained on. Both come from the mask alone, so that a mask which is wrong looks wrong.
    """
    marks, lines = COLOURS if colour else BRACKETS, []

    def paint(kind, text):
        return text.join(marks[kind])

    for n, (row, trained) in enumerate(zip(ids.tolist(), mask.tolist())):
        kinds = ["trained on" if m else "padding" if i == tokenizer.pad else "read" for i, m in zip(row, trained)]
        line = ""
        for kind, span in groupby(zip(kinds, row), lambda token: token[0]):
            tokens = [visible(tokenizer, i) for _, i in span]
            line += paint(kind, f"{tokens[0]} x {len(tokens)}" if kind == "padding" else "·".join(tokens))
        lines.append(f"{n:3d} {line}")
    if len(chosen):
        lines.append("preferred: " + ", ".join(f"{c} > {r}" for c, r in zip(chosen.tolist(), rejected.tolist())))
    return "\n".join([f"first batch: {paint('trained on', 'trained on')} {paint('read', 'read only')} {paint('padding', 'padding')}"] + lines)


def visible(tokenizer, i):
    """A token on one line: part of a character as its bytes, line ends and a terminal's control characters escaped."""
    if i >= tokenizer.encoding.n_vocab:
        return tokenizer.decode([i])
    text = tokenizer.encoding.decode_single_token_bytes(i).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_batch(*batch):
    print(batch_text(*batch, colour=sys.stdout.isatty()), flush=True)
